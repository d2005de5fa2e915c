package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// partition is one partition in memory. The fields below the line are guarded
// by the provider's mutex.
type partition struct {
	id   skyport.PartitionID
	site *site

	// ---
	record    record
	reserved  bool          // hosts were chosen, and the creation is not over
	creating  chan struct{} // closed when the creation under way is over; nil without one
	createErr error         // how the last creation ended
	cleared   map[string]bool
	trouble   string // why a removal takes long
}

func newPartition(s *site, r record) *partition {
	return &partition{id: r.Spec.ID, site: s, record: r, cleared: map[string]bool{}}
}

// idle says that no creation is under way. Callers hold the provider's mutex.
func (part *partition) idle() bool { return !part.reserved && part.creating == nil }

// refresh looks at all hosts of a site and takes in the partitions that are
// found there, by looks not older than age. A host that does not answer is no error: what it was to have is
// in the records.
func (p *Provider) refresh(ctx context.Context, s *site, age time.Duration) error {
	var looks sync.WaitGroup
	for _, h := range s.hosts {
		looks.Go(func() {
			_, _ = h.look(ctx, age) // what it found, or not, is noted
		})
	}
	looks.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("hosts of site %s: %w", s.name, ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range s.hosts {
		h.mu.Lock()
		seen := h.seen
		h.mu.Unlock()
		c := &seen.claim
		if !seen.claimed || c.Partition == "" || c.Record.Spec.Site != s.name {
			continue
		}
		if _, known := p.partitions[c.Partition]; known {
			continue
		}
		// Another gate's, or the records were lost.
		r := c.Record
		r.Settled, r.Deleting = true, false
		r.Hosts = slices.Clone(r.Hosts)
		r.Hosts[c.Index] = h.config.Name
		p.partitions[c.Partition] = newPartition(s, r)
	}
	for _, part := range p.partitions {
		if part.site == s && part.idle() && !part.record.Deleting && part.isGone() {
			if err := p.forget(part); err != nil {
				return err
			}
		}
	}
	return nil
}

// isGone says whether each host of the partition has answered and has nothing of
// it. Callers hold the provider's mutex.
func (part *partition) isGone() bool {
	for _, name := range part.record.Hosts {
		h := part.site.host(name)
		if h == nil {
			continue
		}
		h.mu.Lock()
		unknown := h.err != nil || h.at.IsZero() || h.seen.has(part.id)
		h.mu.Unlock()
		if unknown {
			return false
		}
	}
	return true
}

// forget drops a partition of which nothing is left. Callers hold p.mu.
func (p *Provider) forget(part *partition) error {
	if err := p.journal.remove(part.id); err != nil {
		return err
	}
	p.log.Info("no host has anything of the partition any more", "partition", part.id)
	delete(p.partitions, part.id)
	return nil
}

// find returns a partition that is known, or that a look finds.
func (p *Provider) find(ctx context.Context, name string, id skyport.PartitionID) (*partition, error) {
	s, err := p.site(name)
	if err != nil {
		return nil, err
	}
	known := func() *partition {
		p.mu.Lock()
		defer p.mu.Unlock()
		if part := p.partitions[id]; part != nil && part.site == s {
			return part
		}
		return nil
	}
	if part := known(); part != nil {
		return part, nil
	}
	if err := p.refresh(ctx, s, lookAge); err != nil {
		return nil, err
	}
	if part := known(); part != nil {
		return part, nil
	}
	return nil, missing(id, name)
}

func missing(id skyport.PartitionID, site string) error {
	return fmt.Errorf("partition %s at site %s: %w", id, site, gate.ErrNotFound)
}

// nodeState is how far one node is.
type nodeState struct {
	node   skyport.Node
	state  gate.State
	detail string
	gone   bool // the host says that it has nothing of the partition
	lease  time.Time
}

// status looks at the hosts of a partition and puts it into words. A partition
// of which no host has anything any more is forgotten.
func (p *Provider) status(ctx context.Context, part *partition) (gate.PartitionStatus, error) {
	p.mu.Lock()
	r := part.record
	idle := part.idle() && !r.Deleting
	p.mu.Unlock()
	nodes := make([]nodeState, len(r.Hosts))
	if idle {
		var looks sync.WaitGroup
		for i, name := range r.Hosts {
			looks.Go(func() { nodes[i] = p.nodeState(ctx, part.site.host(name), &r, i) })
		}
		looks.Wait()
		if ctx.Err() != nil {
			return gate.PartitionStatus{}, fmt.Errorf("partition %s: %w", part.id, ctx.Err())
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.partitions[part.id] != part {
		return gate.PartitionStatus{}, missing(part.id, part.site.name)
	}
	told := gate.PartitionStatus{
		ID: part.id, Owner: r.Spec.Owner, Site: part.site.name, State: gate.StateUp,
		Lease: part.record.Spec.Lease, Created: r.Created, Nodes: make([]skyport.Node, len(r.Hosts)),
	}
	for i, name := range r.Spec.Nodes {
		told.Nodes[i] = skyport.Node{Name: name, Role: skyport.RoleCompute}
	}
	told.Nodes[0].Role = skyport.RoleMain
	switch {
	case part.record.Deleting:
		told.State, told.Details = gate.StateDeleting, part.trouble
		return told, nil
	case !idle || !part.idle():
		told.State, told.Details = gate.StateCreating, "the hosts are being claimed"
		return told, nil
	}
	return p.judge(part, told, nodes)
}

// judge makes one state of those of the nodes: the partition is as far as its
// slowest one. Callers hold p.mu.
func (p *Provider) judge(part *partition, told gate.PartitionStatus, nodes []nodeState) (gate.PartitionStatus, error) {
	rank := map[gate.State]int{gate.StateUp: 0, gate.StateBooting: 1, gate.StateCreating: 2, gate.StateFailed: 3, gate.StateDeleting: 4}
	var details []string
	gone, lease := 0, time.Time{}
	for i, n := range nodes {
		if rank[n.state] > rank[told.State] {
			told.State = n.state
		}
		if n.detail != "" {
			details = append(details, n.detail)
		}
		if n.gone {
			gone++
		}
		if n.lease.After(lease) {
			lease = n.lease
		}
		n.node.Name, n.node.Role = told.Nodes[i].Name, told.Nodes[i].Role
		told.Nodes[i] = n.node
	}
	told.Details = strings.Join(details, "; ")
	if !lease.IsZero() {
		told.Lease = lease // a node's worker may have moved it
	}
	switch {
	case gone == len(nodes):
		if err := p.forget(part); err != nil {
			return told, err
		}
		return told, missing(part.id, part.site.name)
	case told.State == gate.StateDeleting:
		// Its end has begun on a host: by another gate, or by the host itself.
		part.record.Deleting = true
		p.remove(part)
	case told.State == gate.StateFailed && !part.record.Settled:
		told.State = gate.StateCreating
		told.Details = "the creation was cut off and goes on when it is asked for again: " + told.Details
	}
	return told, nil
}

// nodeState looks at the host of a node.
func (p *Provider) nodeState(ctx context.Context, h *host, r *record, i int) nodeState {
	if h == nil {
		return nodeState{state: gate.StateFailed, gone: true, detail: "host " + r.Hosts[i] + " is not in the configuration any more"}
	}
	seen, err := h.look(ctx, lookAge)
	if err != nil {
		since, _ := h.trouble()
		n := nodeState{state: gate.StateBooting, detail: err.Error()}
		if !since.IsZero() && time.Since(since) > p.options.Away {
			n.state = gate.StateFailed
			n.detail = fmt.Sprintf("%v, for %s", err, time.Since(since).Round(time.Second))
		}
		return n
	}
	if !seen.has(r.Spec.ID) {
		return nodeState{state: gate.StateFailed, gone: true, detail: "host " + h.config.Name + " has nothing of the partition any more"}
	}
	n := nodeState{state: gate.StateCreating, lease: seen.lease}
	switch {
	case seen.deleting:
		n.state = gate.StateDeleting
	case seen.ready:
		n.state = gate.StateUp
		n.node = h.node(seen.dir(r.Spec.ID))
	}
	return n
}

// node tells how a node on this host is reached.
func (h *host) node(dir string) skyport.Node {
	host, port, _ := net.SplitHostPort(h.config.Address) // made by complete
	endpoint := url.URL{Scheme: "ssh", User: url.User(h.config.User), Host: net.JoinHostPort(host, port), Path: path.Clean(dir)}
	n := skyport.Node{
		Address: h.config.InternalAddress, Endpoint: endpoint.String(),
		HostKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(h.key))),
	}
	if n.Address == "" && net.ParseIP(host) != nil {
		n.Address = host
	}
	if n.Address == "" {
		n.Address = h.wire.ip()
	}
	return n
}

// remove starts the removal of a partition whose deletion is decided. It goes
// on until every host has said that nothing is left. Callers hold p.mu.
func (p *Provider) remove(part *partition) {
	p.spawn(func() { // after Close the next gate does it
		p.mu.Lock()
		creating, r := part.creating, part.record
		p.mu.Unlock()
		if creating != nil {
			<-creating // it notices soon
		}
		if err := p.journal.write(r); err != nil {
			p.log.Warn("removal goes on without a record of it", "partition", part.id, "error", err)
		}
		for pause := 200 * time.Millisecond; ; pause = min(2*pause, 30*time.Second) {
			err := p.clear(part)
			if err == nil {
				err = p.journal.remove(part.id)
			}
			if err == nil {
				break
			}
			if p.ctx.Err() == nil {
				p.log.Warn("partition not removed yet", "partition", part.id, "error", err)
			}
			p.mu.Lock()
			part.trouble = err.Error()
			p.mu.Unlock()
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-p.ctx.Done():
				timer.Stop()
				return
			}
		}
		p.log.Info("partition removed", "partition", part.id)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.partitions, part.id)
	})
}

// clear asks all hosts that still have something of the partition to remove it,
// side by side. One that is done is free again, whatever the others say.
func (p *Provider) clear(part *partition) error {
	p.mu.Lock()
	r := part.record
	var left []int
	for i, name := range r.Hosts {
		if !part.cleared[name] {
			left = append(left, i)
		}
	}
	p.mu.Unlock()
	errs := make([]error, len(r.Hosts))
	var hosts sync.WaitGroup
	for _, i := range left {
		h := part.site.host(r.Hosts[i])
		hosts.Go(func() {
			if h == nil {
				p.log.Warn("a host that is not in the configuration any more is not asked: it removes the partition when the lease ends",
					"partition", part.id, "host", r.Hosts[i])
			} else if errs[i] = h.release(p.ctx, part.id, r.Spec.Nodes[i]); errs[i] != nil {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			part.cleared[r.Hosts[i]] = true
		})
	}
	hosts.Wait()
	return errors.Join(errs...)
}

func joinLines(lines []string) string { return strings.Join(lines, "\n") }
