package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/images/node"
	"github.com/openworkload/skyport/internal/spool"
	"github.com/openworkload/skyport/test/registry"
	"github.com/openworkload/skyport/test/wire"
)

// This file tells what the nodes are that share nothing with core but port 22:
// containers of the docker gate that boot as a cloud's machines do.

// remotePatience is for waits on such nodes: they boot, and the machine is busy.
const remotePatience = 4 * time.Minute

// nodesAtOnce bounds how many tests have nodes at one time, so that what they
// measure themselves by, such as a node that does not answer, is not the machine.
// At full length most of them wait most of the time.
var nodesAtOnce = sync.OnceValue(func() chan struct{} { return make(chan struct{}, pick(2, 6)) })

// remote opens a house whose nodes are remote ones. Its daemons and its person
// live on side A of the link, if there is one, and reach the nodes over it.
func remote(t *testing.T, link *wire.Link, env ...string) *house {
	t.Helper()
	image := node.Ensure(t)
	nodesAtOnce() <- struct{}{}
	var owner string
	t.Cleanup(func() {
		defer func() { <-nodesAtOnce() }()
		if left := remains(t, owner); left != "" {
			t.Errorf("the engine still has of this test: %s", left)
			removeAll(t, owner)
		}
	})
	h := newHouse(t, append([]string{
		"SWM_LOCAL_ENABLED=false", "SWM_DOCKER_ENABLED=true", "SWM_DOCKER_IMAGE=" + image, "SWM_DOCKER_NODES=64",
	}, env...)...)
	owner = h.owner()
	h.patience = remotePatience
	if link != nil {
		h.network = link.A
	}
	h.start("up")
	h.ready()
	// It runs before the house closes, which removes everything, and looks after.
	t.Cleanup(func() {
		if t.Failed() {
			h.tellNodes()
		}
	})
	return h
}

// owner is the tag that all of the house's nodes carry.
func (h *house) owner() string {
	h.t.Helper()
	text, err := os.ReadFile(spool.Layout{Dir: h.spool}.OwnerFile())
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// containers lists the house's nodes by their names, main first.
func (h *house) containers() []string {
	h.t.Helper()
	out := h.docker("ps", "-a", "--format", "{{.Names}}", "--filter", "label=io.openworkload.skyport.owner="+h.owner(),
		"--filter", "label=io.openworkload.skyport.kind=node")
	names := strings.Fields(out)
	for i, name := range names {
		if strings.HasSuffix(name, "-main") {
			names[0], names[i] = names[i], names[0]
		}
	}
	return names
}

// remains lists all that the gate has at the engine of an owner's.
func remains(t *testing.T, owner string) string {
	t.Helper()
	var found []string
	for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		out, err := docker(context.Background(), append(list, "--filter", "label=io.openworkload.skyport.owner="+owner)...)
		if err != nil {
			t.Error(err)
		}
		found = append(found, strings.Fields(out)...)
	}
	return strings.Join(found, " ")
}

// removeAll cleans up behind a test that failed.
func removeAll(t *testing.T, owner string) {
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-aq"}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "-q"}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "-q"}, []string{"volume", "rm", "-f"}},
	} {
		out, err := docker(context.Background(), append(kind.list, "--filter", "label=io.openworkload.skyport.owner="+owner)...)
		if ids := strings.Fields(out); err == nil && len(ids) > 0 {
			_, err = docker(context.Background(), append(kind.remove, ids...)...)
		}
		if err != nil {
			t.Log(err)
		}
	}
}

// docker runs the engine's own client.
func (h *house) docker(args ...string) string {
	h.t.Helper()
	out, err := docker(context.WithoutCancel(h.t.Context()), args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out), nil
}

// tellNodes shows what the nodes say of themselves.
func (h *house) tellNodes() {
	for _, name := range h.containers() {
		log, _ := docker(context.Background(), "logs", "--tail", "15", name)
		worker, _ := docker(context.Background(), "exec", name, "tail", "-n", "15", "/var/lib/skyport/worker.log")
		h.t.Logf("node %s:\n%s\nits worker:\n%s", name, log, worker)
	}
}

// empty waits until nothing of the house is left at the engine.
func (h *house) empty() {
	h.t.Helper()
	h.until("no partition is left", func() bool { out, _, _ := h.run("", "partitions", "--json"); return out == "[]\n" })
	if left := remains(h.t, h.owner()); left != "" {
		h.t.Errorf("the engine still has %s", left)
	}
}

// images is a registry that all tests share, with a login and an authority of its own.
var images = sync.OnceValues(func() (*registry.Registry, error) {
	ctx := context.Background()
	address, err := ownAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "skyport-registry-")
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, func() error { return os.RemoveAll(dir) })
	r, err := registry.Start(ctx, registry.Options{
		Listen: net.JoinHostPort(address, "0"), Dir: dir, Username: "reader", Password: "the password",
	})
	if err != nil {
		return nil, err
	}
	cleanups = append(cleanups, r.Close)
	rootfs := filepath.Join(dir, "busybox.tar")
	if err := busybox(rootfs); err != nil {
		return nil, err
	}
	for image, arch := range map[string]string{"busybox:1": runtime.GOARCH, "foreign:1": "s390x"} {
		if _, err := r.Add(ctx, image, rootfs, arch); err != nil {
			return nil, err
		}
	}
	return r, nil
})

// ownAddress is an address of this machine that nodes can reach: any but loopback.
// Those of bridges come and go.
func ownAddress() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, "br-") || strings.HasPrefix(i.Name, "veth") {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addresses {
			if at, ok := a.(*net.IPNet); ok && at.IP.To4() != nil {
				return at.IP.String(), nil
			}
		}
	}
	return "", errors.New("this machine has no address that nodes could reach")
}

// cleanups end what all tests share.
var cleanups []func() error

// busybox makes a root file system of the machine's busybox, which is static: no
// users, no bash, nothing else.
func busybox(path string) error {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("images are made of busybox-static: %w", err)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		err = errors.Join(err, w.WriteHeader(h))
		_, failed := w.Write(content)
		err = errors.Join(err, failed)
	}
	add(&tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, content)
	for _, name := range []string{"sh", "cat", "echo", "id", "ls", "sleep", "hostname", "nc", "wc", "head", "tail", "sha256sum", "dd", "touch", "env", "true", "uname", "sort", "ps", "kill"} {
		add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(&tar.Header{Name: "in-the-image", Mode: 0o644}, []byte("the image's own file\n"))
	return errors.Join(err, w.Close(), os.WriteFile(path, b.Bytes(), 0o600))
}

// image is the whole name of an image that the nodes can pull once the house
// knows the login.
func (h *house) image(name string) string {
	h.t.Helper()
	r, err := images()
	if err != nil {
		h.t.Fatal(err)
	}
	return r.Host + "/" + name
}

// login stores the login of the registry.
func (h *house) login(password string) {
	h.t.Helper()
	r, err := images()
	if err != nil {
		h.t.Fatal(err)
	}
	ca := h.write("ca.pem", string(r.CA))
	_, errs, code := h.run(password, "secret", "set", "registry", r.Host, "--username", "reader", "--password-stdin", "--ca", ca)
	if code != 0 {
		h.t.Fatalf("the login cannot be stored: %s", errs)
	}
}

// A job without a container on a node that is really remote: its files go there
// and come back, its port is forwarded, and nothing is left, not even its keys.
func TestRemoteJob(t *testing.T) {
	t.Parallel()
	h := remote(t, nil)
	h.write("in.txt", "hello\n")
	id := h.submit(`#SWM input-files in.txt
#SWM output-files out.txt
#SWM ports 8123/tcp/in
set -eu
echo "on $(hostname) as $(id -un)"
tr a-z A-Z <in.txt >out.txt
python3 -c '
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"served")
http.server.HTTPServer(("", 8123), H).handle_request()'
echo done >&2
`)
	h.reach(id, skyport.JobRunning)
	var served string
	h.until("its port answers", func() bool {
		ports, err := h.client().Ports(t.Context(), id)
		if err != nil || len(ports) == 0 || ports[0].Address == "" {
			return false
		}
		resp, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + ports[0].Address + "/")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		served = b.String()
		return err == nil && served != ""
	})
	if served != "served" {
		t.Errorf("its port says %q", served)
	}
	job := h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); !strings.Contains(out, "on "+job.NodeNames[0]+" as skyport") {
		t.Errorf("it says %q", out)
	}
	h.ok("results", string(id), "--to", filepath.Join(h.work, "back"))
	if got, err := os.ReadFile(filepath.Join(h.work, "back", "out.txt")); err != nil || string(got) != "HELLO\n" {
		t.Errorf("its output is %q, %v", got, err)
	}
	h.empty()
	h.noKeys()
}

// noKeys looks for private keys in the clear below the spool's database, and for
// keys of partitions that are gone.
func (h *house) noKeys() {
	h.t.Helper()
	matches, err := filepath.Glob(spool.Layout{Dir: h.spool}.Database() + "*")
	if err != nil || len(matches) == 0 {
		h.t.Fatalf("no database: %v", err)
	}
	for _, path := range matches {
		content, err := os.ReadFile(path)
		if err != nil {
			h.t.Fatal(err)
		}
		if bytes.Contains(content, []byte("PRIVATE KEY")) || bytes.Contains(content, []byte("the password")) {
			h.t.Errorf("%s holds a secret in the clear", path)
		}
	}
}

// A job in a container from a private registry, and all that can be wrong with one.
func TestRemoteContainer(t *testing.T) {
	t.Parallel()
	h := remote(t, nil, "SWM_KEEP_ALIVE=15s")
	submit := func(image, script string) skyport.JobID {
		return h.submit("#SWM container-image " + h.image(image) + "\n" + script)
	}
	refused := func(id skyport.JobID, words ...string) {
		t.Helper()
		job := h.wait(id)
		if job.State != skyport.JobFailed {
			t.Errorf("the job ended as %s: %s", job.State, job.Details)
		}
		for _, w := range words {
			if !strings.Contains(job.Details, w) {
				t.Errorf("the job's end does not say %q: %s", w, job.Details)
			}
		}
	}
	refused(submit("busybox:1", "true"), "busybox:1", "skyport secret set registry")
	h.login("a wrong password")
	refused(submit("busybox:1", "true"), "busybox:1")
	h.login("the password")
	id := submit("busybox:1", "cat /in-the-image; id -u; pwd; echo text >made; ls -l /var/run/docker.sock || echo no engine inside")
	job := h.finish(id, 0)
	out := h.log(id, skyport.Stdout)
	if !strings.Contains(out, "the image's own file") || !strings.Contains(out, "no engine inside") {
		t.Errorf("it says %q", out)
	}
	if strings.Contains(out, "\n0\n") {
		t.Error("it runs as root")
	}
	if events := h.ok("events", string(id)); !strings.Contains(events, "Pull") {
		t.Errorf("no event tells of the pull:\n%s", events)
	}
	refused(submit("missing:1", "true"), "missing:1")
	refused(submit("foreign:1", "true"), "s390x")
	bash, err := h.client().Submit(t.Context(), client.Submission{Script: []byte("#!/bin/bash\n#SWM container-image " + h.image("busybox:1") + "\ntrue\n")})
	if err != nil {
		t.Fatal(err)
	}
	refused(bash.ID, "/bin/bash")
	// The partition was used again, and the image was not pulled again.
	if again := h.finish(submit("busybox:1", "exit 7"), 7); again.Partition != job.Partition {
		t.Errorf("the second job went to partition %s, the first to %s", again.Partition, job.Partition)
	}
	memory := h.wait(submit("busybox:1", "#SWM memory 64M\ndd if=/dev/zero of=/dev/null bs=200M count=1"))
	if !strings.Contains(memory.Details, "memory") {
		t.Errorf("a job that took too much memory ended as %s: %s", memory.State, memory.Details)
	}
	h.noKeys()
}

// Three nodes: tasks on all of them, one shared directory, and a node that goes
// away takes the job with it, by name.
func TestRemoteCluster(t *testing.T) {
	t.Parallel()
	h := remote(t, nil, "SWM_KEEP_ALIVE=15s")
	h.login("the password")
	id := h.submit("#SWM nodes 3\n#SWM container-image " + h.image("busybox:1") + `
set -eu
cat "$SWM_JOB_HOSTFILE"
echo from-main >shared.txt
swm-task --label -- sh -c 'echo "task $RANK of $WORLD_SIZE on $(hostname) reads $(cat shared.txt)"; touch here-$RANK; exit $RANK' || echo "highest $?"
ls here-*
`)
	job := h.finish(id, 0)
	out := h.log(id, skyport.Stdout)
	for i, name := range job.NodeNames {
		for _, want := range []string{
			name + " slots=", fmt.Sprintf("task %d of 3 on %s reads from-main", i, name), fmt.Sprintf("here-%d", i),
		} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not say %q:\n%s%s", want, out, h.log(id, skyport.Stderr))
			}
		}
	}
	if !strings.Contains(out, "highest 2") {
		t.Errorf("swm-task does not end with the highest exit code: %s", out)
	}
	lost := h.submit("#SWM nodes 3\necho started; sleep 600")
	h.reach(lost, skyport.JobRunning)
	names := h.containers()
	victim := names[len(names)-1]
	h.docker("kill", victim)
	end := h.wait(lost)
	if end.State != skyport.JobFailed || !strings.Contains(end.Details, victim) {
		t.Errorf("a node (%s) was lost, and the job ended as %s: %s", victim, end.State, end.Details)
	}
	h.ok("purge", "--all", "--yes")
	h.empty()
}
