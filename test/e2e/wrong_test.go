package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/spool"
)

// TestWrongSubmissions: each is refused when it is submitted, with what is
// wrong and what to do, and none becomes a job.
func TestWrongSubmissions(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_LOCAL_PRICE=2")
	for _, c := range []struct {
		script string
		code   skyport.Code
		words  []string // of what is said
	}{
		{"#SWM account nobody", skyport.CodeUnknownAccount, []string{"nobody", "default"}},
		{"#SWM site moon", skyport.CodeUnknownSite, []string{"moon", "local"}},
		{"#SWM flavor huge", skyport.CodeUnknownFlavor, []string{"huge", "local.1"}},
		{"#SWM cloud-image beos", skyport.CodeUnknownImage, []string{"beos", "host"}},
		{"#SWM container-image python:3.13", skyport.CodeNoEngine, []string{"python:3.13", "container engine"}},
		{"#SWM cpus 4096", skyport.CodeUnsatisfiable, []string{"4096 CPUs", "skyport flavors"}},
		{"#SWM memory 60T", skyport.CodeUnsatisfiable, []string{"memory"}},
		{"#SWM gpus 1", skyport.CodeUnsatisfiable, []string{"1 GPUs"}},
		{"#SWM nodes 1000", skyport.CodeUnsatisfiable, []string{"1000 node(s)"}},
		{"#SWM max-price 1.5", skyport.CodeUnsatisfiable, []string{"1.5", "raise max-price"}},
		{"#SWM storage scratch", skyport.CodeUnsupported, []string{"scratch"}},
		{"#SWM flavour local.1", skyport.CodeInvalidScript, []string{"job.sh:2:6", `"flavor"`}},
		{"#SWM output-files ../up", skyport.CodeInvalidScript, []string{"job.sh:2:", ".."}},
		{"#SWM output-files a/../../up", skyport.CodeInvalidScript, []string{"job.sh:2:", ".."}},
		{"#SWM output-files /etc/passwd", skyport.CodeInvalidScript, []string{"job.sh:2:", "absolute"}},
		{"#SWM stdout /tmp/x", skyport.CodeInvalidScript, []string{"job.sh:2:"}},
		{"#SWM ports 70000", skyport.CodeInvalidScript, []string{"job.sh:2:", "70000"}},
		{"#SWM time soon", skyport.CodeInvalidScript, []string{"job.sh:2:", "soon"}},
		{"#SWM memory 4GB", skyport.CodeInvalidScript, []string{"job.sh:2:", "4GB", "GiB"}},
		{"#SWM env SWM_JOB_ID=x", skyport.CodeInvalidScript, []string{"SWM_JOB_ID"}},
	} {
		h.part(c.script[5:], func(t *testing.T) {
			script := h.write("job.sh", "#!/bin/sh\n"+c.script+"\n")
			h.fails(4, c.words, "submit", script)
			h.fails(4, nil, "submit", "--dry-run", script)
			// By the other ways in, too.
			_, err := h.client().SubmitBatch(t.Context(), "", []client.Submission{{Script: []byte("#!/bin/sh\n")}, {Script: []byte("#!/bin/sh\n" + c.script)}})
			if skyport.CodeOf(err) != c.code {
				t.Errorf("a batch with it: %v, %s", err, skyport.CodeOf(err))
			}
			status, body := h.post("#!/bin/sh\n" + c.script + "\n")
			var said struct{ Error string }
			if err := json.Unmarshal([]byte(body), &said); err != nil || said.Error == "" || status != c.code.Status() {
				t.Errorf("/user/job answers %d %s, want %d", status, body, c.code.Status())
			}
		})
	}
	h.part("nothing that is a script", func(*testing.T) {
		h.fails(3, []string{"nobody.sh"}, "submit", "nobody.sh")
		h.fails(4, []string{"work"}, "submit", h.work)
		h.fails(2, []string{"submit what"}, "submit")
		h.fails(2, []string{"--nonsense"}, "submit", "--nonsense", "x", "--", "true")
		h.fails(4, []string{"empty"}, "submit", h.write("empty.sh", ""))
		h.fails(4, []string{"binary"}, "submit", h.write("binary.sh", "\x7fELF\x00\x00\x00\x00"))
	})
	if out := h.ok("--json", "jobs", "--all"); out != "[]\n" {
		t.Errorf("jobs: %s", out)
	}
}

// TestLargestScript: 16 MiB are taken and run, one byte more is refused, by
// each way in.
func TestLargestScript(t *testing.T) {
	t.Parallel()
	h := open(t)
	const most = 16 << 20
	script := "#!/bin/sh\necho it runs\nexit 0\n#"
	script += strings.Repeat("x", most-len(script)-1) + "\n"
	path := h.write("large.sh", script)
	if out := h.ok("submit", "--wait", path); len(out) < 36 {
		t.Errorf("submit prints %q", out)
	}
	if out := h.ok("logs", "@last"); out != "it runs\n" {
		t.Errorf("it writes %q", out)
	}
	status, body := h.post(script)
	if status != 200 {
		t.Errorf("%d %s", status, body)
	}
	h.write("large.sh", script+"\n")
	h.fails(4, []string{"16", "MiB"}, "submit", path)
	if status, body := h.post(script + "\n"); status != 413 || !strings.Contains(body, "error") {
		t.Errorf("%d %s", status, body)
	}
	_, err := h.client().Submit(t.Context(), client.Submission{Script: []byte(script + "\n")})
	if skyport.CodeOf(err) != skyport.CodeTooLarge {
		t.Errorf("%v", err)
	}
	if n := len(read[[]skyport.Job](h, "jobs", "--all")); n != 2 {
		t.Errorf("%d jobs", n)
	}
}

// TestScriptsOfAnyBytes: whatever is posted is answered as it should be, and
// core is none the worse for it. What is accepted is run by a program that does
// nothing with it.
func TestScriptsOfAnyBytes(t *testing.T) {
	t.Parallel()
	h := open(t, "SWM_KEEP_ALIVE=2s")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	words := []string{"#SWM ", "#SWM name ", "#SWM cpus ", "#SWM ports ", "#SWM env A=", "#SWM memory ", "#SWM input-files ", "\n", "\r\n", "'", "\"", "\\", "\x00", "1", "-"}
	for range 120 {
		var script bytes.Buffer
		script.WriteString("#!/bin/true\n")
		for range random.IntN(40) {
			if random.IntN(2) == 0 {
				script.WriteString(words[random.IntN(len(words))])
				continue
			}
			for range random.IntN(20) {
				script.WriteByte(byte(random.Uint32()))
			}
		}
		status, body := h.post(script.String())
		var said struct{ Error string }
		switch {
		case status == 200 && len(body) == 36:
		case status >= 400 && status < 500 && json.Unmarshal([]byte(body), &said) == nil && said.Error != "":
		default:
			t.Errorf("%q is answered with %d %s", script.String(), status, body)
		}
	}
	for _, job := range read[[]skyport.Job](h, "jobs", "--all") {
		if end := h.wait(job.ID); end.State != skyport.JobFinished && end.State != skyport.JobFailed {
			t.Errorf("%s: %s", end.State, end.Details)
		}
	}
	h.finish(h.submit("true"), 0)
}

// startOnSmallDisk starts up with a small disk of its own at a directory of the
// spool. Nobody but it and its nodes sees the disk; at returns where we see it.
func (h *house) startOnSmallDisk(dir string, mib int) (at string) {
	h.t.Helper()
	if os.Getuid() != 0 {
		h.t.Skip("only root can mount a small disk")
	}
	disk := filepath.Join(h.spool, dir)
	script := fmt.Sprintf(`mount -t tmpfs -o size=%dm,mode=0700 tmpfs "$1" && exec "$2" up`, mib)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", disk, binary)
	cmd.Dir, cmd.Env = h.work, h.environ()
	if out, err := exec.Command("unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", disk).CombinedOutput(); err != nil {
		h.t.Skipf("no disk can be mounted here: %v: %s", err, out)
	}
	d := h.startAs(cmd, "up")
	h.ready()
	return filepath.Join("/proc", fmt.Sprint(d.cmd.Process.Pid), "root", disk)
}

// fill takes what a disk has left, but for some bytes, and returns how to free it.
func fill(t *testing.T, dir string, leave int64) (free func()) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(fs.Bavail)*fs.Bsize - leave
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestFullDatabaseDisk: with a full disk under the store, submissions are
// refused with that reason, what runs goes on, and all is well once there is room.
func TestFullDatabaseDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	at := h.startOnSmallDisk("db", 8)
	running := h.submit("while [ ! -e " + h.work + "/go ]; do sleep 0.02; done; echo done")
	h.reach(running, skyport.JobRunning)
	free := fill(t, at, 0)
	script := "#!/bin/sh\n#" + strings.Repeat("x", 1<<20) + "\n"
	h.fails(1, []string{"full", "hint: free some space"}, "submit", h.write("large.sh", script))
	if status, body := h.post(script); status != 507 || !strings.Contains(body, "full") {
		t.Errorf("%d %s", status, body)
	}
	// It still answers what it knows.
	if job := h.job(running); job.State != skyport.JobRunning {
		t.Errorf("the job is %s: %s", job.State, job.Details)
	}
	h.write("go", "") // its end cannot be written yet
	h.until("its script has ended", func() bool { return len(h.processes()) == len(h.workers()) })
	free()
	h.finish(running, 0)
	if out := h.log(running, skyport.Stdout); out != "done\n" {
		t.Errorf("it wrote %q", out)
	}
	h.finish(h.submit("true"), 0)
}

// TestFullResultsDisk: results that do not fit are told as that; they come as
// soon as there is room, since the node keeps them. Others are not held up.
func TestFullResultsDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	at := h.startOnSmallDisk("jobs", 24)
	free := fill(t, at, 4<<20)
	large := h.submit("#SWM output-files large\nhead -c 12000000 /dev/urandom > large")
	h.until("the lack of room is told", func() bool {
		job := h.job(large)
		return job.State == skyport.JobTransferring && strings.Contains(job.Details, "room for")
	})
	small := h.submit("#SWM output-files small\necho small | tee small")
	h.finish(small, 0)
	if tries := strings.Count(h.up[0].log.String(), "attempt: trying again"); tries > 12 {
		t.Errorf("it was tried %d times in a moment", tries)
	}
	free()
	if job := h.finish(large, 0); job.ResultBytes != 12000000 {
		t.Errorf("%d bytes of results", job.ResultBytes)
	}
}

// TestFullInputsDisk: inputs that do not fit into core are refused when they
// are staged.
func TestFullInputsDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.startOnSmallDisk("inputs", 8)
	h.large("large", 16<<20)
	h.fails(1, []string{"large", "room for", "hint: free space"}, "submit", "--input-files", "large", "--", "true")
	h.write("small", "fits")
	h.ok("submit", "--wait", "--input-files", "small", "--", "cat", "small")
}

// TestFullNodeDisk: inputs that do not fit on the node end their job with that
// reason; a script that fills it sees so itself; others go on.
func TestFullNodeDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.startOnSmallDisk("local", 24)
	h.large("large", 40<<20)
	id := h.submit("#SWM input-files large")
	job := h.wait(id)
	if job.State != skyport.JobFailed || !strings.Contains(job.Details, "room for") {
		t.Errorf("%s: %s", job.State, job.Details)
	}
	id = h.submit("head -c 40000000 /dev/zero > file || { rm file; echo full; exit 28; }")
	h.finish(id, 28)
	if out := h.log(id, skyport.Stdout); out != "full\n" {
		t.Errorf("it wrote %q", out)
	}
	h.finish(h.submit("true"), 0)
}

// TestCertificates: who has none, or one of elsewhere, or is not core, is let
// in nowhere.
func TestCertificates(t *testing.T) {
	t.Parallel()
	h, other := open(t), newHouse(t)
	mine := filepath.Join(h.home, ".swm")
	if status, body := h.call(mine, "GET", "/user", nil); status != 200 || strings.TrimSpace(body) != `{"api_version": 1}` {
		t.Errorf("%d %s", status, body)
	}
	h.env["SWM_CERT"], h.env["SWM_KEY"] = filepath.Join(other.home, ".swm", "cert.pem"), filepath.Join(other.home, ".swm", "key.pem")
	if out, errs, code := h.run("", "jobs"); code == 0 {
		t.Errorf("a certificate of elsewhere is let in: %s%s", out, errs)
	}
	delete(h.env, "SWM_CERT")
	delete(h.env, "SWM_KEY")
	gate, err := spool.Layout{Dir: h.spool}.Announced("gate")
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := h.https(mine).Get(gate.URL + "/v1/sites"); err == nil {
		if resp.StatusCode < 400 {
			t.Errorf("the gate answers a user with %s", resp.Status)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
