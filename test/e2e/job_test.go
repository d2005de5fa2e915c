package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// TestEnvironment is the contract of what a job finds.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	h := open(t)
	h.write("in a.txt", "content of the input")
	h.write("commands", "read from the standard input\n")
	id := h.submit(`#SWM name       the name of it
#SWM comment    a comment, as it is
#SWM account    default
#SWM nodes      1
#SWM input-files  'in a.txt' commands
#SWM output-files one.txt two.txt
#SWM ports      8888/tcp/in,8081/tcp/out
#SWM stdin      commands
#SWM stdout     here.log
#SWM relocatable no
#SWM checkpoint
#SWM checkpoint-dir ckpt
#SWM checkpoint-interval 5m
#SWM env        COLOUR=deep blue
#SWM env        PATH=/usr/bin:/bin
cat
cat 'in a.txt'; echo
env | grep -E '^(SWM_|COLOUR=)' | sort
pwd > one.txt; echo two > two.txt
ls -l /proc/self/fd | grep -c socket >&2 || true
`)
	job := h.finish(id, 0)
	want := []string{
		"read from the standard input", "content of the input",
		"COLOUR=deep blue",
		"SWM_CKPT=YES", "SWM_CKPT_DIR=ckpt", "SWM_CKPT_INTERVAL=300",
		"SWM_JOB_ACCOUNT=default", "SWM_JOB_ADDRESS=" + job.Address, "SWM_JOB_COMMENT=a comment, as it is", "SWM_JOB_ID=" + string(id),
		"SWM_JOB_INPUT_FILES=in a.txt,commands", "SWM_JOB_NAME=the name of it",
		"SWM_JOB_NODES=" + job.NodeNames[0], "SWM_JOB_NODES_NUMBER=1", "SWM_JOB_OUTPUT_FILES=one.txt,two.txt",
		"SWM_JOB_PORTS=8888/tcp/in,8081/tcp/out", "SWM_KEEP_RESOURCES=NO", "SWM_RELOCATABLE=NO",
	}
	got := strings.Split(strings.TrimSpace(h.log(id, skyport.Stdout)), "\n")
	got = slices.DeleteFunc(got, func(line string) bool {
		return strings.HasPrefix(line, "SWM_RUN=") || strings.HasPrefix(line, "SWM_WORK")
	})
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("the job has not %q", line)
		}
	}
	if t.Failed() {
		t.Logf("it has:\n%s", strings.Join(got, "\n"))
	}
	if !strings.HasPrefix(job.NodeNames[0], "swm-"+string(job.Partition)[:8]) || !strings.HasSuffix(job.NodeNames[0], "-main") {
		t.Errorf("node names %v", job.NodeNames)
	}
	if text := h.log(id, skyport.Stderr); strings.TrimSpace(text) != "0" {
		t.Errorf("the script has %s sockets of others", text)
	}
}

// TestEndings: exit code, signal, and every limit, as the job's end.
func TestEndings(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_KEEP_ALIVE=2s")
	for _, c := range []struct {
		name, script string
		code, signal int
		details      string
	}{
		{"code", "exit 77", 77, 0, "exit code 77"},
		{"signal", "kill -USR1 $$", 128 + 10, int(syscall.SIGUSR1), "signal 10"},
		// The trap shows that the script gets its grace, the children that the tree ends.
		{"time", "#SWM time 0:01\ntrap 'echo asked; exit 9' TERM\nsleep 600 & (setsid sleep 600 &)\nwhile :; do sleep 0.05; done", 9, 0, "time limit of 1s"},
		{"memory", "#SWM memory 64M\nexec tail /dev/zero", 128 + 9, int(syscall.SIGKILL), "memory limit of 64.0 MiB"},
		{"no such command", "/nonexistent/program", 127, 0, "exit code 127"},
	} {
		h.part(c.name, func(t *testing.T) {
			id := h.submit(c.script)
			job := h.wait(id)
			if c.name == "memory" && job.State == skyport.JobFinished && job.Signal == 0 && job.ExitCode != 0 {
				return // without cgroups the rlimit refuses the memory, and the script ends by itself
			}
			if job.State != skyport.JobFinished || job.ExitCode != c.code || job.Signal != c.signal || !strings.Contains(job.Details, c.details) {
				t.Errorf("%s, code %d, signal %d: %s", job.State, job.ExitCode, job.Signal, job.Details)
			}
			if c.name == "time" {
				if out := h.log(id, skyport.Stdout); out != "asked\n" {
					t.Errorf("the script was not asked to end: %q", out)
				}
			}
			h.until("only the worker is left", func() bool { return slices.Equal(h.processes(), h.workers()) })
		})
	}
	h.part("windows and no interpreter", func(t *testing.T) {
		job, err := h.client().Submit(t.Context(), client.Submission{Script: []byte("echo without an interpreter\n#SWM name bare\n")})
		if err != nil {
			t.Fatal(err)
		}
		h.finish(job.ID, 0)
		if out := h.log(job.ID, skyport.Stdout); out != "without an interpreter\n" {
			t.Errorf("it writes %q", out)
		}
	})
	h.part("missing interpreter", func(t *testing.T) {
		job, err := h.client().Submit(t.Context(), client.Submission{Script: []byte("#!/nonexistent/interpreter\n")})
		if err != nil {
			t.Fatal(err)
		}
		end := h.wait(job.ID)
		if end.State == skyport.JobFinished && end.ExitCode == 0 || !strings.Contains(end.Details+h.log(job.ID, skyport.Stderr), "/nonexistent/interpreter") {
			t.Errorf("%s %d: %s", end.State, end.ExitCode, end.Details)
		}
	})
}

// TestPartitions: jobs share what is there, it is kept as long as was asked, it
// is removed then, and several nodes can be had.
func TestPartitions(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_LOCAL_PRICE=1")
	h.part("reuse", func(t *testing.T) {
		first := h.finish(h.submit("#SWM keep-alive 5s"), 0)
		second := h.finish(h.submit("true"), 0)
		if first.Partition != second.Partition {
			t.Errorf("%s and %s are not on one partition", first.Partition, second.Partition)
		}
		if plan := read[skyport.Plan](h, "submit", "--dry-run", "--", "true"); plan.Partition != first.Partition {
			t.Errorf("a third one would go to %+v", plan)
		}
		h.until("the one partition is idle", func() bool {
			partitions := read[[]skyport.Partition](h, "partitions")
			return len(partitions) == 1 && partitions[0].State == skyport.PartitionReady
		})
		// A larger job does not fit there; with the site full, the idle one makes room.
		third := h.finish(h.submit("#SWM flavor local.all"), 0)
		if third.Partition == first.Partition {
			t.Error("the larger job ran on the small partition")
		}
		h.settle()
	})
	h.part("keep-alive ends", func(t *testing.T) {
		job := h.finish(h.submit("#SWM keep-alive 1s"), 0)
		if job.State != skyport.JobFinished {
			t.Error(job.State)
		}
		h.settle()
	})
	h.part("keep-resources", func(t *testing.T) {
		job := h.finish(h.submit("#SWM keep-resources"), 0)
		var kept []skyport.Partition
		h.until("the partition is idle", func() bool {
			kept = read[[]skyport.Partition](h, "partitions")
			return len(kept) == 1 && kept[0].State == skyport.PartitionReady
		})
		if kept[0].ID != job.Partition || !kept[0].KeepResources {
			t.Errorf("kept: %+v", kept)
		}
		// It is kept until nobody wants the job any more.
		other := h.finish(h.submit("#SWM flavor local.1"), 0)
		if other.Partition != job.Partition {
			t.Errorf("another job went to %s, not to %s, which was kept", other.Partition, job.Partition)
		}
		h.ok("purge", "--yes", string(job.ID))
		h.settle()
	})
}

// TestNodes: a job on two nodes of this machine.
func TestNodes(t *testing.T) {
	t.Parallel()
	h := open(t)
	if limits := read[[]skyport.Site](h, "sites")[0].Limits; limits.CPUs < 2 {
		t.Skipf("this machine has %d cpu", limits.CPUs)
	}
	id := h.submit("#SWM nodes 2\n#SWM flavor local.1\necho $SWM_JOB_NODES $SWM_JOB_NODES_NUMBER; while [ ! -e " + h.work + "/go ]; do sleep 0.02; done")
	job := h.reach(id, skyport.JobRunning)
	if len(job.NodeNames) != 2 || !strings.HasSuffix(job.NodeNames[0], "-main") || !strings.HasSuffix(job.NodeNames[1], "-compute1") {
		t.Errorf("nodes: %v", job.NodeNames)
	}
	if n := len(h.workers()); n != 2 {
		t.Errorf("%d workers run", n)
	}
	h.write("go", "")
	h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != strings.Join(job.NodeNames, ",")+" 2\n" {
		t.Errorf("the script saw %q", out)
	}
}

// TestOrder: on a full site the higher priority is first, then the older; each
// waiting job says why it waits.
func TestOrder(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_LOCAL_CPUS=1")
	log := filepath.Join(h.work, "order")
	blocker := h.submit("while [ ! -e " + h.work + "/go ]; do sleep 0.02; done")
	h.reach(blocker, skyport.JobRunning)
	var ids []skyport.JobID
	for name, priority := range map[string]int{"low": -5, "high": 5} {
		ids = append(ids, h.submit(fmt.Sprintf("#SWM priority %d\necho %s >> %s", priority, name, log)))
	}
	for _, name := range []string{"first", "second"} {
		ids = append(ids, h.submit("echo "+name+" >> "+log))
	}
	for _, id := range ids {
		h.until("the job says why it waits", func() bool {
			job := h.job(id)
			return job.State == skyport.JobQueued && len(job.Details) > len(skyport.DetailsQueued)
		})
	}
	h.write("go", "")
	for _, id := range ids {
		h.finish(id, 0)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "high\nfirst\nsecond\nlow\n" {
		t.Errorf("they ran in the order %q, %v", text, err)
	}
}

// TestManyJobs: several clients at once, each job exactly once.
func TestManyJobs(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_KEEP_ALIVE=2s")
	const jobs = 40
	subs := make([]client.Submission, jobs)
	for i := range subs {
		subs[i] = client.Submission{Script: fmt.Appendf(nil, "#!/bin/sh\necho %d >> %s/ran\necho %d\n", i, h.work, i)}
	}
	all, err := h.client().SubmitBatch(t.Context(), "the same batch", subs)
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.client().SubmitBatch(t.Context(), "the same batch", subs)
	if err != nil || len(again) != jobs || again[0].ID != all[0].ID {
		t.Errorf("submitting again makes %d other jobs, %v", len(again), err)
	}
	for i, job := range all {
		h.finish(job.ID, 0)
		if out := h.log(job.ID, skyport.Stdout); out != fmt.Sprintf("%d\n", i) {
			t.Errorf("job %d wrote %q", i, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(h.work, "ran"))
	if lines := strings.Fields(string(text)); err != nil || len(lines) != jobs {
		t.Errorf("%d scripts ran, %v", len(lines), err)
	}
}

// TestNodeDies: when a node with all of its processes dies, a job gets as many
// new attempts as it asked for, and ends in E when it asked for none.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	h := open(t)
	script := `
echo attempt >> ` + h.work + `/attempts
if [ "$(wc -l < ` + h.work + `/attempts)" -gt 1 ]; then exit 5; fi
sleep 600`
	killAll := func() {
		// Nobody may see another die, as when a machine loses its power.
		pids := h.processes()
		for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
			for _, pid := range pids {
				if err := syscall.Kill(pid, signal); err != nil {
					t.Error(err)
				}
			}
		}
	}
	id := h.submit("#SWM retries 1" + script)
	h.reach(id, skyport.JobRunning)
	killAll()
	job := h.finish(id, 5)
	if job.Attempt != 2 || job.Retried != 1 {
		t.Errorf("it took attempt %d, retried %d", job.Attempt, job.Retried)
	}

	id = h.submit("sleep 600")
	h.reach(id, skyport.JobRunning)
	killAll()
	job = h.wait(id)
	if job.State != skyport.JobFailed || !strings.Contains(job.Details, "lost") || !strings.Contains(job.Details, "#SWM retries") {
		t.Errorf("%s: %s", job.State, job.Details)
	}

	// The worker alone is no loss: the script goes on, and so does its log.
	id = h.submit("echo one; while [ ! -e " + h.work + "/go ]; do sleep 0.02; done; echo two")
	h.until("the job writes", func() bool { return h.log(id, skyport.Stdout) == "one\n" })
	for _, pid := range h.workers() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	h.write("go", "")
	job = h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "one\ntwo\n" || job.Attempt != 1 {
		t.Errorf("attempt %d wrote %q", job.Attempt, out)
	}
}

// TestMetrics: what a job used while it runs and after.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h := open(t)
	id := h.submit("x=$(head -c 20000000 /dev/zero | tr '\\0' x); while [ ! -e " + h.work + "/go ]; do :; done")
	var live skyport.Metrics
	h.until("there are samples", func() bool {
		live = read[skyport.Metrics](h, "metrics", string(id))
		return live.CPUPercent != nil && live.CPUPercent.Max > 20 && live.MemBytes.Max > 20e6
	})
	h.write("go", "")
	h.finish(id, 0)
	after := read[skyport.Metrics](h, "metrics", string(id))
	if after.CPUPercent == nil || after.CPUPercent.Max < 20 || after.MemBytes.Max < 20e6 || after.GPUPercent != nil {
		t.Errorf("%+v", after)
	}
}

// TestRetention: what was kept long enough goes by itself.
func TestLogLimit(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_LIMITS_JOB_LOG=2KiB")
	id := h.submit("head -c 100000 /dev/zero | tr '\\0' x; echo end >&2")
	job := h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); len(out) != 2048 {
		t.Errorf("%d bytes are kept", len(out))
	}
	if len(job.Warnings) == 0 || !strings.Contains(job.Warnings[0], "2.0 KiB") {
		t.Errorf("warnings: %q", job.Warnings)
	}
	if out := h.log(id, skyport.Stderr); out != "end\n" {
		t.Errorf("standard error: %q", out)
	}
}

// TestGateApart: the gate may die and come back while jobs run; core waits for
// it with what needs it, and with nothing else. Core may die and come back too.
func TestGateApart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gate := h.start("gate")
	core := h.start("core")
	h.ready()
	running := h.submit("echo one; while [ ! -e " + h.work + "/go ]; do sleep 0.02; done; echo two")
	h.reach(running, skyport.JobRunning)
	h.kill(gate)

	waiting := h.submit("echo there")
	h.until("the job waits for the gate, and says so", func() bool {
		job := h.job(waiting)
		return job.State == skyport.JobWaiting && strings.Contains(job.Details, skyport.DetailsPartitionNotYet)
	})
	h.write("go", "")
	h.finish(running, 0) // the end of a job needs no gate
	h.fails(4, []string{"flavor"}, "submit", "--flavor", "nope", "--", "true")

	gate = h.start("gate")
	h.finish(waiting, 0)
	if out := h.log(waiting, skyport.Stdout); out != "there\n" {
		t.Errorf("it wrote %q", out)
	}

	long := h.submit("echo one; while [ ! -e " + h.work + "/go2 ]; do sleep 0.02; done; echo two")
	h.until("the job writes", func() bool { return h.log(long, skyport.Stdout) == "one\n" })
	h.kill(core)
	h.kill(gate)
	h.write("go2", "")
	h.start("core") // before its gate
	h.until("core answers", func() bool {
		_, _, code := h.run("", "jobs")
		return code == 0
	})
	h.finish(long, 0)
	if out := h.log(long, skyport.Stdout); out != "one\ntwo\n" {
		t.Errorf("it wrote %q", out)
	}
	h.start("gate")
	h.ready()
	h.finish(h.submit("true"), 0)
	start := time.Now()
	h.settle()
	t.Logf("the site was empty after %s", time.Since(start))
}
