package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/shim"
	"github.com/openworkload/skyport/internal/workerbin/workertest"
)

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
