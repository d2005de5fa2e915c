package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/spool"
	"github.com/openworkload/skyport/test/wire"
)

// patience bounds every wait. It is long because the machine may be small and
// busy; nothing takes long when all is well.
const patience = 60 * time.Second

// binary is the skyport under test.
var binary string

func TestMain(m *testing.M) {
	if play() {
		return
	}
	dir, err := os.MkdirTemp("", "skyport-e2e-")
	if err == nil {
		binary, err = buildSkyport(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
	}
	for _, cleanup := range slices.Backward(cleanups) {
		if err := cleanup(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	os.Exit(code)
}

// buildSkyport builds skyport from this checkout. Its worker is laid over the
// one of the checkout, so that a build that goes on there is not disturbed.
func buildSkyport(dir string) (string, error) {
	if path := os.Getenv("SKYPORT_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(here), "..", "..")
	do := func(args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := do("run", "./internal/workerbin/gen", "-arch", runtime.GOARCH, "-version", "e2e", "-dir", dir); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, suffix := range []string{".zst", ".sum"} {
		name := "skyport-worker-linux-" + runtime.GOARCH + suffix
		replace[filepath.Join(root, "internal", "workerbin", "dist", name)] = filepath.Join(dir, name)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	overlay, out := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "skyport")
	if err := errors.Join(err, os.WriteFile(overlay, text, 0o600)); err != nil {
		return "", err
	}
	return out, do("build", "-trimpath", "-overlay", overlay, "-o", out, "./cmd/skyport")
}

// house is one installation of Sky Port with a person who uses it.
type house struct {
	t     *testing.T
	dir   string // everything lies below it
	home  string
	spool string
	work  string // where the person works
	env   map[string]string
	up    []*daemon // what runs now
	c     *client.Client
	kept  []string // logs of daemons that ended

	network  *wire.Namespace // where all of it runs
	patience time.Duration
}

// newHouse makes a house in which nothing runs yet. Further environment, such
// as SWM_KEEP_ALIVE=5m, is for all that runs in it.
func newHouse(t *testing.T, env ...string) *house {
	t.Helper()
	// Short, because sockets lie below it.
	dir, err := os.MkdirTemp("", "sp")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{
		t: t, dir: dir, home: filepath.Join(dir, "home"), spool: filepath.Join(dir, "spool"), work: filepath.Join(dir, "work"),
		env:     map[string]string{"SWM_KEEP_ALIVE": "0s"},
		network: &wire.Namespace{}, patience: patience,
	}
	h.env["HOME"], h.env["SWM_SPOOL"] = h.home, h.spool
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		h.env[name] = value
	}
	for _, d := range []string{h.home, h.work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.close)
	h.ok("setup", "--yes", "--listen", "127.0.0.1:0", "--gate-listen", "127.0.0.1:0")
	return h
}

// open makes a house in which skyport up is ready.
func open(t *testing.T, env ...string) *house {
	t.Helper()
	h := newHouse(t, env...)
	h.start("up")
	h.ready()
	return h
}

// close ends everything and holds the house to its promise: nothing is left.
func (h *house) close() {
	t := h.t
	defer func() {
		if t.Failed() {
			h.tellLogs()
		}
		for _, pid := range h.processes() {
			t.Errorf("process %d is left: %s", pid, commandOf(pid))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := os.RemoveAll(h.dir); err != nil {
			t.Errorf("remove the house: %v", err)
		}
	}()
	if len(h.up) > 0 {
		if _, errs, code := h.run("", "purge", "--all", "--yes"); code != 0 {
			t.Errorf("purge ends with %d: %s", code, errs)
		}
		h.settle()
	}
	if h.c != nil {
		h.c.Close()
	}
	h.stop()
}

// part runs a part of the test by its own name.
func (h *house) part(name string, f func(t *testing.T)) {
	h.t.Helper()
	whole := h.t
	defer func() { h.t = whole }()
	whole.Run(name, func(t *testing.T) {
		h.t = t
		f(t)
	})
}

// settle waits until the site is empty, and checks that no directory of a
// partition is left.
func (h *house) settle() {
	h.t.Helper()
	if !h.ended("the site is empty again", func() bool { out, _, _ := h.run("", "partitions", "--json"); return out == "[]\n" }) {
		return
	}
	entries, err := os.ReadDir(filepath.Join(h.spool, "local"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.t.Error(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			h.t.Errorf("the site still has %s", e.Name())
		}
	}
}

// environ is the environment of what runs in the house.
func (h *house) environ() []string {
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if _, ours := h.env[name]; !ours && !strings.HasPrefix(name, "SWM_") {
			env = append(env, entry)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.env)) {
		env = append(env, name+"="+h.env[name])
	}
	return env
}

func (h *house) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Env = h.work, h.environ()
	return cmd
}

// run runs skyport to its end.
func (h *house) run(stdin string, args ...string) (out, errs string, code int) {
	h.t.Helper()
	// Also called when the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), h.patience)
	defer cancel()
	cmd := h.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := h.network.Exec(cmd)
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		h.t.Errorf("skyport %s: %v", strings.Join(args, " "), err)
	}
	if ctx.Err() != nil {
		h.t.Errorf("skyport %s did not end within %s: %s", strings.Join(args, " "), h.patience, stderr.String())
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// ok runs skyport and fails the test unless it ends with 0.
func (h *house) ok(args ...string) string {
	h.t.Helper()
	out, errs, code := h.run("", args...)
	if code != 0 {
		h.t.Fatalf("skyport %s ends with %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// fails runs skyport, which must end with the code and say all the words on
// standard error.
func (h *house) fails(code int, words []string, args ...string) string {
	h.t.Helper()
	out, errs, got := h.run("", args...)
	if got != code {
		h.t.Errorf("skyport %s ends with %d, want %d: %s%s", abbreviated(args), got, code, out, errs)
	}
	for _, w := range words {
		if !strings.Contains(errs, w) {
			h.t.Errorf("skyport %s does not say %q: %s", abbreviated(args), w, errs)
		}
	}
	return errs
}

func abbreviated(args []string) string { return skyport.Abbreviate(strings.Join(args, " "), 200) }

// read decodes the JSON that a command prints.
func read[T any](h *house, args ...string) (v T) {
	h.t.Helper()
	out := h.ok(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		h.t.Fatalf("skyport --json %s: %v in %s", strings.Join(args, " "), err, out)
	}
	return v
}

// daemon is a skyport that goes on.
type daemon struct {
	cmd  *exec.Cmd
	log  *buffer
	out  *buffer
	done chan struct{}
	name string
}

// start starts a daemon, such as up, or up --log-level debug.
func (h *house) start(args ...string) *daemon {
	h.t.Helper()
	return h.startAs(h.command(context.WithoutCancel(h.t.Context()), args...), args...)
}

func (h *house) startAs(cmd *exec.Cmd, args ...string) *daemon {
	h.t.Helper()
	d := &daemon{cmd: cmd, log: &buffer{}, out: &buffer{}, done: make(chan struct{}), name: strings.Join(args, " ")}
	cmd.Stdout, cmd.Stderr = d.out, d.log
	// Like a shell: a group of its own, so that a kill reaches it alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.network.Start(cmd); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = cmd.Wait() // whoever waits for it looks at its code
	}()
	h.up = append(h.up, d)
	return d
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (d *daemon) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		<-d.done
		t.Errorf("skyport %s did not end within %s:\n%s", d.name, patience, tail(d.log.String(), 30))
	}
	return d.cmd.ProcessState.ExitCode()
}

// ready waits until core answers and knows its sites.
func (h *house) ready() {
	h.t.Helper()
	h.until("core knows its sites", func() bool {
		for _, d := range h.up {
			if d.ended() {
				h.t.Fatalf("skyport %s ended:\n%s", d.name, d.log)
			}
		}
		s := spool.Layout{Dir: h.spool}
		if _, err := s.Announced("core"); err != nil {
			return false
		}
		sites, err := h.client().Sites(h.t.Context())
		return err == nil && len(sites) > 0
	})
}

// client is the client of the core that runs now.
func (h *house) client() *client.Client {
	h.t.Helper()
	if h.c != nil {
		return h.c
	}
	now, err := spool.Layout{Dir: h.spool}.Announced("core")
	if err != nil {
		h.t.Fatal(err)
	}
	options := client.Options{
		URL: now.URL, CAFile: spool.Layout{Dir: h.spool}.CAChain(),
		CertFile: filepath.Join(h.home, ".swm", "cert.pem"), KeyFile: filepath.Join(h.home, ".swm", "key.pem"), Patience: -1,
	}
	if h.network.Name != "" {
		options.HTTPClient = h.https(filepath.Join(h.home, ".swm"))
		options.HTTPClient.Timeout = 0
	}
	c, err := client.New(options)
	if err != nil {
		h.t.Fatal(err)
	}
	h.c = c
	return c
}

// stop interrupts all daemons, last started first, as Ctrl-C does; each must
// end cleanly.
func (h *house) stop() {
	h.t.Helper()
	for _, d := range slices.Backward(slices.Clone(h.up)) {
		h.interrupt(d, 0)
	}
}

// interrupt ends one daemon as Ctrl-C does; it must end with the code.
func (h *house) interrupt(d *daemon, want int) {
	h.t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		h.t.Error(err)
	}
	if code := d.wait(h.t); code != want {
		h.t.Errorf("skyport %s ends with %d after Ctrl-C:\n%s", d.name, code, tail(d.log.String(), 30))
	}
	h.left(d)
}

// kill kills a daemon as a crash does.
func (h *house) kill(d *daemon) {
	h.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		h.t.Error(err)
	}
	d.wait(h.t)
	h.left(d)
}

// left keeps what a daemon that ended has said, and forgets where core was.
func (h *house) left(d *daemon) {
	h.up = slices.DeleteFunc(h.up, func(other *daemon) bool { return other == d })
	h.kept = append(h.kept, "--- "+d.name+"\n"+d.log.String())
	if h.c != nil {
		h.c.Close()
		h.c = nil
	}
}

func (h *house) tellLogs() {
	for _, d := range h.up {
		h.kept = append(h.kept, "--- "+d.name+"\n"+d.log.String())
	}
	for _, log := range h.kept {
		h.t.Log(tail(log, 60))
	}
}

// until waits for the condition, or fails the test.
func (h *house) until(what string, ok func() bool) {
	h.t.Helper()
	if !h.ended(what, ok) {
		h.t.FailNow()
	}
}

func (h *house) ended(what string, ok func() bool) bool {
	h.t.Helper()
	deadline := time.Now().Add(h.patience)
	for pause := 5 * time.Millisecond; !ok(); pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Errorf("waited in vain until %s", what)
			return false
		}
		<-time.After(pause)
	}
	return true
}

// processes lists what runs in the house, but for its daemons: workers, shims
// and what jobs have started.
func (h *house) processes() (pids []int) {
	for pid := range livingProcesses() {
		if slices.ContainsFunc(h.up, func(d *daemon) bool { return d.cmd.Process.Pid == pid }) {
			continue
		}
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil {
			continue
		}
		if at := []byte(h.spool + "/local/"); bytes.Contains(env, at) || strings.Contains(commandOf(pid), string(at)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// workers lists the workers of the house's nodes.
func (h *house) workers() []int {
	return slices.DeleteFunc(h.processes(), func(pid int) bool {
		args := strings.Fields(commandOf(pid))
		return len(args) < 2 || args[1] != "serve" || !strings.Contains(args[0], "skyport-worker")
	})
}

func livingProcesses() map[int]bool {
	found := map[int]bool{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		after := stat[bytes.LastIndexByte(stat, ')')+1:]
		if len(after) > 1 && after[1] != 'Z' {
			found[pid] = true
		}
	}
	return found
}

func commandOf(pid int) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return strings.ReplaceAll(string(text), "\x00", " ")
}

// write puts a file below the person's directory and returns its path.
func (h *house) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.work, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// submit submits a script through the client and returns the job's id.
func (h *house) submit(script string) skyport.JobID {
	h.t.Helper()
	job, err := h.client().Submit(h.t.Context(), client.Submission{Script: []byte("#!/bin/sh\n" + script + "\n"), Dir: h.work})
	if err != nil {
		h.t.Fatalf("submit: %v (%s)", err, skyport.HintOf(err))
	}
	return job.ID
}

func (h *house) job(id skyport.JobID) skyport.Job {
	h.t.Helper()
	job, err := h.client().Job(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return job
}

// wait waits until the job has ended.
func (h *house) wait(id skyport.JobID) skyport.Job {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), h.patience)
	defer cancel()
	job, err := h.client().Wait(ctx, id)
	if err != nil {
		now, _ := h.client().Job(h.t.Context(), id)
		h.t.Fatalf("wait for job %s: %v; it is %s: %s", id, err, now.State, now.Details)
	}
	return job
}

// finish waits until the job has ended as F with the exit code.
func (h *house) finish(id skyport.JobID, code int) skyport.Job {
	h.t.Helper()
	job := h.wait(id)
	if job.State != skyport.JobFinished || job.ExitCode != code || job.Signal != 0 {
		h.t.Fatalf("job %s ended as %s with %d, signal %d: %s\n%s", id, job.State, job.ExitCode, job.Signal, job.Details, h.log(id, skyport.Stderr))
	}
	return job
}

// reach waits until the job is in the state.
func (h *house) reach(id skyport.JobID, state skyport.JobState) (job skyport.Job) {
	h.t.Helper()
	h.until(fmt.Sprintf("job %s is %s", id.Short(), state), func() bool {
		job = h.job(id)
		if job.State != state && job.State.Terminal() {
			h.t.Fatalf("job %s ended as %s: %s", id, job.State, job.Details)
		}
		return job.State == state
	})
	return job
}

// log is what the job has written so far.
func (h *house) log(id skyport.JobID, stream skyport.LogStream) string {
	h.t.Helper()
	log, err := h.client().Logs(h.t.Context(), id, stream, client.LogOptions{})
	if skyport.CodeOf(err) == skyport.CodeNotFound && err != nil {
		return ""
	}
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(log, 64<<20))
	if err := errors.Join(err, log.Close()); err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// buffer collects what a process writes while others read it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// https is a client with the certificate in the directory, for what terminals
// do that do not use ours.
func (h *house) https(pair string) *http.Client {
	h.t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(pair, "cert.pem"), filepath.Join(pair, "key.pem"))
	if err != nil {
		h.t.Fatal(err)
	}
	ca, err := os.ReadFile(spool.Layout{Dir: h.spool}.CAChain())
	if err != nil {
		h.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: h.network.Dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}},
	}}
}

// url is an address of the core that runs now.
func (h *house) url(path string) string {
	h.t.Helper()
	now, err := spool.Layout{Dir: h.spool}.Announced("core")
	if err != nil {
		h.t.Fatal(err)
	}
	return now.URL + path
}

// post submits a script as it is, to the routes of existing terminals.
func (h *house) post(script string) (status int, body string) {
	h.t.Helper()
	return h.postAs(filepath.Join(h.home, ".swm"), script)
}

func (h *house) postAs(pair, script string) (status int, body string) {
	h.t.Helper()
	return h.call(pair, http.MethodPost, "/user/job", strings.NewReader(script))
}

func (h *house) call(pair, method, path string, body io.Reader) (status int, answer string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url(path), body)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := h.https(pair).Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
