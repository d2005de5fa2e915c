package api_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

// house is core in memory over TLS, with one node and a job of ann's on it.
type house struct {
	*apitest.Backend
	worker    *protocoltest.Worker
	ann, bob  *client.Client
	job       skyport.JobID
	run       string
	partition skyport.PartitionID
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{Backend: &apitest.Backend{}, worker: protocoltest.New(t), partition: skyport.NewPartitionID()}
	server := apitest.Serve(t, h.Backend)
	as := func(u skyport.User) *client.Client {
		cert, key := server.User(u)
		c, err := client.New(client.Options{URL: server.URL(), CAFile: server.CAFile(), CertFile: cert, KeyFile: key, Patience: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	h.ann, h.bob = as(ann), as(bob)
	job, err := h.ann.Submit(t.Context(), client.Submission{Script: []byte("#!/bin/sh\n")})
	if err != nil {
		t.Fatal(err)
	}
	h.job, h.run = job.ID, skyport.RunName(job.ID, 1)
	socket := strings.TrimPrefix(h.worker.Endpoint(), "unix://")
	worker := protocol.NewClient(protocol.DialUnix(socket))
	t.Cleanup(worker.Close)
	reach := api.Reach{
		Run: h.run, Nodes: []skyport.Node{{Name: "n-main", Role: skyport.RoleMain}},
		Worker: func(node string) (*protocol.Client, error) {
			if node != "" && node != "n-main" {
				return nil, skyport.Errorf(skyport.CodeNotFound, "there is no node %s", node)
			}
			return worker, nil
		},
	}
	h.SetReach(h.job, reach)
	reach.Run = ""
	h.SetPartition(h.partition, reach, ann.ID)
	return h
}

func TestCommandsReachTheNode(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.worker.OnCommand(func(_ context.Context, c protocol.Command, s *session.Served) session.Exit {
		input, err := io.ReadAll(s.Stdin)
		if err != nil {
			return session.Failed(err)
		}
		sig, size := <-s.Signals, <-s.Resize
		if sig != syscall.SIGUSR1 || size.Cols != 77 {
			t.Errorf("signal %v, size %v", sig, size)
		}
		if _, err := io.WriteString(s.Stdout, c.Run+" "+strings.Join(c.Argv, " ")+" "+c.Env["A"]+" "+string(input)); err != nil {
			t.Error(err)
		}
		if _, err := io.WriteString(s.Stderr, "err"); err != nil {
			t.Error(err)
		}
		return session.Exit{Code: 7}
	})
	for _, node := range []string{"", "n-main"} {
		signals, sizes := make(chan syscall.Signal, 1), make(chan client.Size, 1)
		signals <- syscall.SIGUSR1
		sizes <- client.Size{Rows: 5, Cols: 77}
		var out, errs bytes.Buffer
		exit, err := h.ann.Exec(t.Context(), h.job, node, client.Command{Argv: []string{"x", "y"}, Env: map[string]string{"A": "b"}}, client.Streams{
			Stdin: strings.NewReader("input"), Stdout: &out, Stderr: &errs, Signals: signals, Resize: sizes,
		})
		if err != nil || exit.Code != 7 || out.String() != h.run+" x y b input" || errs.String() != "err" {
			t.Errorf("on node %q: %+v, %v, %q, %q", node, exit, err, out.String(), errs.String())
		}
	}
	none := client.Streams{}
	if _, err := h.ann.Exec(t.Context(), h.job, "other", client.Command{}, none); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("another node: %v", err)
	}
	if _, err := h.bob.Exec(t.Context(), h.job, "", client.Command{}, none); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("of a stranger: %v", err)
	}
	h.worker.OnCommand(func(context.Context, protocol.Command, *session.Served) session.Exit {
		return session.Failed(skyport.Errorf(skyport.CodeNotFound, "no such command").WithHint("look again"))
	})
	if exit, err := h.ann.Exec(t.Context(), h.job, "", client.Command{}, none); skyport.CodeOf(err) != skyport.CodeNotFound || skyport.HintOf(err) != "look again" || exit.Code != 255 {
		t.Errorf("a command that cannot be started: %+v, %v", exit, err)
	}
	h.worker.Down()
	if _, err := h.ann.Exec(t.Context(), h.job, "", client.Command{}, none); skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("a node that is away: %v", err)
	}
}

// A caller that goes away takes its command along.
func TestACommandEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	began, ended := make(chan struct{}), make(chan struct{})
	h.worker.OnCommand(func(ctx context.Context, _ protocol.Command, _ *session.Served) session.Exit {
		close(began)
		<-ctx.Done()
		close(ended)
		return session.Exit{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := h.ann.Exec(ctx, h.job, "", client.Command{}, client.Streams{}); err == nil {
		t.Error("a command whose caller went away succeeds")
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the command goes on")
	}
}

func TestAPartitionIsForTheOneUserWhoseJobsAreThere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	began := make(chan struct{}, 1)
	h.worker.OnCommand(func(ctx context.Context, c protocol.Command, _ *session.Served) session.Exit {
		if len(c.Argv) > 0 {
			return session.Exit{Code: 3}
		}
		began <- struct{}{}
		<-ctx.Done()
		return session.Exit{}
	})
	quick := client.Command{Argv: []string{"x"}}
	if exit, err := h.ann.ExecOn(t.Context(), h.partition, "n-main", quick, client.Streams{}); err != nil || exit.Code != 3 {
		t.Errorf("its user: %+v, %v", exit, err)
	}
	if _, err := h.bob.ExecOn(t.Context(), h.partition, "", quick, client.Streams{}); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := h.ann.ExecOn(t.Context(), skyport.NewPartitionID(), "", quick, client.Streams{}); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("no partition: %v", err)
	}
	// A job of another user comes while a shell is open.
	theirs, err := h.bob.Submit(t.Context(), client.Submission{Script: []byte("#!/bin/sh\n")})
	if err != nil {
		t.Fatal(err)
	}
	reach, err := h.ReachPartition(h.partition)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.ann.ExecOn(t.Context(), h.partition, "", client.Command{}, client.Streams{})
		failed <- err
	}()
	<-began
	h.SetPartition(h.partition, reach, ann.ID, bob.ID)
	h.Emit(theirs.ID, skyport.Event{Kind: skyport.EventDetails, Partition: h.partition})
	select {
	case err := <-failed:
		if err == nil {
			t.Error("the shell ended as if by itself")
		}
	case <-time.After(20 * time.Second):
		t.Error("the shell stays open")
	}
	h.SetPartition(h.partition, reach)
	if _, err := h.ann.ExecOn(t.Context(), h.partition, "", quick, client.Streams{}); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("nobody's: %v", err)
	}
}

func TestUsageOfAJob(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	now := time.Now().UTC()
	h.worker.SetUsage(protocol.NodeUsage{Time: now, Node: "what it calls itself", CPUs: 4, CPUBusy: 12.5},
		protocol.Sample{Time: now.Add(-time.Second), CPU: 10}, protocol.Sample{Time: now, CPU: 99, Memory: 5})
	usage, err := h.ann.Usage(t.Context(), h.job)
	if err != nil || usage.Job != h.job || len(usage.Nodes) != 1 {
		t.Fatalf("%+v, %v", usage, err)
	}
	n := usage.Nodes[0]
	if n.Node != "n-main" || n.Role != skyport.RoleMain || n.Error != "" || n.Usage == nil || n.Usage.CPUBusy != 12.5 || n.Usage.Node != "n-main" || n.Job == nil || n.Job.CPU != 99 {
		t.Errorf("%+v", n)
	}
	h.worker.Down()
	usage, err = h.ann.Usage(t.Context(), h.job)
	if err != nil || len(usage.Nodes) != 1 || usage.Nodes[0].Usage != nil || !strings.Contains(usage.Nodes[0].Error, "n-main does not answer") {
		t.Errorf("a node that is away: %+v, %v", usage, err)
	}
	if _, err := h.bob.Usage(t.Context(), h.job); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("of a stranger: %v", err)
	}
}

func TestFilesOfAJobGoBothWays(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB: more than travels with a manifest
	for name, content := range map[string][]byte{"tree/a": []byte("a"), "tree/sub/b": []byte("b"), "big": big} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	work := h.worker.Work(h.run)
	same := func(path string, want []byte) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, %v; want %d", path, len(got), err, len(want))
		}
	}
	if _, err := h.ann.CopyTo(t.Context(), h.job, filepath.Join(dir, "big"), ".", "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ann.CopyTo(t.Context(), h.job, filepath.Join(dir, "tree"), "in/deep", "other", nil); err != nil {
		t.Fatal(err)
	}
	same(filepath.Join(work, "big"), big)
	same(filepath.Join(work, "in/deep/other/sub/b"), []byte("b"))

	back := filepath.Join(dir, "back")
	if _, err := h.ann.CopyFrom(t.Context(), h.job, "big", back, "", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ann.CopyFrom(t.Context(), h.job, "in/deep/other", back, "renamed", nil); err != nil {
		t.Fatal(err)
	}
	same(filepath.Join(back, "big"), big)
	same(filepath.Join(back, "renamed/a"), []byte("a"))
	if left, err := os.ReadDir(back); err != nil || len(left) != 2 {
		t.Errorf("there is more than what was copied: %v, %v", left, err)
	}
	if _, err := h.ann.CopyFrom(t.Context(), h.job, "none", back, "", nil); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := h.bob.CopyFrom(t.Context(), h.job, "big", back, "", nil); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("of a stranger: %v", err)
	}
}

// What a caller puts into the path of a copy stays in the copy's part of it.
func TestPathsOfCopiesLeadNowhereElse(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	job := submit(t, h, "ann")
	var asked []string
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.EscapedPath())
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	defer func() { server.Close(); <-done }()
	worker := protocol.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	})
	defer worker.Close()
	b.SetReach(job, api.Reach{Run: "run.1", Worker: func(string) (*protocol.Client, error) { return worker, nil }})
	base := "/v1/jobs/" + string(job) + "/files/get/"
	for _, evil := range []string{
		"..%2F..%2Foutputs/manifest", "%2E%2E/manifest", "YQ/..%2F..%2F..%2Fother.1", "YQ/%2E%2E/%2E%2E/x", "YQ/manifest%3Fx", "YQ/a;b", "=/manifest", "%00/manifest",
	} {
		if r := call(t, h, "ann", http.MethodGet, base+evil, ""); r.status < 300 {
			t.Errorf("%s: %d", evil, r.status)
		}
	}
	if len(asked) != 0 {
		t.Errorf("the node was asked for %q", asked)
	}
	call(t, h, "ann", http.MethodGet, base+"YQ/manifest?eager=1", "")
	if len(asked) != 1 || asked[0] != "/v1/runs/run.1/files/get/YQ/manifest" {
		t.Errorf("the node was asked for %q", asked)
	}
}
