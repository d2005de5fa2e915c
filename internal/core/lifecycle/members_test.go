package lifecycle_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// members waits until the compute nodes of a job's partition have their part of
// its run, and returns the partition.
func (h *house) members(id skyport.JobID, nodes int) skyport.Partition {
	h.Helper()
	var p skyport.Partition
	h.until("its members are there", func() bool {
		job := h.job(id)
		if job.Partition == "" {
			return false
		}
		var err error
		if p, err = h.store.Partition(h.Context(), job.Partition); err != nil {
			h.Fatal(err)
		}
		for _, n := range p.Nodes[1:] {
			w := h.node(n.Name)
			if w == nil {
				return false
			}
			if _, known := w.Status(skyport.RunName(id, job.Attempt)); !known {
				return false
			}
		}
		return len(p.Nodes) == nodes
	})
	return p
}

// The script of a job of several nodes starts when all nodes have their part, and
// all of them forget it at the end.
func TestMembers(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{Nodes: 3})
	main, run := h.runs(id)
	p := h.members(id, 3)
	spec, _ := main.Spec(run)
	if spec.Member || len(spec.Peers) != 3 || spec.Peers[0].Name != p.Nodes[0].Name {
		t.Errorf("the main node was told %+v", spec)
	}
	for _, n := range p.Nodes[1:] {
		if spec, _ := h.node(n.Name).Spec(run); !spec.Member || len(spec.Script) > 0 || len(spec.Peers) != 3 {
			t.Errorf("node %s was told %+v", n.Name, spec)
		}
	}
	main.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
	for _, n := range p.Nodes {
		if left := h.node(n.Name).Runs(); len(left) > 0 {
			t.Errorf("node %s still has %q", n.Name, left)
		}
	}
}

// A node that lost its part is the loss of the job, by name; one that refuses it
// ends the job.
func TestLostMembers(t *testing.T) {
	t.Parallel()
	for _, state := range []protocol.RunState{protocol.RunLost, protocol.RunEnded, protocol.RunRefused} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := build(t)
			id := h.submit(skyport.Request{Nodes: 2})
			_, run := h.runs(id)
			victim := h.members(id, 2).Nodes[1].Name
			h.node(victim).Change(run, func(s *protocol.RunStatus) { s.State, s.Details = state, "its own reason" })
			job := h.comesTo(id, skyport.JobFailed)
			if !strings.Contains(job.Details, victim) || !strings.Contains(job.Details, "its own reason") {
				t.Errorf("it ended with %q", job.Details)
			}
			h.nothingIsLeft()
		})
	}
}

// A job of several nodes that may try again does so after the loss of one.
func TestAgainAfterALostMember(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{Nodes: 2, Retries: 1})
	_, run := h.runs(id)
	h.node(h.members(id, 2).Nodes[1].Name).Change(run, func(s *protocol.RunStatus) { s.State = protocol.RunLost })
	h.until("a second attempt runs", func() bool { job := h.job(id); return job.Attempt == 2 && job.State == skyport.JobRunning })
	main, run := h.runs(id)
	main.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
}

// The keys of a partition are in the database, sealed, for as long as it lives.
func TestKeys(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{})
	main, run := h.runs(id)
	p := h.job(id).Partition
	box, err := h.store.PartitionKeys(h.Context(), p)
	if err != nil || bytes.Contains(box, []byte("PRIVATE")) {
		t.Fatalf("its keys are %q, %v", box, err)
	}
	h.restart()
	main.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
	if _, err := h.store.PartitionKeys(h.Context(), p); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("its keys are still there: %v", err)
	}
	if err := h.store.Update(h.Context(), func(*store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(h.dir, "db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("OPENSSH PRIVATE KEY")) {
			t.Errorf("%s holds a key in the clear", path)
		}
	}
}

// Who looks in reaches the nodes of jobs that have some, by name.
func TestReach(t *testing.T) {
	t.Parallel()
	h := build(t)
	id := h.submit(skyport.Request{Nodes: 2})
	main, run := h.runs(id)
	p := h.members(id, 2)
	r, err := h.engine.Reach(id)
	if err != nil || r.Run != run || len(r.Nodes) != 2 {
		t.Fatalf("the way to it is %+v, %v", r, err)
	}
	for _, name := range []string{"", p.Nodes[0].Name, p.Nodes[1].Name} {
		w, err := r.Worker(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Info(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("node %q: %v", name, err)
		}
	}
	if _, err := r.Worker("elsewhere"); skyport.CodeOf(err) != skyport.CodeNotFound || !strings.Contains(skyport.HintOf(err), p.Nodes[1].Name) {
		t.Errorf("a node that is not there: %v", err)
	}
	if _, err := h.engine.ReachPartition(p.ID); err != nil {
		t.Error(err)
	}
	if jobs := h.engine.JobsOn(p.ID); len(jobs) != 1 || jobs[0].ID != id {
		t.Errorf("the jobs on it are %+v", jobs)
	}
	main.End(run, 0)
	h.comesTo(id, skyport.JobFinished)
	h.nothingIsLeft()
	if _, err := h.engine.Reach(id); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("the way to a job that is over: %v", err)
	}
	if _, err := h.engine.ReachPartition(p.ID); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("the way to a partition that is gone: %v", err)
	}
}
