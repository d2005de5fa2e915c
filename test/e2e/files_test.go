package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
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

// TestTrees: what goes up comes down as it was, whatever it is called and
// however it is made, and nothing is sent twice.
func TestTrees(t *testing.T) {
	t.Parallel()
	h := open(t)
	tree := filepath.Join(h.work, "a tree")
	make1 := func(name string, mode os.FileMode, size int) {
		t.Helper()
		path := filepath.Join(tree, name)
		random := rand.New(rand.NewPCG(1, uint64(size)))
		text := make([]byte, size)
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, text, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	make1("plain", 0o644, 100)
	make1("program", 0o755, 10)
	make1("secret", 0o600, 10)
	make1("read-only", 0o444, 10)
	make1("empty", 0o640, 0)
	make1("large", 0o644, 5<<20)
	make1("with blank", 0o644, 1)
	make1("new\nline", 0o644, 2)
	make1("-rf", 0o644, 3)
	make1("*?[a]", 0o644, 4)
	make1(`back\slash "quoted" 'single' $HOME`, 0o644, 5)
	make1("天気/ünï/cödé", 0o644, 6)
	make1("not\xffutf8\x80", 0o644, 7)
	make1(strings.Repeat("n", 255), 0o644, 8)
	make1(strings.Repeat("deep/", 40)+"file", 0o644, 9)
	for i := range 300 {
		make1(fmt.Sprintf("many/%d/%d", i%7, i), 0o644, i)
	}
	err := errors.Join(
		os.MkdirAll(filepath.Join(tree, "hollow", "within"), 0o755), os.Chmod(filepath.Join(tree, "hollow"), 0o750),
		os.Symlink("plain", filepath.Join(tree, "link")), os.Symlink("../plain", filepath.Join(tree, "many", "up")),
		os.Symlink("many/3", filepath.Join(tree, "to a directory")),
	)
	if err != nil {
		t.Fatal(err)
	}
	h.write("single.txt", "one file")
	if err := os.Symlink("single.txt", filepath.Join(h.work, "pointer")); err != nil {
		t.Fatal(err)
	}

	var sent []skyport.Bytes
	submit := func() skyport.JobID {
		var last skyport.Transfer
		job, err := h.client().Submit(t.Context(), client.Submission{
			Dir: h.work, Progress: func(p skyport.Transfer) { last = p },
			Script: []byte("#!/bin/sh\n#SWM input-files 'a tree' single.txt pointer\n#SWM output-files 'the same' single.txt pointer not-there/at-all nothing\n" +
				"set -e\ncp -a 'a tree' 'the same'\nrm 'the same/secret'\nprintf fresh > 'the same/secret'\nchmod 600 'the same/secret'\n"),
		})
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, last.Wire)
		return job.ID
	}
	id := submit()
	job := h.finish(id, 0)
	if sent[0] < 5<<20 {
		t.Errorf("the first submission has sent %s", sent[0])
	}
	if text := strings.Join(job.Warnings, "\n"); len(job.Warnings) != 2 || !strings.Contains(text, "not-there/at-all") || !strings.Contains(text, "nothing") {
		t.Errorf("warnings: %q", job.Warnings)
	}
	to := filepath.Join(h.work, "results")
	out, errs, code := h.run("", "results", string(id), "--to", to)
	if code != 0 || !strings.Contains(errs, "not-there/at-all") {
		t.Errorf("results ends with %d: %s%s", code, out, errs)
	}
	if err := os.WriteFile(filepath.Join(tree, "secret"), []byte("fresh"), 0o600); err != nil {
		t.Fatal(err)
	}
	if want, got := listing(t, tree), listing(t, filepath.Join(to, "the same")); want != got {
		t.Errorf("what came back differs: %s", difference(want, got))
	}
	if text, err := os.ReadFile(filepath.Join(to, "single.txt")); err != nil || string(text) != "one file" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "pointer")); err != nil || string(text) != "one file" {
		t.Errorf("an input that is a symlink: %q, %v", text, err)
	}

	h.finish(submit(), 0) // only the secret has changed
	if sent[1] > 256<<10 {
		t.Errorf("the second submission has sent %s", sent[1])
	}
	h.finish(submit(), 0)
	if sent[2] > 64<<10 {
		t.Errorf("the third submission has sent %s", sent[2])
	}

	// Once accepted, the submitter's files are no more needed, and a requeue has them still.
	if err := os.RemoveAll(tree); err != nil {
		t.Fatal(err)
	}
	h.ok("requeue", string(id))
	if job := h.finish(id, 0); job.Attempt != 2 {
		t.Errorf("attempt %d", job.Attempt)
	}
}

// listing tells all of a tree: names, modes, sizes, targets, contents.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%q %s", name, info.Mode())
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " to " + target
		case d.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.40x %s", len(text), text, info.ModTime().Truncate(0).Format("")) // times are not promised
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	var d []string
	for _, line := range w {
		if !slices.Contains(g, line) {
			d = append(d, "- "+line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			d = append(d, "+ "+line)
		}
	}
	return strings.Join(d[:min(len(d), 20)], "\n")
}

// TestInputsThatCannotBe are refused when they are submitted, with their name.
func TestInputsThatCannotBe(t *testing.T) {
	t.Parallel()
	h := open(t)
	dir := filepath.Join(h.work, "dir")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "x"), 0o755), syscall.Mkfifo(filepath.Join(h.work, "pipe"), 0o644),
		os.Symlink("/nonexistent", filepath.Join(h.work, "dangling")),
		os.Symlink("../../../../etc/passwd", filepath.Join(dir, "outward")),
	); err != nil {
		t.Fatal(err)
	}
	h.write("other/x", "")
	for _, c := range []struct {
		name, inputs string
		words        []string
	}{
		{"missing", "nobody.txt", []string{"nobody.txt"}},
		{"missing among others", "other nobody.txt", []string{"nobody.txt"}},
		{"pipe", "pipe", []string{"pipe"}},
		{"dangling", "dangling", []string{"dangling"}},
		{"same base name", "other/x dir/x", []string{"base name x"}},
		{"no base name", "/", []string{"input-files"}},
	} {
		h.part(c.name, func(*testing.T) {
			h.fails(4, c.words, "submit", "--input-files", c.inputs, "--", "true")
		})
	}
	h.part("unreadable", func(t *testing.T) {
		secret := h.write("locked/secret", "")
		if err := os.Chmod(secret, 0); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			t.Skip("root reads everything")
		}
		h.fails(4, []string{"secret"}, "submit", "--input-files", "locked", "--", "true")
	})
	h.part("a link out of the tree", func(t *testing.T) {
		_, errs, code := h.run("", "submit", "--wait", "--input-files", "dir", "--", "cat", "dir/outward")
		if code != 1 || !strings.Contains(errs, "warning: input dir/outward is left out: it is a link that leads") {
			t.Errorf("ends with %d: %s", code, errs)
		}
		if out := h.ok("logs", "@last"); out != "" {
			t.Errorf("the node's own file was read through our link: %s", out)
		}
		h.ok("purge", "--all", "--yes")
	})
	h.part("no core may be needed for that", func(*testing.T) {
		h.fails(4, []string{"output-files", "../up"}, "submit", "--output-files", "../up", "--", "true")
	})
	if out := h.ok("--json", "jobs", "--all"); out != "[]\n" { // nothing of all this became a job
		t.Errorf("jobs: %s", out)
	}
}

// TestPathsOfCore: a script that is posted as it is may name files of core's
// machine, when who posts it is the person as whom core runs. They may vanish.
func TestPathsOfCore(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_LOCAL_CPUS=1")
	path := h.write("there.txt", "of core's machine")
	status, body := h.post("#!/bin/sh\n#SWM input-files " + path + "\ncat there.txt\n")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	id := skyport.JobID(body)
	h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "of core's machine" {
		t.Errorf("it reads %q", out)
	}
	for _, bad := range []string{"/nonexistent/file", "relative.txt"} {
		if status, body := h.post("#!/bin/sh\n#SWM input-files " + bad + "\n"); status != 422 || !strings.Contains(body, bad) {
			t.Errorf("%s: %d %s", bad, status, body)
		}
	}

	// Another person may not.
	h.ok("cert", "user", "bob")
	pair := filepath.Join(h.spool, "secure", "users", "bob")
	h.env["SWM_CERT"], h.env["SWM_KEY"] = filepath.Join(pair, "cert.pem"), filepath.Join(pair, "key.pem")
	if status, body := h.postAs(pair, "#!/bin/sh\n#SWM input-files "+path+"\n"); status != 422 || !strings.Contains(body, "there.txt") {
		t.Errorf("bob's: %d %s", status, body)
	}
	if out := h.ok("submit", "--wait", "--input-files", path, "--", "cat", "there.txt"); len(out) < 36 {
		t.Errorf("bob's, staged: %s", out)
	}
	h.fails(4, []string{"another user"}, "show", string(id))
	h.ok("purge", "--all", "--yes")
	delete(h.env, "SWM_CERT")
	delete(h.env, "SWM_KEY")

	// A file that vanishes while its job waits: that job fails, others do not.
	blocker := h.submit("while [ ! -e " + h.work + "/go ]; do sleep 0.02; done")
	h.reach(blocker, skyport.JobRunning)
	status, body = h.post("#!/bin/sh\n#SWM input-files " + path + "\ncat there.txt\n")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	h.write("go", "")
	job := h.wait(skyport.JobID(body))
	if job.State != skyport.JobFailed || !strings.Contains(job.Details, "there.txt") {
		t.Errorf("%s: %s", job.State, job.Details)
	}
	h.finish(blocker, 0)
	h.finish(h.submit("true"), 0)
}

// TestVanishingWhileStaged: an input that changes while it is sent is told, or
// sent as it was; never half of each.
func TestVanishingWhileStaged(t *testing.T) {
	t.Parallel()
	h := open(t)
	large := h.write("large", strings.Repeat("0123456789abcdef", 1<<20))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			if os.Truncate(large, 1<<10) != nil || os.WriteFile(large, []byte(strings.Repeat("fedcba9876543210", 1<<20)), 0o600) != nil {
				return
			}
			if t.Context().Err() != nil {
				return
			}
		}
	}()
	start := time.Now()
	out, errs, code := h.run("", "submit", "--wait", "--input-files", "large", "--", "sh", "-c", "head -c 16 large; ls -l large")
	<-done
	if code != 0 && (code != 4 && code != 1 || !strings.Contains(errs, "large")) {
		t.Errorf("ends with %d after %s: %s%s", code, time.Since(start), out, errs)
	}
}
