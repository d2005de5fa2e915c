package link_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

// server is an OpenSSH server, configured as by Debian (but that the tester's own
// .bashrc is not run, by SHLVL), that stands for a node: it runs as the user of the
// test, on loopback, and its directory is the node's.
type server struct {
	env  string // further settings of its sessions' environment
	t    testing.TB
	dir  string // of the node
	etc  string // of the server
	port int
	name string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// cluster makes servers, with keys, that are not up yet.
func cluster(t testing.TB, n int) ([]*server, *bootstrap.Keys) {
	t.Helper()
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Skip("there is no OpenSSH server: ", err)
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip("sshd wants /run/sshd: ", err)
		}
	}
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	keys, err := bootstrap.NewKeys(names)
	if err != nil {
		t.Fatal(err)
	}
	var servers []*server
	for i, name := range names {
		// Not below t.TempDir: the path of a socket is short.
		base, err := os.MkdirTemp("", "spl")
		if err != nil {
			t.Fatal(err)
		}
		s := &server{t: t, dir: filepath.Join(base, "node's dir"), etc: base, port: freePort(t), name: name}
		config := fmt.Sprintf(`ListenAddress 127.0.0.1
Port %d
HostKey %s/host_key
AuthorizedKeysFile %s/authorized_keys
StrictModes no
PidFile none
KbdInteractiveAuthentication no
PasswordAuthentication no
X11Forwarding yes
PrintMotd no
AcceptEnv LANG LC_*
SetEnv SHLVL=2 SKYPORT_TEST=%s
Subsystem sftp /usr/lib/openssh/sftp-server
`, s.port, base, base, base)
		for file, text := range map[string]string{
			"sshd_config": config, "host_key": string(keys.Hosts[i].Private),
			"authorized_keys": keys.Client.Public + "\n" + keys.Inner.Public + "\n",
		} {
			if err := os.WriteFile(filepath.Join(base, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			s.down()
			s.clear()
			if err := os.RemoveAll(base); err != nil {
				t.Error(err)
			}
		})
		servers = append(servers, s)
	}
	_ = sshd
	return servers, keys
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// up starts the server.
func (s *server) up() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.env != "" {
		config := filepath.Join(s.etc, "sshd_config")
		text, err := os.ReadFile(config)
		if err == nil {
			err = os.WriteFile(config, []byte(strings.Replace(string(text), "SetEnv SHLVL=2", "SetEnv SHLVL=2 "+s.env, 1)), 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		s.env = ""
	}
	log, err := os.OpenFile(filepath.Join(s.etc, "sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.etc, "sshd_config"))
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// down kills the server and its connections.
func (s *server) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	// The listener first: it must make no more.
	_ = syscall.Kill(s.cmd.Process.Pid, syscall.SIGSTOP)
	for _, pid := range descendants(s.cmd.Process.Pid) {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.HasPrefix(string(comm), "sshd") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

func descendants(pid int) []int {
	var all []int
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, word := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(word); err == nil {
			all = append(append(all, child), descendants(child)...)
		}
	}
	return all
}

func (s *server) worker() (pid int) {
	text, err := os.ReadFile(filepath.Join(s.dir, "worker.pid"))
	if err != nil {
		return 0
	}
	pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (s *server) stopWorker() {
	pid := s.worker()
	if pid == 0 {
		return
	}
	if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); !strings.HasPrefix(exe, s.dir) {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// Nobody may have waited for it.
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); len(text) == 0 {
			return
		}
	}
}

// clear kills what still runs for the node: the worker, and a script that was
// about to start it when its link was closed.
func (s *server) clear() {
	for range 1000 {
		left := 0
		paths, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range paths {
			proc := filepath.Dir(path)
			line, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
			env, _ := os.ReadFile(path)
			pid, _ := strconv.Atoi(filepath.Base(proc))
			if pid != os.Getpid() && (bytes.Contains(line, []byte(s.dir)) || bytes.Contains(env, []byte(s.mark()))) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				left++
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	s.t.Errorf("processes of %s are left", s.dir)
}

// mark is in the environment of all that runs by the server.
func (s *server) mark() string { return "SKYPORT_TEST=" + s.etc }

func (s *server) log() string {
	sshd, _ := os.ReadFile(filepath.Join(s.etc, "sshd.log"))
	worker, _ := os.ReadFile(filepath.Join(s.dir, "worker.log"))
	return string(sshd) + string(worker)
}

func (s *server) node(role skyport.Role) skyport.Node {
	return skyport.Node{Name: s.name, Role: role, Address: "127.0.0.1", Endpoint: s.endpoint(s.port)}
}

func (s *server) endpoint(port int) string {
	me, err := user.Current()
	if err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("ssh://%s@127.0.0.1:%d%s", me.Username, port, strings.ReplaceAll(s.dir, " ", "%20"))
}

// worker is a worker binary, as a test wants it installed.
type worker struct {
	hash    string
	zst, gz []byte
	mu      sync.Mutex
	asked   []string
}

// build returns the real worker; with another suffix it is another binary.
func build(t testing.TB, suffix string) *worker {
	t.Helper()
	content, err := os.ReadFile(workertest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, suffix...)
	sum := sha256.Sum256(content)
	w := &worker{hash: hex.EncodeToString(sum[:])}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.zst = encoder.EncodeAll(content, nil)
	var packed bytes.Buffer
	writer, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := writer.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	w.gz = packed.Bytes()
	return w
}

func (w *worker) Hash(arch string) (string, error) {
	if arch != runtime.GOARCH {
		return "", fmt.Errorf("no worker for %s", arch)
	}
	return w.hash, nil
}

func (w *worker) Packed(_, form string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, form)
	if form == "zst" {
		return w.zst, nil
	}
	return w.gz, nil
}

func (w *worker) uploads() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

// options are those of a link to servers.
func options(t testing.TB, servers []*server, keys *bootstrap.Keys, w *worker) link.Options {
	t.Helper()
	o := link.Options{Keys: keys, Join: func(int) string { return "" }, Logger: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for i, s := range servers {
		role := skyport.RoleCompute
		if i == 0 {
			role = skyport.RoleMain
		}
		o.Nodes = append(o.Nodes, s.node(role))
	}
	return link.WithBinaries(o, w)
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func dial(t testing.TB, o link.Options) *link.Link {
	t.Helper()
	l, err := link.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// comes waits until the link is up.
func comes(t testing.TB, l *link.Link, servers ...*server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		is, _, err := l.Up()
		if is {
			return
		}
		select {
		case <-ctx.Done():
			for _, s := range servers {
				t.Log(s.log())
			}
			t.Fatalf("it does not come up: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}
