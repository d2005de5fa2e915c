package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/link"
	"github.com/openworkload/skyport/internal/core/store"
)

// partition is the loop of one partition.
type partition struct {
	e    *Engine
	id   skyport.PartitionID
	wake chan struct{}

	// Guarded by the engine's lock.
	row   skyport.Partition
	link  *link.Link
	stay  []skyport.PartitionState // the step under way is for these states
	leave context.CancelCauseFunc  // ends that step
}

// errMoved ends a step whose partition or job has moved on.
var errMoved = errors.New("moved on")

// changed takes a new row. The engine's lock is held.
func (p *partition) changed(row skyport.Partition) {
	p.row = row
	if p.leave != nil && !slices.Contains(p.stay, row.State) {
		p.leave(errMoved)
	}
	wake(p.wake)
}

// reconcile moves the partition from state to state until it is deleted.
func (p *partition) reconcile(ctx context.Context) {
	var tries backoff
	for ctx.Err() == nil {
		row := p.current()
		if row.State == skyport.PartitionDeleted {
			break
		}
		err := p.step(ctx, &row)
		switch {
		case err == nil:
			tries.reset()
		case ctx.Err() == nil:
			p.e.log.Warn("partition: trying again", "partition", row.ID, "state", row.State, "error", err)
			p.note(ctx, row.State, fmt.Sprintf("%s: trying again: %v", row.State, err))
			pause(ctx, nil, tries.next())
		}
	}
	p.close()
}

// step does what the state asks for. It returns when the state has changed, or
// may have; an error is tried again with backoff.
func (p *partition) step(ctx context.Context, row *skyport.Partition) error {
	switch row.State {
	case skyport.PartitionPlanned:
		return p.plan(ctx, row)
	case skyport.PartitionCreating, skyport.PartitionBooting:
		return p.create(ctx, row)
	case skyport.PartitionConnecting:
		return p.connect(ctx, row)
	case skyport.PartitionReady, skyport.PartitionBusy:
		return p.hold(ctx, row)
	case skyport.PartitionDraining:
		return p.drain(ctx)
	case skyport.PartitionFailed:
		return p.abandon(ctx, row)
	case skyport.PartitionDeleting:
		return p.remove(ctx, row)
	}
	return nil
}

// create asks the gate for the partition, again and again under the same id,
// and follows it until its nodes have addresses.
func (p *partition) create(ctx context.Context, row *skyport.Partition) error {
	ctx, cancel := p.while(ctx, skyport.PartitionCreating, skyport.PartitionBooting)
	defer cancel()
	ctx, stop := context.WithDeadlineCause(ctx, row.Created.Add(p.e.Limits.Create),
		fmt.Errorf("the site did not bring up the nodes within %s", p.e.Limits.Create))
	defer stop()

	if row.State == skyport.PartitionCreating {
		spec, err := p.spec(ctx, row)
		if err != nil {
			return p.failPastDeadline(ctx, err)
		}
		err = p.e.Gate.Create(ctx, spec)
		if errors.Is(err, gate.ErrPermanent) {
			return p.refused(ctx, row, skyport.CodeOf(err), fmt.Sprintf("site %s refused the partition: %s", row.Site, withHint(err)))
		}
		if err != nil {
			return p.failPastDeadline(ctx, fmt.Errorf("create at site %s: %w", row.Site, err))
		}
	}
	version, progress := "", progress{}
	for {
		if ctx.Err() != nil {
			return p.failPastDeadline(ctx, ctx.Err())
		}
		status, next, err := p.e.Gate.Wait(ctx, row.Site, row.ID, version)
		switch {
		case errors.Is(err, gate.ErrNotFound) && p.current().State == skyport.PartitionBooting:
			return p.fail(ctx, "the site has nothing of the partition any more")
		case err != nil: // the gate may have been killed before the site had anything: it is asked again
			return p.failPastDeadline(ctx, fmt.Errorf("wait for site %s: %w", row.Site, err))
		}
		version = next
		switch status.State {
		case gate.StateFailed, gate.StateDeleting:
			return p.refused(ctx, row, status.Code, "the site could not bring up the nodes: "+status.Details)
		case gate.StateCreating:
			if progress.worth(status.Details) {
				p.note(ctx, skyport.PartitionCreating, status.Details)
			}
		case gate.StateBooting:
			if p.current().State == skyport.PartitionCreating {
				err = p.move(ctx, skyport.PartitionCreating, skyport.PartitionBooting, skyport.DetailsPartitionSpawned, withNodes(status.Nodes))
			}
		case gate.StateUp:
			return p.move(ctx, p.current().State, skyport.PartitionConnecting, skyport.DetailsPartitionSpawned, withNodes(status.Nodes))
		}
		if err != nil {
			return err
		}
	}
}

// progress is what a site has told of a creation. Large ones tell very much.
type progress struct {
	told  string
	count int
	last  time.Time
}

// worth says whether a text is to be stored: the first ones are, and later not
// more than one a second.
func (p *progress) worth(text string) bool {
	const first = 10
	if text == "" || text == p.told || p.count >= first && time.Since(p.last) < time.Second {
		return false
	}
	p.told, p.count, p.last = text, p.count+1, time.Now()
	return true
}

// connect opens the link and waits for the worker, as long as the site has the
// nodes: one may die before it was ever reached.
func (p *partition) connect(ctx context.Context, row *skyport.Partition) error {
	ctx, cancel := p.while(ctx, skyport.PartitionConnecting)
	defer cancel()
	l, err := p.open(ctx, row)
	if err != nil || l == nil {
		return err
	}
	gone, stop := p.watching(ctx, row)
	defer stop()
	deadline := time.Now().Add(p.e.Limits.Connect)
	for {
		up, _, cause := l.Up()
		if up {
			return p.ready(ctx)
		}
		if errors.Is(cause, link.ErrRefused) {
			return p.fail(ctx, cause.Error())
		}
		if time.Now().After(deadline) {
			return p.fail(ctx, fmt.Sprintf("the worker did not answer within %s: %v", p.e.Limits.Connect, cause))
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case why := <-gone:
			timer.Stop()
			return p.gone(ctx, row, why)
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// ready marks the partition ready, or busy at once with the jobs that wait.
func (p *partition) ready(ctx context.Context) error {
	return p.update(ctx, skyport.PartitionConnecting, func(tx *store.Tx, row *skyport.Partition) error {
		row.ReadyAt = tx.Now()
		if len(p.attempts()) > 0 {
			return tx.MovePartition(row, skyport.PartitionBusy, skyport.DetailsConnected)
		}
		row.IdleSince = tx.Now()
		return tx.MovePartition(row, skyport.PartitionReady, skyport.DetailsConnected)
	})
}

// hold keeps the link open and the lease alive, and watches the site, until
// the state changes.
func (p *partition) hold(ctx context.Context, row *skyport.Partition) error {
	ctx, cancel := p.while(ctx, skyport.PartitionReady, skyport.PartitionBusy)
	defer cancel()
	l, err := p.open(ctx, row)
	if err != nil || l == nil {
		return err
	}
	gone, stop := p.watching(ctx, row)
	defer stop()

	for {
		renew := p.e.Limits.Lease / 4
		if err := p.extend(ctx, row, l); err != nil && ctx.Err() == nil {
			p.e.log.Warn("the lease was not renewed", "partition", row.ID, "error", err)
			renew = min(renew, time.Minute)
		}
		renewal := time.Now().Add(renew)
		for time.Now().Before(renewal) {
			most := time.Until(renewal)
			up, since, cause := l.Up()
			if up {
				p.removeStrays(ctx, l)
			} else {
				left := p.e.Limits.Lost - time.Since(since)
				switch {
				case errors.Is(cause, link.ErrRefused):
					return p.fail(ctx, cause.Error())
				case left <= 0:
					return p.fail(ctx, fmt.Sprintf("it has not answered for %s: %v", p.e.Limits.Lost, cause))
				}
				most = min(most, left)
			}
			timer := time.NewTimer(most)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case why := <-gone:
				timer.Stop()
				return p.gone(ctx, row, why)
			case <-p.wake:
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// extend moves the end of the partition's life: at the gate, and on the nodes,
// which end by themselves should nobody ever come back.
func (p *partition) extend(ctx context.Context, row *skyport.Partition, l *link.Link) error {
	until := p.e.leaseEnd()
	if err := p.e.Gate.Extend(ctx, row.Site, row.ID, until); err != nil {
		return fmt.Errorf("at the site: %w", err)
	}
	if p.e.local(row.Site) {
		return nil // the gate watches over its processes
	}
	all, ctx := errgroup.WithContext(ctx)
	for i, n := range row.Nodes {
		all.Go(func() error {
			if err := l.Node(i).SetLease(ctx, until); err != nil {
				return fmt.Errorf("on node %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return all.Wait() //nolint:wrapcheck // wrapped above
}

// departure is why a site has a partition no more.
type departure struct {
	code skyport.Code
	text string
}

// watching lets watchSite run until stop.
func (p *partition) watching(ctx context.Context, row *skyport.Partition) (gone <-chan departure, stop func()) {
	told := make(chan departure, 1)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); p.watchSite(ctx, row, told) }()
	return told, func() { cancel(); <-done }
}

// watchSite tells when the site has lost the partition or given it up.
func (p *partition) watchSite(ctx context.Context, row *skyport.Partition, gone chan<- departure) {
	var tries backoff
	version := ""
	for ctx.Err() == nil {
		status, next, err := p.e.Gate.Wait(ctx, row.Site, row.ID, version)
		switch {
		case errors.Is(err, gate.ErrNotFound):
			gone <- departure{text: "the site has removed the partition"}
			return
		case err != nil:
			pause(ctx, nil, tries.next())
		case status.State == gate.StateFailed || status.State == gate.StateDeleting:
			gone <- departure{status.Code, "the site gave up the partition: " + status.Details}
			return
		default:
			version = next
			tries.reset()
		}
	}
}

// drain waits until no attempt holds the partition, then has it deleted. A
// worker that does not answer is not waited for long: what is on it ends with it.
func (p *partition) drain(ctx context.Context) error {
	start := time.Now()
	for {
		silent := true
		if l := p.linked(); l != nil {
			up, _, _ := l.Up()
			silent = !up
		}
		if len(p.attempts()) == 0 || (silent && time.Since(start) > p.e.Limits.Drain) {
			return p.move(ctx, skyport.PartitionDraining, skyport.PartitionDeleting, "Removing from the site", nil)
		}
		if row := p.current(); silent && !row.ReadyAt.IsZero() {
			if _, err := p.open(ctx, &row); err != nil {
				return err
			}
		}
		if !pause(ctx, p.wake, p.e.Limits.Drain) {
			return nil
		}
	}
}

// abandon waits until the attempts have taken note of why the partition failed,
// which needs no node, then has it deleted.
func (p *partition) abandon(ctx context.Context, row *skyport.Partition) error {
	start := time.Now()
	for len(p.attempts()) > 0 && time.Since(start) < p.e.Limits.Drain {
		if !pause(ctx, p.wake, p.e.Limits.Drain) {
			return nil
		}
	}
	return p.move(ctx, row.State, skyport.PartitionDeleting, "Removing after: "+row.Details, nil)
}

// remove asks the gate to delete the partition until it says that nothing is left.
func (p *partition) remove(ctx context.Context, row *skyport.Partition) error {
	p.close()
	version := ""
	for {
		if err := p.e.Gate.Delete(ctx, row.Site, row.ID); err != nil && !errors.Is(err, gate.ErrNotFound) {
			return fmt.Errorf("delete at site %s: %w", row.Site, err)
		}
		// Ask again once in a while: a request to delete may have been lost.
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		for {
			_, next, err := p.e.Gate.Wait(waiting, row.Site, row.ID, version)
			if errors.Is(err, gate.ErrNotFound) {
				cancel()
				return p.update(ctx, skyport.PartitionDeleting, func(tx *store.Tx, row *skyport.Partition) error {
					row.DeletedAt = tx.Now()
					if err := tx.DeletePartitionKeys(row.ID); err != nil {
						return err
					}
					return tx.MovePartition(row, skyport.PartitionDeleted, "Removed; the site confirms it")
				})
			}
			if err != nil {
				expired := waiting.Err() != nil && ctx.Err() == nil
				cancel()
				if expired {
					break
				}
				return fmt.Errorf("wait for removal at site %s: %w", row.Site, err)
			}
			version = next
		}
	}
}

// fail ends the partition for a reason; its deletion follows.
func (p *partition) fail(ctx context.Context, reason string) error { return p.failBy(ctx, "", reason) }

func (p *partition) failBy(ctx context.Context, code skyport.Code, reason string) error {
	return p.update(ctx, "", func(tx *store.Tx, row *skyport.Partition) error {
		if !row.State.CanMove(skyport.PartitionFailed) {
			return nil
		}
		row.Code = code
		return tx.MovePartition(row, skyport.PartitionFailed, reason)
	})
}

// failPastDeadline fails the partition when err came from the end of the
// step's deadline, and passes other errors on to be tried again.
func (p *partition) failPastDeadline(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return p.fail(ctx, fmt.Sprintf("%v (%v)", context.Cause(ctx), err))
	}
	if ctx.Err() != nil {
		return nil // the state has changed, or we stop
	}
	return err
}

// move writes a move from one state, if that is still the state.
func (p *partition) move(ctx context.Context, from, to skyport.PartitionState, details string, change func(*skyport.Partition)) error {
	return p.update(ctx, from, func(tx *store.Tx, row *skyport.Partition) error {
		if change != nil {
			change(row)
		}
		if err := tx.MovePartition(row, to, details); err != nil {
			return err
		}
		return p.tellWaiting(tx, details)
	})
}

// note tells how it goes in a state, if that is still the state.
func (p *partition) note(ctx context.Context, state skyport.PartitionState, details string) {
	err := p.update(ctx, state, func(tx *store.Tx, row *skyport.Partition) error {
		if err := tx.MovePartition(row, state, details); err != nil {
			return err
		}
		if state != skyport.PartitionCreating {
			return nil
		}
		return p.tellWaiting(tx, skyport.DetailsPartitionNotYet+": "+details)
	})
	if err != nil && ctx.Err() == nil {
		p.e.log.Error("partition: its trouble was not written", "partition", p.id, "error", err)
	}
}

// update changes the row in a transaction; nothing happens when its state is
// no longer the expected one ("" is any). The end of a step's context does not
// keep it from being written: what has happened has happened.
func (p *partition) update(ctx context.Context, expected skyport.PartitionState, change func(*store.Tx, *skyport.Partition) error) error {
	return p.e.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		row, err := tx.Partition(p.id)
		if err != nil {
			return err
		}
		if expected != "" && row.State != expected {
			return nil
		}
		return change(tx, &row)
	})
}

// tellWaiting shows the partition's progress on the jobs that wait for it.
func (p *partition) tellWaiting(tx *store.Tx, details string) error {
	for _, a := range p.attempts() {
		job, err := tx.Job(a.Job)
		if err != nil {
			return err
		}
		if job.State != skyport.JobWaiting || job.Attempt != a.Number {
			continue
		}
		if err := tx.MoveJob(&job, skyport.JobWaiting, details); err != nil {
			return err
		}
	}
	return nil
}

// while returns a context that ends when the partition leaves the states.
func (p *partition) while(ctx context.Context, states ...skyport.PartitionState) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	p.stay, p.leave = states, cancel
	if !slices.Contains(states, p.row.State) {
		cancel(errMoved)
	}
	return ctx, func() { cancel(nil) }
}

// current is the row as of the last commit.
func (p *partition) current() skyport.Partition {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	return p.row
}

// attempts are the rows of the attempts that hold the partition.
func (p *partition) attempts() []skyport.Attempt {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	return p.e.attemptsOn(p.id)
}

// open opens the link, once. It is nil when the partition has failed because there
// can be none.
func (p *partition) open(ctx context.Context, row *skyport.Partition) (*link.Link, error) {
	if l := p.linked(); l != nil {
		return l, nil
	}
	keys, err := p.keys(ctx, row)
	if err != nil {
		return nil, err
	}
	l, err := link.Open(link.Options{Nodes: row.Nodes, Keys: keys, Changed: p.runChanged, Logger: p.e.log})
	if err != nil {
		return nil, p.fail(ctx, "link: "+err.Error())
	}
	p.e.mu.Lock()
	p.link = l
	p.e.wakeAttemptsOf(row.ID, false)
	p.e.mu.Unlock()
	return l, nil
}

// runChanged wakes the attempt that a news of the link is for, or all.
func (p *partition) runChanged(run string) {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	if run == "" {
		wake(p.wake)
		p.e.wakeAttemptsOf(p.id, false)
		return
	}
	list := p.e.attempts[jobOf(run)]
	for _, a := range list {
		wake(a.wake)
	}
	if len(list) == 0 {
		wake(p.wake) // a stray
	}
}

// removeStrays has the workers forget runs that no attempt stands behind. A
// request to make a run that was under way when its job was canceled may have
// arrived after the request to remove it. Rows come before runs, so a run
// without an attempt is nobody's.
func (p *partition) removeStrays(ctx context.Context, l *link.Link) {
	for i, node := range p.current().Nodes {
		for _, run := range l.NodeRuns(i) {
			p.e.mu.Lock()
			stray := !slices.ContainsFunc(p.e.attempts[jobOf(run)], func(a *attempt) bool {
				return skyport.RunName(a.job, a.number) == run
			})
			p.e.mu.Unlock()
			if !stray {
				continue
			}
			if err := l.Node(i).Remove(ctx, run); err != nil && ctx.Err() == nil {
				p.e.log.Warn("a run that is nobody's was not removed", "partition", p.id, "node", node.Name, "run", run, "error", err)
			}
		}
	}
}

// jobOf is the job that a run is named after.
func jobOf(run string) skyport.JobID {
	job, _, _ := strings.Cut(run, ".")
	return skyport.JobID(job)
}

func (p *partition) linked() *link.Link {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	return p.link
}

// close ends the link.
func (p *partition) close() {
	p.e.mu.Lock()
	l := p.link
	p.link = nil
	p.e.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

func withNodes(nodes []skyport.Node) func(*skyport.Partition) {
	return func(row *skyport.Partition) {
		if len(nodes) == len(row.Nodes) {
			row.Nodes = nodes
		}
	}
}
