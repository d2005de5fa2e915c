package core

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/admission"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/core/catalog"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/transfer"
)

// backend answers the API from the store and from memory.
type backend struct {
	store   *store.Store
	engine  *lifecycle.Engine
	catalog *catalog.Catalog
	archive *archive.Archive
	hub     *hub
	staging staging
	secrets *secrets
	// person is the user as whose own account core runs, "" when unknown: only
	// that user may name files of this machine.
	person skyport.UserID
}

var _ api.Backend = (*backend)(nil)

// Submit accepts all submissions or none.
func (b *backend) Submit(ctx context.Context, caller api.User, key string, subs []api.Submission) ([]skyport.Job, error) {
	hash := fingerprint(subs)
	jobs := make([]skyport.Job, len(subs))
	for i, sub := range subs {
		request, err := admission.Check(caller, b.admit(caller, sub), b.catalog)
		if err != nil {
			// A submission that was accepted stays accepted, whatever has changed
			// since. Most are new, so this is looked up only now.
			if earlier, lookup := b.before(ctx, caller.ID, key, hash); earlier != nil || lookup != nil {
				return earlier, lookup
			}
			if len(subs) > 1 {
				err = fmt.Errorf("submission %d of %d: %w", i+1, len(subs), err)
			}
			return nil, err
		}
		jobs[i] = skyport.Job{
			ID: skyport.NewJobID(), Owner: caller.ID, Account: request.Account, Name: request.Name, State: skyport.JobQueued,
			Details: skyport.DetailsQueued, NodeNames: []string{}, Request: request, Inputs: sub.Inputs, Origin: sub.Address,
			Warnings: b.warnings(request.Account),
		}
	}
	var earlier []skyport.JobID
	err := b.store.Update(ctx, func(tx *store.Tx) (err error) {
		if key != "" {
			if earlier, err = tx.Submission(caller.ID, key, hash); err != nil || earlier != nil {
				return err
			}
		}
		ids := make([]skyport.JobID, len(jobs))
		for i := range jobs {
			ids[i] = jobs[i].ID
			if err := tx.InsertJob(&jobs[i], subs[i].Script); err != nil {
				return err
			}
		}
		if key == "" {
			return nil
		}
		return tx.RememberSubmission(caller.ID, key, hash, ids)
	})
	if err != nil {
		return nil, err
	}
	if earlier != nil {
		return b.jobs(ctx, earlier)
	}
	return jobs, nil
}

// before returns the jobs that the same submission made earlier, nil if none or
// without a key.
func (b *backend) before(ctx context.Context, owner skyport.UserID, key, hash string) ([]skyport.Job, error) {
	if key == "" {
		return nil, nil
	}
	ids, err := b.store.Submission(ctx, owner, key, hash)
	if err != nil || ids == nil {
		return nil, err
	}
	return b.jobs(ctx, ids)
}

func (b *backend) jobs(ctx context.Context, ids []skyport.JobID) ([]skyport.Job, error) {
	jobs := make([]skyport.Job, 0, len(ids))
	for _, id := range ids {
		job, err := b.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// fingerprint tells one submission from another under the same key.
func fingerprint(subs []api.Submission) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, s := range subs {
		// Encoding these types into a hash cannot fail.
		_ = enc.Encode(struct {
			Script     []byte
			Directives []api.Directive
			Inputs     []skyport.StagedInput
		}{s.Script, s.Directives, s.Inputs})
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (b *backend) admit(caller api.User, sub api.Submission) admission.Submission {
	return admission.Submission{
		Script: sub.Script, Directives: sub.Directives, Inputs: sub.Inputs, Afford: b.afford,
		ReadPaths: sub.ReadPaths && b.person != "" && caller.ID == b.person,
		Staged: func(manifest string) bool {
			depot, err := b.Staging(caller.ID)
			return err == nil && depot.Has(manifest)
		},
	}
}

// Plan says what Submit would do now.
func (b *backend) Plan(ctx context.Context, caller api.User, sub api.Submission) (api.Plan, error) {
	a := b.admit(caller, sub)
	// A plan is made before anything is staged.
	a.Staged = func(string) bool { return true }
	request, err := admission.Check(caller, a, b.catalog)
	if err != nil && skyport.CodeOf(err) != skyport.CodeInputNotStaged {
		return api.Plan{}, err
	}
	plan := api.Plan{Request: request, Nodes: max(1, request.Nodes)}
	placement, creation, reason := b.engine.Explain(request.Account, &request)
	switch {
	case placement.Partition != "":
		p, err := b.store.Partition(ctx, placement.Partition)
		if err != nil {
			return plan, err
		}
		plan.Partition, plan.Site, plan.Flavor, plan.Price = p.ID, p.Site, p.Flavor.Name, p.PricePerHour()
		b.estimate(&plan, p.Flavor)
	case creation.Site != "":
		plan.Site, plan.Flavor = creation.Site, creation.Flavor.Name
		plan.Price = creation.Flavor.Price * float64(creation.Nodes)
		b.estimate(&plan, creation.Flavor)
	default:
		plan.Reason = reason
	}
	return plan, nil
}

func (b *backend) Job(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	job, err := b.store.Job(ctx, id)
	b.explain(&job)
	return job, err
}

// explain puts the scheduler's reason on a job that waits.
func (b *backend) explain(job *skyport.Job) {
	if job.NodeNames == nil {
		job.NodeNames = []string{}
	}
	if job.State != skyport.JobQueued {
		return
	}
	if reason := b.engine.Reason(job.ID); reason != "" {
		job.Details = reason
	}
}

func (b *backend) Jobs(ctx context.Context, q api.JobQuery) (api.JobPage, error) {
	f := store.JobFilter{
		Owner: q.Owner, States: q.States, Account: q.Account, Site: q.Site, Name: q.Name, IDPrefix: q.IDPrefix, Partition: q.Partition,
		Ascending: q.Ascending,
	}
	if q.Cursor != "" {
		after, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil || after <= 0 {
			return api.JobPage{}, skyport.Errorf(skyport.CodeInvalid, "cursor %q is not one that a page ended with", skyport.Abbreviate(q.Cursor, 40))
		}
		f.After = after
	}
	if q.Limit > 0 {
		f.Limit = q.Limit + 1 // one more tells whether there is a next page
	}
	jobs, err := b.store.Jobs(ctx, f)
	if err != nil {
		return api.JobPage{}, err
	}
	page := api.JobPage{Jobs: jobs}
	if q.Limit > 0 && len(jobs) > q.Limit {
		page.Jobs = jobs[:q.Limit]
		page.Next = strconv.FormatInt(page.Jobs[q.Limit-1].Number, 10)
	}
	for i := range page.Jobs {
		b.explain(&page.Jobs[i])
	}
	return page, nil
}

func (b *backend) Script(ctx context.Context, id skyport.JobID) ([]byte, error) {
	return b.store.Script(ctx, id)
}

func (b *backend) Attempts(ctx context.Context, id skyport.JobID) ([]skyport.Attempt, error) {
	return b.store.Attempts(ctx, id)
}

func (b *backend) Timeline(ctx context.Context, id skyport.JobID) ([]skyport.Step, error) {
	job, err := b.store.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	events, err := b.store.Events(ctx, store.EventFilter{Job: id})
	if err != nil {
		return nil, err
	}
	var partition []skyport.Event
	if job.Partition != "" {
		all, err := b.store.Events(ctx, store.EventFilter{Partition: job.Partition})
		if err != nil {
			return nil, err
		}
		partition = slices.DeleteFunc(all, func(e skyport.Event) bool { return e.Job != "" })
	}
	return timeline(events, partition), nil
}

func (b *backend) Metrics(ctx context.Context, id skyport.JobID) (api.Metrics, error) {
	usage, ok := b.engine.Usage(id)
	if !ok {
		attempts, err := b.store.Attempts(ctx, id)
		if err != nil {
			return api.Metrics{}, err
		}
		if len(attempts) > 0 {
			usage = attempts[len(attempts)-1].Usage
		}
	}
	if usage.Count == 0 {
		return api.Metrics{}, nil
	}
	return api.Metrics{
		CPUPercent: &api.AvgMax{Avg: usage.CPUAvg, Max: usage.CPUMax},
		MemBytes:   &api.AvgMax{Avg: float64(usage.MemoryAvg), Max: float64(usage.MemoryMax)},
	}, nil
}

func (b *backend) Cancel(ctx context.Context, id skyport.JobID) error {
	return b.engine.Cancel(ctx, id)
}

func (b *backend) Requeue(ctx context.Context, id skyport.JobID) error {
	return b.engine.Requeue(ctx, id)
}

func (b *backend) Purge(ctx context.Context, ids []skyport.JobID) error {
	return b.engine.Purge(ctx, ids)
}

func (b *backend) Events(ctx context.Context, q api.EventQuery) ([]skyport.Event, error) {
	return b.store.Events(ctx, store.EventFilter{Owner: q.Owner, Job: q.Job, After: q.After, Limit: q.Limit})
}

func (b *backend) LastEvent(ctx context.Context) (int64, error) { return b.store.LastEvent(ctx) }

func (b *backend) PortsOpen(id skyport.JobID) map[int]bool {
	open := map[int]bool{}
	for _, p := range b.engine.Ports(id) {
		open[p.Port] = p.Open
	}
	return open
}

func (b *backend) Subscribe(q api.EventQuery) (<-chan skyport.Event, func()) {
	return b.hub.subscribe(q)
}

func (b *backend) Log(ctx context.Context, id skyport.JobID, attempt int, stream api.LogStream) (api.Log, error) {
	if attempt == 0 {
		job, err := b.store.Job(ctx, id)
		if err != nil {
			return nil, err
		}
		attempt = job.Attempt
	}
	log, err := b.archive.OpenLog(id, attempt, stream)
	if err != nil {
		return nil, err
	}
	return log, nil
}

func (b *backend) Results(ctx context.Context, id skyport.JobID) (api.Results, error) {
	job, err := b.store.Job(ctx, id)
	if err != nil {
		return nil, err
	}
	outputs, err := b.archive.Outputs(id, job.Attempt)
	if err != nil {
		return nil, err
	}
	return outputs, nil
}

func (b *backend) Staging(user skyport.UserID) (*transfer.Depot, error) { return b.staging.depot(user) }

func (b *backend) Sites(context.Context) ([]skyport.Site, error) { return b.catalog.Sites(), nil }

func (b *backend) Flavors(context.Context) ([]skyport.Flavor, error) { return b.catalog.Flavors(), nil }

func (b *backend) Images(context.Context) ([]skyport.Image, error) { return b.catalog.Images(), nil }

func (b *backend) Accounts(context.Context) ([]skyport.Account, error) {
	return b.catalog.Accounts(), nil
}

// mostPartitions bounds the list of all partitions that ever were.
const mostPartitions = 1000

func (b *backend) Partitions(ctx context.Context, all bool) ([]skyport.Partition, error) {
	return b.store.Partitions(ctx, all, mostPartitions)
}

func (b *backend) Sweep(ctx context.Context, site string, dry bool) ([]skyport.Orphan, error) {
	return b.engine.Sweep(ctx, site, dry)
}

func (b *backend) Ready(context.Context) error {
	if blind := b.catalog.Blind(); blind != "" {
		return skyport.Errorf(skyport.CodeUnavailable, "%s", blind)
	}
	return nil
}

// staging holds the depots of users' staged inputs open.
type staging struct {
	dir string

	mu     sync.Mutex
	depots map[skyport.UserID]*transfer.Depot
}

// depot opens the depot of a user, once.
func (s *staging) depot(user skyport.UserID) (*transfer.Depot, error) {
	id, err := skyport.ParseUserID(string(user)) // it becomes a directory
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "staging: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.depots[id]; d != nil {
		return d, nil
	}
	dir := filepath.Join(s.dir, string(id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("staging: %w", err)
	}
	d, err := transfer.OpenDepot(dir)
	if err != nil {
		return nil, fmt.Errorf("staging of user %s: %w", id, err)
	}
	if s.depots == nil {
		s.depots = map[skyport.UserID]*transfer.Depot{}
	}
	s.depots[id] = d
	return d, nil
}

// users lists whose inputs are staged.
func (s *staging) users() ([]skyport.UserID, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("staging: %w", err)
	}
	var users []skyport.UserID
	for _, entry := range entries {
		if id, err := skyport.ParseUserID(entry.Name()); err == nil && entry.IsDir() {
			users = append(users, id)
		}
	}
	return users, nil
}

func (s *staging) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range s.depots {
		errs = append(errs, d.Close())
	}
	s.depots = nil
	return errors.Join(errs...)
}
