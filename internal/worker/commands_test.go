package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// said is what a command wrote, and how it ended.
type said struct {
	out, err string
	exit     session.Exit
}

// call runs a command on the node to its end.
func (n *node) call(c protocol.Command, stdin string) said {
	n.t.Helper()
	s, err := n.try(n.t.Context(), c, session.Caller{Stdin: strings.NewReader(stdin)})
	if err != nil {
		n.t.Fatalf("%q: %v", c.Argv, err)
	}
	return s
}

func (n *node) try(ctx context.Context, c protocol.Command, with session.Caller) (said, error) {
	conn, err := n.client.Command(ctx)
	if err != nil {
		return said{}, err
	}
	var out, errs bytes.Buffer
	if with.Stdout == nil {
		with.Stdout = &out
	}
	with.Stderr = &errs
	exit, err := session.Call(ctx, conn, c, with)
	return said{out.String(), errs.String(), exit}, err
}

func sh(run, text string) protocol.Command {
	return protocol.Command{Run: run, Argv: []string{"sh", "-c", text}}
}

// runs prepares a run and waits until its script, which waits for ever, runs.
func (n *node) runs(spec protocol.RunSpec) {
	n.t.Helper()
	n.prepare(spec)
	n.await("run "+spec.Run+" runs", func() bool { return n.status(spec.Run).State == protocol.RunRunning })
}

// ignored prints which of the first 16 signals are ignored, as bits in hex. What lies
// beyond comes from whoever runs the tests.
const ignored = `sed -n 's/^SigIgn:.*\(....\)$/\1/p' /proc/self/status`

func TestCommand(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("#!/bin/sh\n" + ignored + " >sig\necho in the script > made\nexec sleep 1000\n")
	spec.Env["OF_THE_JOB"] = "job's"
	n.runs(spec)
	n.await("the script made a file", func() bool {
		return n.call(sh(spec.Run, "test -s made"), "").exit.Code == 0
	})
	work := filepath.Join(n.dir, "runs", spec.Run, "work")
	tests := []struct {
		command protocol.Command
		stdin   string
		want    said
	}{
		{sh(spec.Run, "cat sig"), "", said{out: "0000\n"}},
		{sh(spec.Run, "cat made; pwd"), "", said{out: "in the script\n" + work + "\n"}},
		{sh(spec.Run, `echo "$OF_THE_JOB $SWM_RUN"`), "", said{out: "job's " + spec.Run + "\n"}},
		{sh(spec.Run, "cat; echo oops >&2; exit 3"), "input", said{out: "input", err: "oops\n", exit: session.Exit{Code: 3}}},
		{sh(spec.Run, "kill -9 $$"), "", said{exit: session.Exit{Code: 137, Signal: 9}}},
		{protocol.Command{Run: spec.Run, Argv: []string{"sh", "-c", "pwd; echo $A"}, Dir: "/", Env: map[string]string{"A": "b"}}, "", said{out: "/\nb\n"}},
		{sh(spec.Run, "umask; "+ignored), "", said{out: "0022\n0000\n"}},
		{sh(spec.Run, "sleep 1000 & echo quick"), "", said{out: "quick\n"}}, // what holds its output does not hold it
		{protocol.Command{Run: spec.Run}, "echo a shell", said{out: "a shell\n"}},
		{protocol.Command{}, "echo on the node $SWM_RUN", said{out: "on the node\n"}},
		{sh(spec.Run, "command -v swm-task"), "", said{out: filepath.Join(n.dir, "bin", "swm-task") + "\n"}},
	}
	for _, test := range tests {
		if got := n.call(test.command, test.stdin); got != test.want {
			t.Errorf("%q in %q: %+v, want %+v", test.command.Argv, test.command.Run, got, test.want)
		}
	}
	failing := []struct {
		command protocol.Command
		code    skyport.Code
		exit    int
	}{
		{protocol.Command{Run: spec.Run, Argv: []string{"no-such-program"}}, skyport.CodeNotFound, 127},
		{protocol.Command{Run: spec.Run, Argv: []string{"/etc/passwd"}}, skyport.CodeForbidden, 126},
		{protocol.Command{Run: "other.1", Argv: []string{"true"}}, skyport.CodeNotFound, 255},
		{protocol.Command{Run: spec.Run, Argv: []string{"true"}, Node: "other"}, skyport.CodeNotFound, 255},
		{protocol.Command{Argv: []string{"true"}, Node: "other"}, skyport.CodeInvalid, 255},
		{protocol.Command{Run: spec.Run, Argv: []string{"a\x00b"}}, skyport.CodeInvalid, 255},
		{protocol.Command{Run: spec.Run, Argv: []string{"true"}, Env: map[string]string{"A=B": ""}}, skyport.CodeInvalid, 255},
		{protocol.Command{Run: spec.Run, Argv: []string{"true"}, Dir: "not/there"}, skyport.CodeUnavailable, 126},
	}
	for _, test := range failing {
		got := n.call(test.command, "")
		if code := skyport.CodeOf(got.exit.Err()); code != test.code || got.exit.Code != test.exit {
			t.Errorf("%+v: %+v", test.command, got)
		}
	}
	if _, err := n.client.CommandIn(t.Context(), "other.1"); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("a command in a run that is not there: %v", err)
	}
}

// Much output to a slow reader arrives as it was.
func TestCommandMuchOutput(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	reader, writer := io.Pipe()
	sum := make(chan int)
	go func() {
		total, buf := 0, make([]byte, 100_000)
		for {
			k, err := reader.Read(buf)
			total += k
			if err != nil {
				sum <- total
				return
			}
		}
	}()
	s, err := n.try(t.Context(), sh("", "head -c 50000000 /dev/zero"), session.Caller{Stdout: writer})
	_ = writer.Close()
	if total := <-sum; err != nil || s.exit.Code != 0 || total != 50_000_000 {
		t.Errorf("%+v, %v, %d bytes", s, err, total)
	}
}

// A command ends when its caller goes away, when it is told to, and with its run.
func TestCommandEnds(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("#!/bin/sh\nwhile [ ! -e end ]; do sleep 0.02; done\n")
	n.runs(spec)
	begin := func(ctx context.Context, text string, with session.Caller) (pid int, ended <-chan error, exit *session.Exit) {
		reader, writer := io.Pipe()
		with.Stdout = writer
		done, exit := make(chan error, 1), &session.Exit{}
		go func() {
			s, err := n.try(ctx, sh(spec.Run, text), with)
			*exit = s.exit
			_ = writer.Close()
			done <- err
		}()
		if _, err := fmt.Fscanln(reader, &pid); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, reader) }()
		return pid, done, exit
	}
	gone := func(pid int) func() bool {
		return func() bool {
			p, err := proc.Read(pid)
			return err != nil || p.Zombie
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	pid, ended, _ := begin(ctx, "echo $$; exec sleep 1000", session.Caller{})
	cancel()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	n.await("the command ended with its caller", gone(pid))

	signals := make(chan syscall.Signal, 1)
	_, ended, exit := begin(t.Context(), "trap 'exit 44' USR1; echo $$; while :; do sleep 0.01; done", session.Caller{Signals: signals})
	signals <- syscall.SIGUSR1
	if err := <-ended; err != nil || exit.Code != 44 {
		t.Errorf("%+v, %v", exit, err)
	}

	pid, ended, exit = begin(t.Context(), "echo $$; exec sleep 1000", session.Caller{})
	// It ends the run, so it may be ended with the run itself.
	n.call(sh(spec.Run, "setsid sleep 1000 > /dev/null 2>&1 & echo $! > left; touch end"), "")
	if err := <-ended; err != nil || exit.Signal != int(syscall.SIGHUP) || exit.Err() == nil {
		t.Errorf("%+v, %v", exit, err)
	}
	n.await("the command ended with its run", gone(pid))
	n.ended(spec.Run)
	// What was left behind is gone, and one can look at what the job left.
	left, err := strconv.Atoi(strings.TrimSpace(n.call(sh(spec.Run, "cat left"), "").out))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.client.Remove(t.Context(), spec.Run); err != nil {
		t.Error(err)
	}
	n.await("what the command left is gone", gone(left))
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	reader, writer := io.Pipe()
	inputs, input := io.Pipe()
	sizes := make(chan session.Size, 1)
	done := make(chan said, 1)
	go func() {
		s, err := n.try(t.Context(), protocol.Command{
			Argv: []string{"/bin/sh"}, TTY: true, Rows: 33, Cols: 77, Env: map[string]string{"PS1": "", "TERM": "dumb"},
		}, session.Caller{Stdin: inputs, Stdout: writer, Resize: sizes})
		if err != nil {
			t.Error(err)
		}
		_ = writer.Close()
		done <- s
	}()
	late := time.AfterFunc(time.Minute, func() { _ = reader.CloseWithError(errors.New("nothing more came")) })
	defer late.Stop()
	var seen string // and not yet expected
	expect := func(what string) {
		t.Helper()
		buf := make([]byte, 1000)
		for {
			if _, rest, ok := strings.Cut(seen, what); ok {
				seen = rest
				return
			}
			k, err := reader.Read(buf)
			seen += string(buf[:k])
			if err != nil {
				t.Fatalf("%v before %q in %q", err, what, seen)
			}
		}
	}
	send := func(text string) {
		t.Helper()
		if _, err := io.WriteString(input, text); err != nil {
			t.Fatal(err)
		}
	}
	send("stty size; test -t 0 && test -t 2 && echo term'inal'\n")
	expect("33 77")
	expect("terminal")
	sizes <- session.Size{Rows: 40, Cols: 132}
	send("until stty size | grep '40 132'; do sleep 0.01; done; echo si'zed'\n")
	expect("sized")
	send("cat > /dev/null; echo inter'rupted'\n")
	send("sleep 1000\n\x03") // for cat; then the shell says nothing, so to be sure:
	send("\x03\necho go'ing'\n")
	expect("going")
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	send("exit 5\n")
	if s := <-done; s.exit.Code != 5 {
		t.Errorf("%+v", s)
	}
	_ = input.Close()

	// A caller that hangs up takes the shell and what runs in it along.
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer = io.Pipe()
	gone := make(chan error, 1)
	go func() {
		_, err := n.try(ctx, protocol.Command{Argv: []string{"sh", "-c", "sleep 1000 & echo $!; wait"}, TTY: true}, session.Caller{Stdout: writer})
		_ = writer.Close()
		gone <- err
	}()
	var pid int
	if _, err := fmt.Fscan(reader, &pid); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	cancel()
	<-gone
	n.await("the terminal's processes are gone", func() bool { _, err := proc.Read(pid); return err != nil })
}

// A worker that is killed takes the commands along, not the script.
func TestCommandOfKilledWorker(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("#!/bin/sh\nexec sleep 1000\n")
	n.runs(spec)
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := n.try(t.Context(), sh(spec.Run, "echo $$; exec sleep 1000"), session.Caller{Stdout: writer})
		_ = writer.Close()
		done <- err
	}()
	var pid int
	if _, err := fmt.Fscan(reader, &pid); err != nil {
		t.Fatal(err)
	}
	n.kill()
	if err := <-done; skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Error(err)
	}
	n.await("the command is gone", func() bool {
		p, err := proc.Read(pid)
		return err != nil || p.Zombie
	})
	n.start()
	if s := n.status(spec.Run); s.State != protocol.RunRunning {
		t.Errorf("%+v", s)
	}
	if s := n.call(sh(spec.Run, "echo again"), ""); s.out != "again\n" {
		t.Errorf("%+v", s)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	u, err := n.client.NodeUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if u.Node != "node1" || u.CPUs < 1 || u.CPUBusy <= 0 || u.Memory <= 0 || u.MemoryAll < u.Memory || u.Disk <= 0 ||
		u.DiskAll < u.Disk || u.DiskRead < 0 || u.NetIn < 0 || time.Since(u.Time) > time.Hour {
		t.Errorf("%+v", u)
	}
	info, err := n.client.Info(t.Context())
	if err != nil || info.Arch == "" {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	until := time.Unix(2_000_000_000, 0)
	if err := n.client.SetLease(t.Context(), until); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(n.dir, "lease"))
	if err != nil || string(data) != "2000000000\n" {
		t.Errorf("%q, %v", data, err)
	}
	if err := n.client.SetLease(t.Context(), time.Time{}); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Error(err)
	}
}
