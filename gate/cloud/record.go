package cloud

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// record is what is known of one partition, guarded by the site's mutex. It
// joins what the lists show with what this process has done and the lists may
// not show yet; a process without records makes them anew from the lists.
type record struct {
	id      skyport.PartitionID
	tags    Tags
	nodes   []string  // names asked for; nil when only the lists told of it
	created time.Time // when it was asked for
	work    *work     // what is under way
	failure error     // why it could not be made; kept until it is deleted

	found *Found // what the lists show; nil: nothing
	whole *Found // what they showed when it was made
	made  bool   // it was, as this process or the lists said
	ours  bool   // it was made by this process

	removed bool      // by this process
	echoes  int       // how often the lists showed it again after that
	settled time.Time // until then what this process did counts more than the lists
	seq     uint64    // of its last change: lists that began before do not count

	lease      time.Time // as extended, while the lists may show an older one
	leaseUntil time.Time // how long they may
	sources    string    // that port 22 is open to; empty: not known

	turn  chan struct{} // taken by who makes a call that changes the partition
	users int           // who have the turn or wait for it
}

// record returns that of a partition, a new one if need be. The site's mutex is held.
func (s *site) record(id skyport.PartitionID) *record {
	r, ok := s.records[id]
	if !ok {
		r = &record{id: id, turn: make(chan struct{}, 1)}
		s.records[id] = r
	}
	return r
}

// alter notes a change that this process has made. The site's mutex is held.
func (s *site) alter(r *record) {
	s.clock++
	r.seq = s.clock
	r.settled = time.Now().Add(s.lag)
}

// idle says whether the record may be forgotten.
func (r *record) idle(now time.Time) bool {
	return r.work == nil && r.failure == nil && r.found == nil && r.users == 0 && ((!r.made && !r.removed) || !now.Before(r.settled))
}

// known says whether there is something of the partition, or may be.
func (r *record) known() bool {
	return r.work != nil || r.failure != nil || r.found != nil || (r.made && !r.removed)
}

// failed says whether it could not be made.
func (r *record) failed() bool { return r.failure != nil }

// take waits for the turn to change a partition.
func (s *site) take(ctx context.Context, r *record) (release func(), err error) {
	s.mu.Lock()
	r.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.users--
	}
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, skyport.Errorf(skyport.CodeUnavailable, "partition %s is being changed by another call: %w", r.id, ctx.Err())
	}
}

// told is what there is to say of a partition; false: nothing is there. The
// site's mutex is held.
func (s *site) told(r *record) (gate.PartitionStatus, bool) {
	now := time.Now()
	status := gate.PartitionStatus{
		ID: r.id, Owner: r.tags.Owner, Site: s.name, Nodes: r.seen(), Lease: r.tags.Lease, Created: r.created.UTC(),
	}
	if !r.lease.IsZero() {
		status.Lease = r.lease
	}
	if r.found != nil && !r.found.Created.IsZero() {
		status.Created = r.found.Created.UTC()
	}
	say := func(state gate.State, details string) (gate.PartitionStatus, bool) {
		status.State, status.Details = state, details
		return status, true
	}
	failed := func(err error) (gate.PartitionStatus, bool) {
		status.Code = codeOf(err)
		details := err.Error()
		if hint := skyport.HintOf(err); hint != "" {
			details += " (" + hint + ")"
		}
		return say(gate.StateFailed, details)
	}
	lists := r.found
	switch {
	case r.work != nil && r.work.removes:
		return say(gate.StateDeleting, r.work.details)
	case r.failure != nil:
		return failed(r.failure)
	case r.work != nil:
		return say(gate.StateCreating, r.work.details)
	case r.removed:
		return status, false
	case lists == nil && r.whole != nil && now.Before(r.settled):
		lists = r.whole
	case lists == nil && r.made && now.Before(r.settled):
		return say(gate.StateBooting, "Made; the site does not list it yet")
	case lists == nil:
		return status, false
	case lists.Failure == nil && !lists.Made && r.made && now.Before(r.settled):
		if r.whole == nil {
			return say(gate.StateBooting, "Made; the site does not list all of it yet")
		}
		lists = r.whole
	}
	switch {
	case lists.Failure != nil:
		return failed(lists.Failure)
	case lists.Made && slices.ContainsFunc(lists.Nodes, func(n Node) bool { return !n.Running }):
		return say(gate.StateBooting, "")
	case lists.Made:
		return say(gate.StateUp, "")
	case r.made:
		return failed(skyport.Errorf(skyport.CodeUnavailable, "the site has lost parts of it: %s", missing(r, lists)))
	}
	return say(gate.StateCreating, "Its creation was cut off and goes on when core asks again")
}

// seen are the nodes, main first, with the addresses that are known.
func (r *record) seen() []skyport.Node {
	lists := r.found
	if lists == nil || (!lists.Made && r.whole != nil) {
		lists = r.whole
	}
	var there []Node
	if lists != nil && !r.removed {
		there = lists.Nodes
	}
	names := r.nodes
	if len(names) == 0 {
		for _, n := range there {
			names = append(names, n.Name)
		}
	}
	all := make([]skyport.Node, 0, len(names))
	for i, name := range names {
		node := skyport.Node{Name: name, Role: skyport.RoleCompute}
		if i == 0 {
			node.Role = skyport.RoleMain
		}
		if at := slices.IndexFunc(there, func(n Node) bool { return n.Name == name }); at >= 0 {
			role := node.Role
			node = there[at].Node
			if len(r.nodes) > 0 || node.Role == "" {
				node.Role = role
			}
		}
		all = append(all, node)
	}
	return all
}

func missing(r *record, lists *Found) string {
	if r.tags.Nodes > len(lists.Nodes) {
		return fmt.Sprintf("%d of %d nodes are left", len(lists.Nodes), r.tags.Nodes)
	}
	return "an address or another resource is gone"
}
