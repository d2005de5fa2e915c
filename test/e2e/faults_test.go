package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/test/wire"
)

// This file does to remote nodes, and to the link between them and core, what
// happens to them in life. Whatever it is: the job ends right or fails with the
// true reason, nothing is left, and core is never hurt. `make faults` runs the
// long form.

var long = flag.Bool("long", false, "faults at full length: cuts of five minutes at every stage")

// pick is the short form's value, or the long form's.
func pick[T any](short, full T) T {
	if *long {
		return full
	}
	return short
}

// errand is a job that uses all ways between core and its node: inputs, a log that
// grows, and outputs; it waits for its port to be read.
type errand struct {
	h    *house
	id   skyport.JobID
	sum  string // of the input
	size int
}

// errandOf submits an errand whose input and output have a size. Its log has a line
// for each of its seconds; it ends when it has counted to seconds.
func errandOf(h *house, size, seconds int, directives ...string) *errand {
	h.t.Helper()
	data := make([]byte, size)
	if _, err := rand.Read(data); err != nil {
		h.t.Fatal(err)
	}
	name := fmt.Sprintf("data-%d", time.Now().UnixNano())
	if err := os.WriteFile(filepath.Join(h.work, name), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	script := ""
	for _, d := range directives {
		script += "#SWM " + d + "\n"
	}
	script += fmt.Sprintf("#SWM input-files %s\n#SWM output-files back\nset -eu\n", name) +
		fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; sleep 1; done\n", seconds) +
		fmt.Sprintf("sha256sum %s\ncp %s back\n", name, name)
	return &errand{h: h, id: h.submit(script), sum: hex.EncodeToString(sum[:]), size: size}
}

// right waits for the errand's end and checks that nothing of it is missing or
// there twice.
func (e *errand) right(seconds int) {
	h := e.h
	h.t.Helper()
	h.finish(e.id, 0)
	var want strings.Builder
	for i := range seconds {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	out := h.log(e.id, skyport.Stdout)
	if !strings.HasPrefix(out, want.String()) || !strings.Contains(out[want.Len():], e.sum) || strings.Count(out, "\n") != seconds+1 {
		h.t.Errorf("its log is\n%s", out)
	}
	to := filepath.Join(h.work, string(e.id))
	h.ok("results", string(e.id), "--to", to)
	back, err := os.ReadFile(filepath.Join(to, "back"))
	if sum := sha256.Sum256(back); err != nil || hex.EncodeToString(sum[:]) != e.sum {
		h.t.Errorf("its output has %d bytes, and not those of the input: %v", len(back), err)
	}
}

// Bad links: slow ones, far ones, ones that lose what they carry.
func TestFaultsOfTheLink(t *testing.T) {
	t.Parallel()
	kinds := map[string]wire.Settings{
		"300ms-and-5-percent-loss": {RTT: 300 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.05},
	}
	if *long {
		kinds["50ms"] = wire.Settings{RTT: 50 * time.Millisecond}
		kinds["50ms-and-1-percent-loss"] = wire.Settings{RTT: 50 * time.Millisecond, Loss: 0.01}
		kinds["300ms"] = wire.Settings{RTT: 300 * time.Millisecond}
		kinds["10Mbit"] = wire.Settings{RTT: 50 * time.Millisecond, Rate: 10e6}
	}
	for name, settings := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings.Join = true
			h := remote(t, wire.New(t, settings))
			e := errandOf(h, pick(1<<20, 8<<20), 2)
			e.right(2)
			h.empty()
		})
	}
}

// cutTime is how long a link is cut: the short form is longer than any silence that
// is noticed.
func cutTime() time.Duration { return pick(20*time.Second, 5*time.Minute) }

// A link that is cut at any stage of a job, longer than anything waits for an answer.
func TestFaultsCut(t *testing.T) {
	t.Parallel()
	stages := map[string]func(h *house, e *errand){
		"running": func(h *house, e *errand) {
			h.reach(e.id, skyport.JobRunning)
			h.until("it has said something", func() bool { return h.log(e.id, skyport.Stdout) != "" })
		},
	}
	if *long {
		stages["booting"] = func(h *house, _ *errand) { h.until("a node exists", func() bool { return len(h.containers()) > 0 }) }
		stages["uploading"] = func(h *house, e *errand) { h.reach(e.id, skyport.JobTransferring) }
		stages["downloading"] = func(h *house, e *errand) {
			h.reach(e.id, skyport.JobRunning)
			h.reach(e.id, skyport.JobTransferring)
		}
	}
	for name, stage := range stages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := wire.New(t, wire.Settings{Join: true, RTT: 20 * time.Millisecond, Rate: 40e6})
			h := remote(t, link)
			h.patience += 2 * cutTime()
			seconds := pick(30, 60)
			if name != "running" {
				seconds = 3
			}
			e := errandOf(h, 16<<20, seconds)
			stage(h, e)
			link.Cut()
			timer := time.NewTimer(cutTime()) // what is tested is that this passes
			<-timer.C
			link.Mend()
			e.right(seconds)
			h.empty()
		})
	}
}

// A NAT on the way that forgets connections on which nothing moves, while a job is
// silent for longer than that.
func TestFaultsNAT(t *testing.T) {
	t.Parallel()
	h := remote(t, wire.New(t, wire.Settings{Join: true, ForgetIdle: 8 * time.Second}))
	id := h.submit("echo before; sleep " + pick("20", "120") + "; echo after\n")
	h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "before\nafter\n" {
		t.Errorf("it says %q", out)
	}
	h.empty()
}

// onMain runs a command on the main node as root.
func (h *house) onMain(args ...string) string {
	h.t.Helper()
	return h.docker(append([]string{"exec", h.containers()[0]}, args...)...)
}

// What happens to a node while a job runs on it.
func TestFaultsOfTheNode(t *testing.T) {
	t.Parallel()
	const counting = "i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo line $i; sleep 1; done\n"
	counted := func(h *house, id skyport.JobID) {
		h.t.Helper()
		h.finish(id, 0)
		var want strings.Builder
		for i := range 12 {
			fmt.Fprintf(&want, "line %d\n", i+1)
		}
		if out := h.log(id, skyport.Stdout); out != want.String() {
			h.t.Errorf("its log is\n%s", out)
		}
	}
	running := func(h *house, script string) skyport.JobID {
		h.t.Helper()
		id := h.submit(script)
		h.reach(id, skyport.JobRunning)
		h.until("it has said something", func() bool { return h.log(id, skyport.Stdout) != "" })
		return id
	}
	h := remote(t, nil, "SWM_KEEP_ALIVE=15s")
	h.part("sshd killed", func(*testing.T) {
		id := running(h, counting)
		h.onMain("pkill", "-9", "sshd")
		counted(h, id)
	})
	h.part("worker killed", func(*testing.T) {
		id := running(h, counting)
		h.onMain("pkill", "-9", "-f", "skyport-worker.* serve")
		counted(h, id)
	})
	h.part("network lost and back", func(*testing.T) {
		id := running(h, counting)
		for _, chain := range []string{"INPUT", "OUTPUT"} {
			h.onMain("iptables", "-I", chain, "-j", "DROP")
		}
		<-time.After(pick(3*time.Second, 30*time.Second)) // the fault itself
		for _, chain := range []string{"INPUT", "OUTPUT"} {
			h.onMain("iptables", "-D", chain, "-j", "DROP")
		}
		counted(h, id)
	})
	h.part("engine killed and started again", func(*testing.T) {
		h.login("the password")
		id := running(h, "#SWM container-image "+h.image("busybox:1")+"\n"+counting)
		h.onMain("pkill", "-9", "dockerd")
		counted(h, id)
		// And it serves the next job.
		h.finish(h.submit("#SWM container-image "+h.image("busybox:1")+"\nexit 3\n"), 3)
	})
	h.part("rebooted", func(t *testing.T) {
		id := running(h, "#SWM retries 1\necho attempt; [ -e /var/lib/skyport/second ] || { touch /var/lib/skyport/second; sleep 600; }\n")
		h.docker("restart", "-t", "1", h.containers()[0])
		job := h.finish(id, 0)
		if job.Attempt != 2 {
			t.Errorf("it took %d attempts", job.Attempt)
		}
	})
	h.part("rebooted without retries", func(t *testing.T) {
		id := running(h, "echo started; sleep 600\n")
		h.docker("restart", "-t", "1", h.containers()[0])
		if job := h.wait(id); job.State != skyport.JobFailed || !strings.Contains(job.Details, "shut down") && !strings.Contains(job.Details, "boot") {
			t.Errorf("it ended as %s: %s", job.State, job.Details)
		}
	})
	h.part("gone for good", func(t *testing.T) {
		id := running(h, "echo started; sleep 600\n")
		node := h.containers()[0]
		h.docker("rm", "-f", node)
		if job := h.wait(id); job.State != skyport.JobFailed || !strings.Contains(job.Details, node) {
			t.Errorf("it ended as %s: %s", job.State, job.Details)
		}
	})
	h.ok("purge", "--all", "--yes")
	h.empty()
}

// A disk that is full in the middle of an upload is the true reason of the end.
func TestFaultsFullDisk(t *testing.T) {
	t.Parallel()
	h := remote(t, nil, "SWM_KEEP_ALIVE=15s")
	h.finish(h.submit("true\n"), 0)
	h.onMain("mount", "-t", "tmpfs", "-o", "size=24m,uid=1000,mode=0700", "tmpfs", "/var/lib/skyport/runs")
	h.onMain("chown", "skyport:", "/var/lib/skyport/runs")
	e := errandOf(h, 48<<20, 0)
	job := h.wait(e.id)
	if job.State != skyport.JobFailed || !strings.Contains(job.Details, "has room for") {
		t.Errorf("it ended as %s: %s", job.State, job.Details)
	}
	h.onMain("umount", "-l", "/var/lib/skyport/runs")
	h.ok("purge", "--all", "--yes")
	h.empty()
}

// A node whose host key has changed is somebody else: core does not speak to it.
func TestFaultsChangedHostKey(t *testing.T) {
	t.Parallel()
	h := remote(t, nil)
	id := h.submit("echo started; sleep 600\n")
	h.reach(id, skyport.JobRunning)
	h.onMain("sh", "-c", "rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; pkill -9 sshd")
	job := h.wait(id)
	if job.State != skyport.JobFailed || !strings.Contains(job.Details, "host key") {
		t.Errorf("it ended as %s: %s", job.State, job.Details)
	}
	h.empty()
}

// A node that wants to hurt core: see beEvil.
func TestFaultsEvilNode(t *testing.T) {
	t.Parallel()
	h := remote(t, nil, "SWM_LIMITS_JOB_LOG=1M")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, evil := range []string{"paths", "hashes", "logs"} {
		h.part(evil, func(t *testing.T) {
			id := h.submit("#SWM output-files back\n#SWM keep-alive 0\necho started; sleep 600\n")
			node := h.reach(id, skyport.JobRunning).NodeNames[0]
			h.docker("cp", self, node+":/evil")
			h.docker("exec", node, "chmod", "755", "/evil")
			h.docker("exec", "-d", "-u", "skyport", "-e", evilEnv+"="+evil, node, "/evil")
			job := h.wait(id)
			t.Logf("%s: the job ended as %s: %s", evil, job.State, job.Details)
			if evil == "logs" {
				if size := len(h.log(id, skyport.Stdout)); size > 1<<20 {
					t.Errorf("core keeps %d bytes of its endless log", size)
				}
			} else if job.State == skyport.JobFinished {
				t.Errorf("it ended as if all were well: %s", job.Details)
			}
			if _, err := os.Stat(filepath.Join(h.dir, "evil")); err == nil {
				t.Error("it wrote where it wanted")
			}
			h.empty() // the next one meets a node of its own
		})
	}
	h.ok("purge", "--all", "--yes")
	h.empty()
}
