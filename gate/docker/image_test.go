package docker_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/images/node"
)

// key is a new key pair: the private one as PEM, the public one as a line.
func key(t *testing.T) (signer ssh.Signer, private, public string) {
	t.Helper()
	_, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(secret, "")
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = ssh.NewSignerFromKey(secret); err != nil {
		t.Fatal(err)
	}
	return signer, string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
}

// userData is cloud-config with a host key and a user who may log in.
func userData(host, hostPublic, client string) string {
	indented := strings.ReplaceAll(strings.TrimSpace(host), "\n", "\n    ")
	return "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n    " + indented + "\n  ed25519_public: " + hostPublic +
		"\nusers:\n- name: " + gate.NodeUser + "\n  shell: /bin/sh\n  ssh_authorized_keys:\n  - " + client + "\n"
}

// TestNodeImage boots real nodes by cloud-init: the host key is the one that was
// handed over, the user may log in, the flavor's limits hold, and all that
// survives a reboot.
func TestNodeImage(t *testing.T) {
	image := node.Ensure(t)
	o, engine := options(t), connect(t)
	o.Image, o.NoEngine = image, false
	o.Flavors = []skyport.Flavor{{Name: "small", CPUs: 1, Memory: 512 << 20}}
	p := open(t, o)
	spec := specFor(o, 1)
	spec.Owner = "test"
	hostKey, hostPEM, hostLine := key(t)
	login, _, loginLine := key(t)
	spec.Keys, spec.UserData = []string{loginLine}, []string{userData(hostPEM, hostLine, loginLine)}
	begin := time.Now()
	create(t, p, spec)
	s := await(t, p, spec, gate.StateUp)
	t.Logf("up after %s", time.Since(begin).Round(time.Millisecond))

	run := func(command string) (string, error) {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		address := net.JoinHostPort(s.Nodes[0].Address, "22")
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return "", fmt.Errorf("dial: %w", err)
		}
		defer func() { _ = conn.Close() }() // the client's Close is enough
		c, chans, reqs, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
			User: gate.NodeUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyCallback: ssh.FixedHostKey(hostKey.PublicKey()),
			HostKeyAlgorithms: []string{ssh.KeyAlgoED25519}, Timeout: 5 * time.Second,
		})
		if err != nil {
			return "", fmt.Errorf("log in: %w", err)
		}
		session := ssh.NewClient(c, chans, reqs)
		defer func() { _ = session.Close() }() // over
		do, err := session.NewSession()
		if err != nil {
			return "", fmt.Errorf("session: %w", err)
		}
		out, err := do.CombinedOutput(command)
		return strings.TrimSpace(string(out)), err
	}
	logIn := func(what string) {
		t.Helper()
		until(t, p, what, func() (bool, error) { // sshd may be ahead of the user
			out, err := run("hostname")
			if err == nil && out != spec.Nodes[0] {
				t.Fatalf("logged in at %q", out)
			}
			return err == nil, err
		})
		t.Logf("%s after %s", what, time.Since(begin).Round(time.Millisecond))
	}
	logIn("login")
	limit, code := inside(t, engine, spec.Nodes[0], "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max")
	if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); code != 0 || err != nil || n != 512<<20 {
		t.Errorf("memory limit %q, %v", limit, err)
	}
	c, err := engine.ContainerInspect(t.Context(), spec.Nodes[0], client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(c.Raw, []byte("PRIVATE KEY")) || len(c.Container.Mounts) != 1 || c.Container.Mounts[0].Destination != "/var/lib/docker" {
		t.Errorf("mounts %+v", c.Container.Mounts)
	}
	begin = time.Now()
	if err := p.Reboot(t.Context(), spec.Nodes[0]); err != nil {
		t.Fatal(err)
	}
	logIn("login after the reboot")
	if s := await(t, p, spec, gate.StateUp); s.Nodes[0].Endpoint == "" {
		t.Errorf("after the reboot: %+v", s)
	}
}

// TestSpeed tells how long nodes take from the call to the answer of their SSH
// servers. It is for people: SKYPORT_DOCKER_NODES is how many.
func TestSpeed(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SKYPORT_DOCKER_NODES"))
	if err != nil {
		t.Skip("SKYPORT_DOCKER_NODES says of how many nodes")
	}
	o := options(t)
	o.Image, o.NoEngine = node.Ensure(t), os.Getenv("SKYPORT_DOCKER_ENGINE") == "no"
	o.Flavors = []skyport.Flavor{{Name: "small", CPUs: 1, Memory: 1 << 30}}
	p := open(t, o)
	spec := specFor(o, n)
	begin := time.Now()
	create(t, p, spec)
	t.Logf("noted after %s", time.Since(begin).Round(time.Millisecond))
	until(t, p, "made", func() (bool, error) {
		s, err := p.Status(t.Context(), o.Site, spec.ID)
		return err == nil && s.State != gate.StateCreating, err
	})
	t.Logf("made after %s", time.Since(begin).Round(time.Millisecond))
	within(t, p, 5*time.Minute, "up", func() (bool, error) {
		s, err := p.Status(t.Context(), o.Site, spec.ID)
		return err == nil && s.State == gate.StateUp, fmt.Errorf("%s: %w", s.Details, err)
	})
	t.Logf("up after %s", time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	remove(t, p, spec)
	t.Logf("removed after %s", time.Since(begin).Round(time.Millisecond))
}
