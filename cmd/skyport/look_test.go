package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

// onNode puts a running job of ada's onto a node.
func onNode(t *testing.T, f *fakeCore) (worker *protocoltest.Worker, job skyport.JobID, partition skyport.PartitionID) {
	t.Helper()
	worker = protocoltest.New(t)
	code, out, errs := f.run("#!/bin/sh\n", "submit", "--name", "looked-at", "-")
	if code != 0 {
		t.Fatal(errs)
	}
	job = skyport.JobID(strings.TrimSpace(out))
	partition = skyport.NewPartitionID()
	names := skyport.NodeNames(partition, 1)
	f.Move(job, skyport.JobRunning)
	f.Change(job, func(j *skyport.Job) { j.NodeNames, j.Partition, j.Site = names, partition, "local" })
	client := protocol.NewClient(protocol.DialUnix(strings.TrimPrefix(worker.Endpoint(), "unix://")))
	t.Cleanup(client.Close)
	nodes := []skyport.Node{{Name: names[0], Role: skyport.RoleMain}}
	reach := api.Reach{Run: skyport.RunName(job, 1), Nodes: nodes, Worker: func(string) (*protocol.Client, error) { return client, nil }}
	f.SetReach(job, reach)
	reach.Run = ""
	f.SetPartition(partition, reach, adaID)
	f.Catalog.Partitions = []skyport.Partition{{ID: partition, Name: skyport.PartitionName(partition), State: skyport.PartitionBusy, Nodes: nodes}}
	return worker, job, partition
}

func TestExec(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	worker, job, partition := onNode(t, f)
	worker.OnCommand(func(_ context.Context, c protocol.Command, s *session.Served) session.Exit {
		if c.Argv[0] == "none" {
			exit := session.Failed(skyport.Errorf(skyport.CodeNotFound, "none: command not found"))
			exit.Code = 127
			return exit
		}
		input, err := io.ReadAll(s.Stdin)
		if err != nil {
			return session.Failed(err)
		}
		say(t, s.Stdout, "%s %q %s %s %s", c.Run, c.Argv, c.Env["A"], c.Dir, input)
		say(t, s.Stderr, "to stderr")
		return session.Exit{Code: 9}
	})
	run := skyport.RunName(job, 1)
	for _, test := range []struct {
		args []string
		code int
		out  string
		errs string
	}{
		{[]string{"exec", "--node", "main", "-e", "A=b=c", "--dir", "sub", "looked-at", "--", "x", "-y"}, 9, run + ` ["x" "-y"] b=c sub input`, "to stderr"},
		{[]string{"ssh", partition.Short(), "--", "x"}, 9, ` ["x"]   input`, "to stderr"},
		{[]string{"ssh", skyport.PartitionName(partition), "main", "--", "x"}, 9, ` ["x"]   input`, "to stderr"},
		{[]string{"exec", "@last", "--", "none"}, 127, "", "skyport: none: command not found\n"},
		{[]string{"exec", "no-such-job", "--", "x"}, 255, "", "skyport: find job"},
		{[]string{"exec", "@last", "--node", "compute9", "--", "x"}, 255, "", `skyport: there is no node "compute9"`},
		{[]string{"ssh", "0000", "--", "x"}, 255, "", "skyport: find partition"},
		{[]string{"exec", "@last", "x"}, exitUsage, "", "JOB -- COMMAND"},
		{[]string{"exec", "-t", "@last", "--", "x"}, exitUsage, "", "no terminal"},
		{[]string{"exec", "-e", "A", "@last", "--", "x"}, exitUsage, "", "NAME=VALUE"},
		{[]string{"attach", "@last"}, exitUsage, "", "no terminal"},
		{[]string{"ssh"}, exitUsage, "", "on which node"},
	} {
		code, out, errs := f.run("input", test.args...)
		if code != test.code || out != test.out || !strings.HasPrefix(errs, strings.SplitN(test.errs, "J", 2)[0]) && !strings.Contains(errs, test.errs) {
			t.Errorf("%q ends with %d: %q, %q", test.args, code, out, errs)
		}
	}
	f.Move(job, skyport.JobFinished)
	f.SetReach(job, api.Reach{Worker: func(string) (*protocol.Client, error) {
		return nil, skyport.Errorf(skyport.CodeConflict, "job %s is over", job)
	}})
	if code, _, errs := f.run("", "exec", "@last", "--", "x"); code != 255 || !strings.Contains(errs, "is over") {
		t.Errorf("a job that is over: %d, %q", code, errs)
	}
}

func say(t *testing.T, w io.Writer, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		t.Error(err)
	}
}

// syncBuffer is a buffer that somebody else writes to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A shell has the terminal for itself, and leaves it as it was.
func TestAttach(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.env["TERM"] = "vt100"
	worker, _, _ := onNode(t, f)
	worker.OnCommand(func(_ context.Context, c protocol.Command, s *session.Served) session.Exit {
		say(t, s.Stdout, "%v %d %d %s %d\r\n", c.TTY, c.Rows, c.Cols, c.Env["TERM"], len(c.Argv))
		key := make([]byte, 1)
		for key[0] != 'q' {
			if _, err := io.ReadFull(s.Stdin, key); err != nil {
				return session.Failed(err)
			}
			say(t, s.Stdout, "<%d>", key[0])
		}
		return session.Exit{Code: 4}
	})
	outer, inner, err := pty.Open()
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	defer outer.Close()
	defer inner.Close()
	if err := pty.Setsize(inner, &pty.Winsize{Rows: 33, Cols: 99}); err != nil {
		t.Fatal(err)
	}
	before, err := term.GetState(int(inner.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	var out, errs syncBuffer
	a := newApp(inner, &out, &errs)
	a.Env = func(name string) string { return f.env[name] }
	done := make(chan int, 1)
	go func() { done <- run(t.Context(), a, []string{"--spool", f.spool, "attach", "looked-at"}) }()
	eventually(t, func() bool { return strings.Contains(out.String(), "true 33 99 vt100 0\r\n") })
	if _, err := outer.WriteString("\x03a~~q"); err != nil { // Ctrl-C is the shell's
		t.Fatal(err)
	}
	select {
	case code := <-done:
		if code != 4 || !strings.HasSuffix(out.String(), "<3><97><126><126><113>") || errs.String() != "" {
			t.Errorf("ends with %d: %q, %q", code, out.String(), errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("attach hangs: %q, %q", out.String(), errs.String())
	}
	after, err := term.GetState(int(inner.Fd()))
	if err != nil || fmt.Sprint(*after) != fmt.Sprint(*before) {
		t.Errorf("the terminal is not as it was: %v", err)
	}
	if _, err := outer.WriteString("\n"); err != nil { // ends the read that waits still
		t.Fatal(err)
	}
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to that")
		}
	}
}

func TestEscapes(t *testing.T) {
	t.Parallel()
	for typed, want := range map[string]string{
		"plain":      "plain",
		"a~.b":       "a~.b",
		"~.":         "!",
		"x\r~.y":     "x\r!",
		"\n~~.":      "\n~.",
		"~a~.":       "~a~.",
		"\r~":        "\r~",
		"ls\r~\r~.z": "ls\r~\r!",
	} {
		for name, in := range map[string]io.Reader{"at once": strings.NewReader(typed), "by key": oneByOne{strings.NewReader(typed)}} {
			hungUp := ""
			e := &escapes{in: in, fresh: true, hangUp: func() { hungUp = "!" }}
			got, err := io.ReadAll(e)
			if err != nil || string(got)+hungUp != want {
				t.Errorf("%q %s: %q, %v; want %q", typed, name, string(got)+hungUp, err, want)
			}
		}
	}
}

type oneByOne struct{ r io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.r.Read(p[:1]) }

func TestTop(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	worker, job, _ := onNode(t, f)
	usage := protocol.NodeUsage{
		Time: noon, CPUs: 4, CPUBusy: 100, Memory: 1 << 30, MemoryAll: 4 << 30, Disk: 1 << 30, DiskAll: 10 << 30,
		GPUs: []skyport.GPUUsage{{Busy: 50, Memory: 1 << 30}},
	}
	worker.SetUsage(usage, protocol.Sample{Time: noon, CPU: 150, Memory: 1 << 29})
	code, out, errs := f.run("", "top", "@last", "--once", "--interval", "500ms")
	for _, want := range []string{"looked-at", "NODE", "JOB CPU", "150%", "512.0 MiB", "1.0 GiB / 4.0 GiB", "50% 1.0 GiB"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if code != 0 || errs != "" || strings.Contains(out, "\x1b") {
		t.Errorf("ends with %d, says %q", code, errs)
	}
	if code, out, _ := f.run("", "top", "@last", "--once", "--json", "--interval", "500ms"); code != 0 || !strings.Contains(out, `"cpus":4`) {
		t.Errorf("json: %d, %s", code, out)
	}
	if code, _, errs := f.run("", "top", "@last", "--interval", "1ms"); code != exitUsage || !strings.Contains(errs, "--interval") {
		t.Errorf("too often: %d, %q", code, errs)
	}
	// Rates.
	later := usage
	later.Time, later.CPUBusy, later.NetIn, later.DiskRead = noon.Add(2*time.Second), 104, 2<<20, 0
	usage.DiskRead = 5
	all := loads(skyport.JobUsage{Nodes: []skyport.JobNodeUsage{{Node: "n", Usage: &usage}}},
		skyport.JobUsage{Nodes: []skyport.JobNodeUsage{{Node: "n", Usage: &later}, {Node: "m", Error: "away"}}})
	if all[0].CPUPercent != 50 || all[0].NetIn != 1<<20 || all[0].DiskRead != 0 || all[1].Error != "away" {
		t.Errorf("loads: %+v", all)
	}
	f.Move(job, skyport.JobFinished)
	f.SetReach(job, api.Reach{Worker: func(string) (*protocol.Client, error) { return nil, nil }})
}

func TestCp(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	worker, job, _ := onNode(t, f)
	work, here := worker.Work(skyport.RunName(job, 1)), t.TempDir()
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(here, "a.txt"), "a")
	write(filepath.Join(here, "tree/b.txt"), "b")
	write(filepath.Join(work, "out/c.txt"), "c")
	write(filepath.Join(work, "there/is"), "x")
	for _, test := range []struct{ src, dst, path, want string }{
		{here + "/a.txt", "@last:", work + "/a.txt", "a"},
		{here + "/a.txt", "@last:new.txt", work + "/new.txt", "a"},
		{here + "/a.txt", "@last:deep/er/", work + "/deep/er/a.txt", "a"},
		{here + "/a.txt", "@last:there", work + "/there/a.txt", "a"},
		{here + "/tree", "@last:copy", work + "/copy/b.txt", "b"},
		{here + "/tree", "@last:copy/", work + "/copy/tree/b.txt", "b"},
		{"@last:out/c.txt", here, here + "/c.txt", "c"},
		{"@last:out/c.txt", here + "/d.txt", here + "/d.txt", "c"},
		{"@last:./out/", here + "/fetched", here + "/fetched/c.txt", "c"},
		{"@last:out", here + "/fetched", here + "/fetched/out/c.txt", "c"},
		{"@last:", here + "/all", here + "/all/out/c.txt", "c"},
	} {
		code, out, errs := f.run("", "cp", test.src, test.dst)
		if content, err := os.ReadFile(test.path); code != 0 || err != nil || string(content) != test.want {
			t.Errorf("cp %s %s ends with %d: %q, %q; %v", test.src, test.dst, code, out, errs, err)
		}
	}
	for args, want := range map[[2]string]int{
		{here + "/a.txt", here + "/b.txt"}:   exitUsage,
		{"@last:a", "@last:b"}:               exitUsage,
		{here + "/a.txt", "@last:../evil"}:   exitUsage,
		{here + "/a.txt", "@last:/etc/evil"}: exitUsage,
		{"@last:../../etc/passwd", here}:     exitUsage,
		{here + "/none", "@last:"}:           exitRefused,
		{"@last:none", here}:                 exitNotFound,
		{"nobody:x", here}:                   exitNotFound,
	} {
		if code, _, errs := f.run("", "cp", args[0], args[1]); code != want || errs == "" {
			t.Errorf("cp %q ends with %d, want %d: %q", args, code, want, errs)
		}
	}
	if code, out, _ := f.run("", "cp", "--json", "@last:out/c.txt", here); code != 0 || !strings.Contains(out, `"files": 1`) {
		t.Errorf("json: %d, %s", code, out)
	}
}
