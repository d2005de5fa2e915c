package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
)

// TestLookingIn: commands, shells, copies and numbers of a job that runs, by
// the command line, on a real node; and nothing of them is left.
func TestLookingIn(t *testing.T) {
	t.Parallel()
	h := open(t)
	id := h.submit("#!/bin/sh\n#SWM name looked-at\necho \"from the job\" > made-by-job\nuntil [ -e done ]; do sleep 0.1; done\n")
	job := string(id)
	h.reach(id, skyport.JobRunning)
	h.until("the job has made its file", func() bool {
		_, _, code := h.run("", "exec", job, "--", "test", "-s", "made-by-job")
		return code == 0
	})

	h.part("exec", func(t *testing.T) {
		out, errs, code := h.run("input", "exec", job, "-e", "MINE=1", "--node", "main", "--", "sh", "-c",
			`cat; cat made-by-job; echo "$SWM_JOB_ID $MINE" >&2; exit 42`)
		if code != 42 || out != "inputfrom the job\n" || errs != job+" 1\n" {
			t.Errorf("ends with %d: %q, %q", code, out, errs)
		}
		if _, errs, code := h.run("", "exec", job, "--", "no-such-program"); code != 127 || !strings.Contains(errs, "no-such-program") {
			t.Errorf("no program: %d, %q", code, errs)
		}
		if _, _, code := h.run("", "exec", job, "--", "sh", "-c", "kill -9 $$"); code != 137 {
			t.Errorf("a command that is killed: %d", code)
		}
		big := strings.Repeat("0123456789abcdef", 1<<18)
		if out, _, code := h.run(big, "exec", job, "--", "cat"); code != 0 || out != big {
			t.Errorf("%d bytes came back as %d, code %d", len(big), len(out), code)
		}
	})
	h.part("signals", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), h.patience)
		defer cancel()
		cmd := h.command(ctx, "exec", job, "--", "sh", "-c", `trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done`)
		var out buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		h.until("the command is ready", func() bool { return strings.Contains(out.String(), "ready") })
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its code tells
		if code := cmd.ProcessState.ExitCode(); code != 5 || !strings.Contains(out.String(), "caught") {
			t.Errorf("ends with %d: %q", code, out.String())
		}
	})
	h.part("attach", func(t *testing.T) {
		outer, inner, err := pty.Open()
		if err != nil {
			t.Skipf("there are no terminals here: %v", err)
		}
		defer outer.Close()
		defer inner.Close()
		before, err := term.GetState(int(inner.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), h.patience)
		defer cancel()
		cmd := h.command(ctx, "attach", job)
		cmd.Env = append(cmd.Env, "TERM=vt100")
		var out buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = inner, &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := pty.Setsize(inner, &pty.Winsize{Rows: 20, Cols: 70}); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		say := func(line, answer string) {
			t.Helper()
			if _, err := outer.WriteString(line + "\r"); err != nil {
				t.Fatal(err)
			}
			h.until("the shell answers "+answer+" to "+line, func() bool { return strings.Contains(out.String(), answer) })
		}
		say("stty size; cat made-by-''job", "from the job")
		if !strings.Contains(out.String(), "20 70") {
			t.Errorf("the size did not come through: %q", out.String())
		}
		if err := pty.Setsize(inner, &pty.Winsize{Rows: 31, Cols: 71}); err != nil {
			t.Fatal(err)
		}
		h.until("the new size comes through", func() bool {
			if _, err := outer.WriteString("stty size\r"); err != nil {
				t.Fatal(err)
			}
			return strings.Contains(out.String(), "31 71")
		})
		if _, err := outer.WriteString("exit 6\r"); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // its code tells
		if code := cmd.ProcessState.ExitCode(); code != 6 {
			t.Errorf("attach ends with %d: %q", code, out.String())
		}
		after, err := term.GetState(int(inner.Fd()))
		if err != nil || *after != *before {
			t.Errorf("the terminal is not as it was: %v", err)
		}
	})
	h.part("cp", func(t *testing.T) {
		tree := filepath.Join(h.work, "tree", "sub")
		data := bytes.Repeat([]byte("skyport "), 1<<19) // 4 MiB
		if err := os.MkdirAll(tree, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, "data"), data, 0o640); err != nil {
			t.Fatal(err)
		}
		h.ok("cp", "tree", job+":given/")
		if out, _, _ := h.run("", "exec", job, "--", "wc", "-c", "given/tree/sub/data"); !strings.HasPrefix(strings.TrimSpace(out), "4194304 ") {
			t.Errorf("the job has %q", out)
		}
		h.ok("cp", job+":given", "back")
		if got, err := os.ReadFile(filepath.Join(h.work, "back", "tree", "sub", "data")); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back: %v", len(got), err)
		}
		h.ok("cp", job+":made-by-job", "renamed")
		if got, err := os.ReadFile(filepath.Join(h.work, "renamed")); err != nil || string(got) != "from the job\n" {
			t.Errorf("renamed has %q: %v", got, err)
		}
		h.fails(2, []string{"work directory"}, "cp", job+":../../etc/passwd", ".")
		h.ok("exec", job, "--", "ln", "-s", "/etc", "out")
		h.fails(4, []string{"out/passwd"}, "cp", job+":out/passwd", "stolen")
		h.fails(4, []string{"out"}, "cp", "renamed", job+":out/planted")
		if _, err := os.Stat("/etc/planted"); err == nil {
			t.Error("a copy left the work directory")
		}
	})
	h.part("top", func(t *testing.T) {
		type load struct {
			Node   string
			CPUs   int
			Memory skyport.Bytes
		}
		if all := read[[]load](h, "top", job, "--once", "--interval", "500ms"); len(all) != 1 || all[0].CPUs < 1 || all[0].Memory == 0 {
			t.Errorf("%+v", all)
		}
	})
	h.part("ssh", func(t *testing.T) {
		partition := h.job(id).Partition
		if out := h.ok("ssh", string(partition), "--", "echo", "on the node"); out != "on the node\n" {
			t.Errorf("said %q", out)
		}
		if out, _, code := h.run("echo from a script; exit 3\n", "ssh", partition.Short(), "main"); code != 3 || out != "from a script\n" {
			t.Errorf("a shell without a terminal: %d, %q", code, out)
		}
	})
	h.part("the end", func(*testing.T) {
		h.ok("exec", job, "--", "touch", "done")
		h.finish(id, 0)
		h.until("commands are refused", func() bool {
			_, errs, code := h.run("", "exec", job, "--", "true")
			return code == 255 && strings.Contains(errs, "over")
		})
	})
}

// A command that goes on when its job ends is ended with it.
func TestCommandsEndWithTheirJob(t *testing.T) {
	t.Parallel()
	h := open(t)
	id := h.submit("#!/bin/sh\nuntil [ -e done ]; do sleep 0.1; done\n")
	h.reach(id, skyport.JobRunning)
	ctx, cancel := context.WithTimeout(t.Context(), h.patience)
	defer cancel()
	cmd := h.command(ctx, "exec", string(id), "--", "sh", "-c", "touch done; exec sleep 1000000")
	var errs buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.finish(id, 0)
	_ = cmd.Wait() // its code tells
	if code := cmd.ProcessState.ExitCode(); code <= 0 || ctx.Err() != nil {
		t.Errorf("ends with %d: %q", code, errs.String())
	}
}
