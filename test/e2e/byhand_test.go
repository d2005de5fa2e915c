package e2e

import (
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/spool"
)

// TestByHand is what a person types, from setup to purge.
func TestByHand(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "SWM_LOCAL_PRICE=0.5")

	// A second setup changes nothing.
	key := filepath.Join(h.home, ".swm", "key.pem")
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if out := h.ok("setup", "--yes"); !strings.Contains(out, "nothing was changed") {
		t.Errorf("the second setup says %s", out)
	}
	if after, err := os.ReadFile(key); err != nil || string(after) != string(before) {
		t.Errorf("the second setup has changed the key: %v", err)
	}
	secret := map[string]os.FileMode{
		key: 0o600, filepath.Join(h.home, ".swm"): 0o700, h.spool: 0o700,
		filepath.Join(h.spool, "secure", "grid", "key.pem"): 0o600, filepath.Join(h.spool, "secure", "cluster", "key.pem"): 0o600,
		filepath.Join(h.spool, "secure", "node", "key.pem"): 0o600,
	}
	for path, mode := range secret {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", path, info, err, mode)
		}
	}

	up := h.start("up")
	h.ready()
	if out := up.out.String(); !strings.Contains(out, "Sky Port is ready.") || !strings.Contains(out, "submit --follow job.sh") {
		t.Errorf("up says %q", out)
	}

	h.part("catalogue", func(t *testing.T) {
		if sites := read[[]skyport.Site](h, "sites"); len(sites) != 1 || sites[0].Name != "local" || !sites[0].Local {
			t.Errorf("sites: %+v", sites)
		}
		names := map[string]skyport.Flavor{}
		for _, f := range read[[]skyport.Flavor](h, "flavors") {
			names[f.Name] = f
		}
		for _, name := range []string{"local.1", "local.half", "local.all"} {
			if f, ok := names[name]; !ok || f.Price != 0.5*float64(f.CPUs) || f.CPUs < 1 || f.Memory <= 0 {
				t.Errorf("flavor %s: %+v", name, f)
			}
		}
		if images := read[[]skyport.Image](h, "images"); len(images) != 1 || images[0].Name != "host" {
			t.Errorf("images: %+v", images)
		}
		for _, empty := range []string{"nodes", "partitions", "jobs", "gc", "events"} {
			if out := h.ok("--json", empty); out != "[]\n" {
				t.Errorf("%s: %q", empty, out)
			}
		}
	})

	h.part("doctor", func(t *testing.T) {
		type finding struct{ Check, Status, Message, Hint string }
		for _, f := range read[[]finding](h, "doctor") {
			if f.Status == "fail" {
				t.Errorf("doctor: %+v", f)
			}
		}
		if out := h.ok("version"); !strings.Contains(out, "skyport") {
			t.Errorf("version: %s", out)
		}
		for _, shell := range []string{"bash", "zsh", "fish"} {
			if out := h.ok("completion", shell); !strings.Contains(out, "skyport") {
				t.Errorf("completion %s: %.80s", shell, out)
			}
		}
		if out := h.ok("__complete", "submit", "--flavor", "local.h"); !strings.Contains(out, "local.half") {
			t.Errorf("completion of flavors: %q", out)
		}
	})

	script := h.write("job.sh", `#!/bin/sh
#SWM name      poem
#SWM comment   as it is in the script
#SWM cpus      1
#SWM env       WHO=script
#SWM output-files poem.txt
echo "to $WHO"
echo "oh no" >&2
echo rose > poem.txt
exit 3
`)
	h.part("dry run", func(t *testing.T) {
		out := h.ok("submit", "--dry-run", script)
		for _, want := range []string{"#SWM name poem", "#SWM cpus 1", "On a new partition", "local.1 at local", "0.5/h"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %s", want, out)
			}
		}
		plan := read[skyport.Plan](h, "submit", "--dry-run", "--cpus", "2", "--flavor", "local.all", "--priority", "7", script)
		if plan.Request.CPUs != 2 || plan.Request.Priority != 7 || plan.Flavor != "local.all" || plan.Price <= 0.5 {
			t.Errorf("plan: %+v", plan)
		}
		if out := h.ok("--json", "jobs", "--all"); out != "[]\n" {
			t.Errorf("a dry run left %s", out)
		}
	})

	h.part("follow", func(t *testing.T) {
		out, errs, code := h.run("", "submit", "--follow", "--env", "WHO=flag", "--comment", "from a flag", script)
		if code != 3 || out != "to flag\n" {
			t.Errorf("ends with %d and prints %q", code, out)
		}
		for _, want := range []string{"oh no\n", "Initiate a new partition", "running", "exit code 3", "queued", "nodes", "run"} {
			if !strings.Contains(errs, want) {
				t.Errorf("no %q in %s", want, errs)
			}
		}
		for _, text := range []string{out, errs} {
			if strings.ContainsAny(text, "\x1b\r") {
				t.Errorf("control characters off a terminal: %q", text)
			}
		}
		out, errs, code = h.run("", "submit", "--follow", "--json", script)
		if code != 3 || errs != "" {
			t.Errorf("ends with %d and says %q", code, errs)
		}
		for line := range strings.Lines(out) {
			if !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %q", line)
			}
		}
	})

	h.part("standard input and command", func(t *testing.T) {
		out, errs, code := h.run("#!/bin/sh\n#SWM name from-input\necho \"$SWM_JOB_NAME\"\nkill -KILL $$\n", "submit", "--follow", "-")
		if code != 137 || out != "from-input\n" {
			t.Errorf("ends with %d, prints %q, says %s", code, out, errs)
		}
		out, errs, code = h.run("", "submit", "--follow", "--", "printf", `%s|`, "a b", "", "it's", "$HOME", "*")
		if code != 0 || out != "a b||it's|$HOME|*|" {
			t.Errorf("ends with %d, prints %q, says %s", code, out, errs)
		}
	})

	h.part("what is known", func(t *testing.T) {
		id := strings.TrimSpace(h.ok("submit", script))
		if !regexp.MustCompile(`^[0-9a-f-]{36}$`).MatchString(id) {
			t.Fatalf("submit prints %q", id)
		}
		h.fails(3, []string{"exit code 3"}, "wait", id)
		if out := h.ok("logs", id); out != "to script\n" {
			t.Errorf("logs: %q", out)
		}
		if out := h.ok("logs", "--stderr", id[:8]); out != "oh no\n" {
			t.Errorf("logs --stderr: %q", out)
		}
		if out := h.ok("logs", "-f", "@last"); out != "to script\n" {
			t.Errorf("logs -f: %q", out)
		}
		var report struct {
			Job      skyport.Job
			Timeline []skyport.Step
			Attempts []skyport.Attempt
		}
		h.until("the timeline has its removal", func() bool {
			report.Timeline = nil
			report = read[struct {
				Job      skyport.Job
				Timeline []skyport.Step
				Attempts []skyport.Attempt
			}](h, "show", id)
			n := len(report.Timeline)
			return n > 0 && report.Timeline[n-1].Name == "removal" && !report.Timeline[n-1].End.IsZero()
		})
		if report.Job.ExitCode != 3 || report.Job.State != skyport.JobFinished || len(report.Attempts) != 1 {
			t.Errorf("show: %+v", report)
		}
		var names []string
		for _, step := range report.Timeline {
			names = append(names, step.Name)
			if step.End.IsZero() || step.End.Before(step.Start) {
				t.Errorf("step %+v", step)
			}
			if step.Name == "download" && step.Bytes != 5 {
				t.Errorf("%d bytes were downloaded, want 5", step.Bytes)
			}
		}
		if got := strings.Join(names, " "); got != "queued nodes run download removal" {
			t.Errorf("the timeline has %s", got)
		}
		if out := h.ok("show", "--script", id); !strings.HasPrefix(out, "#!/bin/sh\n#SWM name      poem\n") {
			t.Errorf("show --script: %q", out)
		}
		if out := h.ok("jobs", "--all"); strings.Count(out, "poem") != 3 {
			t.Errorf("jobs: %s", out)
		}
		if out := h.ok("ps", "--all", "--state", "F", "--name", "from-in"); strings.Count(out, "\n") != 2 {
			t.Errorf("ps: %s", out)
		}
		events := read[[]skyport.Event](h, "events", id)
		states := ""
		for i, e := range events {
			if i > 0 && e.Seq <= events[i-1].Seq {
				t.Errorf("events out of order: %+v", events)
			}
			if e.Kind == skyport.EventState {
				states += e.State
			}
		}
		if states != "QWRTF" {
			t.Errorf("the job went through %s", states)
		}
		follow := h.start("events", "-f", id)
		h.until("events -f tells the end", func() bool { return strings.Contains(follow.out.String(), "finished") })
		h.interrupt(follow, 130)
		if m := read[skyport.Metrics](h, "metrics", id); m.MemBytes == nil || m.MemBytes.Max <= 0 || m.CPUPercent == nil || m.GPUPercent != nil {
			t.Errorf("metrics: %+v", m)
		}
		to := filepath.Join(h.work, "here")
		h.ok("results", id, "--to", to)
		if text, err := os.ReadFile(filepath.Join(to, "poem.txt")); err != nil || string(text) != "rose\n" {
			t.Errorf("results: %q, %v", text, err)
		}
		h.fails(4, []string{to}, "results", id, "--to", to)
		h.ok("results", id, "--to", to, "--force")

		h.ok("requeue", id)
		h.fails(3, nil, "wait", id)
		if job := h.job(skyport.JobID(id)); job.Attempt != 2 {
			t.Errorf("after a requeue: %+v", job)
		}
		if out := h.ok("logs", "--attempt", "1", id); out != "to script\n" {
			t.Errorf("the log of the first attempt: %q", out)
		}
		h.ok("purge", "--yes", id)
		h.fails(3, []string{id[:8]}, "show", id)
	})

	h.part("cancel", func(t *testing.T) {
		id := strings.TrimSpace(h.ok("submit", "--name", "long", "--ports", "12345", "--", "sleep", "600"))
		h.reach(skyport.JobID(id), skyport.JobRunning)
		if nodes := read[[]skyport.NodeStatus](h, "nodes"); len(nodes) == 0 || nodes[0].Site != "local" {
			t.Errorf("nodes: %+v", nodes)
		}
		ports := read[[]skyport.JobPort](h, "ports", "long")
		if len(ports) != 1 || !strings.HasSuffix(ports[0].Address, ":12345") || !strings.HasPrefix(ports[0].Address, "127.") {
			t.Errorf("ports: %+v", ports)
		}
		h.ok("cancel", id)
		h.fails(125, nil, "wait", id)
		h.fails(4, []string{"ended already"}, "cancel", id)
	})

	h.part("help", func(t *testing.T) {
		for _, c := range strings.Fields("submit jobs show logs events wait cancel requeue purge ports results sites flavors images nodes partitions metrics gc doctor version completion setup up core gate") {
			out := h.ok(c, "--help")
			if !strings.Contains(out, "Exit codes:") || !strings.Contains(out, "skyport "+c) || !strings.Contains(out, "--json") {
				t.Errorf("the help of %s: %s", c, out)
			}
		}
	})
}

// TestJobsOutliveUp: Ctrl-C ends up cleanly, the job goes on, and the next up
// takes it up: nothing runs twice, nothing is lost.
func TestJobsOutliveUp(t *testing.T) {
	t.Parallel()
	h := open(t)
	gate := filepath.Join(h.work, "gate")
	id := h.submit(`#SWM output-files out
echo begun >> ` + h.work + `/begun
echo one
while [ ! -e ` + gate + ` ]; do sleep 0.02; done
echo two
echo done > out`)
	h.until("the job writes", func() bool { return h.log(id, skyport.Stdout) == "one\n" })
	workers := h.workers()
	start := time.Now()
	h.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("up took %s to end", took)
	}
	if _, err := (spool.Layout{Dir: h.spool}).Announced("core"); err == nil {
		t.Error("core is gone and still announced")
	}
	if len(workers) != 1 || syscall.Kill(workers[0], 0) != nil {
		t.Errorf("workers: %v", workers)
	}
	h.fails(5, []string{"skyport up"}, "jobs")
	h.write("gate", "") // the job ends while nobody looks
	h.until("the job is over", func() bool {
		_, err := os.Stat(gate)
		return err == nil && len(h.processes()) == 1
	})
	h.start("up")
	h.ready()
	job := h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "one\ntwo\n" || job.Attempt != 1 {
		t.Errorf("attempt %d wrote %q", job.Attempt, out)
	}
	if text, err := os.ReadFile(filepath.Join(h.work, "begun")); err != nil || string(text) != "begun\n" {
		t.Errorf("the script ran %d times: %v", strings.Count(string(text), "begun"), err)
	}

	// And one that still runs when core comes back.
	id = h.submit("echo one; while [ ! -e " + gate + "2 ]; do sleep 0.02; done; echo two")
	h.reach(id, skyport.JobRunning)
	h.stop()
	h.start("up")
	h.ready()
	if job := h.job(id); job.State != skyport.JobRunning {
		t.Errorf("the job is %s: %s", job.State, job.Details)
	}
	h.write("gate2", "")
	h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "one\ntwo\n" {
		t.Errorf("it wrote %q", out)
	}
}

// TestTwoOnOneSpool: the second core, gate or up is refused, and the first goes on.
func TestTwoOnOneSpool(t *testing.T) {
	t.Parallel()
	h := open(t)
	for _, c := range []string{"up", "core", "gate"} {
		h.fails(4, []string{"in use by another", "hint: "}, c)
	}
	h.finish(h.submit("true"), 0)
}

// TestNewerSpool: a spool of a newer version is refused and left untouched.
func TestNewerSpool(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	version := filepath.Join(h.spool, "version")
	text, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(version, []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, h.spool)
	for _, args := range [][]string{{"up"}, {"core"}, {"gate"}, {"setup", "--yes"}, {"cert", "renew", "--all"}} {
		h.fails(4, []string{"newer"}, args...)
	}
	if after := snapshot(t, h.spool); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	// Put back, it works as before.
	if err := os.WriteFile(version, text, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start("up")
	h.ready()
	h.finish(h.submit("true"), 0)
	h.settle()
	h.stop()

	// The same holds for a database that a newer version has migrated.
	newerDatabase(t, filepath.Join(h.spool, "db", "skyport.db"))
	before = snapshot(t, h.spool)
	h.fails(4, []string{"newer"}, "core")
	if after := snapshot(t, h.spool); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// newerDatabase makes the store look as a newer version has left it.
func newerDatabase(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// snapshot tells all files of a tree with their modes and contents, but for the
// locks, which say who holds them.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".lock" {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&list, "%s %s %x\n", path, info.Mode(), sha256.Sum256(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
