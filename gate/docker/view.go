package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// view is what the engine has of a partition.
type view struct {
	record   record
	recorded bool // the record itself is there
	lease    time.Time
	serial   int // of the lease
	made     bool
	failed   string // why it failed for good; empty: it did not
	deleting bool

	nodes    []box    // containers, by number
	networks []string // ids
	drafts   []string // ids
	leases   []string // names of the volumes of the lease
	disks    []string // names of the nodes' volumes
	notes    []string // names of all other volumes, in the order of their removal
}

// box is the container of a node.
type box struct {
	id, name, address string
	number            int
	state             container.ContainerState
	status            string // in the engine's words
}

// filter is for the objects of this site, of one partition or of all.
func (p *Provider) filter(id skyport.PartitionID) client.Filters {
	f := client.Filters{}.Add("label", labelSite+"="+p.options.Site)
	if id != "" {
		f.Add("label", labelPartition+"="+string(id))
	}
	return f
}

// look asks the engine for all that belongs to a partition, or to any. Volumes
// come first: a partition that is noted as made has its containers by then.
func (p *Provider) look(ctx context.Context, id skyport.PartitionID) (map[skyport.PartitionID]*view, error) {
	seen := map[skyport.PartitionID]*view{}
	of := func(labels map[string]string) *view {
		r := readRecord(labels)
		if _, err := skyport.ParsePartitionID(string(r.id)); err != nil {
			return &view{} // somebody else's use of our labels
		}
		v, ok := seen[r.id]
		if !ok {
			v = &view{record: r}
			seen[r.id] = v
		}
		return v
	}
	volumes, err := p.engine.VolumeList(ctx, client.VolumeListOptions{Filters: p.filter(id)})
	if err != nil {
		return nil, p.engineError(err, "list volumes")
	}
	var networks client.NetworkListResult
	var containers client.ContainerListResult
	both, bothCtx := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		networks, err = p.engine.NetworkList(bothCtx, client.NetworkListOptions{Filters: p.filter(id)})
		return err //nolint:wrapcheck // below
	})
	both.Go(func() (err error) {
		containers, err = p.engine.ContainerList(bothCtx, client.ContainerListOptions{All: true, Filters: p.filter(id)})
		return err //nolint:wrapcheck // below
	})
	if err := both.Wait(); err != nil {
		return nil, p.engineError(err, "list containers and networks")
	}
	for _, volume := range volumes.Items {
		of(volume.Labels).addVolume(volume.Name, volume.Labels)
	}
	for _, network := range networks.Items {
		v := of(network.Labels)
		if network.Labels[labelKind] == kindDraft {
			v.drafts = append(v.drafts, network.ID)
		} else {
			v.networks = append(v.networks, network.ID)
		}
	}
	for _, c := range containers.Items {
		v := of(c.Labels)
		v.nodes = append(v.nodes, box{
			id: c.ID, name: strings.TrimPrefix(strings.Join(c.Names, ""), "/"), address: c.Labels[labelAddress],
			number: readInt(c.Labels[labelNode]), state: c.State, status: c.Status,
		})
	}
	for _, v := range seen {
		slices.SortFunc(v.nodes, func(a, b box) int { return cmp.Compare(a.number, b.number) })
		if v.serial == 0 {
			v.lease = v.record.lease
		}
	}
	return seen, nil
}

// addVolume takes in a volume: a node's, or a note.
func (v *view) addVolume(name string, labels map[string]string) {
	switch labels[labelKind] {
	case kindDisk:
		v.disks = append(v.disks, name)
		return
	case kindLease:
		v.leases = append(v.leases, name)
		if serial := readInt(labels[labelSerial]); serial > v.serial {
			v.serial, v.lease = serial, readTime(labels[labelLease])
		}
		return
	case kindRecord:
		v.recorded = true
		v.record = readRecord(labels)
	case kindMade:
		v.made = true
	case kindFailed:
		v.failed = cmp.Or(labels[labelReason], "the creation failed")
	case kindDeleting:
		v.deleting = true
		if !v.recorded {
			v.record = readRecord(labels)
		}
		v.notes = append(v.notes, name) // goes last
		return
	}
	v.notes = append([]string{name}, v.notes...)
}

// statuses tells how far partitions are: one, or all of the site.
func (p *Provider) statuses(ctx context.Context, id skyport.PartitionID) ([]gate.PartitionStatus, error) {
	for {
		before := p.underWay(id)
		removed := p.removals()
		seen, err := p.look(ctx, id)
		if err != nil {
			return nil, err
		}
		works := p.underWay(id)
		for id, w := range before {
			// What has ended meanwhile: the look may be older.
			if _, ok := works[id]; !ok && (w.removing || seen[id] != nil) {
				works[id] = w
			}
		}
		if removed != p.removals() {
			continue // what was seen may be half of a partition that is gone
		}
		p.knock(ctx, seen)
		var all []gate.PartitionStatus
		for id := range works {
			if _, ok := seen[id]; !ok {
				seen[id] = nil
			}
		}
		for _, id := range slices.Sorted(maps.Keys(seen)) {
			if s, there := p.status(ctx, seen[id], works[id]); there {
				all = append(all, s)
			}
		}
		return all, nil
	}
}

// status puts what the engine has, and what is under way here, into words.
func (p *Provider) status(ctx context.Context, v *view, w *underWay) (s gate.PartitionStatus, there bool) {
	if v == nil {
		if w == nil || w.record.id == "" {
			return s, false
		}
		v = &view{record: w.record, lease: w.record.lease}
	}
	r := v.record
	s = gate.PartitionStatus{ID: r.id, Owner: r.owner, Site: p.options.Site, Lease: v.lease, Created: r.created}
	boxes := map[int]box{}
	for _, b := range v.nodes {
		boxes[b.number] = b
	}
	names := r.nodes
	if len(names) == 0 { // only debris is left
		for _, b := range v.nodes {
			names = append(names, b.name)
		}
	}
	var dead, waiting []string
	for i, name := range names {
		b, ok := boxes[i]
		n := skyport.Node{Name: name, Role: role(i), Address: b.address}
		if !ok {
			if v.made {
				dead = append(dead, fmt.Sprintf("node %s has vanished: its container was removed", name))
			}
			s.Nodes = append(s.Nodes, n)
			continue
		}
		switch alive, answers := p.pulse(b); {
		case !alive:
			dead = append(dead, fmt.Sprintf("node %s %s", name, p.autopsy(ctx, b)))
		case answers:
			n.Endpoint = gate.Endpoint(b.address)
		default:
			waiting = append(waiting, name)
		}
		s.Nodes = append(s.Nodes, n)
	}
	switch {
	case v.deleting || w != nil && w.removing:
		s.State = gate.StateDeleting
		if w != nil {
			s.Details = w.trouble
		}
	case v.failed != "":
		s.State, s.Details = gate.StateFailed, v.failed
	case len(dead) > 0:
		s.State, s.Details = gate.StateFailed, strings.Join(dead, "; ")
	case !v.recorded && w == nil:
		s.State, s.Details = gate.StateFailed, "its record was removed from the engine by somebody: only its remains are there"
	case !v.made && w != nil:
		s.State, s.Details = gate.StateCreating, fmt.Sprintf("%d of %d containers are there", len(v.nodes), len(names))
	case !v.made:
		s.State, s.Details = gate.StateCreating, "the creation was cut off and goes on when core asks for it again"
	case len(waiting) > 0:
		s.State = gate.StateBooting
		s.Details = fmt.Sprintf("%d of %d nodes do not answer SSH yet: %s", len(waiting), len(names), strings.Join(head(waiting, 4), ", "))
	default:
		s.State = gate.StateUp
	}
	return s, true
}

// head is at most the first n names.
func head(names []string, n int) []string {
	if len(names) <= n {
		return names
	}
	return append(slices.Clone(names[:n]), "…")
}

// autopsy says why a container ended.
func (p *Provider) autopsy(ctx context.Context, b box) string {
	answer, err := p.engine.ContainerInspect(ctx, b.id, client.ContainerInspectOptions{})
	if err != nil || answer.Container.State == nil {
		return "has ended: " + cmp.Or(b.status, string(b.state))
	}
	state := answer.Container.State
	switch {
	case state.OOMKilled && state.ExitCode != 0:
		return "ran out of memory and ended"
	case state.Error != "":
		return fmt.Sprintf("has ended with code %d: %s", state.ExitCode, skyport.Abbreviate(state.Error, 300))
	case state.ExitCode == 0:
		return "has powered off"
	case state.ExitCode > 128:
		return fmt.Sprintf("was killed by signal %d", state.ExitCode-128)
	}
	return fmt.Sprintf("has ended with code %d", state.ExitCode)
}
