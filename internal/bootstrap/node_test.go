package bootstrap_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	node "github.com/openworkload/skyport/images/node"
	"github.com/openworkload/skyport/internal/bootstrap"
)

// nodes are real ones, that is containers: cloud-init runs in them.
type nodes struct {
	t         *testing.T
	config    bootstrap.Config
	addresses []string
	client    string // file of the client key
	known     string // file of the host keys
}

func docker(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute) // cleanups too
	defer cancel()
	c := exec.CommandContext(ctx, "docker", args...)
	c.Stdin = bytes.NewReader(stdin)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err //nolint:wrapcheck // tests say what failed
}

func boot(t *testing.T, life time.Duration, count int) *nodes {
	t.Helper()
	image := node.Ensure(t)
	base := fmt.Sprintf("swmtest-%x", time.Now().UnixNano()&0xffffffff)
	names := []string{base + "-main"}
	for i := 1; i < count; i++ {
		names = append(names, fmt.Sprintf("%s-compute%d", base, i))
	}
	n := &nodes{t: t, config: config(t, life, names...), client: filepath.Join(t.TempDir(), "key"), known: filepath.Join(t.TempDir(), "known")}
	must := func(stdin []byte, args ...string) string {
		out, err := docker(t, stdin, args...)
		if err != nil {
			t.Fatalf("docker %.60q: %v: %s", args, err, out)
		}
		return out
	}
	const label = "org.openworkload.skyport.test=bootstrap"
	must(nil, "network", "create", "--label", label, base)
	t.Cleanup(func() {
		for _, name := range names {
			if out, err := docker(t, nil, "rm", "-fv", name); err != nil && !strings.Contains(out, "No such container") {
				t.Errorf("remove %s: %v: %s", name, err, out)
			}
		}
		if out, err := docker(t, nil, "network", "rm", base); err != nil {
			t.Errorf("remove network: %v: %s", err, out)
		}
	})
	var known strings.Builder
	for i, name := range names {
		must(nil, "create", "--name", name, "--hostname", name, "--label", label, "--network", base, "--env", "SKYPORT_ENGINE=no",
			"--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
			"--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm", image)
		text, err := bootstrap.UserData(n.config, i)
		if err != nil {
			t.Fatal(err)
		}
		var seed bytes.Buffer
		w := tar.NewWriter(&seed)
		for file, content := range map[string]string{"user-data": text, "meta-data": "instance-id: " + name + "\n"} {
			if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o600, Size: int64(len(content))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		must(seed.Bytes(), "cp", "-", name+":/var/lib/cloud/seed/nocloud")
		must(nil, "start", name)
		address := must(nil, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
		n.addresses = append(n.addresses, address)
		fmt.Fprintf(&known, "%s %s\n", address, n.config.Keys.Hosts[i].Public)
	}
	for file, content := range map[string][]byte{n.client: n.config.Keys.Client.Private, n.known: []byte(known.String())} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// ssh runs a command on a node, by OpenSSH's client, which knows its host key.
func (n *nodes) ssh(i int, stdin, command string) (string, error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "ssh", "-F", "/dev/null", "-i", n.client, "-o", "UserKnownHostsFile="+n.known, "-o", "StrictHostKeyChecking=yes",
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", bootstrap.User+"@"+n.addresses[i], command)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err //nolint:wrapcheck // tests say what failed
}

// eventually gives a condition the time that a busy machine needs.
func eventually(t *testing.T, what string, holds func() (bool, string)) {
	t.Helper()
	var last string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var ok bool
		if ok, last = holds(); ok {
			return
		}
	}
	t.Fatalf("%s: not so after two minutes: %s", what, last)
}

func TestNodes(t *testing.T) {
	t.Parallel()
	n := boot(t, time.Hour, 2)
	for i := range n.addresses {
		eventually(t, "boot", func() (bool, string) {
			out, err := n.ssh(i, "", "cat /run/skyport/ready")
			return err == nil, out
		})
	}
	for command, want := range map[string]string{
		"stat -c '%U %a' /var/lib/skyport":                   "skyport 700",
		"stat -c '%U %a' /var/lib/skyport/lease":             "skyport 600",
		"hostname":                                           n.config.Nodes[0],
		"id -nG":                                             "skyport docker",
		"ls /etc/ssh/ssh_host_*_key":                         "/etc/ssh/ssh_host_ed25519_key",
		"sudo -n true 2>&1 | grep -c required":               "1",
		"sudo -n /usr/local/sbin/skyport-node 2>&1; echo $?": "skyport-node: usage: skyport-node join NAME | mount | registry-ca HOST | mount-storage NAME | unmount-storage NAME\n1",
	} {
		if out, err := n.ssh(0, "", command); err != nil || out != want {
			t.Errorf("%s: %q, %v, not %q", command, out, err, want)
		}
	}

	j := bootstrap.Join{Keys: n.config.Keys}
	for i, name := range n.config.Nodes {
		j.Nodes = append(j.Nodes, bootstrap.Node{Name: name, Address: n.addresses[i]})
	}
	for range 2 { // a second time changes nothing
		for i := range j.Nodes {
			if out, err := n.ssh(i, j.Script(i), "sh -s"); err != nil {
				t.Fatalf("join of node %d: %v: %s", i, err, out)
			}
		}
	}
	for i := range j.Nodes {
		other := 1 - i
		if out, err := n.ssh(i, "", "ssh "+n.config.Nodes[other]+" hostname"); err != nil || out != n.config.Nodes[other] {
			t.Errorf("from node %d to the other: %q, %v", i, out, err)
		}
		if out, err := n.ssh(i, "", fmt.Sprintf("echo from%d >/var/lib/skyport/shared/file%d", i, i)); err != nil {
			t.Errorf("write on node %d: %v: %s", i, err, out)
		}
		if out, err := n.ssh(other, "", fmt.Sprintf("cat /var/lib/skyport/shared/file%d", i)); err != nil || out != fmt.Sprintf("from%d", i) {
			t.Errorf("read on node %d: %q, %v", other, out, err)
		}
	}

	const ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
	node := "sudo -n /usr/local/sbin/skyport-node "
	if out, err := n.ssh(0, ca, node+"registry-ca registry.example:5000 && cat /etc/docker/certs.d/registry.example:5000/ca.crt"); err != nil ||
		out != strings.TrimSpace(ca) {
		t.Errorf("registry-ca: %q, %v", out, err)
	}
	n.storage(node)
	main, address := n.config.Nodes[0], n.addresses[0]
	for _, bad := range []struct{ command, stdin string }{
		{"registry-ca ../x", ca},
		{"registry-ca a/b", ca},
		{"registry-ca ''", ca},
		{"registry-ca \"$(printf 'a\\nb')\"", ca},
		{"registry-ca good", "no certificate"},
		{"registry-ca good", ca + "more; text\n"},
		{"join other", address + " " + main},
		{"join " + main, address + " stranger\n" + address + " " + main},
		{"join " + main, "127.0.0.1 " + main},
		{"join " + main, address + " " + main + " localhost"},
		{"join " + main, "$(reboot) " + main},
		{"shell", ""},
		{"mount-storage ../x", grant},
		{"mount-storage a/b", grant},
		{"mount-storage -x", grant},
		{"mount-storage Good", grant},
		{"mount-storage ''", grant},
		{"mount-storage \"$(printf 'a\\nb')\"", grant},
		{"mount-storage good", "account labstore\n"},
		{"mount-storage good", strings.Replace(grant, "https", "http", 1)},
		{"mount-storage good", strings.Replace(grant, "core.windows.net", "core.windows.net/../x", 1)},
		{"mount-storage good", strings.Replace(grant, "sp=rl", "sp=rl'\nfoo: '", 1)},
		{"mount-storage good", grant + "sas more\n"},
		{"mount-storage good", strings.Replace(grant, "reference", "absent", 1)},
		{"unmount-storage ../shared", ""},
		{"unmount-storage ''", ""},
	} {
		if out, err := n.ssh(0, bad.stdin+"\n", node+bad.command); err == nil {
			t.Errorf("%s with %q: no error: %s", bad.command, bad.stdin, out)
		}
	}
}

// grant is what opens a container of blobs.
const grant = "account labstore\ncontainer reference\nendpoint https://labstore.blob.core.windows.net\nsas sp=rl&se=2030-01-01T00%3A00%3A00Z&sig=c2VjcmV0%3D\n"

// blobfuse stands in for blobfuse2: it has the containers as directories.
const blobfuse = `#!/bin/sh
set -e
echo "$*" >>/run/blobfuse.calls
[ "$1" = mount ]
[ "$(stat -c '%a %U' "${3#--config-file=}")" = '600 root' ]
from=/srv/blobs/$(sed -n "s/^  container: '\(.*\)'/\1/p" "${3#--config-file=}")
[ -d "$from" ] || { echo "Error: cannot authenticate with ?sp=rl&sig=c2VjcmV0%3D" >&2; exit 1; }
mount --bind "$from" "$2"
`

// storage mounts a container of blobs by the command of the node.
func (n *nodes) storage(node string) {
	n.t.Helper()
	name := n.config.Nodes[0]
	for _, step := range []struct{ stdin, command string }{
		{blobfuse, "cat >/usr/bin/blobfuse2 && chmod 0755 /usr/bin/blobfuse2"},
		{"", "mkdir -p /srv/blobs/reference && echo genome >/srv/blobs/reference/file"},
	} {
		if out, err := docker(n.t, []byte(step.stdin), "exec", "-i", name, "sh", "-c", step.command); err != nil {
			n.t.Fatalf("%s: %v: %s", step.command, err, out)
		}
	}
	for _, step := range []struct{ stdin, command, want string }{
		{grant, node + "mount-storage refdata", ""},
		{"", "cat /srv/skyport/storage/refdata/file", "genome"},
		{"", "touch /srv/skyport/storage/refdata/new 2>&1 | grep -o 'Read-only file system'", "Read-only file system"},
		{"", "cat /run/skyport/storage/refdata.yaml 2>&1 | grep -o 'Permission denied'", "Permission denied"},
		{strings.Replace(grant, "c2VjcmV0", "YW5vdGhlcg", 1), node + "mount-storage refdata && grep -c . /run/blobfuse.calls", "1"}, // there already
		{
			strings.Replace(grant, "reference", "absent", 1), node + "mount-storage other 2>&1 | grep -o 'absent of .*'",
			"absent of the storage account labstore cannot be mounted: Error: cannot authenticate with ?sp=rl&sig=...",
		},
		{"", node + "unmount-storage refdata; ls /srv/skyport/storage", ""},
		{"", node + "unmount-storage refdata", ""},
	} {
		if out, err := n.ssh(0, step.stdin, step.command); err != nil || out != step.want {
			n.t.Errorf("%s: %q, %v, want %q", step.command, out, err, step.want)
		}
	}
	config, err := docker(n.t, nil, "exec", name, "sh", "-c", "ls -A /run/skyport/storage /var/cache/skyport; cat /run/blobfuse.calls")
	if err != nil || strings.Contains(config, "refdata.yaml:") || strings.Contains(config, "sig=") || !strings.Contains(config, "--read-only --allow-other") {
		n.t.Errorf("left on the node: %s, %v", config, err)
	}
}

func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	n := boot(t, time.Second, 1)
	eventually(t, "end", func() (bool, string) {
		out, err := docker(t, nil, "inspect", "-f", "{{.State.Status}}", n.config.Nodes[0])
		return err == nil && out == "exited", out
	})
}
