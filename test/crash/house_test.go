package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/spool"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

// house is a spool of its own with core and gate, and what the test knows of
// the jobs in it.
type house struct {
	t          *testing.T
	dir        string // of everything
	binary     string
	env        []string // of core, gate and setup
	layout     spool.Layout
	core, gate *daemon
	user       *client.Client
	watch      *watch
	site       site
	patience   time.Duration // with a stage that does not come
	lifeTime   time.Duration // of a job, killed as everything is
	giveUp     context.CancelFunc

	jobs sync.WaitGroup
	room chan struct{} // one slot per job under way

	mu       sync.Mutex
	works    []*work
	failures int
}

// open makes a spool in a new directory and starts core and gate.
func open(t *testing.T, flight int, at func(*house) site) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "skyport-crash-") // shorter than the test's own: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	h := &house{
		t: t, dir: dir, layout: spool.Layout{Dir: filepath.Join(dir, "spool")}, watch: newWatch(),
		room: make(chan struct{}, flight), giveUp: func() {}, patience: 5 * time.Second, lifeTime: 2 * time.Minute,
	}
	for _, name := range []string{"home", "ledger", "inputs", "tmp", "results"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.binary = build(t, dir)
	address := freeAddress(t)
	h.env = append(os.Environ(),
		"HOME="+h.path("home"), "SWM_SPOOL="+h.layout.Dir, "TMPDIR="+h.path("tmp"), "SWM_CORE=", "SWM_KEEP_ALIVE=0s",
	)
	h.site = at(h)
	h.env = append(h.env, h.site.settings()...)
	setup := exec.CommandContext(t.Context(), h.binary, "setup", "--yes", "--listen", address, "--gate-listen", "127.0.0.1:0")
	setup.Env = h.env
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	h.core, h.gate = &daemon{h: h, name: "core"}, &daemon{h: h, name: "gate"}
	h.core.random = rand.New(rand.NewPCG(*seed, 1))
	h.gate.random = rand.New(rand.NewPCG(*seed, 2))
	t.Cleanup(h.cleanUp)
	h.gate.start()
	h.core.start()
	pair := spool.HomePair(h.path("home"))
	h.user, err = client.New(client.Options{
		URL: "https://" + address, CAFile: h.layout.CAChain(), CertFile: pair.Cert, KeyFile: pair.Key,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !until(t.Context(), 30*time.Second, func() bool { return h.user.Ready(t.Context()) == nil }) {
		t.Fatalf("core is not ready\n%s", h.logTail("", 40))
	}
	return h
}

func (h *house) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// build makes skyport with the worker of these sources inside, whatever lies
// where make build puts it, unless SKYPORT_BINARY names one.
func build(t *testing.T, dir string) string {
	t.Helper()
	if path := os.Getenv("SKYPORT_BINARY"); path != "" {
		return path
	}
	_, here, _, _ := runtime.Caller(0)
	top := filepath.Join(filepath.Dir(here), "..", "..")
	worker, err := os.ReadFile(workertest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(worker)
	overlay := map[string]map[string]string{"Replace": {}}
	for suffix, content := range map[string][]byte{
		".zst": encoder.EncodeAll(worker, nil), ".sum": []byte(hex.EncodeToString(sum[:]) + "\n"),
	} {
		path := filepath.Join(dir, "worker"+suffix)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][filepath.Join(top, "internal", "workerbin", "dist", "skyport-worker-linux-"+runtime.GOARCH+suffix)] = path
	}
	text, err := json.Marshal(overlay)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "skyport")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/skyport")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build skyport: %v\n%s", err, out)
	}
	return binary
}

// freeAddress is one that core can come back to: not of the ports that the
// kernel gives to anybody.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if l, err := net.Listen("tcp", address); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// daemon is core or gate. It is started again whenever it was killed.
type daemon struct {
	h      *house
	name   string
	random *rand.Rand // used by one goroutine at a time

	mu      sync.Mutex
	process *os.Process // nil while there is none
	killed  bool
	last    bool          // is not started again
	over    chan struct{} // closed when there will be none again
	code    int           // of the end of the last one
}

func (d *daemon) start() {
	d.over = make(chan struct{})
	go func() {
		defer close(d.over)
		// The kernel kills core and gate with the thread that made them, so
		// that they do not outlive a test that is killed.
		runtime.LockOSThread()
		for d.once() {
			time.Sleep(time.Duration(d.random.Int64N(int64(200 * time.Millisecond)))) // what an init system takes
		}
	}()
}

// once runs the daemon until it ends and says whether it is to be started again.
func (d *daemon) once() bool {
	log, err := os.OpenFile(d.h.path(d.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.h.t.Errorf("start %s: %v", d.name, err)
		return false
	}
	defer func() { _ = log.Close() }() // the daemon has its own
	cmd := exec.Command(d.h.binary, d.name, "--log-level", "debug")
	cmd.Env, cmd.Stdout, cmd.Stderr = d.h.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	d.mu.Lock()
	if d.last {
		d.mu.Unlock()
		return false
	}
	err = cmd.Start()
	d.process, d.killed = cmd.Process, false
	d.mu.Unlock()
	if err != nil {
		d.h.t.Errorf("start %s: %v", d.name, err)
		return false
	}
	err = cmd.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process, d.code = nil, cmd.ProcessState.ExitCode()
	switch {
	case d.last:
		return false
	case !d.killed:
		d.h.t.Errorf("%s ended by itself: %v\n%s", d.name, err, d.h.logTail("", 30))
		d.h.giveUp()
		return false
	}
	return true
}

// kill kills the daemon, if there is one at the moment.
func (d *daemon) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil {
		d.killed = true
		_ = d.process.Kill() // it may have been killed a moment ago
	}
}

// stop ends the daemon for good, as Ctrl-C does, and returns its exit code.
func (d *daemon) stop(how syscall.Signal) int {
	d.mu.Lock()
	d.last = true
	if d.process != nil {
		_ = d.process.Signal(how) // it may have ended
	}
	d.mu.Unlock()
	select {
	case <-d.over:
	case <-time.After(20 * time.Second):
		d.h.t.Errorf("%s does not end", d.name)
		d.kill()
		<-d.over
	}
	return d.code
}

// pid is the daemon's process, 0 while there is none.
func (d *daemon) pid() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil {
		return 0
	}
	return d.process.Pid
}

// close ends core and gate in the way of an init system.
func (h *house) close() {
	h.user.Close()
	for _, d := range []*daemon{h.core, h.gate} {
		if code := d.stop(syscall.SIGTERM); code != 0 && !h.t.Failed() {
			h.t.Errorf("%s ends with %d\n%s", d.name, code, h.logTail("", 20))
		}
	}
}

// cleanUp leaves nothing behind, however the test ended, but the directory of
// one that failed.
func (h *house) cleanUp() {
	for _, d := range []*daemon{h.core, h.gate} {
		if d.over != nil {
			d.stop(syscall.SIGKILL)
		}
	}
	h.site.cleanUp()
	for _, dir := range h.controlGroups() {
		_ = os.Remove(dir) // of a run that was killed above
	}
	if h.t.Failed() {
		h.t.Logf("everything is still in %s", h.dir)
		return
	}
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Error(err)
	}
}

// fail tells of a job that is not as it should be, with all there is about it.
// A few such reports are enough.
func (h *house) fail(ctx context.Context, w *work, format string, args ...any) {
	if ctx.Err() != nil {
		return // the test is over already
	}
	h.mu.Lock()
	h.failures++
	n := h.failures
	h.mu.Unlock()
	if n > 3 {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, format, args...)
	fmt.Fprintf(&b, "\n  job %s, %s; %s; asked at: %s\n", w.id, w, h.site.tell(ctx, w), time.Now().UTC().Format(time.RFC3339Nano))
	if w.id != "" {
		if job, err := h.user.Job(ctx, w.id); err == nil {
			text, _ := json.Marshal(job) // only to show
			fmt.Fprintf(&b, "  %s\n", text)
		}
		for e, err := range h.user.StoredEvents(ctx, client.EventFilter{Job: w.id}, 0) {
			if err != nil {
				fmt.Fprintf(&b, "  events: %v\n", err)
				break
			}
			fmt.Fprintf(&b, "  %6d %s %-8s %s attempt %d  %s\n", e.Seq, e.Time.Format("15:04:05.000"), e.Kind, e.State, e.Attempt, e.Text)
		}
		ledger, _ := os.ReadFile(w.ledger) // only to show
		fmt.Fprintf(&b, "  ledger:\n%s\n", indent(string(ledger)))
		fmt.Fprintf(&b, "  logs:\n%s", indent(h.logTail(string(w.id), 30)))
	}
	h.t.Error(b.String())
	if n == 3 {
		h.giveUp()
	}
}

// logTail is the end of the logs of core and gate, of lines with a word in them.
func (h *house) logTail(word string, most int) string {
	var b strings.Builder
	for _, name := range []string{"core", "gate"} {
		text, err := os.ReadFile(h.path(name + ".log"))
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		var lines []string
		for line := range bytes.Lines(text) {
			if strings.Contains(string(line), word) {
				lines = append(lines, name+": "+skyport.Abbreviate(string(bytes.TrimRight(line, "\n")), 600)+"\n")
			}
		}
		b.WriteString(strings.Join(lines[max(0, len(lines)-most):], ""))
	}
	return b.String()
}

// tally sums up what was lived through.
func (h *house) tally() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var runs int
	for _, w := range h.works {
		runs += len(w.begun())
	}
	return fmt.Sprintf("%d jobs, %d runs of their scripts, %d of them lost with their nodes", len(h.works), runs, h.site.lost())
}
