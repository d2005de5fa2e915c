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
	// Held are the accounts that may start nothing now, and why.
	Held map[string]string
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

// Offer is a kind of partition that can be asked for. Without a flavor it is any
// at the site.
type Offer struct {
	Site, Flavor string
	Spot         bool
}

// Refusal is why and until when an offer is not asked for again: with so many
// nodes, or more. Fewer may still be had.
type Refusal struct {
	Until  time.Time
	Nodes  int
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
	Flavor  skyport.Flavor // with the price that is asked for
	Spot    bool
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
	d := decider{Snapshot: s, kinds: map[class]*kind{}, reserved: map[string]skyport.JobID{}}
	d.Reasons = make(map[skyport.JobID]string, len(s.Jobs))
	d.open()
	queue := make([]*Job, len(s.Jobs))
	for i := range s.Jobs {
		queue[i] = &s.Jobs[i]
	}
	slices.SortFunc(queue, func(a, b *Job) int {
		return cmp.Or(cmp.Compare(b.Request.Priority, a.Request.Priority), cmp.Compare(a.Number, b.Number))
	})
	for _, j := range queue {
		d.job(j)
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
	leaving  map[string]*usage        // by site: what is on its way out, and still counts as used
	promised map[string]*usage        // by site: what jobs will get of the room that is being made
	engine   map[string]bool          // sites whose nodes have a container engine
	storages map[string][]string      // by site
	kinds    map[class]*kind          // what was found out about each kind of job
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
	account, site, flavor, image, container, storage string
	nodes, cpus, gpus                                int
	memory                                           skyport.Bytes
	price                                            float64
	spot                                             skyport.Spot
}

func classOf(j *Job) class {
	r := j.Request
	return class{
		account: j.Account, site: r.Site, flavor: r.Flavor, image: r.CloudImage, container: r.ContainerImage, storage: r.Storage,
		nodes: nodesOf(r), cpus: r.CPUs, gpus: r.GPUs, memory: r.Memory, price: r.MaxPrice,
		spot: r.Spot,
	}
}

// kind is what was found out about a class. Within one decision room only
// shrinks, so what did not fit once need not be looked at again.
type kind struct {
	next     int         // berths before this one do not fit any more
	offers   []Available // what could ever serve it
	err      error       // why nothing could
	reason   string      // why it cannot be placed any more, when it cannot
	full     []Available // offers that only lack room at their sites
	reserved bool        // its sites are kept free already
}

func (d *decider) kindOf(j *Job) *kind {
	key := classOf(j)
	k := d.kinds[key]
	if k == nil {
		k = &kind{}
		k.offers, k.err = Offers(j.Request, j.Account, d.Accounts, d.Sites, d.Flavors)
		d.kinds[key] = k
	}
	return k
}

// open takes stock of the partitions.
func (d *decider) open() {
	d.used, d.leaving, d.promised = map[string]*usage{}, map[string]*usage{}, map[string]*usage{}
	d.engine, d.storages = map[string]bool{}, map[string][]string{}
	d.draining = map[skyport.PartitionID]bool{}
	for i := range d.Sites {
		d.engine[d.Sites[i].Name], d.storages[d.Sites[i].Name] = d.Sites[i].Container, d.Sites[i].Storages
	}
	for i := range d.Partitions {
		p := &d.Partitions[i]
		if p.State == skyport.PartitionDeleted {
			continue
		}
		at(d.used, p.Site).add(len(p.Nodes), p.Flavor)
		if !p.State.Usable() {
			at(d.leaving, p.Site).add(len(p.Nodes), p.Flavor)
			continue
		}
		d.berths = append(d.berths, &berth{
			id: p.ID, state: p.State, jobs: p.Attempts, idle: p.IdleSince, keep: p.KeepResources, alive: p.KeepAlive.Duration(),
			creation: Creation{Account: p.Account, Site: p.Site, Flavor: p.Flavor, Spot: p.Spot, Image: p.Image, Nodes: len(p.Nodes)},
			free:     Room{CPUs: p.Flavor.CPUs - p.Held.CPUs, Memory: p.Flavor.Memory - p.Held.Memory, GPUs: p.Flavor.GPUs - p.Held.GPUs},
		})
	}
	slices.SortStableFunc(d.berths, func(a, b *berth) int {
		return cmp.Or(-compareBool(a.state.Connected(), b.state.Connected()), cmp.Compare(a.id, b.id))
	})
}

// job places one job or gives it a reason.
func (d *decider) job(j *Job) {
	if why := d.Held[j.Account]; why != "" {
		d.Reasons[j.ID] = skyport.DetailsQueued + ": " + why
		return
	}
	if j.NotBefore.After(d.Now) && !d.setBack(j.NotBefore) {
		d.Reasons[j.ID] = cmp.Or(j.Details, skyport.DetailsQueued)
		d.wake(j.NotBefore)
		return
	}
	k := d.kindOf(j)
	if k.reason == "" && (d.ontoExisting(j, k) || d.ontoNew(j, k)) {
		return
	}
	d.Reasons[j.ID] = k.reason
	if site := d.makeRoom(nodesOf(j.Request), k); site != "" {
		d.Reasons[j.ID] = fmt.Sprintf("%s: partitions of site %s are being removed to make room", skyport.DetailsQueued, site)
	}
	d.reserve(j, k)
}

// setBack says whether a moment that was written at most a short while ahead
// lies further ahead than that: the clock was set back since, and waiting for
// the moment could be long.
func (d *decider) setBack(written time.Time) bool {
	const ahead = time.Minute
	return written.After(d.Now.Add(ahead))
}

// ontoExisting puts the job onto a partition that is there, or that this
// decision creates already.
func (d *decider) ontoExisting(j *Job, k *kind) bool {
	for ; k.next < len(d.berths); k.next++ {
		b := d.berths[k.next]
		room, fits := d.fits(b, j)
		if _, reserved := d.reserved[b.creation.Site]; !fits || reserved || d.draining[b.id] {
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
func (d *decider) fits(b *berth, j *Job) (Room, bool) {
	r, c := j.Request, &b.creation
	room := RoomOf(r, c.Flavor)
	return room, c.Account == j.Account && c.Nodes == nodesOf(r) &&
		(r.Site == "" || r.Site == c.Site) && (r.Flavor == "" || r.Flavor == c.Flavor.Name) &&
		(r.CloudImage == "" || r.CloudImage == c.Image) && spotFits(r, c.Spot) &&
		(r.ContainerImage == "" || d.engine[c.Site]) && (r.Storage == "" || slices.Contains(d.storages[c.Site], r.Storage)) &&
		(r.MaxPrice == 0 || c.Flavor.Price*float64(c.Nodes) <= r.MaxPrice) &&
		r.CPUs <= c.Flavor.CPUs && r.Memory <= c.Flavor.Memory && r.GPUs <= c.Flavor.GPUs &&
		room.CPUs <= b.free.CPUs && room.Memory <= b.free.Memory && room.GPUs <= b.free.GPUs &&
		d.mayUse(j.Account, c.Site)
}

// ontoNew plans a new partition for the job, or says in k.reason why it cannot be.
func (d *decider) ontoNew(j *Job, k *kind) bool {
	reason := d.Blind
	switch {
	case reason != "":
	case k.err != nil:
		reason = k.err.Error()
	default:
		for _, o := range k.offers {
			why := d.hinders(o, nodesOf(j.Request), k)
			if why == "" {
				d.plan(j, o)
				return true
			}
			reason = cmp.Or(reason, why)
		}
	}
	k.reason = skyport.DetailsQueued + ": " + reason
	return false
}

// hinders says why there cannot be a partition of the offer now, or "".
func (d *decider) hinders(o Available, nodes int, k *kind) string {
	if refusal, ok := d.refused(o, nodes); ok {
		d.wake(refusal.Until)
		return cmp.Or(refusal.Reason, fmt.Sprintf("site %s refused %s lately", o.Site.Name, o.Flavor.Name))
	}
	if holder, ok := d.reserved[o.Site.Name]; ok {
		return fmt.Sprintf("site %s is kept free for job %s, which has waited longer", o.Site.Name, holder.Short())
	}
	if full := at(d.used, o.Site.Name).lacks(o.Site.Limits, nodes, o.Flavor); full != "" {
		k.full = append(k.full, o)
		return fmt.Sprintf("all %s of site %s are in use", full, o.Site.Name)
	}
	return ""
}

// plan adds the new partition.
func (d *decider) plan(j *Job, o Available) {
	r, nodes := j.Request, nodesOf(j.Request)
	at(d.used, o.Site.Name).add(nodes, o.Flavor)
	room := RoomOf(r, o.Flavor)
	d.berths = append(d.berths, &berth{
		state: skyport.PartitionPlanned, jobs: 1,
		creation: Creation{
			Account: j.Account, Site: o.Site.Name, Flavor: o.Flavor, Spot: o.Spot, Image: cmp.Or(r.CloudImage, o.Site.DefaultImage), Nodes: nodes,
			KeepAlive: r.KeepAlive, KeepResources: r.KeepResources, Jobs: []skyport.JobID{j.ID}, Rooms: []Room{room},
		},
		free: Room{CPUs: o.Flavor.CPUs - room.CPUs, Memory: o.Flavor.Memory - room.Memory, GPUs: o.Flavor.GPUs - room.GPUs},
	})
}

// makeRoom has idle partitions removed for a job that nothing else hinders, at
// the first site where that helps, and returns the site; "" when it helps nowhere.
func (d *decider) makeRoom(nodes int, k *kind) string {
	for ; len(k.full) > 0; k.full = k.full[1:] {
		o := k.full[0]
		if _, reserved := d.reserved[o.Site.Name]; !reserved && d.vacate(o, nodes) {
			return o.Site.Name
		}
	}
	return ""
}

// vacate drains idle partitions of the offer's site, longest idle first, if
// that makes room for the offer, and promises it the room. What is on its way
// out already counts first, so no more is drained than is needed.
func (d *decider) vacate(o Available, nodes int) bool {
	site := o.Site.Name
	left := *at(d.used, site)
	left.plus(*at(d.leaving, site), -1)
	left.plus(*at(d.promised, site), 1)
	idle := slices.DeleteFunc(slices.Clone(d.berths), func(b *berth) bool {
		return b.id == "" || b.jobs > 0 || b.keep || b.creation.Site != site || b.state != skyport.PartitionReady || d.draining[b.id]
	})
	slices.SortStableFunc(idle, func(a, b *berth) int { return a.idle.Compare(b.idle) })
	going := 0
	for left.lacks(o.Site.Limits, nodes, o.Flavor) != "" {
		if going == len(idle) {
			return false
		}
		left.remove(idle[going].creation.Nodes, idle[going].creation.Flavor)
		going++
	}
	for _, b := range idle[:going] {
		d.draining[b.id] = true
		at(d.leaving, site).add(b.creation.Nodes, b.creation.Flavor)
	}
	at(d.promised, site).add(nodes, o.Flavor)
	return true
}

// reserve keeps the sites of a job that has waited too long free for it.
func (d *decider) reserve(j *Job, k *kind) {
	since := j.Submitted.Add(Patience)
	if since.After(d.Now) {
		d.wake(since)
		return
	}
	if k.reserved {
		return
	}
	k.reserved = true
	for _, o := range k.offers {
		if _, refused := d.refused(o, nodesOf(j.Request)); refused {
			continue
		}
		if _, taken := d.reserved[o.Site.Name]; !taken {
			d.reserved[o.Site.Name] = j.ID
		}
	}
}

// refused says whether the site refused the offer lately.
func (d *decider) refused(o Available, nodes int) (Refusal, bool) {
	for _, offer := range []Offer{o.offer(), {Site: o.Site.Name}} {
		if refusal, ok := d.Refused[offer]; ok && refusal.Until.After(d.Now) && nodes >= refusal.Nodes {
			return refusal, true
		}
	}
	return Refusal{}, false
}

// drainIdle ends partitions that nobody uses.
func (d *decider) drainIdle() {
	for _, b := range d.berths {
		if b.id == "" || b.jobs > 0 || b.keep || d.draining[b.id] {
			continue
		}
		// A partition that was made for a job that is no more has never been idle.
		end := b.idle.Add(b.alive)
		if b.idle.IsZero() || !end.After(d.Now) || d.setBack(b.idle) {
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

// at is the usage of a site in one of the books.
func at(book map[string]*usage, site string) *usage {
	u := book[site]
	if u == nil {
		u = &usage{}
		book[site] = u
	}
	return u
}

func (u *usage) add(nodes int, f skyport.Flavor) { u.plus(usageOf(nodes, f), 1) }

func (u *usage) remove(nodes int, f skyport.Flavor) { u.plus(usageOf(nodes, f), -1) }

func (u *usage) plus(v usage, times int) {
	u.nodes += times * v.nodes
	u.cpus += times * v.cpus
	u.memory += skyport.Bytes(times) * v.memory
}

func usageOf(nodes int, f skyport.Flavor) usage {
	return usage{nodes: nodes, cpus: nodes * f.CPUs, memory: skyport.Bytes(nodes) * f.Memory}
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
