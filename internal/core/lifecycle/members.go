package lifecycle

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// This file is about the compute nodes of a job of several nodes: each gets a
// member of the run, in which commands of the job can run. The script starts
// when all members are there, and the job is lost when one is.

// member is what a compute node is told of a run.
func member(spec protocol.RunSpec) protocol.RunSpec {
	spec.Member, spec.Start, spec.Script = true, true, nil
	return spec
}

// prepareMembers asks all compute nodes for their part of a run. It may be
// called again.
func prepareMembers(ctx context.Context, v *view, spec protocol.RunSpec) error {
	all, ctx := errgroup.WithContext(ctx)
	for i := 1; i < len(v.partition.Nodes); i++ {
		all.Go(func() error {
			status, err := v.link.Node(i).Prepare(ctx, member(spec))
			if err != nil {
				return fmt.Errorf("prepare the run on node %s: %w", v.partition.Nodes[i].Name, err)
			}
			v.link.NodeNote(i, status)
			return nil
		})
	}
	return all.Wait()
}

// awaitMembers waits until the members of a run are ready. It tells when the job
// was ended because one cannot be.
func (a *attempt) awaitMembers(ctx context.Context, v *view) (ready bool, err error) {
	for {
		loss := lostMember(v)
		if loss != nil && loss.refused {
			return false, a.fail(ctx, loss.text)
		}
		if loss != nil {
			return false, a.lose(ctx, *v, loss.text, skyport.PhaseDone)
		}
		waiting := memberIn(v, protocol.RunStaging)
		if waiting == "" {
			return true, nil
		}
		if up, _, cause := v.link.Up(); !up {
			return false, fmt.Errorf("wait for node %s: %w", waiting, cause)
		}
		for i := range v.partition.Nodes {
			if status, _ := v.link.NodeStatus(i, skyport.RunName(v.row.Job, v.row.Number)); status.State == protocol.RunStaging {
				a.preparing(ctx, status)
			}
		}
		select {
		case <-ctx.Done():
			return false, errMoved
		case <-a.wake:
		}
	}
}

// loss says what became of a member that should be there.
type loss struct {
	text    string
	refused bool // trying again does not help
}

// lostMember finds a member of the run that is no more, nil when all are there. It
// means something only while the link is up.
func lostMember(v *view) *loss {
	run := skyport.RunName(v.row.Job, v.row.Number)
	for i := 1; i < len(v.partition.Nodes); i++ {
		node := v.partition.Nodes[i].Name
		status, known := v.link.NodeStatus(i, run)
		switch {
		case !known:
			return &loss{text: "node " + node + " lost its part of the job"}
		case status.State == protocol.RunRefused:
			return &loss{text: "node " + node + " could not start its part of the job: " + orUnknown(status.Details), refused: true}
		case status.State == protocol.RunLost, status.State == protocol.RunEnded:
			return &loss{text: "node " + node + " lost its part of the job: " + orUnknown(status.Details)}
		}
	}
	return nil
}

// memberIn names a compute node whose member is in the state, "" when none is.
func memberIn(v *view, state protocol.RunState) string {
	run := skyport.RunName(v.row.Job, v.row.Number)
	for i := 1; i < len(v.partition.Nodes); i++ {
		if status, known := v.link.NodeStatus(i, run); known && status.State == state {
			return v.partition.Nodes[i].Name
		}
	}
	return ""
}

// removeMembers has all compute nodes forget a run.
func removeMembers(ctx context.Context, l *link.Link, nodes []skyport.Node, run string) error {
	all, ctx := errgroup.WithContext(ctx)
	for i := 1; i < len(nodes); i++ {
		all.Go(func() error {
			if err := l.Node(i).Remove(ctx, run); err != nil && skyport.CodeOf(err) != skyport.CodeNotFound {
				return fmt.Errorf("remove %s on node %s: %w", run, nodes[i].Name, err)
			}
			return nil
		})
	}
	return all.Wait()
}

// peers are the nodes of a partition as they see each other; none when there
// is only one.
func peers(nodes []skyport.Node) []protocol.Peer {
	if len(nodes) < 2 {
		return nil
	}
	list := make([]protocol.Peer, len(nodes))
	for i, n := range nodes {
		list[i] = protocol.Peer{Name: n.Name, Address: n.Address}
		if onThisMachine(n) {
			list[i].Endpoint = n.Endpoint
		}
	}
	return list
}
