package ssh_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cryptossh "golang.org/x/crypto/ssh"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/ssh"
)

const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a "host": a real OpenSSH server on loopback with a home of its own.
type machine struct {
	name    string
	home    string // what its users see as home
	dir     string // the server's files
	port    int
	hostKey string
	server  *exec.Cmd
}

// keyPair makes a key; the private one lies in a file with mode 0600.
func keyPair(t *testing.T, file string) (public string) {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := cryptossh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := cryptossh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(cryptossh.MarshalAuthorizedKey(key)))
}

// foreign is what stands in authorized_keys before us: of any form, and without
// an end of its last line.
const foreign = "# my keys\r\n\n  \tssh-rsa AAAA old\\key  \nfrom=\"10.*\",command=\"echo \\\"hi\\\"\" ssh-ed25519 AAAA me@x\n# no end"

// machines starts n hosts that let the returned key file in.
func machines(t *testing.T, n int) (all []*machine, keyFile string) {
	t.Helper()
	daemon, err := exec.LookPath("sshd")
	if err != nil {
		if daemon = "/usr/sbin/sshd"; !exists(daemon) {
			t.Skip("there is no OpenSSH server (package openssh-server)")
		}
	}
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { //nolint:gosec // where sshd wants it, as it wants it
			t.Fatal(err)
		}
	}
	place, err := os.MkdirTemp("", "hosts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	keyFile = filepath.Join(place, "id")
	public := keyPair(t, keyFile)
	for i := range n {
		m := &machine{name: string(rune('a' + i)), dir: filepath.Join(place, fmt.Sprint("sshd", i)), home: filepath.Join(place, fmt.Sprint("home", i))}
		for _, dir := range []string{m.dir, m.home, filepath.Join(m.home, ".ssh")} {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		m.hostKey = keyPair(t, filepath.Join(m.dir, "host"))
		m.writeKeys(t, public+"\n"+foreign)
		m.port = freePort(t)
		m.start(t, daemon)
		all = append(all, m)
	}
	return all, keyFile
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (m *machine) keysFile() string { return filepath.Join(m.home, ".ssh", "authorized_keys") }

func (m *machine) writeKeys(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(m.keysFile(), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) keys(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(m.keysFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// start starts the server; the test's end stops it.
func (m *machine) start(t *testing.T, daemon string) {
	t.Helper()
	config := filepath.Join(m.dir, "config")
	if daemon == "" {
		daemon = m.server.Path
	}
	text := fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
SetEnv HOME=%s XDG_RUNTIME_DIR=%s
Subsystem sftp internal-sftp
`, m.port, m.dir, m.keysFile(), m.home, m.dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.server = exec.Command(daemon, "-D", "-e", "-f", config)
	m.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	m.server.Dir = "/"
	log, err := os.Create(filepath.Join(m.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.server.Stderr = log
	if err := m.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.stop)
	until(t, "sshd answers", func() error {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", m.port))
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// stop ends the server with all its connections.
func (m *machine) stop() {
	if m.server.ProcessState != nil {
		return
	}
	children, _ := exec.Command("pgrep", "-P", fmt.Sprint(m.server.Process.Pid)).Output()
	_ = m.server.Process.Kill()
	_ = m.server.Wait()
	for _, child := range strings.Fields(string(children)) {
		var pid int
		if _, err := fmt.Sscan(child, &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (m *machine) host(t *testing.T, keyFile string) ssh.Host {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Host{
		Name: m.name, Address: fmt.Sprint("127.0.0.1:", m.port), User: me.Username, KeyFile: keyFile, HostKey: m.hostKey,
		CPUs: 2, Memory: 4 << 30,
	}
}

func options(t *testing.T, keyFile string, all ...*machine) ssh.Options {
	t.Helper()
	o := ssh.Options{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s := ssh.Site{Name: "lab"}
	for _, m := range all {
		s.Hosts = append(s.Hosts, m.host(t, keyFile))
	}
	o.Sites = []ssh.Site{s}
	return o
}

func open(t *testing.T, o ssh.Options) *ssh.Provider {
	t.Helper()
	p, err := ssh.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// until asks again and again until f has no complaint.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

func newSpec(t *testing.T, p *ssh.Provider, n int) gate.PartitionSpec {
	t.Helper()
	sites, err := p.Sites(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := skyport.NewPartitionID()
	return gate.PartitionSpec{
		ID: id, Owner: "test", Site: "lab", Flavor: sites[0].DefaultFlavor, Nodes: skyport.NodeNames(id, n),
		Lease: time.Now().Add(time.Hour).UTC().Truncate(time.Second),
	}
}

func create(t *testing.T, p *ssh.Provider, spec gate.PartitionSpec) gate.PartitionStatus {
	t.Helper()
	until(t, "creation", func() error {
		err := p.Create(t.Context(), spec)
		if errors.Is(err, gate.ErrPermanent) {
			t.Fatal(err)
		}
		return err
	})
	status, err := p.Status(t.Context(), spec.Site, spec.ID)
	if err != nil || status.State != gate.StateUp {
		t.Fatalf("created, but %+v, %v", status, err)
	}
	return status
}

func remove(t *testing.T, p *ssh.Provider, spec gate.PartitionSpec) {
	t.Helper()
	if err := p.Delete(t.Context(), spec.Site, spec.ID); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, p, spec)
}

func awaitGone(t *testing.T, p *ssh.Provider, spec gate.PartitionSpec) {
	t.Helper()
	until(t, "removal", func() error {
		status, err := p.Status(t.Context(), spec.Site, spec.ID)
		if errors.Is(err, gate.ErrNotFound) {
			return nil
		}
		return errors.Join(err, errors.New(string(status.State)+" "+status.Details))
	})
}
