package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/cost"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// budgets are how the accounts that have one stand. All but wake is guarded by
// the engine's lock.
type budgets struct {
	purses  map[string]cost.Purse // by account, as of the last look
	foreign map[string]bool       // accounts and sites that do not go together, told once
	wake    chan struct{}
}

// longestLook is the time between two looks at budgets when nothing happens.
const longestLook = 10 * time.Minute

// watchBudgets looks at what accounts have spent whenever partitions have come
// or gone, and when a budget that is being spent comes to its next level.
func (e *Engine) watchBudgets(ctx context.Context) {
	var tries backoff
	for len(e.budgeted()) > 0 && ctx.Err() == nil {
		began := time.Now()
		next, err := e.weigh(ctx)
		wait := min(longestLook, max(0, time.Until(next)))
		switch {
		case err != nil:
			e.log.Error("budgets were not looked at", "error", err)
			wait = tries.next()
		case next.IsZero():
			wait = longestLook
		}
		if err == nil {
			tries.reset()
		}
		// Each placement wakes us: as with the scheduler, most of the time is for others.
		if !pause(ctx, nil, restAfter*time.Since(began)) || !pause(ctx, e.budgets.wake, wait) {
			return
		}
	}
}

func (e *Engine) budgeted() (list []skyport.Account) {
	for _, a := range e.Catalog.Accounts() {
		if a.Budget != nil {
			list = append(list, a)
		}
	}
	return list
}

// weigh counts what was spent, tells of what has changed by it, and ends what
// has to end. It returns when the next budget comes to a level by itself.
func (e *Engine) weigh(ctx context.Context) (next time.Time, err error) {
	purses, err := e.count(ctx)
	if err != nil {
		return next, err
	}
	now, changed := time.Now(), false
	e.mu.Lock()
	for account, p := range purses {
		changed = changed || e.budgets.purses[account].Level != p.Level
		if at := p.Next(now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	e.budgets.purses = purses
	if changed {
		for _, list := range e.attempts {
			for _, a := range list {
				wake(a.wake)
			}
		}
	}
	e.mu.Unlock()
	if changed {
		e.wakeScheduler()
	}
	e.tellForeign()
	for _, p := range purses {
		err = errors.Join(err, e.tellBudget(ctx, &p), e.closePurse(ctx, &p))
	}
	return next, err
}

func (e *Engine) count(ctx context.Context) (map[string]cost.Purse, error) {
	now := time.Now()
	spent := map[cost.Day]store.Spending{} // by the beginning of the period
	purses := map[string]cost.Purse{}
	for _, a := range e.budgeted() {
		since := cost.Day("")
		if began := cost.PeriodOf(a.Budget, now); !began.IsZero() {
			since = cost.DayOf(began)
		}
		sums, ok := spent[since]
		if !ok {
			var err error
			if sums, err = e.Store.Spending(ctx, cost.Filter{By: skyport.CostByAccount, Since: since}); err != nil {
				return nil, fmt.Errorf("what accounts have spent: %w", err)
			}
			spent[since] = sums
		}
		purses[a.Name] = cost.Weigh(a.Name, *a.Budget, sums.Settled, sums.Live, now)
	}
	return purses, nil
}

// tellForeign warns, once, of sites that an account cannot use because they
// charge in another currency than its budget is in.
func (e *Engine) tellForeign() {
	for _, a := range e.budgeted() {
		for _, site := range e.Catalog.Sites() {
			if a.Budget.Covers(site.Currency) || (!slices.Contains(a.Sites, "*") && !slices.Contains(a.Sites, site.Name)) {
				continue
			}
			key := a.Name + "\x00" + site.Name
			e.mu.Lock()
			told := e.budgets.foreign[key]
			if e.budgets.foreign == nil {
				e.budgets.foreign = map[string]bool{}
			}
			e.budgets.foreign[key] = true
			e.mu.Unlock()
			if !told {
				e.log.Warn("an account cannot use a site: its budget is in another currency", "account", a.Name, "site", site.Name,
					"budget", a.Budget.Currency, "currency", site.Currency)
			}
		}
	}
}

// tellBudget tells, once for each level and period, the log and the jobs that
// have nodes.
func (e *Engine) tellBudget(ctx context.Context, p *cost.Purse) error {
	if p.Level == cost.Fine {
		return nil
	}
	fact, value := "budget/"+p.Account, fmt.Sprintf("%s of %v: %d", cost.DayOf(p.Since), p.Budget.Amount, p.Level)
	told, err := e.Store.Fact(ctx, fact)
	if err != nil || told == value {
		return err
	}
	text := p.Warning()
	e.log.Warn("a budget comes to its end", "account", p.Account, "spent", p.String(), "percent", int(p.Level), "end_jobs", p.Budget.EndJobs)
	var jobs []skyport.JobID
	e.mu.Lock()
	for id, job := range e.jobs {
		if job.Account == p.Account && job.State != skyport.JobQueued && !job.State.Terminal() {
			jobs = append(jobs, id)
		}
	}
	e.mu.Unlock()
	return e.Store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range jobs {
			job, err := tx.Job(id)
			if skyport.CodeOf(err) == skyport.CodeNotFound {
				continue // purged meanwhile
			}
			if err != nil {
				return err
			}
			if job.State.Terminal() || job.Purged {
				continue
			}
			job.Warnings = append(job.Warnings, text)
			if err := tx.NoteJob(&job, skyport.EventWarning, text, nil); err != nil {
				return err
			}
		}
		return tx.SetFact(fact, value)
	})
}

// closePurse ends what an account that has spent its budget need not go on
// paying for: partitions without jobs and, where running jobs are to be ended,
// what only waits for its nodes. Scripts that run are their attempts' to end.
func (e *Engine) closePurse(ctx context.Context, p *cost.Purse) error {
	if p.Level != cost.UsedUp {
		return nil
	}
	var idle []skyport.PartitionID
	var waiting []skyport.JobID
	e.mu.Lock()
	for id, known := range e.partitions {
		row := &known.row
		if row.Account == p.Account && row.State == skyport.PartitionReady && (!row.KeepResources || p.Budget.EndJobs) && len(e.attemptsOn(id)) == 0 {
			idle = append(idle, id)
		}
	}
	for id, list := range e.attempts {
		job := e.jobs[id]
		for _, a := range list {
			if job != nil && job.Account == p.Account && p.Budget.EndJobs && isMine(job, &a.row) && e.unreached(&a.row) {
				waiting = append(waiting, id)
			}
		}
	}
	e.mu.Unlock()
	if len(idle)+len(waiting) == 0 {
		return nil
	}
	return e.Store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range idle {
			row, err := tx.Partition(id)
			if err != nil {
				return err
			}
			held, err := tx.Held(id)
			if err != nil {
				return err
			}
			if row.State != skyport.PartitionReady || held > 0 {
				continue
			}
			if err := tx.MovePartition(&row, skyport.PartitionDraining, "Removing: "+p.Outcome()); err != nil {
				return err
			}
		}
		for _, id := range waiting {
			job, err := tx.Job(id)
			if skyport.CodeOf(err) == skyport.CodeNotFound {
				continue // purged meanwhile
			}
			if err != nil {
				return err
			}
			if job.State == skyport.JobWaiting {
				if err := backForBudget(tx, &job, p.Outcome()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// unreached says whether nothing of the attempt is on a node yet, because its
// partition has not come up. e.mu is held.
func (e *Engine) unreached(a *skyport.Attempt) bool {
	p := e.partitions[a.Partition]
	return p != nil && p.row.ReadyAt.IsZero() && a.Phase < skyport.PhaseStaging
}

// backForBudget puts a job whose script has not begun back into the queue.
func backForBudget(tx *store.Tx, job *skyport.Job, why string) error {
	backToQueue(job)
	return tx.MoveJob(job, skyport.JobQueued, skyport.DetailsQueued+": "+why)
}

// overspent says why jobs of the account are to be ended, "" when they are not.
func (e *Engine) overspent(account string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, ok := e.budgets.purses[account]
	if !ok || p.Level != cost.UsedUp || !p.Budget.EndJobs {
		return ""
	}
	return p.Outcome()
}

// endForBudget has the worker stop the script as its time limit would: results
// and logs come home as ever. A script that has not begun goes back into the
// queue. It is done when nothing else is to be done for now.
func (a *attempt) endForBudget(ctx context.Context, v view, status protocol.RunStatus, known bool, why string) (done, progress bool, err error) {
	switch {
	case known && status.State == protocol.RunRunning:
		if err := a.follow(ctx, v, status); err != nil || status.Stopped {
			return true, false, err
		}
		if err := a.update(ctx, func(tx *store.Tx, row *skyport.Attempt, job *skyport.Job) error {
			if row.Outcome == why {
				return nil
			}
			row.Outcome = why
			if err := tx.UpdateAttempt(row); err != nil {
				return err
			}
			return tx.MoveJob(job, job.State, skyport.DetailsRunning+": is being stopped, "+why)
		}); err != nil {
			return true, false, err
		}
		run := skyport.RunName(v.row.Job, v.row.Number)
		if err := v.link.Worker().Stop(ctx, run); err != nil && skyport.CodeOf(err) != skyport.CodeNotFound {
			return true, false, fmt.Errorf("stop %s: %w", run, err)
		}
		return true, false, nil
	case v.row.Phase < skyport.PhaseRunning && (!known || status.State == protocol.RunStaging):
		return true, true, a.update(ctx, func(tx *store.Tx, _ *skyport.Attempt, job *skyport.Job) error {
			return backForBudget(tx, job, why)
		})
	}
	return false, false, nil
}

// endingOf says in words how an attempt's script ended.
func endingOf(row *skyport.Attempt, r *skyport.Request, s protocol.RunStatus) string {
	if s.Stopped && row.Outcome != "" {
		return "Finished: stopped, " + row.Outcome
	}
	return ending(r, s)
}

// held are the accounts that may start nothing, and why. e.mu is held.
func (b *budgets) held() map[string]string {
	var held map[string]string
	for account, p := range b.purses {
		if why := p.Reason(); why != "" {
			if held == nil {
				held = map[string]string{}
			}
			held[account] = why
		}
	}
	return held
}

// Afford says why the account may not start a further job, nil when it may. The
// warning is for people, "" when there is none.
func (e *Engine) Afford(account string) (warning string, refusal error) {
	e.mu.Lock()
	p, ok := e.budgets.purses[account]
	e.mu.Unlock()
	if !ok {
		return "", nil
	}
	return p.Warning(), p.Refusal()
}

// Purses tells how all budgets stand, by the names of their accounts.
func (e *Engine) Purses() []cost.Purse {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]cost.Purse, 0, len(e.budgets.purses))
	for _, account := range slices.Sorted(maps.Keys(e.budgets.purses)) {
		list = append(list, e.budgets.purses[account])
	}
	return list
}
