package crash

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// mostDeaths is how often one node's worker is killed: the gate gives up a node
// whose worker dies time and again.
const mostDeaths = 3

// node is a node of the local site, found by its worker.
type node struct {
	dir    string
	worker int
	shims  []int
}

// processes finds what belongs to the nodes and jobs of this spool, with the
// directory of the node where it is known: workers and shims are called with
// it, and what scripts start has the ledger in its environment.
func (h *house) processes() map[int]string {
	found := map[int]string{}
	table, err := proc.Snapshot()
	if err != nil {
		h.t.Error(err)
		return nil
	}
	ledger := []byte("\x00LEDGER=" + h.path("ledger") + "/")
	for _, pid := range table.Processes() {
		if row, ok := table.Process(pid); !ok || row.Zombie {
			continue
		}
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue // ended, or somebody else's
		}
		for _, arg := range arguments(pid) {
			if strings.HasPrefix(arg, h.layout.Local()+"/") {
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
func (h *house) nodes() []node {
	byDir := map[string]*node{}
	for pid, dir := range h.processes() {
		args := arguments(pid)
		if dir == "" || len(args) < 2 {
			continue
		}
		n := byDir[dir]
		if n == nil {
			n = &node{dir: dir}
			byDir[dir] = n
		}
		switch args[1] {
		case "serve":
			n.worker = pid
		case "shim":
			n.shims = append(n.shims, pid)
		}
	}
	var list []node
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range byDir {
		if n.worker != 0 && h.deaths[n.dir] < mostDeaths {
			list = append(list, *n)
		}
	}
	slices.SortFunc(list, func(a, b node) int { return strings.Compare(a.dir, b.dir) })
	return list
}

// killWorker kills a worker and nothing else.
func (h *house) killWorker(n node) {
	h.mu.Lock()
	h.deaths[n.dir]++
	h.mu.Unlock()
	_ = syscall.Kill(n.worker, syscall.SIGKILL) // it may have ended
}

// killNode kills all processes of a node, as a loss of its power does. The
// attempts whose scripts had begun and not ended by then are lost.
func (h *house) killNode(n node) {
	// All stand still while it is looked who has begun.
	for _, pid := range append([]int{n.worker}, n.shims...) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
	victims := map[int]bool{n.worker: true}
	for pid, dir := range h.processes() {
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
		h.t.Error(err)
	}
	h.mu.Lock()
	h.deaths[n.dir]++
	for _, run := range runs {
		dir := filepath.Join(n.dir, "runs", run.Name())
		if shim.Exists(dir, shim.BeganFile) && !shim.Exists(dir, shim.ExitFile) {
			if job, number, ok := strings.Cut(run.Name(), "."); ok && job != "" {
				attempt, err := strconv.Atoi(number)
				if err != nil {
					h.t.Error(err)
				}
				if id := skyport.JobID(job); !slices.Contains(h.lost[id], attempt) { // or it was lost before
					h.lost[id] = append(h.lost[id], attempt)
				}
			}
		}
	}
	h.mu.Unlock()
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
