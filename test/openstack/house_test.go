package openstack

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/test/registry"
)

// patience bounds every wait: guests are emulated, boot for half a minute when
// nothing else runs, and start a container in ten seconds.
const patience = 20 * time.Minute

// house is an installation of Sky Port whose only site is a project of the cloud.
type house struct {
	t                      *testing.T
	cloud                  *cloud
	project                string
	binary, dir, work, log string
	env                    []string
	up                     []*daemon
}

// daemon is a skyport that goes on.
type daemon struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// settle makes a house at a project of its own. What is left there when the test
// has ended fails it.
func settle(t *testing.T, flavor string) *house {
	t.Helper()
	c := open(t)
	project, clouds := c.project()
	h := &house{t: t, cloud: c, project: project}
	t.Cleanup(h.close)
	h.binary = os.Getenv("SKYPORT_BINARY")
	if h.binary == "" {
		_, here, _, _ := runtime.Caller(0)
		h.binary = filepath.Join(filepath.Dir(here), "..", "..", "bin", "skyport")
	}
	if _, err := os.Stat(h.binary); err != nil {
		t.Fatalf("the program is not built: %v (make build)", err)
	}
	var err error
	if h.dir, err = os.MkdirTemp("", "sp"); err != nil { // short, because sockets lie below it
		t.Fatal(err)
	}
	h.work, h.log = filepath.Join(h.dir, "work"), filepath.Join(h.dir, "log")
	spool := filepath.Join(h.dir, "spool")
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "SWM_") && !strings.HasPrefix(entry, "OS_") && !strings.HasPrefix(entry, "HOME=") {
			h.env = append(h.env, entry)
		}
	}
	h.env = append(h.env, "HOME="+filepath.Join(h.dir, "home"), "SWM_SPOOL="+spool, "SWM_KEEP_ALIVE=0s", "SWM_LOCAL_ENABLED=false")
	if err := errors.Join(os.Mkdir(h.work, 0o700), os.Mkdir(filepath.Join(h.dir, "home"), 0o700)); err != nil {
		t.Fatal(err)
	}
	h.ok("setup", "--yes", "--listen", "127.0.0.1:0", "--gate-listen", "127.0.0.1:0")
	gate := fmt.Sprintf(`sites:
  - kind: openstack
    name: uni
    credentials:
      cloud: test
      clouds_file: %s
    availability_zone: qemu
    default_image: debian-12-cloud
    default_flavor: %s
    ssh_from: [172.24.4.0/24]
    prices: {%[2]s: 0.10}
    currency: EUR
`, clouds, flavor)
	if err := os.WriteFile(filepath.Join(spool, "gate.yaml"), []byte(gate), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// close ends everything, and looks at what is left.
func (h *house) close() {
	t := h.t
	if len(h.up) > 0 {
		if out, err := h.run("", "purge", "--all", "--yes"); err != nil {
			t.Errorf("purge: %v: %s", err, out)
		}
		h.until("no partition is left", func() bool { out, err := h.run("", "partitions", "--json"); return err == nil && out == "[]\n" })
	}
	for _, d := range slices.Backward(slices.Clone(h.up)) {
		if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		h.await(d)
	}
	h.nothing()
	if t.Failed() && h.log != "" {
		if text, err := os.ReadFile(h.log); err == nil {
			t.Logf("the daemons said:\n%s", tail(string(text), 60))
		}
	}
	if err := os.RemoveAll(h.dir); err != nil {
		t.Error(err)
	}
}

// nothing looks at the cloud's own lists.
func (h *house) nothing() {
	h.t.Helper()
	if left := h.cloud.of(h.project); len(left) > 0 {
		h.t.Errorf("the project still holds %s", count(left))
		return
	}
	h.t.Log("the project holds nothing any more")
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// run runs skyport to its end.
func (h *house) run(stdin string, args ...string) (string, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.binary, args...) //nolint:gosec // the program under test
	cmd.Dir, cmd.Env, cmd.Stdin = h.work, h.env, strings.NewReader(stdin)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("skyport %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out), err
}

func (h *house) ok(args ...string) string {
	h.t.Helper()
	out, err := h.run("", args...)
	if err != nil {
		h.t.Fatalf("%v%s", err, out)
	}
	return out
}

// start starts a daemon: up, core or gate.
func (h *house) start(args ...string) *daemon {
	h.t.Helper()
	log, err := os.OpenFile(h.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	d := &daemon{cmd: exec.CommandContext(context.WithoutCancel(h.t.Context()), h.binary, args...), log: log, done: make(chan struct{})} //nolint:gosec // the program under test
	d.cmd.Dir, d.cmd.Env, d.cmd.Stderr = h.work, h.env, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // who waits for it knows why it ends
	}()
	h.up = append(h.up, d)
	return d
}

func (h *house) await(d *daemon) {
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		h.t.Error("skyport does not end")
		_ = d.cmd.Process.Kill() // it is waited for
		<-d.done
	}
	h.up = slices.DeleteFunc(h.up, func(other *daemon) bool { return d == other })
	if err := d.log.Close(); err != nil {
		h.t.Error(err)
	}
}

// kill kills a daemon as a crash does.
func (h *house) kill(d *daemon) {
	h.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		h.t.Error(err)
	}
	h.await(d)
}

// ready waits until core knows what the cloud offers.
func (h *house) ready() {
	h.t.Helper()
	h.until("core knows the site", func() bool {
		out, err := h.run("", "flavors", "--json")
		return err == nil && strings.Contains(out, "m1.")
	})
}

func (h *house) until(what string, holds func() bool) {
	h.t.Helper()
	for end := time.Now().Add(patience); !holds(); <-time.After(time.Second) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// write puts a file into the person's directory.
func (h *house) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.work, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// submit submits a script and returns the job's id.
func (h *house) submit(script string) skyport.JobID {
	h.t.Helper()
	out := h.ok("submit", "--json", h.write("job.sh", "#!/bin/sh\n"+script))
	var job skyport.Job
	if err := json.Unmarshal([]byte(out), &job); err != nil {
		h.t.Fatalf("%v in %s", err, out)
	}
	return job.ID
}

func (h *house) job(id skyport.JobID) skyport.Job {
	h.t.Helper()
	var shown struct{ Job skyport.Job }
	out := h.ok("show", "--json", string(id))
	if err := json.Unmarshal([]byte(out), &shown); err != nil || shown.Job.ID != id {
		h.t.Fatalf("%v in %s", err, out)
	}
	return shown.Job
}

// finish waits until the job has ended well.
func (h *house) finish(id skyport.JobID) skyport.Job {
	h.t.Helper()
	h.until("the job has ended", func() bool { return h.job(id).State.Terminal() })
	job := h.job(id)
	if job.State != skyport.JobFinished || job.ExitCode != 0 {
		logs, _ := h.run("", "logs", "--stderr", string(id)) // it may have none
		h.t.Fatalf("the job ended as %s with %d: %s\n%s%s", job.State, job.ExitCode, job.Details, logs, h.ok("events", string(id)))
	}
	return job
}

// servers are the project's servers, main first.
func (h *house) servers() []thing {
	h.t.Helper()
	found := h.cloud.of(h.project, "servers")
	slices.SortFunc(found, func(a, b thing) int { return strings.Compare(b.Name, a.Name) }) // …-main, …-compute1
	return found
}

// tellServers shows what the servers' consoles say when the test has failed.
func (h *house) tellServers() {
	if !h.t.Failed() {
		return
	}
	for _, s := range h.servers() {
		h.t.Logf("server %s is %s:\n%s", s.Name, s.Status, h.cloud.console(s.ID))
	}
}

// images starts a registry with a login and an authority of its own, and lets the
// house know the login. It returns the name of an image of the machine's busybox.
func (h *house) images() string {
	h.t.Helper()
	dir := h.t.TempDir()
	r, err := registry.Start(h.t.Context(), registry.Options{Listen: net.JoinHostPort(ownAddress(h.t), "0"), Dir: dir, Username: "reader", Password: "the password"})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			h.t.Error(err)
		}
	})
	rootfs := filepath.Join(dir, "busybox.tar")
	if err := busybox(rootfs); err != nil {
		h.t.Fatal(err)
	}
	image, err := r.Add(h.t.Context(), "busybox:1", rootfs, runtime.GOARCH)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.run("the password", "secret", "set", "registry", r.Host, "--username", "reader", "--password-stdin", "--ca", h.write("ca.pem", string(r.CA))); err != nil {
		h.t.Fatal(err)
	}
	return image
}

// ownAddress is an address of this machine that guests reach by the gateway of
// their subnet, which is this machine: any but loopback that stays.
func ownAddress(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 || strings.HasPrefix(i.Name, "br") || strings.HasPrefix(i.Name, "veth") {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			if at, ok := a.(*net.IPNet); ok && at.IP.To4() != nil {
				return at.IP.String()
			}
		}
	}
	t.Fatal("this machine has no address that guests could reach")
	return ""
}

// busybox makes a root file system of the machine's busybox, which is static.
func busybox(path string) error {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("images are made of busybox-static: %w", err)
	}
	content, err := os.ReadFile(program) //nolint:gosec // found in PATH
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
	for _, name := range []string{"sh", "cat", "echo", "id", "ls", "tr", "grep", "nc", "hostname", "touch", "true", "sleep"} {
		add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	add(&tar.Header{Name: "in-the-image", Mode: 0o644}, []byte("the image's own file\n"))
	return errors.Join(err, w.Close(), os.WriteFile(path, b.Bytes(), 0o600))
}
