package lifecycle

import (
	"cmp"
	"context"
	"maps"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
	"github.com/openworkload/skyport/internal/core/store"
)

// restAfter is how much longer than a look that decided nothing the scheduler
// rests after it: each submission to a long queue asks for a look through all
// of it, which must not take the time from the submissions. The usual look
// takes microseconds, and so does the rest.
const restAfter = 7

// schedule decides whenever something has changed.
func (e *Engine) schedule(ctx context.Context) {
	var tries backoff
	next := time.Duration(-1)
	for {
		var timer <-chan time.Time
		if next >= 0 {
			timer = time.After(next)
		}
		select {
		case <-ctx.Done():
			return
		case <-e.decide:
		case <-timer:
		}
		began := time.Now()
		decision := schedule.Decide(e.snapshot())
		e.tell(decision.Reasons)
		next = -1
		if !decision.WakeAt.IsZero() {
			next = max(0, time.Until(decision.WakeAt))
		}
		if len(decision.Place)+len(decision.Create)+len(decision.Drain) == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(restAfter * time.Since(began)):
			}
			continue
		}
		if err := e.Store.Update(ctx, func(tx *store.Tx) error { return e.apply(tx, &decision) }); err != nil {
			if ctx.Err() == nil {
				e.log.Error("a decision of the scheduler was not written", "error", err)
			}
			next = tries.next()
			continue
		}
		tries.reset()
	}
}

// snapshot takes what a decision depends on out of the mirror.
func (e *Engine) snapshot() schedule.Snapshot {
	s := schedule.Snapshot{
		Now: time.Now(), Sites: e.Catalog.Sites(), Flavors: e.Catalog.Flavors(), Accounts: e.Catalog.Accounts(), Blind: e.Catalog.Blind(),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, job := range e.jobs {
		// An attempt that is still being cleaned up after a requeue does not hold
		// the job back: it has a name of its own.
		if job.State == skyport.JobQueued && !job.Purged {
			s.Jobs = append(s.Jobs, schedule.Job{
				ID: job.ID, Number: job.Number, Account: job.Account, Request: &job.Request, Submitted: job.SubmitTime,
				NotBefore: job.NotBefore, Details: job.Details,
			})
		}
	}
	held := map[skyport.PartitionID]schedule.Partition{}
	for _, list := range e.attempts {
		for _, a := range list {
			h := held[a.row.Partition]
			h.Attempts++
			if a.row.Phase < skyport.PhaseDone {
				h.Held.CPUs += a.row.CPUs
				h.Held.Memory += a.row.Memory
				h.Held.GPUs += a.row.GPUs
			} // else nothing of it runs, it is only not forgotten: a next job need not go elsewhere
			held[a.row.Partition] = h
		}
	}
	for id, p := range e.partitions {
		h := held[id]
		h.Partition = p.row
		s.Partitions = append(s.Partitions, h)
	}
	maps.DeleteFunc(e.refused, func(_ schedule.Offer, r schedule.Refusal) bool { return !r.Until.After(s.Now) })
	s.Refused = maps.Clone(e.refused)
	s.Held = e.budgets.held()
	return s
}

// apply writes a decision. What has changed since the snapshot is left out: the
// change has woken the scheduler again.
func (e *Engine) apply(tx *store.Tx, d *schedule.Decision) error {
	chosen := map[string]bool{} // addresses that this decision has given out
	for _, placement := range d.Place {
		p, err := tx.Partition(placement.Partition)
		if err != nil {
			return err
		}
		if !p.State.Usable() {
			continue
		}
		if err := e.place(tx, placement.Job, &p, placement.Room, chosen); err != nil {
			return err
		}
	}
	for _, c := range d.Create {
		id := skyport.NewPartitionID()
		p := skyport.Partition{
			ID: id, Name: skyport.PartitionName(id), State: skyport.PartitionPlanned, Details: skyport.DetailsNewPartition,
			Account: c.Account, Site: c.Site, Flavor: c.Flavor, Spot: c.Spot, Image: c.Image,
			KeepAlive:     cmp.Or(c.KeepAlive, skyport.Seconds(e.KeepAlive/time.Second)),
			KeepResources: c.KeepResources,
		}
		for i, name := range skyport.NodeNames(id, c.Nodes) {
			role := skyport.RoleCompute
			if i == 0 {
				role = skyport.RoleMain
			}
			p.Nodes = append(p.Nodes, skyport.Node{Name: name, Role: role})
		}
		if err := tx.InsertPartition(&p); err != nil {
			return err
		}
		for i, job := range c.Jobs {
			if err := e.place(tx, job, &p, c.Rooms[i], chosen); err != nil {
				return err
			}
		}
		// All its jobs may have gone meanwhile: then it never comes into being.
		if held, err := tx.Held(p.ID); err != nil {
			return err
		} else if held == 0 {
			if err := tx.MovePartition(&p, skyport.PartitionDraining, "Not needed any more"); err != nil {
				return err
			}
		}
	}
	for _, id := range d.Drain {
		p, err := tx.Partition(id)
		if err != nil {
			return err
		}
		if p.State.Usable() {
			if err := tx.MovePartition(&p, skyport.PartitionDraining, "Not needed any more"); err != nil {
				return err
			}
		}
	}
	return nil
}

// addressPatience is how long a job for whose ports there is no address waits.
const addressPatience = 10 * time.Second

// place gives a queued job room on a partition: a new attempt.
func (e *Engine) place(tx *store.Tx, id skyport.JobID, p *skyport.Partition, room schedule.Room, chosen map[string]bool) error {
	job, err := tx.Job(id)
	if err != nil {
		return ignoreNotFound(err) // purged meanwhile
	}
	if job.State != skyport.JobQueued || job.Purged {
		return nil
	}
	a := skyport.Attempt{Job: id, Number: job.Attempt + 1, Partition: p.ID, CPUs: room.CPUs, Memory: room.Memory, GPUs: room.GPUs}
	if len(job.Request.Ports) > 0 {
		inUse := func(address string) bool { return chosen[address] || e.addressInUse(address) }
		if a.Address, err = e.Addresses.For(id, inUse); err != nil {
			// Not at once again: an address comes free when another job ends.
			job.NotBefore = tx.Now().Add(addressPatience)
			return tx.MoveJob(&job, skyport.JobQueued, skyport.DetailsQueued+": "+err.Error())
		}
		chosen[a.Address] = true
	}
	if err := tx.InsertAttempt(&a); err != nil {
		return err
	}
	job.Attempt, job.Partition, job.Site, job.Flavor, job.Address = a.Number, p.ID, p.Site, p.Flavor.Name, a.Address
	job.NodeNames = nil
	for _, n := range p.Nodes {
		job.NodeNames = append(job.NodeNames, n.Name)
	}
	// What comes up, or is there already, stays for as long as any of its jobs asks.
	p.KeepAlive = max(p.KeepAlive, job.Request.KeepAlive)
	p.KeepResources = p.KeepResources || job.Request.KeepResources
	details, to, note := p.Details, p.State, p.Details
	if p.State.Connected() {
		p.IdleSince = time.Time{}
		details, to, note = skyport.DetailsConnected, skyport.PartitionBusy, "Busy"
	}
	if err := tx.MovePartition(p, to, note); err != nil {
		return err
	}
	return tx.MoveJob(&job, skyport.JobWaiting, details)
}

// addressInUse says whether an attempt that is not released has the address.
// It is called from inside an update: the mirror holds all commits but this one.
func (e *Engine) addressInUse(address string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, list := range e.attempts {
		for _, a := range list {
			if a.row.Address == address {
				return true
			}
		}
	}
	return false
}

// tell remembers why jobs wait, and sends what is new to whom it concerns. It
// is derived from the snapshot, so it is not stored.
func (e *Engine) tell(reasons map[skyport.JobID]string) {
	var news []skyport.Event
	e.mu.Lock()
	for id, reason := range reasons {
		if job := e.jobs[id]; job != nil && e.reasons[id] != reason {
			news = append(news, skyport.Event{
				Time: time.Now().UTC(), Kind: skyport.EventDetails, Job: id, Owner: job.Owner, Attempt: job.Attempt,
				State: string(skyport.JobQueued), Text: reason,
			})
		}
	}
	e.reasons = reasons
	e.mu.Unlock()
	for _, event := range news {
		e.Live(event)
	}
}

// Reason says why a queued job waits, "" when the scheduler has not said.
func (e *Engine) Reason(id skyport.JobID) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reasons[id]
}

// Explain says what would be decided if the request came now: a partition that
// exists, or a new one, or the reason to wait.
func (e *Engine) Explain(account string, request *skyport.Request) (schedule.Placement, schedule.Creation, string) {
	s := e.snapshot()
	probe := schedule.Job{ID: skyport.NewJobID(), Number: 1 << 62, Account: account, Request: request, Submitted: s.Now}
	s.Jobs = append(s.Jobs, probe)
	d := schedule.Decide(s)
	for _, p := range d.Place {
		if p.Job == probe.ID {
			return p, schedule.Creation{}, ""
		}
	}
	for _, c := range d.Create {
		for _, id := range c.Jobs {
			if id == probe.ID {
				return schedule.Placement{}, c, ""
			}
		}
	}
	return schedule.Placement{}, schedule.Creation{}, d.Reasons[probe.ID]
}
