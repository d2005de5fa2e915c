package openstack

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
)

// floating is where the addresses lie by which one reaches guests.
var floating = netip.MustParsePrefix("172.24.4.0/24")

// The whole life of a job on two machines that the cloud makes: cloud-init, SSH to
// the floating address, the worker, a container on each, a shared directory by
// kernel NFS, a port, results, and nothing left.
func TestLife(t *testing.T) {
	h := settle(t, "m1.medium")
	h.start("up")
	h.ready()
	image := h.images()
	h.write("in.txt", "hello\n")
	id := h.submit(`#SWM name life
#SWM nodes 2
#SWM cpus 1
#SWM memory 256M
#SWM time 20:00
#SWM container-image ` + image + `
#SWM input-files in.txt
#SWM output-files out.txt
#SWM ports 8123/tcp/in
set -eu
cat /in-the-image
echo "host file: $(cat "$SWM_JOB_HOSTFILE" | tr '\n' ' ')"
echo from-main >shared.txt
swm-task --label -- sh -c 'echo "task $RANK of $WORLD_SIZE on $(hostname) reads $(cat shared.txt)"; grep " $PWD " /proc/mounts; touch here-$RANK'
ls here-*
tr a-z A-Z <in.txt >out.txt
echo served | nc -l -p 8123
`)
	t.Cleanup(h.tellServers)
	h.until("a server is there", func() bool { return h.ended(id) || len(h.servers()) > 0 })
	h.until("the job runs", func() bool { return h.ended(id) || h.job(id).State == skyport.JobRunning })
	if !h.ended(id) {
		t.Logf("the cloud has of it: %s", count(h.cloud.of(h.project)))
		h.verify()
		if said := h.port(id); said != "served\n" {
			t.Errorf("the forwarded port says %q", said)
		}
	}
	job := h.finish(id)
	out := h.ok("logs", string(id))
	t.Logf("it said:\n%s", out)
	for i, node := range job.NodeNames {
		for _, want := range []string{node + " slots=", fmt.Sprintf("task %d of 2 on %s reads from-main", i, node), fmt.Sprintf("here-%d", i)} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q", want)
			}
		}
	}
	if !strings.Contains(out, "the image's own file") || !strings.Contains(out, " nfs4 ") {
		t.Error("it was not in its container, or not in a directory shared by NFS")
	}
	h.ok("results", string(id), "--to", filepath.Join(h.work, "back"))
	if got, err := os.ReadFile(filepath.Join(h.work, "back", "out.txt")); err != nil || string(got) != "HELLO\n" {
		t.Errorf("its result is %q, %v", got, err)
	}
	h.gone()
	t.Logf("its events:\n%s\n%s", h.ok("events", string(id)), h.ok("show", string(id)))
}

// A gate that is killed while it makes a cluster, and again while it removes it:
// the next one goes on, the job has what it asked for, and nothing is left.
func TestGateKilled(t *testing.T) {
	h := settle(t, "m1.small")
	gate := h.start("gate")
	h.start("core")
	h.ready()
	id := h.submit("#SWM name killed\n#SWM nodes 2\n#SWM time 20:00\nset -eu\nswm-task --label -- hostname\n")
	t.Cleanup(h.tellServers)
	h.until("servers are being made", func() bool { return h.ended(id) || len(h.servers()) > 0 })
	h.kill(gate)
	t.Logf("the gate was killed when the cloud had %s", count(h.cloud.of(h.project)))
	gate = h.start("gate")
	job := h.finish(id)
	for i, node := range job.NodeNames {
		if out := h.ok("logs", string(id)); !strings.Contains(out, fmt.Sprintf("[%d] %s", i, node)) && !strings.Contains(out, node) {
			t.Errorf("task %d has not run on %s:\n%s", i, node, out)
		}
	}
	h.until("the removal is under way", func() bool { return len(h.servers()) < 2 })
	h.kill(gate)
	t.Logf("the gate was killed again when the cloud still had %s", count(h.cloud.of(h.project)))
	h.start("gate")
	h.gone()
	t.Logf("its events:\n%s", h.ok("events", string(id)))
}

func (h *house) ended(id skyport.JobID) bool { return h.job(id).State.Terminal() }

// gone waits until core and the cloud agree that nothing is left.
func (h *house) gone() {
	h.t.Helper()
	h.until("no partition is left", func() bool { out, err := h.run("", "partitions", "--json"); return err == nil && out == "[]\n" })
	h.nothing()
}

// port reads what the job says on its forwarded port.
func (h *house) port(id skyport.JobID) (said string) {
	h.t.Helper()
	h.until("its port answers", func() bool {
		for _, word := range strings.Fields(h.ok("ports", string(id))) {
			if _, err := netip.ParseAddrPort(word); err != nil {
				continue
			}
			conn, err := net.DialTimeout("tcp", word, 10*time.Second)
			if err != nil {
				continue
			}
			err = conn.SetDeadline(time.Now().Add(30 * time.Second))
			text, failed := io.ReadAll(io.LimitReader(conn, 100))
			said = string(text)
			if err := errors.Join(err, failed, conn.Close()); err != nil {
				h.t.Logf("its port: %v", err)
			}
			return said != "" || h.ended(id)
		}
		return h.ended(id)
	})
	return said
}

// verify looks at the SSH server behind the main node's floating address: it has
// the host key that core made, which is in the user data of that server alone, and
// no other node has such an address.
func (h *house) verify() {
	t := h.t
	t.Helper()
	var addresses []netip.Addr
	for _, one := range h.cloud.of(h.project, "floatingips") {
		address, err := netip.ParseAddr(one.Address)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, address)
	}
	if len(addresses) != 1 || !floating.Contains(addresses[0]) {
		t.Fatalf("the floating addresses are %v", addresses)
	}
	var key ssh.PublicKey
	seen := errors.New("seen")
	_, err := ssh.Dial("tcp", netip.AddrPortFrom(addresses[0], 22).String(), &ssh.ClientConfig{
		User: "nobody", Timeout: time.Minute, HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			key = k
			return seen
		},
	})
	if key == nil {
		t.Fatalf("no SSH server at %s: %v", addresses[0], err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for i, server := range h.servers() {
		if has := strings.Contains(h.cloud.userData(server.ID), line); has != (i == 0) {
			t.Errorf("the host key at %s is in the user data of server %s: %v", addresses[0], server.Name, has)
		}
	}
	t.Logf("the SSH server at %s has the key %s that core made for main", addresses[0], ssh.FingerprintSHA256(key))
}
