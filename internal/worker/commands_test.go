package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
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

func TestCommand(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("#!/bin/sh\ngrep SigIgn /proc/self/status >sig\necho in the script > made\nexec sleep 1000\n")
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
		{sh(spec.Run, "cat sig"), "", said{out: "SigIgn:\t0000000000000000\n"}},
		{sh(spec.Run, "cat made; pwd"), "", said{out: "in the script\n" + work + "\n"}},
		{sh(spec.Run, `echo "$OF_THE_JOB $SWM_RUN"`), "", said{out: "job's " + spec.Run + "\n"}},
		{sh(spec.Run, "cat; echo oops >&2; exit 3"), "input", said{out: "input", err: "oops\n", exit: session.Exit{Code: 3}}},
		{sh(spec.Run, "kill -9 $$"), "", said{exit: session.Exit{Code: 137, Signal: 9}}},
		{protocol.Command{Run: spec.Run, Argv: []string{"sh", "-c", "pwd; echo $A"}, Dir: "/", Env: map[string]string{"A": "b"}}, "", said{out: "/\nb\n"}},
		{sh(spec.Run, "umask; grep SigIgn /proc/self/status"), "", said{out: "0022\nSigIgn:\t0000000000000000\n"}},
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

// A member needs no process; commands can be run in it until it is stopped.
func TestMember(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("")
	spec.Member, spec.Start = true, false
	spec.Peers = []protocol.Peer{{Name: "main"}, {Name: "node1"}}
	n.prepare(spec)
	if s := n.status(spec.Run); s.State != protocol.RunStaging {
		t.Errorf("%+v", s)
	}
	if _, err := n.client.Start(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	n.await("the member runs", func() bool { return n.status(spec.Run).State == protocol.RunRunning })
	began := n.status(spec.Run).Started
	n.kill()
	n.start()
	n.await("the member runs on", func() bool { return n.status(spec.Run).State == protocol.RunRunning })
	if s := n.status(spec.Run); !s.Started.Equal(began) {
		t.Errorf("it began at %v and at %v", began, s.Started)
	}
	if s := n.call(sh(spec.Run, "cat $SWM_JOB_HOSTFILE"), ""); !strings.HasPrefix(s.out, "main slots=") {
		t.Errorf("%+v", s)
	}
	if err := n.client.Stop(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped {
		t.Errorf("%+v", s)
	}
}

// A member that the node's boot ended is lost.
func TestMemberOfBefore(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script("")
	spec.Member = true
	n.runs(spec)
	n.kill()
	dir := filepath.Join(n.dir, "runs", spec.Run)
	if err := shim.Write(dir, shim.BeganFile, shim.Began{BootID: "of before"}); err != nil {
		t.Fatal(err)
	}
	n.start()
	if s := n.ended(spec.Run); s.State != protocol.RunLost || !strings.Contains(s.Details, "booted") {
		t.Errorf("%+v", s)
	}
}

// newNamed is newNode for a node of another name.
func newNamed(t *testing.T, name string) *node {
	t.Helper()
	n := newNode(t)
	n.kill()
	var log bytes.Buffer
	cmd := exec.Command(workertest.Build(t), "serve", "--dir", n.dir, "--node", name)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.cmd, n.gone = cmd, make(chan struct{})
	go func(gone chan struct{}) {
		_ = cmd.Wait() // says only that it was killed
		close(gone)
	}(n.gone)
	n.await(name+" answers", func() bool {
		info, err := n.client.Info(context.Background())
		return err == nil && info.Node == name
	})
	return n
}

// cluster is a job on two nodes that are this machine: its script waits.
func cluster(t *testing.T, text string) (a, b *node, spec protocol.RunSpec) {
	t.Helper()
	a, b = newNamed(t, "alpha"), newNamed(t, "beta")
	spec = script(text)
	spec.CPUs = 2
	spec.Nodes = []string{"alpha", "beta"}
	spec.Peers = []protocol.Peer{
		{Name: "alpha", Endpoint: "unix://" + filepath.Join(a.dir, "worker.sock")},
		{Name: "beta", Endpoint: "unix://" + filepath.Join(b.dir, "worker.sock")},
	}
	member := spec
	member.Member = true
	b.runs(member)
	return a, b, spec
}

const waits = "#!/bin/sh\nexec sleep 1000\n"

func TestTasks(t *testing.T) {
	t.Parallel()
	a, b, spec := cluster(t, waits)
	a.runs(spec)
	text := `swm-task --label --ntasks-per-node 2 -- sh -c '
		echo "$SWM_TASK_RANK/$SWM_TASK_SIZE local $SWM_TASK_LOCAL_RANK/$SWM_TASK_LOCAL_SIZE node $SWM_TASK_NODE_RANK/$SWM_TASK_NODES $RANK $WORLD_SIZE $FOO"
		echo to stderr >&2; pwd; exit $SWM_TASK_RANK'`
	s := a.call(sh(spec.Run, "export FOO='set by the script'; "+text), "")
	if s.exit.Code != 3 {
		t.Errorf("%+v", s)
	}
	lines := strings.Split(strings.TrimSpace(s.out), "\n")
	slices.Sort(lines)
	work := func(n *node) string { return filepath.Join(n.dir, "runs", spec.Run, "work") }
	want := []string{
		"0: 0/4 local 0/2 node 0/2 0 4 set by the script", "0: " + work(a),
		"1: 1/4 local 1/2 node 0/2 1 4 set by the script", "1: " + work(a),
		"2: 2/4 local 0/2 node 1/2 2 4 set by the script", "2: " + work(b),
		"3: 3/4 local 1/2 node 1/2 3 4 set by the script", "3: " + work(b),
	}
	slices.Sort(want)
	if !slices.Equal(lines, want) {
		t.Errorf("%s", s.out)
	}
	for _, line := range []string{"0: to stderr\n", "3: to stderr\n", "swm-task: task 3 on beta ended with exit code 3\n"} {
		if !strings.Contains(s.err, line) {
			t.Errorf("no %q in %q", line, s.err)
		}
	}
	for name, content := range map[string]string{"stderr-task0.log": "to stderr\n", "stdout-task2.log": "2/4 local 0/2 node 1/2 2 4 set by the script\n" + work(b) + "\n"} {
		if data, err := os.ReadFile(filepath.Join(work(a), name)); err != nil || string(data) != content {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}

	tests := map[string]said{
		"swm-task sh -c 'echo $SWM_TASK_RANK' | sort":               {out: "0\n1\n"},
		"swm-task -n 1 sh -c 'printf unended'":                      {out: "unended"},
		"swm-task -n 1 cat < /etc/passwd":                           {},
		"mkdir sub; cd sub; swm-task -n 1 pwd":                      {out: work(a) + "/sub\n"},
		"swm-task -n 3 true":                                        {exit: session.Exit{Code: 255}},
		"swm-task -n 0 true 2>/dev/null":                            {exit: session.Exit{Code: 2}},
		"swm-task 2>/dev/null":                                      {exit: session.Exit{Code: 2}},
		"swm-task --help | grep -c Examples":                        {out: "1\n"},
		"swm-task -n 2 no-such-program":                             {exit: session.Exit{Code: 127}},
		"swm-task -n 1 sh -c 'kill -TERM $$'":                       {exit: session.Exit{Code: 143}},
		"env -u SWM_JOB_HOSTFILE swm-task true":                     {exit: session.Exit{Code: 255}},
		"swm-rsh beta pwd":                                          {out: work(b) + "\n"},
		"swm-rsh -x -o Some=thing -l me beta echo 'a  b'":           {out: "a b\n"},
		"echo in | swm-rsh -p22 you@beta 'cat; exit 9'":             {out: "in\n", exit: session.Exit{Code: 9}},
		"swm-rsh alpha -n 'cat; pwd'":                               {out: work(a) + "\n"},
		"swm-rsh gamma true":                                        {exit: session.Exit{Code: 255}},
		"swm-rsh beta":                                              {exit: session.Exit{Code: 255}},
		"swm-rsh beta 'swm-rsh alpha hostname >/dev/null; exit $?'": {},
	}
	for text, want := range tests {
		got := a.call(sh(spec.Run, text), "")
		if want.exit.Code != 0 && got.err == "" && !strings.Contains(text, "2>") && want.exit.Code != 9 {
			t.Errorf("%s: said nothing", text)
		}
		got.err = ""
		if got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	if s := a.call(sh(spec.Run, "swm-task -n 3 true"), ""); !strings.Contains(s.err, "--ntasks-per-node 2") {
		t.Errorf("%+v", s)
	}
	if s := a.call(sh(spec.Run, "swm-task no-such-program"), ""); !strings.Contains(s.err, "task 1 on beta: no-such-program: command not found") {
		t.Errorf("%+v", s)
	}
}

// Signals reach all tasks; a task that fails takes the others along when that is
// wanted; tasks end when swm-task is killed.
func TestTasksEnd(t *testing.T) {
	t.Parallel()
	a, b, spec := cluster(t, waits)
	a.runs(spec)
	s := a.call(sh(spec.Run, `swm-task sh -c 'trap "echo got it; exit 7" USR1; touch ready; while :; do sleep 0.01; done' &
		until [ -e ready ] && [ -e `+filepath.Join(b.dir, "runs", spec.Run, "work/ready")+` ]; do sleep 0.01; done
		kill -USR1 $!; wait $!`), "")
	if s.exit.Code != 7 || s.out != "got it\ngot it\n" {
		t.Errorf("%+v", s)
	}
	s = a.call(sh(spec.Run, `swm-task -k sh -c '[ $SWM_TASK_RANK = 1 ] && exit 3; exec sleep 1000'`), "")
	if s.exit.Code != 143 || !strings.Contains(s.err, "ends the other tasks") {
		t.Errorf("%+v", s)
	}
	s = a.call(sh(spec.Run, `swm-task sh -c 'echo $$ > pid.tmp; mv pid.tmp pid; exec sleep 1000' &
		until [ -e pid ] && [ -e `+filepath.Join(b.dir, "runs", spec.Run, "work/pid")+` ]; do sleep 0.01; done
		kill -9 $!`), "")
	for _, n := range []*node{a, b} {
		data, err := os.ReadFile(filepath.Join(n.dir, "runs", spec.Run, "work/pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		n.await("the task is gone", func() bool {
			p, err := proc.Read(pid)
			return err != nil || p.Zombie
		})
	}
}

// Many tasks, from the script itself; and one whose node is gone.
func TestManyTasks(t *testing.T) {
	t.Parallel()
	a, b, spec := cluster(t, "#!/bin/sh\nswm-task --ntasks-per-node 50 sh -c 'echo $SWM_TASK_RANK' | sort -n | tail -1\nexit 4\n")
	a.prepare(spec)
	if s := a.ended(spec.Run); s.ExitCode != 4 || a.log(spec.Run, "stdout") != "99\n" || a.log(spec.Run, "stderr") != "" {
		t.Errorf("%+v, %q, %q", s, a.log(spec.Run, "stdout"), a.log(spec.Run, "stderr"))
	}
	again := script(waits)
	again.Nodes, again.Peers = spec.Nodes, spec.Peers
	a.runs(again)
	b.kill()
	s := a.call(sh(again.Run, "swm-task echo hello"), "")
	if s.exit.Code != 255 || s.out != "hello\n" || !strings.Contains(s.err, "task 1 on beta: reach node beta") {
		t.Errorf("%+v", s)
	}
}

// What a task of the script uses, and where it listens, is the job's.
func TestTaskIsOfTheJob(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	port := freePort(t)
	a, b, spec := cluster(t, fmt.Sprintf("#!/bin/sh\nswm-task python3 -c '\nimport os, socket, time\n"+
		"if os.environ[\"RANK\"] == \"0\": s = socket.create_server((\"127.0.0.1\", %d))\nwhile True: pass'\n", port))
	spec.Request.Ports = []skyport.Port{{Number: port, Direction: skyport.In}}
	a.prepare(spec)
	a.await("the task listens", func() bool {
		ports := a.status(spec.Run).Ports
		return len(ports) == 1 && ports[0].Address == "127.0.0.1"
	})
	for _, n := range []*node{a, b} {
		n.await("the task's use is seen", func() bool {
			samples, err := n.client.Metrics(t.Context(), spec.Run)
			return err == nil && len(samples) > 0 && samples[len(samples)-1].CPU > 1 && samples[len(samples)-1].Memory > 1<<20
		})
	}
}

// Where the nodes share a directory, the main node makes the run's work directory
// in it, the members wait for that, and it goes with the run.
func TestSharedWork(t *testing.T) {
	t.Parallel()
	a, b := newNamed(t, "alpha"), newNamed(t, "beta")
	common := t.TempDir()
	for _, n := range []*node{a, b} {
		if err := os.Symlink(common, filepath.Join(n.dir, "shared")); err != nil {
			t.Fatal(err)
		}
	}
	spec := script("#!/bin/sh\necho from the script; swm-task sh -c 'pwd -P; cat input; echo $SWM_TASK_RANK > rank$SWM_TASK_RANK'; ls; exec sleep 1000\n")
	spec.Start = false
	spec.Nodes = []string{"alpha", "beta"}
	spec.Peers = []protocol.Peer{
		{Name: "alpha", Endpoint: "unix://" + filepath.Join(a.dir, "worker.sock")},
		{Name: "beta", Endpoint: "unix://" + filepath.Join(b.dir, "worker.sock")},
	}
	member := spec
	member.Member, member.Start = true, true
	b.prepare(member)
	b.await("the member waits", func() bool { return strings.Contains(b.status(spec.Run).Details, "waits for") })
	a.prepare(spec)
	b.await("the member runs", func() bool { return b.status(spec.Run).State == protocol.RunRunning })
	input := write(t, t.TempDir()+"/input", "of the user\n")
	if err := a.put(spec.Run, ".", input); err != nil {
		t.Fatal(err)
	}
	if _, err := a.client.Start(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(common, spec.Run, "work")
	want := "from the script\n" + strings.Repeat(work+"\nof the user\n", 2) + "input\nrank0\nrank1\n"
	a.await("the script saw what the tasks wrote", func() bool {
		out := strings.Split(a.log(spec.Run, "stdout"), "\n")
		slices.Sort(out)
		wanted := strings.Split(want+"stderr-task0.log\nstderr-task1.log\nstderr.log\nstdout-task0.log\nstdout-task1.log\nstdout.log\n", "\n")
		slices.Sort(wanted)
		return slices.Equal(out, wanted)
	})
	if err := b.client.Remove(t.Context(), spec.Run); err != nil {
		t.Error(err)
	}
	checkFile(t, filepath.Join(work, "rank1"), "1\n")
	if err := a.client.Remove(t.Context(), spec.Run); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(common); err != nil || len(left) > 0 {
		t.Errorf("left in the shared directory: %v, %v", left, err)
	}
}
