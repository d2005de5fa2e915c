package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/core/store"
)

// Cancel moves the job to C at once; what it has at a site is stopped and
// removed behind it. A job that has ended is CodeConflict.
func (e *Engine) Cancel(ctx context.Context, id skyport.JobID) error {
	return e.Store.Update(ctx, func(tx *store.Tx) error {
		job, err := tx.Job(id)
		if err != nil {
			return err
		}
		if job.State.Terminal() {
			return skyport.Errorf(skyport.CodeConflict, "job %s has ended already: it is %s", id, job.State.Word())
		}
		return tx.MoveJob(&job, skyport.JobCanceled, "Canceled")
	})
}

// Requeue moves the job to Q at once, from any state, to be run as a new
// attempt. An attempt that is under way is stopped and removed behind it.
func (e *Engine) Requeue(ctx context.Context, id skyport.JobID) error {
	return e.Store.Update(ctx, func(tx *store.Tx) error {
		job, err := tx.Job(id)
		if err != nil {
			return err
		}
		job.Retried, job.Misplaced, job.NotBefore = 0, 0, time.Time{}
		if job.State == skyport.JobQueued {
			return tx.MoveJob(&job, skyport.JobQueued, skyport.DetailsQueued)
		}
		backToQueue(&job)
		return tx.MoveJob(&job, skyport.JobQueued, skyport.DetailsQueued)
	})
}

// Purge cancels the jobs where they have not ended, and forgets them as soon as
// nothing of them is left anywhere. From now on nobody sees them.
func (e *Engine) Purge(ctx context.Context, ids []skyport.JobID) error {
	for part := range slices.Chunk(ids, 500) {
		err := e.Store.Update(ctx, func(tx *store.Tx) error {
			for _, id := range part {
				job, err := tx.Job(id)
				if skyport.CodeOf(err) == skyport.CodeNotFound && err != nil {
					continue
				}
				if err != nil {
					return err
				}
				job.Purged = true
				to := job.State
				if !to.Terminal() {
					to = skyport.JobCanceled
				}
				if err := letGo(tx, &job); err != nil {
					return err
				}
				if err := tx.MoveJob(&job, to, "Purged"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("purge: %w", err)
		}
	}
	return nil
}

// letGo ends the keeping of a partition that was kept for the job.
func letGo(tx *store.Tx, job *skyport.Job) error {
	if !job.Request.KeepResources || job.Partition == "" {
		return nil
	}
	p, err := tx.Partition(job.Partition)
	if err != nil {
		return ignoreNotFound(err)
	}
	p.KeepResources = false
	return tx.MovePartition(&p, p.State, p.Details)
}

// forget removes what is left of a purged job here.
func (e *Engine) forget(ctx context.Context, id skyport.JobID) {
	var tries backoff
	for ctx.Err() == nil {
		err := e.Archive.Forget(id)
		if err == nil {
			err = e.Store.Update(ctx, func(tx *store.Tx) error { return tx.ForgetJob(id) })
		}
		if err == nil {
			return
		}
		e.log.Warn("purge: trying again", "job", id, "error", err)
		pause(ctx, nil, tries.next())
	}
}

// Sweep looks for partitions that carry our tag and that the store does not
// know, or knows to be deleted, at one site or, with an empty name, at all, and
// has them removed; dry only looks. What carries another core's tag is left
// alone. What is known and past its lease is not ours to judge here: either its
// attempt renews the lease, or the gate removes it.
func (e *Engine) Sweep(ctx context.Context, site string, dry bool) ([]skyport.Orphan, error) {
	var names []string
	for _, s := range e.Catalog.Sites() {
		names = append(names, s.Name)
	}
	if site != "" {
		if !slices.Contains(names, site) {
			return nil, skyport.Errorf(skyport.CodeUnknownSite, "there is no site %q", skyport.Abbreviate(site, 60)).
				WithHint("there are: %s", strings.Join(names, ", "))
		}
		names = []string{site}
	}
	// Side by side: a site that does not answer keeps nobody waiting.
	found, errs := make([][]skyport.Orphan, len(names)), make([]error, len(names))
	var sweeping sync.WaitGroup
	for i, name := range names {
		sweeping.Go(func() { found[i], errs[i] = e.sweepSite(ctx, name, dry) })
	}
	sweeping.Wait()
	return slices.Concat(found...), errors.Join(errs...)
}

func (e *Engine) sweepSite(ctx context.Context, site string, dry bool) ([]skyport.Orphan, error) {
	there, err := e.Gate.List(ctx, site, e.Owner)
	if err != nil {
		return nil, fmt.Errorf("list the partitions of site %s: %w", site, err)
	}
	var orphans []skyport.Orphan
	var errs []error
	for _, status := range there {
		if status.Owner != e.Owner {
			continue
		}
		reason := "unknown to this core"
		row, err := e.Store.Partition(ctx, status.ID)
		switch {
		case err == nil && row.State != skyport.PartitionDeleted:
			continue
		case err == nil:
			reason = "was removed, and is still there"
		case skyport.CodeOf(err) != skyport.CodeNotFound:
			errs = append(errs, err)
			continue
		}
		if !status.Lease.IsZero() && status.Lease.Before(time.Now()) {
			reason += ", past its lease"
		}
		orphan := skyport.Orphan{
			Site: site, Partition: status.ID, Name: skyport.PartitionName(status.ID), Reason: reason, Since: status.Created, Lease: status.Lease,
		}
		switch {
		case status.State == gate.StateDeleting:
			orphan.Reason += "; its removal is under way"
		case !dry:
			err := e.Gate.Delete(ctx, site, status.ID)
			if err != nil && !errors.Is(err, gate.ErrNotFound) {
				errs = append(errs, fmt.Errorf("delete partition %s at site %s: %w", status.ID, site, err))
			}
			orphan.Removed = err == nil || errors.Is(err, gate.ErrNotFound)
		}
		orphans = append(orphans, orphan)
	}
	return orphans, errors.Join(errs...)
}
