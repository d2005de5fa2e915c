package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/openworkload/skyport"
)

// Patience is how long a job that does not fit lets later ones pass.
const Patience = 10 * time.Minute

// Snapshot is all that a decision depends on. Decide does not change it.
type Snapshot struct {
	Now        time.Time
	Jobs       []Job
	Partitions []Partition
	Sites      []skyport.Site
	Flavors    []skyport.Flavor
	Accounts   []skyport.Account
	// Refused holds offers that a site refused lately: they are not asked for
	// before the moment, unless nothing changes by waiting.
	Refused map[Offer]Refusal
	// Blind says why the sites are not known, when they are not.
	Blind string
}

// Job is a job that waits.
type Job struct {
	ID        skyport.JobID
	Number    int64
	Account   string
	Request   *skyport.Request
	Submitted time.Time
	NotBefore time.Time
	Details   string // why it was put back, when it was
}

// Partition is a partition with what the attempts on it hold of each node.
type Partition struct {
	skyport.Partition
	Held     Room
	Attempts int
}

// Room is a share of each node of a partition.
type Room struct {
	CPUs   int
	Memory skyport.Bytes
	GPUs   int
}

// Offer is a kind of partition that can be asked for.
type Offer struct{ Site, Flavor string }

// Refusal is why and until when an offer is not asked for again.
type Refusal struct {
	Until  time.Time
	Reason string
}

// Decision is what is to be done.
type Decision struct {
	Place  []Placement
	Create []Creation
	Drain  []skyport.PartitionID
	// Reasons tells for each job that stays why it does.
	Reasons map[skyport.JobID]string
	// WakeAt is when the decision may change by the passing of time alone;
	// zero if only a change can change it.
	WakeAt time.Time
}

// Placement puts a job onto a partition that exists.
type Placement struct {
	Job       skyport.JobID
	Partition skyport.PartitionID
	Room      Room
}

// Creation asks for a new partition, with the jobs that go onto it.
type Creation struct {
	Account string
	Site    string
	Flavor  skyport.Flavor
	Image   string
	Nodes   int
	// KeepAlive and KeepResources are what the first job asks for.
	KeepAlive     skyport.Seconds
	KeepResources bool
	Jobs          []skyport.JobID
	Rooms         []Room
}

// Decide decides.
func Decide(s Snapshot) Decision {
	d := decider{Snapshot: s, blocked: map[class]string{}, reserved: map[string]skyport.JobID{}}
	d.Reasons = map[skyport.JobID]string{}
	d.open()
	queue := slices.Clone(s.Jobs)
	slices.SortFunc(queue, func(a, b Job) int {
		return cmp.Or(cmp.Compare(b.Request.Priority, a.Request.Priority), cmp.Compare(a.Number, b.Number))
	})
	for i := range queue {
		d.job(&queue[i])
	}
	d.drainIdle()
	return d.decision()
}

// decider is the working state of one decision.
type decider struct {
	Snapshot
	Decision

	berths   []*berth                 // partitions that jobs can go onto, ready ones first
	used     map[string]*usage        // by site
	blocked  map[class]string         // kinds of jobs that cannot be placed any more, and why
	reserved map[string]skyport.JobID // sites kept free for a job that has waited too long
	draining map[skyport.PartitionID]bool
}

// berth is a partition, there or to be created, with the room that is left.
type berth struct {
	id       skyport.PartitionID // empty: to be created
	creation Creation            // what it is
	state    skyport.PartitionState
	free     Room
	jobs     int // attempts that hold it or will
	idle     time.Time
	keep     bool
	alive    time.Duration
}

// usage is what a site's partitions take of its limits.
type usage struct {
	nodes, cpus int
	memory      skyport.Bytes
}

// class is all of a job that placing depends on: two jobs of one class fit in
// the same places.
type class struct {
	account, site, flavor, image, container string
	nodes, cpus, gpus                       int
	memory                                  skyport.Bytes
	price                                   float64
}

func classOf(j *Job) class {
	r := j.Request
	return class{
		account: j.Account, site: r.Site, flavor: r.Flavor, image: r.CloudImage, container: r.ContainerImage,
		nodes: nodesOf(r), cpus: r.CPUs, gpus: r.GPUs, memory: r.Memory, price: r.MaxPrice,
	}
}

// open takes stock of the partitions.
func (d *decider) open() {
	d.used = map[string]*usage{}
	d.draining = map[skyport.PartitionID]bool{}
	for i := range d.Sites {
		d.used[d.Sites[i].Name] = &usage{}
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if p.State == skyport.PartitionDeleted {
			continue
		}
		u := d.used[p.Site]
		if u == nil {
			u = &usage{}
			d.used[p.Site] = u
		}
		u.add(len(p.Nodes), p.Flavor)
		if !p.State.Usable() {
			continue
		}
		d.berths = append(d.berths, &berth{
			id: p.ID, state: p.State, jobs: p.Attempts, idle: p.IdleSince, keep: p.KeepResources, alive: p.KeepAlive.Duration(),
			creation: Creation{Account: p.Account, Site: p.Site, Flavor: p.Flavor, Image: p.Image, Nodes: len(p.Nodes)},
			free:     Room{CPUs: p.Flavor.CPUs - p.Held.CPUs, Memory: p.Flavor.Memory - p.Held.Memory, GPUs: p.Flavor.GPUs - p.Held.GPUs},
		})
	}
	slices.SortStableFunc(d.berths, func(a, b *berth) int {
		return cmp.Or(-compareBool(a.state.Connected(), b.state.Connected()), cmp.Compare(a.id, b.id))
	})
}

// job places one job or gives it a reason.
func (d *decider) job(j *Job) {
	if j.NotBefore.After(d.Now) {
		d.Reasons[j.ID] = cmp.Or(j.Details, skyport.DetailsQueued)
		d.wake(j.NotBefore)
		return
	}
	kind := classOf(j)
	reason, known := d.blocked[kind]
	if !known {
		if d.ontoExisting(j) || d.ontoNew(j, &reason) {
			return
		}
		d.blocked[kind] = reason
	}
	d.Reasons[j.ID] = skyport.DetailsQueued + ": " + reason
	d.reserve(j)
}

// ontoExisting puts the job onto a partition that is there, or that this
// decision creates already.
func (d *decider) ontoExisting(j *Job) bool {
	for _, b := range d.berths {
		room, fits := b.fits(j, d.mayUse(j.Account, b.creation.Site))
		if !fits || d.reservedFor(b.creation.Site, j) || d.draining[b.id] {
			continue
		}
		b.free.CPUs -= room.CPUs
		b.free.Memory -= room.Memory
		b.free.GPUs -= room.GPUs
		b.jobs++
		if b.id == "" {
			b.creation.Jobs, b.creation.Rooms = append(b.creation.Jobs, j.ID), append(b.creation.Rooms, room)
		} else {
			d.Place = append(d.Place, Placement{Job: j.ID, Partition: b.id, Room: room})
		}
		return true
	}
	return false
}

// fits says whether the job can go onto the berth, and which room it takes.
func (b *berth) fits(j *Job, allowed bool) (Room, bool) {
	r, c := j.Request, &b.creation
	room := RoomOf(r, c.Flavor)
	return room, allowed && c.Account == j.Account && c.Nodes == nodesOf(r) &&
		(r.Site == "" || r.Site == c.Site) && (r.Flavor == "" || r.Flavor == c.Flavor.Name) &&
		(r.CloudImage == "" || r.CloudImage == c.Image) &&
		(r.MaxPrice == 0 || c.Flavor.Price*float64(c.Nodes) <= r.MaxPrice) &&
		room.CPUs <= b.free.CPUs && room.Memory <= b.free.Memory && room.GPUs <= b.free.GPUs
}

// ontoNew plans a new partition for the job, or says why it cannot be.
func (d *decider) ontoNew(j *Job, reason *string) bool {
	if d.Blind != "" {
		*reason = d.Blind
		return false
	}
	offers, err := Offers(j.Request, j.Account, d.Accounts, d.Sites, d.Flavors)
	if err != nil {
		*reason = err.Error()
		return false
	}
	for _, o := range offers {
		if refusal, ok := d.Refused[Offer{o.Site.Name, o.Flavor.Name}]; ok && refusal.Until.After(d.Now) {
			d.wake(refusal.Until)
			*reason = cmp.Or(*reason, refusal.Reason)
			continue
		}
		if holder, ok := d.reserved[o.Site.Name]; ok {
			*reason = cmp.Or(*reason, fmt.Sprintf("site %s is kept free for job %s, which has waited longer", o.Site.Name, holder.Short()))
			continue
		}
		u := d.used[o.Site.Name]
		nodes := nodesOf(j.Request)
		if full := u.lacks(o.Site.Limits, nodes, o.Flavor); full != "" {
			*reason = fmt.Sprintf("all %s of site %s are in use", full, o.Site.Name)
			if d.makeRoom(o, nodes) {
				*reason = fmt.Sprintf("idle partitions of site %s are being removed to make room", o.Site.Name)
			}
			continue
		}
		u.add(nodes, o.Flavor)
		room := RoomOf(j.Request, o.Flavor)
		d.berths = append(d.berths, &berth{
			state: skyport.PartitionPlanned, jobs: 1,
			creation: Creation{
				Account: j.Account, Site: o.Site.Name, Flavor: o.Flavor, Image: cmp.Or(j.Request.CloudImage, o.Site.DefaultImage), Nodes: nodes,
				KeepAlive: j.Request.KeepAlive, KeepResources: j.Request.KeepResources, Jobs: []skyport.JobID{j.ID}, Rooms: []Room{room},
			},
			free: Room{CPUs: o.Flavor.CPUs - room.CPUs, Memory: o.Flavor.Memory - room.Memory, GPUs: o.Flavor.GPUs - room.GPUs},
		})
		return true
	}
	return false
}

// makeRoom drains idle partitions of the offer's site, longest idle first, if
// that makes room for the offer. They still count until they are deleted.
func (d *decider) makeRoom(o Available, nodes int) bool {
	left := *d.used[o.Site.Name]
	var going []skyport.PartitionID
	idle := slices.DeleteFunc(slices.Clone(d.berths), func(b *berth) bool {
		return b.id == "" || b.jobs > 0 || b.keep || b.creation.Site != o.Site.Name || b.state != skyport.PartitionReady
	})
	slices.SortStableFunc(idle, func(a, b *berth) int { return a.idle.Compare(b.idle) })
	for _, b := range idle {
		left.remove(b.creation.Nodes, b.creation.Flavor)
		if !d.draining[b.id] {
			going = append(going, b.id)
		}
		if left.lacks(o.Site.Limits, nodes, o.Flavor) == "" {
			for _, id := range going {
				d.draining[id] = true
			}
			return true
		}
	}
	return false
}

// reserve keeps the sites of a job that has waited too long free for it.
func (d *decider) reserve(j *Job) {
	since := j.Submitted.Add(Patience)
	if since.After(d.Now) {
		d.wake(since)
		return
	}
	offers, err := Offers(j.Request, j.Account, d.Accounts, d.Sites, d.Flavors)
	if err != nil {
		return
	}
	for _, o := range offers {
		if _, refused := d.Refused[Offer{o.Site.Name, o.Flavor.Name}]; refused {
			continue
		}
		if _, taken := d.reserved[o.Site.Name]; !taken {
			d.reserved[o.Site.Name] = j.ID
			// What was found about other kinds of jobs still holds: room only shrinks.
		}
	}
}

func (d *decider) reservedFor(site string, j *Job) bool {
	holder, ok := d.reserved[site]
	return ok && holder != j.ID
}

// drainIdle ends partitions that nobody uses.
func (d *decider) drainIdle() {
	for _, b := range d.berths {
		if b.id == "" || b.jobs > 0 || b.keep || d.draining[b.id] {
			continue
		}
		// A partition that was made for a job that is no more has never been idle.
		end := b.idle.Add(b.alive)
		if b.idle.IsZero() || !end.After(d.Now) {
			d.draining[b.id] = true
			continue
		}
		d.wake(end)
	}
}

// decision collects what was decided.
func (d *decider) decision() Decision {
	for _, b := range d.berths {
		if b.id == "" {
			d.Create = append(d.Create, b.creation)
		}
	}
	for _, b := range d.berths {
		if d.draining[b.id] {
			d.Drain = append(d.Drain, b.id)
		}
	}
	return d.Decision
}

func (d *decider) wake(at time.Time) {
	if d.WakeAt.IsZero() || at.Before(d.WakeAt) {
		d.WakeAt = at
	}
}

func (d *decider) mayUse(account, site string) bool {
	for i := range d.Accounts {
		if d.Accounts[i].Name == account {
			return MayUse(&d.Accounts[i], site)
		}
	}
	return false
}

func (u *usage) add(nodes int, f skyport.Flavor) {
	u.nodes += nodes
	u.cpus += nodes * f.CPUs
	u.memory += skyport.Bytes(nodes) * f.Memory
}

func (u *usage) remove(nodes int, f skyport.Flavor) {
	u.nodes -= nodes
	u.cpus -= nodes * f.CPUs
	u.memory -= skyport.Bytes(nodes) * f.Memory
}

// lacks names what the site has not enough left of, or "".
func (u *usage) lacks(l skyport.Limits, nodes int, f skyport.Flavor) string {
	switch {
	case l.Nodes > 0 && u.nodes+nodes > l.Nodes:
		return fmt.Sprintf("%d nodes", l.Nodes)
	case l.CPUs > 0 && u.cpus+nodes*f.CPUs > l.CPUs:
		return fmt.Sprintf("%d CPUs", l.CPUs)
	case l.Memory > 0 && u.memory+skyport.Bytes(nodes)*f.Memory > l.Memory:
		return l.Memory.String() + " of memory"
	}
	return ""
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
