package crash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// mostDeaths is how often one node's worker is killed: the gate gives up a node
// whose worker dies time and again.
const mostDeaths = 3

// local is the site of this machine. What lives of it is found in /proc.
type local struct {
	h *house

	mu     sync.Mutex
	gone   map[skyport.JobID][]int // attempts that were running on a node when it died
	deaths map[string]int          // of workers, by the directory of their node
}

func newLocal(h *house) site {
	return &local{h: h, gone: map[skyport.JobID][]int{}, deaths: map[string]int{}}
}

func (l *local) settings() []string {
	// The nodes are small: more of them than the machine has cpus.
	return []string{"SWM_LOCAL_CPUS=" + strconv.Itoa(2*cap(l.h.room)), "SWM_LOCAL_MEMORY=1T"}
}

func (l *local) script(w *work) (shell string, directives []string, mark string) {
	directives = []string{"env LEDGER=" + w.ledger}
	if w.shared {
		directives = append(directives, "flavor local.all", "keep-alive 2s")
	}
	// One write, behind whatever is there.
	return "/bin/sh", directives, `echo "$1 $SWM_RUN $$" >>"$LEDGER"`
}

func (l *local) victims() []victim {
	return []victim{theCore, theGate, aWorker, aNode, allAtOnce, machine}
}

func (l *local) strike(ctx context.Context, who victim, random *rand.Rand) bool {
	nodes := l.nodes()
	if who == aWorker || who == aNode {
		until(ctx, 3*time.Second, func() bool { nodes = l.nodes(); return len(nodes) > 0 })
	}
	random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	switch {
	case len(nodes) == 0:
		return false
	case who == aWorker:
		l.killWorker(nodes[0])
	case who == aNode:
		busy := slices.IndexFunc(nodes, func(n localNode) bool { return len(n.shims) > 0 })
		l.killNode(nodes[max(0, busy)])
	default:
		for _, n := range nodes {
			if who == machine {
				l.killNode(n)
			} else {
				l.killWorker(n)
			}
		}
	}
	return true
}

// lostAttempts are the attempts of a job that were lost with their nodes.
func (l *local) lostAttempts(id skyport.JobID) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.gone[id])
}

func (l *local) lost() (sum int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, list := range l.gone {
		sum += len(list)
	}
	return sum
}

func (l *local) tell(_ context.Context, w *work) string {
	return fmt.Sprintf("attempts lost with their node: %v", l.lostAttempts(w.id))
}

// judgeAttempts: here it is known which attempts were lost, no more and no fewer.
func (l *local) judgeAttempts(_ context.Context, w *work, job *skyport.Job) (givenUp bool, err error) {
	lost := l.lostAttempts(w.id)
	if len(lost) > w.retries {
		if job.State != skyport.JobFailed || !strings.Contains(job.Details, "lost") {
			return true, fmt.Errorf("%d attempts were lost with their nodes, more than its %d retries, and it is %s: %s",
				len(lost), w.retries, job.State.Word(), job.Details)
		}
		return true, nil
	}
	if most := 1 + len(lost) + w.requeues; job.Attempt > most || w.requeues == 0 && job.Attempt != most {
		return false, fmt.Errorf("it took %d attempts, not %d: %s: %s", job.Attempt, most, job.State.Word(), job.Details)
	}
	for number := 1; number < job.Attempt && w.act == actNone; number++ {
		if !slices.Contains(lost, number) {
			return false, fmt.Errorf("attempt %d was not lost, and another followed", number)
		}
	}
	return false, nil
}

func (l *local) remains(context.Context) map[string][]string {
	return map[string][]string{
		"directories of nodes": slices.DeleteFunc(entries(l.h.layout.Local()), func(name string) bool { return name == "lock" }),
		"processes":            l.processNames(),
	}
}

func (l *local) processNames() (left []string) {
	for pid := range l.processes() {
		line, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // only to show
		left = append(left, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
	}
	return left
}

func (l *local) cleanUp() {
	gone := until(context.Background(), 5*time.Second, func() bool {
		left := l.processes()
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		return len(left) == 0
	})
	if !gone {
		l.h.t.Errorf("these processes do not end: %s", strings.Join(l.processNames(), "; "))
	}
}

// localNode is a node of the local site, found by its worker.
type localNode struct {
	dir    string
	worker int
	shims  []int
}

// processes finds what belongs to the nodes and jobs of this spool, with the
// directory of the node where it is known: workers and shims are called with
// it, and what scripts start has the ledger in its environment.
func (l *local) processes() map[int]string {
	found := map[int]string{}
	table, err := proc.Snapshot()
	if err != nil {
		l.h.t.Error(err)
		return nil
	}
	ledger := []byte("\x00LEDGER=" + l.h.path("ledger") + "/")
	for _, pid := range table.Processes() {
		if row, ok := table.Process(pid); !ok || row.Zombie {
			continue
		}
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue // ended, or somebody else's
		}
		for _, arg := range arguments(pid) {
			if strings.HasPrefix(arg, l.h.layout.Local()+"/") {
				found[pid], _, _ = strings.Cut(arg, "/runs/")
				break
			}
		}
		if _, ok := found[pid]; !ok && bytes.Contains(append([]byte{0}, env...), ledger) {
			found[pid] = ""
		}
	}
	return found
}

func arguments(pid int) []string {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return nil // ended
	}
	return strings.Split(string(line), "\x00")
}

// nodes lists the nodes whose workers may be killed once more.
func (l *local) nodes() []localNode {
	byDir := map[string]*localNode{}
	for pid, dir := range l.processes() {
		args := arguments(pid)
		if dir == "" || len(args) < 2 {
			continue
		}
		n := byDir[dir]
		if n == nil {
			n = &localNode{dir: dir}
			byDir[dir] = n
		}
		switch args[1] {
		case "serve":
			n.worker = pid
		case "shim":
			n.shims = append(n.shims, pid)
		}
	}
	var list []localNode
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range byDir {
		if n.worker != 0 && l.deaths[n.dir] < mostDeaths {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b localNode) int { return strings.Compare(a.dir, b.dir) })
	return list
}

// killWorker kills a worker and nothing else.
func (l *local) killWorker(n localNode) {
	l.mu.Lock()
	l.deaths[n.dir]++
	l.mu.Unlock()
	_ = syscall.Kill(n.worker, syscall.SIGKILL) // it may have ended
}

// killNode kills all processes of a node, as a loss of its power does. The
// attempts whose scripts had begun and not ended by then are lost.
func (l *local) killNode(n localNode) {
	// All stand still while it is looked who has begun.
	for _, pid := range append([]int{n.worker}, n.shims...) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
	victims := map[int]bool{n.worker: true}
	for pid, dir := range l.processes() {
		if dir == n.dir {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // one that was just being made
			victims[pid] = true
		}
	}
	for pid := range victims {
		stand(pid)
	}
	runs, err := os.ReadDir(filepath.Join(n.dir, "runs"))
	if err != nil && !os.IsNotExist(err) {
		l.h.t.Error(err)
	}
	l.mu.Lock()
	l.deaths[n.dir]++
	for _, run := range runs {
		dir := filepath.Join(n.dir, "runs", run.Name())
		if shim.Exists(dir, shim.BeganFile) && !shim.Exists(dir, shim.ExitFile) {
			if job, number, ok := strings.Cut(run.Name(), "."); ok && job != "" {
				attempt, err := strconv.Atoi(number)
				if err != nil {
					l.h.t.Error(err)
				}
				if id := skyport.JobID(job); !slices.Contains(l.gone[id], attempt) { // or it was lost before
					l.gone[id] = append(l.gone[id], attempt)
				}
			}
		}
	}
	l.mu.Unlock()
	if table, err := proc.Snapshot(); err == nil {
		for pid := range victims {
			for _, child := range table.Descendants(pid) {
				victims[child] = true
			}
		}
	}
	for pid := range victims {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
}

// stand waits until all threads of a process that was sent SIGSTOP stand still:
// one may be in the middle of a system call.
func stand(pid int) {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task/"
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		moving := false
		entries, _ := os.ReadDir(tasks) // none: it has ended
		for _, e := range entries {
			stat, err := os.ReadFile(tasks + e.Name() + "/stat")
			if err != nil {
				continue // ended
			}
			state := string(stat[bytes.LastIndexByte(stat, ')')+2])
			moving = moving || !strings.Contains("TtZX", state)
		}
		if !moving {
			return
		}
		time.Sleep(time.Millisecond) // the kernel does not tell a stranger
	}
}
