package leaks

import (
	"bytes"
	"cmp"
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
	azuretest "github.com/openworkload/skyport/test/azure"
)

// siteName is what the cloud is called in jobs.
const siteName = "azure"

// poll is the gate's first pause when it waits for the cloud: short, that a run
// takes little. Calls of a gate that was killed may reach the cloud for twice as
// long, as the gate believes.
const poll = 100 * time.Millisecond

// house is a spool with core and gate, and a cloud of its own.
type house struct {
	t          *testing.T
	dir        string // of everything
	binary     string
	env        []string // of core, gate and commands
	layout     spool.Layout
	core, gate *daemon
	user       *client.Client
	cloud      *world
	giveUp     context.CancelFunc

	mu    sync.Mutex
	fails int

	asking sync.Mutex // one asks core for its partitions for all
	known  map[skyport.PartitionID]skyport.PartitionState
	asked  time.Time // when that was begun to be asked
}

// open makes a spool in a new directory, a cloud of such machines, and starts core and gate.
func open(t *testing.T, machines azuretest.Machines) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "skyport-leaks-") // shorter than the test's own: sockets lie in it
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: dir, layout: spool.Layout{Dir: filepath.Join(dir, "spool")}, giveUp: func() {}}
	h.core, h.gate = &daemon{h: h, name: "core"}, &daemon{h: h, name: "gate"}
	t.Cleanup(h.cleanUp)
	for i, d := range []*daemon{h.core, h.gate} {
		d.random = chance(100 + i)
	}
	for _, name := range []string{"home", "tmp"} {
		if err := os.Mkdir(h.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.cloud = newWorld(t, machines)
	h.binary = build(t)
	address := freeAddress(t)
	h.env = append(os.Environ(),
		"HOME="+h.path("home"), "SWM_SPOOL="+h.layout.Dir, "TMPDIR="+h.path("tmp"), "SWM_CORE=", "SWM_KEEP_ALIVE=0s", "SWM_LOCAL_ENABLED=false",
	)
	if out, err := h.run(t.Context(), "setup", "--yes", "--listen", address, "--gate-listen", "127.0.0.1:0"); err != nil {
		t.Fatalf("setup: %v\n%s", err, out)
	}
	if err := os.WriteFile(h.layout.GateFile(), h.cloud.gateFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	h.gate.start()
	h.core.start()
	pair := spool.HomePair(h.path("home"))
	h.user, err = client.New(client.Options{
		URL: "https://" + address, CAFile: h.layout.CAChain(), CertFile: pair.Cert, KeyFile: pair.Key,
	})
	if err != nil {
		t.Fatal(err)
	}
	ready := func() bool { return h.user.Ready(t.Context()) == nil }
	flavors := func() bool {
		all, err := h.user.Flavors(t.Context())
		return err == nil && len(all) > 0
	}
	if !until(t.Context(), time.Minute, ready) || !until(t.Context(), time.Minute, flavors) {
		t.Fatalf("core is not ready\n%s", h.logTail("", 40))
	}
	return h
}

func (h *house) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// run runs a command of skyport as a person does.
func (h *house) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, h.binary, args...)
	cmd.Env, cmd.Stderr = h.env, &complaint
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("skyport %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out), nil
}

// owner is the tag that all of this core's partitions carry.
func (h *house) owner() string {
	text, err := os.ReadFile(h.layout.OwnerFile())
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// partitions are those that core knows and that are not deleted, as it said after
// the call began. Many may ask at once.
func (h *house) partitions(ctx context.Context) (map[skyport.PartitionID]skyport.PartitionState, error) {
	called := time.Now()
	h.asking.Lock()
	defer h.asking.Unlock()
	if h.asked.After(called) {
		return h.known, nil
	}
	began := time.Now()
	all, err := h.user.Partitions(ctx, false)
	if err != nil {
		return nil, err
	}
	live := make(map[skyport.PartitionID]skyport.PartitionState, len(all))
	for _, p := range all {
		live[p.ID] = p.State
	}
	h.known, h.asked = live, began
	return live, nil
}

// close ends core and gate in the way of an init system.
func (h *house) close() {
	for _, d := range []*daemon{h.core, h.gate} {
		if code := d.stop(syscall.SIGTERM); code != 0 && !h.t.Failed() {
			h.t.Errorf("%s ends with %d\n%s", d.name, code, h.logTail("", 20))
		}
	}
}

// cleanUp leaves nothing behind, however the test ended.
func (h *house) cleanUp() {
	if h.user != nil {
		h.user.Close()
	}
	h.core.stop(syscall.SIGKILL)
	h.gate.stop(syscall.SIGKILL)
	if h.cloud != nil {
		h.cloud.close()
	}
	if *keep && h.t.Failed() {
		h.t.Logf("everything is still in %s", h.dir)
		return
	}
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Error(err)
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

// build makes skyport with the worker of these sources inside, once for all tests.
func build(t *testing.T) string {
	t.Helper()
	if *with != "" {
		return *with
	}
	built.once.Do(func() { built.path, built.err = buildIn(t) })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// built is removed by TestMain.
var built struct {
	once      sync.Once
	dir, path string
	err       error
}

func buildIn(t *testing.T) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	top := filepath.Join(filepath.Dir(here), "..", "..")
	dir, err := os.MkdirTemp("", "skyport-leaks-bin-")
	if err != nil {
		return "", err
	}
	built.dir = dir
	worker, err := os.ReadFile(workertest.Build(t))
	if err != nil {
		return "", err
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(worker)
	overlay := map[string]map[string]string{"Replace": {}}
	for suffix, content := range map[string][]byte{
		".zst": encoder.EncodeAll(worker, nil), ".sum": []byte(hex.EncodeToString(sum[:]) + "\n"),
	} {
		path := filepath.Join(dir, "worker"+suffix)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return "", err
		}
		overlay["Replace"][filepath.Join(top, "internal", "workerbin", "dist", "skyport-worker-linux-"+runtime.GOARCH+suffix)] = path
	}
	text, err := json.Marshal(overlay)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600)
	}
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "skyport")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "./cmd/skyport")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build skyport: %w\n%s", err, out)
	}
	return binary, nil
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

// rest waits; it is false when the context ended first.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// until waits for a condition of the world outside.
func until(ctx context.Context, most time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for pause := 20 * time.Millisecond; !holds(); pause = min(2*pause, 200*time.Millisecond) {
		if !rest(ctx, pause) {
			return holds()
		}
	}
	return true
}

// indent shows a text below a message.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(cmp.Or(text, "nothing"), "\n"), "\n", "\n    ")
}
