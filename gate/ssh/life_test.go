package ssh_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/ssh"
)

// one starts a host, and a provider with nothing else.
func one(t *testing.T) (*machine, ssh.Options, *ssh.Provider) {
	t.Helper()
	all, key := machines(t, 1)
	o := options(t, key, all...)
	return all[0], o, open(t, o)
}

// dirOf is the partition's directory on the node's host.
func dirOf(t *testing.T, n skyport.Node) string {
	t.Helper()
	u, err := url.Parse(n.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path
}

// login comes in as core does: by a key of the spec, to the endpoint, with the
// host key that the gate vouches for.
func login(t *testing.T, n skyport.Node, keyFile string) *cryptossh.Client {
	t.Helper()
	u, err := url.Parse(n.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := cryptossh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	vouched, _, _, _, err := cryptossh.ParseAuthorizedKey([]byte(n.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	client, err := cryptossh.Dial("tcp", u.Host, &cryptossh.ClientConfig{
		User: u.User.Username(), Auth: []cryptossh.AuthMethod{cryptossh.PublicKeys(signer)}, HostKeyCallback: cryptossh.FixedHostKey(vouched),
		Timeout: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func run(t *testing.T, client *cryptossh.Client, command string) string {
	t.Helper()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	out, err := session.CombinedOutput(command)
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// withKey adds a key to a spec as core does and returns its file.
func withKey(t *testing.T, spec *gate.PartitionSpec) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "core")
	spec.Keys = []string{keyPair(t, file) + " core of somebody"}
	return file
}

// TestNothingElseIsTouched: authorized_keys is as it was, byte by byte, with its
// mode, and as a link if it was one; the home has nothing more than before.
func TestNothingElseIsTouched(t *testing.T) {
	t.Parallel()
	for _, linked := range []bool{false, true} {
		t.Run(fmt.Sprintf("linked %v", linked), func(t *testing.T) {
			t.Parallel()
			m, _, p := one(t)
			if linked {
				if err := errors.Join(os.Rename(m.keysFile(), filepath.Join(m.home, "my-keys")), os.Symlink("../my-keys", m.keysFile())); err != nil {
					t.Fatal(err)
				}
			}
			before := m.keys(t)
			spec := newSpec(t, p, 1)
			withKey(t, &spec)
			status := create(t, p, spec)
			during := m.keys(t)
			if !strings.HasSuffix(during, before) || !strings.Contains(during, "no-agent-forwarding,no-X11-forwarding "+strings.TrimSuffix(spec.Keys[0], " core of somebody")) {
				t.Errorf("authorized_keys during the partition:\n%s", during)
			}
			dir := dirOf(t, status.Nodes[0])
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || dir != filepath.Join(m.home, ".skyport", string(spec.ID)) {
				t.Errorf("directory %s: %v, %v", dir, info, err)
			}
			// The person goes on to work with the file.
			m.writeKeys(t, during+"\nssh-ed25519 BBBB added meanwhile\n")
			remove(t, p, spec)
			if after := m.keys(t); after != before+"\nssh-ed25519 BBBB added meanwhile\n" {
				t.Errorf("authorized_keys after the partition:\n%q, before:\n%q", after, before)
			}
			info, err := os.Lstat(m.keysFile())
			if err != nil || (info.Mode()&os.ModeSymlink != 0) != linked {
				t.Errorf("it is %v, %v", info.Mode(), err)
			}
			if info, err = os.Stat(m.keysFile()); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("its mode is %v, %v", info.Mode(), err)
			}
			for dir, most := range map[string]int{m.home: 1, filepath.Join(m.home, ".ssh"): 1} {
				entries, err := os.ReadDir(dir)
				if linked && dir == m.home {
					most++
				}
				if err != nil || len(entries) > most {
					t.Errorf("%s has %v, %v", dir, entries, err)
				}
			}
		})
	}
}

// TestCoreComesIn: by its key it runs commands, forwards sockets and copies
// files, but gets no agent.
func TestCoreComesIn(t *testing.T) {
	t.Parallel()
	m, _, p := one(t)
	spec := newSpec(t, p, 1)
	key := withKey(t, &spec)
	node := create(t, p, spec).Nodes[0]
	dir := dirOf(t, node)
	client := login(t, node, key)
	if out := run(t, client, `printf '%s' "$SKYPORT_DIR"; cat "$SKYPORT_DIR/lease"`); out != dir+fmt.Sprint(spec.Lease.Unix()) {
		t.Errorf("said %q", out)
	}
	l, err := net.Listen("unix", filepath.Join(m.dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := client.Dial("unix", filepath.Join(m.dir, "socket"))
	if err != nil {
		t.Fatalf("a socket is not forwarded: %v", err)
	}
	conn.Close()
	if sftp, err := exec.LookPath("sftp"); err == nil {
		known := filepath.Join(m.dir, "known")
		if err := os.WriteFile(known, []byte(fmt.Sprintf("[127.0.0.1]:%d %s\n", m.port, m.hostKey)), 0o600); err != nil {
			t.Fatal(err)
		}
		copying := exec.CommandContext(t.Context(), sftp, "-q", "-b", "-", "-P", fmt.Sprint(m.port), "-i", key, "-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile="+known,
			m.host(t, "").User+"@127.0.0.1")
		copying.Stdin = strings.NewReader("put " + key + " " + dir + "/copied\n")
		if out, err := copying.CombinedOutput(); err != nil || !exists(filepath.Join(dir, "copied")) {
			t.Errorf("sftp: %v: %s", err, out)
		}
	}
	remove(t, p, spec)
	if _, err := client.NewSession(); err == nil {
		// The connection may live, but whoever comes anew is not let in.
		if out, err := exec.CommandContext(t.Context(), "ssh", "-p", fmt.Sprint(m.port), "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", m.host(t, "").User+"@127.0.0.1", "true").CombinedOutput(); err == nil {
			t.Errorf("the key still opens: %s", out)
		}
	}
}

// TestHiddenProcessesEnd: whatever a job's processes do, they end; the person's
// own do not.
func TestHiddenProcessesEnd(t *testing.T) {
	t.Parallel()
	m, _, p := one(t)
	spec := newSpec(t, p, 1)
	key := withKey(t, &spec)
	node := create(t, p, spec).Nodes[0]
	dir := dirOf(t, node)
	client := login(t, node, key)
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "runs", "some-job.1"), 0o700), os.MkdirAll(filepath.Join(dir, "locked", "in"), 0o700)); err != nil {
		t.Fatal(err)
	}
	start := func(command string) int {
		var pid int
		if _, err := fmt.Sscan(run(t, client, command+` </dev/null >/dev/null 2>&1 & echo $!`), &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	hidden := map[string]int{
		"in a session of its own":   start("setsid sleep 1000"),
		"with a job's mark only":    start("cd /; exec env -i SWM_RUN=some-job.1 setsid sleep 1001"),
		"in the directory only":     start("cd " + dir + "; exec env -i setsid sleep 1002"),
		"deaf to signals":           start("setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done'"),
		"with a child without mark": start("setsid sh -c 'env -i sleep 1003; :'"),
		"stopped":                   start("setsid sh -c 'kill -STOP $$; :'"),
	}
	mine := exec.Command("sleep", "1004")
	mine.Env = append(os.Environ(), "PWD="+dir, "OLDPWD="+dir+"/runs")
	if err := mine.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mine.Process.Kill(); _ = mine.Wait() }()
	child := func() string {
		out, _ := exec.Command("pgrep", "-P", fmt.Sprint(hidden["with a child without mark"])).Output()
		return strings.TrimSpace(string(out))
	}
	until(t, "the child is there", func() error {
		if child() == "" {
			return errors.New("none")
		}
		return nil
	})
	orphan := child()
	if err := os.Chmod(filepath.Join(dir, "locked"), 0); err != nil {
		t.Fatal(err)
	}
	remove(t, p, spec)
	for what, pid := range hidden {
		if alive(pid) {
			t.Errorf("process %d %s lives", pid, what)
		}
	}
	var pid int
	if _, err := fmt.Sscan(orphan, &pid); err != nil || alive(pid) {
		t.Errorf("the child %s lives", orphan)
	}
	if !alive(mine.Process.Pid) {
		t.Error("a process of the person was ended")
	}
	if exists(filepath.Join(m.home, ".skyport")) {
		t.Error("~/.skyport is left")
	}
}

// alive says whether a process lives; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z ")) && syscall.Kill(pid, 0) == nil
}

// TestLeaseEndsWithoutGate: when nobody comes, the host cleans up by itself, and
// a gate that comes later finds nothing.
func TestLeaseEndsWithoutGate(t *testing.T) {
	t.Parallel()
	m, o, p := one(t)
	before := m.keys(t)
	spec := newSpec(t, p, 1)
	spec.Lease = time.Now().Add(4 * time.Second)
	key := withKey(t, &spec)
	node := create(t, p, spec).Nodes[0]
	var pid int
	if _, err := fmt.Sscan(run(t, login(t, node, key), "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"), &pid); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the host cleans up", func() error {
		if exists(filepath.Join(m.home, ".skyport")) {
			return errors.New("~/.skyport is there")
		}
		return nil
	})
	if alive(pid) || m.keys(t) != before {
		t.Errorf("process lives: %v; keys: %s", alive(pid), m.keys(t))
	}
	p = open(t, o)
	awaitGone(t, p, spec)
	if entries, err := filepath.Glob(filepath.Join(o.Dir, string(spec.ID)+"*")); err != nil || len(entries) > 0 {
		t.Errorf("the gate keeps %v", entries)
	}
}

// TestExtendedLeaseLives: the watchdog goes by the moved end; the lease may be
// moved on the host too, as the worker does.
func TestExtendedLeaseLives(t *testing.T) {
	t.Parallel()
	m, o, p := one(t)
	spec := newSpec(t, p, 1)
	spec.Lease = time.Now().Add(3 * time.Second)
	dir := dirOf(t, create(t, p, spec).Nodes[0])
	if err := p.Extend(t.Context(), "lab", spec.ID, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(spec.Lease.Add(2 * time.Second))) // the moment that must pass without effect
	later := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second)
	if err := os.WriteFile(filepath.Join(dir, "lease"), []byte(fmt.Sprint(later.Unix())), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, o)
	if status, err := p.Status(t.Context(), "lab", spec.ID); err != nil || status.State != gate.StateUp || !status.Lease.Equal(later) {
		t.Errorf("%+v, %v; want it up until %v", status, err, later)
	}
	remove(t, p, spec)
	if exists(filepath.Join(m.home, ".skyport")) {
		t.Error("~/.skyport is left")
	}
}

// TestAfterReboot: a claim whose lease has passed while the host was off, so
// that no watchdog was there, is cleared away by whoever comes next.
func TestAfterReboot(t *testing.T) {
	t.Parallel()
	all, key := machines(t, 1)
	theirs := open(t, options(t, key, all...))
	spec := newSpec(t, theirs, 1)
	spec.Lease = time.Now().Add(time.Hour)
	withKey(t, &spec)
	dir := dirOf(t, create(t, theirs, spec).Nodes[0])
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	endWatchdog(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "lease"), []byte("1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(t, key, all...)
	o.Sites[0].Name = "other"
	mine := open(t, o)
	next := newSpec(t, mine, 1)
	next.Site = "other"
	create(t, mine, next)
	if exists(dir) || strings.Contains(all[0].keys(t), string(spec.ID)) {
		t.Error("what had passed is left")
	}
	remove(t, mine, next)
}

func endWatchdog(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "watchdog.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	children, _ := exec.Command("pgrep", "-P", fmt.Sprint(pid)).Output()
	for _, p := range append(strings.Fields(string(children)), fmt.Sprint(pid)) {
		var pid int
		if _, err := fmt.Sscan(p, &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
