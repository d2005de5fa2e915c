package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/core/schedule"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Gate is what the engine asks of the gate; [gate.Client] has it.
type Gate interface {
	Create(ctx context.Context, spec gate.PartitionSpec) error
	Wait(ctx context.Context, site string, id skyport.PartitionID, after string) (gate.PartitionStatus, string, error)
	List(ctx context.Context, site, owner string) ([]gate.PartitionStatus, error)
	Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error
	Delete(ctx context.Context, site string, id skyport.PartitionID) error
}

// Catalog tells what there is: what the scheduler chooses from.
type Catalog interface {
	Sites() []skyport.Site
	Flavors() []skyport.Flavor
	Accounts() []skyport.Account
	// Blind says why the sites are not known, "" when they are.
	Blind() string
}

// Options of an engine. Store, Gate, Catalog, Archive, Staging and Owner are needed.
type Options struct {
	Store   *store.Store
	Gate    Gate
	Catalog Catalog
	Archive *archive.Archive
	// Staging returns where a user's staged inputs are.
	Staging func(owner skyport.UserID) (*transfer.Depot, error)
	// Sealer keeps the keys of partitions; not needed when all sites are local.
	Sealer Sealer
	// Registries returns the logins for the registry of a container image that a
	// user has stored, or that a site lends; nil: there are none.
	Registries func(ctx context.Context, owner skyport.UserID, site, image string) ([]protocol.Registry, error)
	// Storage returns what opens a storage of a site, for a life at most; nil:
	// there are none.
	Storage func(ctx context.Context, site, name string, life time.Duration) (protocol.Storage, error)
	// Owner is the tag that this core's partitions carry at their sites.
	Owner     string
	Addresses forward.Addresses
	// KeepAlive is how long a partition idles for jobs that do not say.
	KeepAlive time.Duration
	// Live takes events that are not stored: progress, reasons. It must not block.
	Live   func(skyport.Event)
	Limits Limits
	Logger *slog.Logger
}

// Limits bound every wait and every size. Zero fields get defaults.
type Limits struct {
	Create  time.Duration // from the request to nodes with addresses; default 20 min
	Connect time.Duration // from addresses to a worker that answers; default 10 min
	Lost    time.Duration // how long a worker may not answer before its node counts as lost; default 1 h
	Lease   time.Duration // how long a partition lives without us; default 12 h
	Drain   time.Duration // how long a draining partition waits for a worker that does not answer; default 10 s
	Grace   time.Duration // between TERM and KILL for canceled jobs; default 10 s
	JobLog  skyport.Bytes // most that is kept of each log; default 1 GiB
	// Misplaced is how many attempts in a row may end before their script
	// began; default 3.
	Misplaced int
}

func (l Limits) orDefaults() Limits {
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&l.Create, 20*time.Minute)
	def(&l.Connect, 10*time.Minute)
	def(&l.Lost, time.Hour)
	def(&l.Lease, 12*time.Hour)
	def(&l.Drain, 10*time.Second)
	def(&l.Grace, 10*time.Second)
	if l.JobLog == 0 {
		l.JobLog = 1 << 30
	}
	if l.Misplaced == 0 {
		l.Misplaced = 3
	}
	return l
}

// Engine drives everything that is not over. Make it with New, connect
// Committed to the store, then Run it.
type Engine struct {
	Options
	log *slog.Logger

	mu         sync.Mutex
	running    context.Context //nolint:containedctx // of the loops; nil before Run
	loops      sync.WaitGroup
	jobs       map[skyport.JobID]*skyport.Job
	attempts   map[skyport.JobID][]*attempt // not released; mostly one, more after a requeue
	partitions map[skyport.PartitionID]*partition
	forgetting map[skyport.JobID]bool
	reasons    map[skyport.JobID]string
	refused    map[schedule.Offer]schedule.Refusal
	decide     chan struct{} // one slot: the scheduler has something to look at
	budgets    budgets
}

// New makes an engine; it does nothing yet.
func New(opts Options) *Engine {
	opts.Limits = opts.Limits.orDefaults()
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Live == nil {
		opts.Live = func(skyport.Event) {}
	}
	return &Engine{
		Options: opts, log: opts.Logger,
		jobs: map[skyport.JobID]*skyport.Job{}, attempts: map[skyport.JobID][]*attempt{}, partitions: map[skyport.PartitionID]*partition{},
		forgetting: map[skyport.JobID]bool{}, reasons: map[skyport.JobID]string{}, refused: map[schedule.Offer]schedule.Refusal{},
		decide: make(chan struct{}, 1), budgets: budgets{wake: make(chan struct{}, 1)},
	}
}

// Load reads what is not over. It is called once, before anything can change
// the store and before Run.
func (e *Engine) Load(ctx context.Context) error {
	active, err := e.Store.Active(ctx)
	if err != nil {
		return fmt.Errorf("read what is active: %w", err)
	}
	purses, err := e.count(ctx) // before the first submission and the first decision
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.budgets.purses = purses
	for i := range active.Jobs {
		e.jobs[active.Jobs[i].ID] = &active.Jobs[i]
	}
	for i := range active.Partitions {
		e.addPartition(active.Partitions[i])
	}
	for i := range active.Attempts {
		e.addAttempt(active.Attempts[i])
	}
	return nil
}

// Run drives everything until ctx ends, and returns when all loops have ended.
// What is under way at a site or on a node goes on without us.
func (e *Engine) Run(ctx context.Context) {
	e.mu.Lock()
	e.running = ctx
	for _, p := range e.partitions {
		e.loops.Go(func() { p.reconcile(ctx) })
	}
	for _, list := range e.attempts {
		for _, a := range list {
			e.loops.Go(func() { a.reconcile(ctx) })
		}
	}
	for id := range e.jobs {
		e.settle(id)
	}
	e.mu.Unlock()
	e.wakeScheduler()
	e.loops.Go(func() { e.schedule(ctx) })
	e.loops.Go(func() { e.watchBudgets(ctx) })
	<-ctx.Done()
	e.loops.Wait()
}

// Committed is the store's listener: it brings the mirror up to date and wakes
// the loops that a commit concerns.
func (e *Engine) Committed(c store.Commit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	decide := false // whether the scheduler could decide otherwise now
	for i := range c.Partitions {
		p := &c.Partitions[i]
		decide = decide || p.State != skyport.PartitionBusy
		switch known := e.partitions[p.ID]; {
		case known != nil:
			known.changed(*p)
			e.wakeAttemptsOf(p.ID, gone(p.State))
			if p.State == skyport.PartitionDeleted {
				delete(e.partitions, p.ID)
			}
		case p.State != skyport.PartitionDeleted:
			e.addPartition(*p)
		}
	}
	for i := range c.Attempts {
		a := &c.Attempts[i]
		switch known := e.attempt(a); {
		case known != nil:
			decide = decide || (known.row.Phase < skyport.PhaseDone && a.Phase >= skyport.PhaseDone) // its room is free
			// Of what it has written itself it knows: a wake would cut its pauses short.
			if known.row.Phase != a.Phase {
				wake(known.wake)
			}
			known.row = *a
		case a.Phase < skyport.PhaseReleased:
			e.addAttempt(*a)
		}
		if p := e.partitions[a.Partition]; p != nil {
			wake(p.wake)
		}
		if a.Phase == skyport.PhaseReleased {
			e.dropAttempt(a)
			e.settle(a.Job)
		}
	}
	for i := range c.Jobs {
		job := c.Jobs[i]
		e.jobs[job.ID] = &job
		decide = decide || job.State == skyport.JobQueued || job.State == skyport.JobCanceled || job.Purged
		if job.State != skyport.JobQueued {
			delete(e.reasons, job.ID)
		}
		for _, a := range e.attempts[job.ID] {
			a.jobChanged(&job)
		}
		e.settle(job.ID)
	}
	if len(c.Partitions)+len(c.Attempts) > 0 {
		wake(e.budgets.wake)
	}
	for _, id := range c.Forgotten {
		delete(e.jobs, id)
		delete(e.reasons, id)
		delete(e.forgetting, id)
	}
	if decide {
		e.wakeScheduler()
	}
}

// settle drops a job that is over and held by nothing from the mirror, and
// lets go of it altogether when it was purged. e.mu is held.
func (e *Engine) settle(id skyport.JobID) {
	job := e.jobs[id]
	if job == nil || (!job.State.Terminal() && !job.Purged) {
		return
	}
	if len(e.attempts[id]) > 0 {
		return
	}
	if !job.Purged {
		delete(e.jobs, id)
		return
	}
	if e.forgetting[id] || e.running == nil {
		return
	}
	e.forgetting[id] = true
	ctx := e.running
	e.loops.Go(func() { e.forget(ctx, id) })
}

func (e *Engine) addPartition(row skyport.Partition) {
	p := &partition{e: e, id: row.ID, row: row, wake: make(chan struct{}, 1)}
	e.partitions[row.ID] = p
	if ctx := e.running; ctx != nil {
		e.loops.Go(func() { p.reconcile(ctx) })
	}
}

func (e *Engine) addAttempt(row skyport.Attempt) {
	a := &attempt{e: e, job: row.Job, number: row.Number, row: row, wake: make(chan struct{}, 1)}
	e.attempts[row.Job] = append(e.attempts[row.Job], a)
	if ctx := e.running; ctx != nil {
		e.loops.Go(func() { a.reconcile(ctx) })
	}
}

// attempt finds the loop of a row, nil when there is none.
func (e *Engine) attempt(row *skyport.Attempt) *attempt {
	for _, a := range e.attempts[row.Job] {
		if a.row.Number == row.Number {
			return a
		}
	}
	return nil
}

func (e *Engine) dropAttempt(row *skyport.Attempt) {
	left := slices.DeleteFunc(e.attempts[row.Job], func(a *attempt) bool { return a.row.Number == row.Number })
	if len(left) == 0 {
		delete(e.attempts, row.Job)
		return
	}
	e.attempts[row.Job] = left
}

// attemptsOn returns the rows of all attempts that hold room on a partition.
func (e *Engine) attemptsOn(id skyport.PartitionID) (rows []skyport.Attempt) {
	for _, list := range e.attempts {
		for _, a := range list {
			if a.row.Partition == id {
				rows = append(rows, a.row)
			}
		}
	}
	return rows
}

// wakeAttemptsOf makes the attempts on a partition look again, and ends what they
// are at when its nodes are gone.
func (e *Engine) wakeAttemptsOf(id skyport.PartitionID, gone bool) {
	for _, list := range e.attempts {
		for _, a := range list {
			if a.row.Partition == id {
				if gone && a.leave != nil {
					a.leave(errMoved)
				}
				wake(a.wake)
			}
		}
	}
}

// local says whether nodes of the site are this machine: they share its network
// and need no keys.
func (e *Engine) local(site string) bool {
	return slices.ContainsFunc(e.Catalog.Sites(), func(s skyport.Site) bool { return s.Name == site && s.Local })
}

func onThisMachine(n skyport.Node) bool { return strings.HasPrefix(n.Endpoint, "unix:") }

// leaseEnd is until when what is renewed now lives.
func (e *Engine) leaseEnd() time.Time { return time.Now().Add(e.Limits.Lease).UTC() }

// Wake makes the scheduler look again: the catalogue has changed.
func (e *Engine) Wake() { e.wakeScheduler() }

func (e *Engine) wakeScheduler() { wake(e.decide) }

// wake fills a channel of one slot: the loop behind it looks again.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits until the loop is woken or some time has passed; false when ctx
// has ended.
func pause(ctx context.Context, woken <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-woken:
	case <-timer.C:
	}
	return true
}

// backoff grows the waits between tries of one step.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 50*time.Millisecond), 15*time.Second)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
