package worker_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// startSSH starts a real SSH server on this machine and gives the node the way
// to it, under the name beta.
func (n *node) startSSH() {
	n.t.Helper()
	server, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		n.t.Skip("needs OpenSSH's server: /usr/sbin/sshd is missing")
	}
	if os.Getuid() != 0 {
		n.t.Skip("needs root, as whom OpenSSH's server lets its own user in here")
	}
	me, err := user.Current()
	if err != nil {
		n.t.Fatal(err)
	}
	dir := filepath.Join(n.dir, "ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		n.t.Fatal(err)
	}
	for _, name := range []string{"host", "id"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			n.t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	_ = os.Mkdir("/run/sshd", 0o755) // it is there when a server was installed the usual way
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String()) // as the listener says it
	_ = l.Close()
	hostKey, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		n.t.Fatal(err)
	}
	write(n.t, filepath.Join(dir, "sshd_config"), fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nPidFile none\n"+
		"AuthorizedKeysFile %s/id.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n", port, dir, dir))
	write(n.t, filepath.Join(dir, "known_hosts"), fmt.Sprintf("[127.0.0.1]:%s %s", port, hostKey))
	write(n.t, filepath.Join(dir, "config"), fmt.Sprintf("Host beta\n HostName 127.0.0.1\n Port %s\n User %s\n IdentityFile %s/id\n"+
		" IdentitiesOnly yes\n UserKnownHostsFile %s/known_hosts\n StrictHostKeyChecking yes\n", port, me.Username, dir, dir))
	cmd := exec.Command(server, "-D", "-e", "-f", filepath.Join(dir, "sshd_config"))
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // says that
	})
	n.await("the SSH server listens", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = conn.Close() // was only a look
		}
		return err == nil
	})
}

// Tasks reach another node by SSH: one connection for all, however many.
func TestTasksBySSH(t *testing.T) {
	t.Parallel()
	n := newNamed(t, "alpha")
	spec := script(waits)
	spec.Nodes = []string{"alpha", "beta"}
	spec.Peers = []protocol.Peer{{Name: "alpha", Address: "127.0.0.1"}, {Name: "beta", Address: "127.0.0.1"}}
	n.runs(spec)
	if s := n.call(sh(spec.Run, "swm-rsh beta true"), ""); s.exit.Code != 255 || !strings.Contains(s.err, "reach node beta: this node has no way to the others by SSH") {
		t.Errorf("%+v", s)
	}
	n.startSSH()
	// The node behind the SSH server is this one, at the same paths.
	if s := n.call(sh(spec.Run, "echo in | swm-rsh beta 'cat; echo $SWM_RUN; exit 6'"), ""); s.out != "in\n"+spec.Run+"\n" || s.exit.Code != 6 {
		t.Errorf("%+v", s)
	}
	s := n.call(sh(spec.Run, "swm-task --ntasks-per-node 40 sh -c 'echo $SWM_TASK_RANK; sleep 0.5' | sort -n | tail -1"), "")
	if s.out != "79\n" || s.exit.Code != 0 || s.err != "" {
		t.Errorf("%+v", s)
	}
	if clients := n.clients(); len(clients) != 1 {
		t.Errorf("SSH clients: %v", clients)
	}
	n.kill()
	n.await("the SSH client is gone with its worker", func() bool { return len(n.clients()) == 0 })
	n.start() // as node1; the job does not know it
	write(t, filepath.Join(n.dir, "ssh", "known_hosts"), "")
	if s := n.call(sh(spec.Run, "swm-rsh beta true"), ""); s.exit.Code != 255 || !strings.Contains(s.err, "Host key verification failed") {
		t.Errorf("%+v", s)
	}
}

// clients are the SSH clients of the node's worker.
func (n *node) clients() []int {
	n.t.Helper()
	table, err := proc.Snapshot()
	if err != nil {
		n.t.Fatal(err)
	}
	var found []int
	for _, pid := range table.Processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasPrefix(string(line), "ssh\x00-F\x00"+n.dir) {
			found = append(found, pid)
		}
	}
	return found
}
