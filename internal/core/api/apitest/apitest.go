package apitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/transfer"
)

// Backend is core in memory. Its zero value works. Fields are set before use.
type Backend struct {
	Catalog struct {
		Sites      []skyport.Site
		Flavors    []skyport.Flavor
		Images     []skyport.Image
		Accounts   []skyport.Account
		Partitions []skyport.Partition
		Orphans    []skyport.Orphan
	}
	Spending Spending
	// Depot is every user's staging, if set.
	Depot *transfer.Depot
	// SubscriberRoom is how many events a subscriber may lag behind; 0: 64.
	SubscriberRoom int
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Fail is asked before every call, by the name of the method; nil: never.
	Fail func(method string) error

	// OnSubmitted is called when a submission is accepted, before it is
	// answered; nil: nothing.
	OnSubmitted func()

	mu          sync.Mutex
	jobs        map[skyport.JobID]*job
	order       []skyport.JobID
	keys        map[string][]skyport.JobID
	bodies      map[string]string
	events      []skyport.Event
	subscribers map[*subscriber]struct{}
	number      int64
	secrets     map[secretKey]skyport.Secret
	values      map[secretKey]api.SecretValue
	reaches     map[skyport.JobID]api.Reach
	partitions  map[skyport.PartitionID]api.Reach
	users       map[skyport.PartitionID][]skyport.UserID
}

var _ api.Backend = (*Backend)(nil)

type job struct {
	skyport.Job
	sub     api.Submission
	logs    map[string]*growing
	results api.Results
	metrics skyport.Metrics
}

type subscriber struct {
	query  api.EventQuery
	events chan skyport.Event
}

func (b *Backend) failing(method string) error {
	if b.Fail == nil {
		return nil
	}
	return b.Fail(method)
}

func (b *Backend) now() time.Time {
	if b.Now != nil {
		return b.Now()
	}
	return time.Now().UTC()
}

// Submit implements [api.Backend]. A script that contains WRONG is refused in
// its third line.
func (b *Backend) Submit(_ context.Context, caller api.User, key string, subs []api.Submission) ([]skyport.Job, error) {
	if err := b.failing("Submit"); err != nil {
		return nil, err
	}
	jobs, err := b.accept(caller, key, subs)
	if err == nil && b.OnSubmitted != nil {
		b.OnSubmitted()
	}
	return jobs, err
}

func (b *Backend) accept(caller api.User, key string, subs []api.Submission) ([]skyport.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.jobs == nil {
		b.jobs, b.keys, b.bodies = map[skyport.JobID]*job{}, map[string][]skyport.JobID{}, map[string]string{}
	}
	var body string
	if key != "" {
		key = string(caller.ID) + key
		body = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%+v", subs)))
	}
	if ids, known := b.keys[key]; known {
		if b.bodies[key] != body {
			return nil, skyport.Errorf(skyport.CodeKeyReused, "the Idempotency-Key was used for another request")
		}
		jobs := make([]skyport.Job, len(ids))
		for i, id := range ids {
			jobs[i] = b.jobs[id].Job
		}
		return jobs, nil
	}
	for _, s := range subs {
		if bytes.Contains(s.Script, []byte("WRONG")) {
			err := skyport.Errorf(skyport.CodeInvalidScript, "line 3, column 6: unknown directive flavour").
				WithHint("did you mean flavor?")
			err.Line, err.Column = 3, 6
			return nil, err
		}
	}
	jobs := make([]skyport.Job, 0, len(subs))
	for _, s := range subs {
		b.number++
		j := &job{sub: s, logs: map[string]*growing{}}
		j.Job = skyport.Job{
			ID: skyport.NewJobID(), Number: b.number, Owner: caller.ID, Account: "default", Name: "job" + strconv.FormatInt(b.number, 10),
			State: skyport.JobQueued, Details: skyport.DetailsQueued, Inputs: s.Inputs, SubmitTime: b.now(),
			Request: skyport.Request{Nodes: 1, Relocatable: true, SubmissionAddress: s.Address}, NodeNames: []string{},
		}
		if b.Spending.Warning != "" {
			j.Warnings = []string{b.Spending.Warning}
		}
		for _, d := range s.Directives {
			if d.Keyword == "name" {
				j.Name = d.Value
			}
		}
		b.jobs[j.ID] = j
		b.order = append(b.order, j.ID)
		if key != "" {
			b.keys[key] = append(b.keys[key], j.ID)
			b.bodies[key] = body
		}
		b.emit(j, skyport.Event{Kind: skyport.EventState})
		jobs = append(jobs, j.Job)
	}
	return jobs, nil
}

// Plan implements [api.Backend].
func (b *Backend) Plan(_ context.Context, _ api.User, sub api.Submission) (skyport.Plan, error) {
	if err := b.failing("Plan"); err != nil {
		return skyport.Plan{}, err
	}
	return skyport.Plan{Request: skyport.Request{Nodes: 1, Comment: string(sub.Script)}, Site: "local", Flavor: "local.1", Nodes: 1, Price: 0.5, Currency: "EUR"}, nil
}

// Job implements [api.Backend].
func (b *Backend) Job(_ context.Context, id skyport.JobID) (skyport.Job, error) {
	if err := b.failing("Job"); err != nil {
		return skyport.Job{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return skyport.Job{}, err
	}
	return j.Job, nil
}

func (b *Backend) find(id skyport.JobID) (*job, error) {
	if j := b.jobs[id]; j != nil {
		return j, nil
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "no job %s", id)
}

// Jobs implements [api.Backend]. The cursor is the number of the last job.
func (b *Backend) Jobs(_ context.Context, q api.JobQuery) (api.JobPage, error) {
	if err := b.failing("Jobs"); err != nil {
		return api.JobPage{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var after int64
	if q.Cursor != "" {
		n, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil {
			return api.JobPage{}, skyport.Errorf(skyport.CodeInvalid, "no such cursor")
		}
		after = n
	}
	order := slices.Clone(b.order)
	if !q.Ascending {
		slices.Reverse(order)
	}
	page := api.JobPage{}
	for _, id := range order {
		j := b.jobs[id]
		switch {
		case after > 0 && q.Ascending && j.Number <= after, after > 0 && !q.Ascending && j.Number >= after,
			q.Owner != "" && j.Owner != q.Owner,
			len(q.States) > 0 && !slices.Contains(q.States, j.State),
			q.Account != "" && j.Account != q.Account,
			q.Site != "" && j.Site != q.Site,
			q.Name != "" && !strings.Contains(j.Name, q.Name),
			q.IDPrefix != "" && !strings.HasPrefix(string(j.ID), strings.ToLower(q.IDPrefix)),
			q.Partition != "" && j.Partition != q.Partition:
			continue
		}
		if q.Limit > 0 && len(page.Jobs) == q.Limit {
			page.Next = strconv.FormatInt(page.Jobs[len(page.Jobs)-1].Number, 10)
			break
		}
		page.Jobs = append(page.Jobs, j.Job)
	}
	return page, nil
}

// Script implements [api.Backend].
func (b *Backend) Script(_ context.Context, id skyport.JobID) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	return j.sub.Script, nil
}

// Submission returns what was submitted as a job.
func (b *Backend) Submission(id skyport.JobID) api.Submission {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.jobs[id].sub
}

// Attempts implements [api.Backend].
func (b *Backend) Attempts(_ context.Context, id skyport.JobID) ([]skyport.Attempt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	var list []skyport.Attempt
	for n := range j.Attempt {
		list = append(list, skyport.Attempt{Job: id, Number: n + 1})
	}
	return list, nil
}

// Timeline implements [api.Backend].
func (b *Backend) Timeline(_ context.Context, id skyport.JobID) ([]skyport.Step, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	return []skyport.Step{{Name: "queued", Start: j.SubmitTime}}, nil
}

// Metrics implements [api.Backend].
func (b *Backend) Metrics(_ context.Context, id skyport.JobID) (skyport.Metrics, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return skyport.Metrics{}, err
	}
	return j.metrics, nil
}

// Cancel implements [api.Backend].
func (b *Backend) Cancel(_ context.Context, id skyport.JobID) error {
	if err := b.failing("Cancel"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return err
	}
	if j.State.Terminal() {
		return skyport.Errorf(skyport.CodeConflict, "job %s has ended", id.Short())
	}
	b.move(j, skyport.JobCanceled)
	return nil
}

// Requeue implements [api.Backend].
func (b *Backend) Requeue(_ context.Context, id skyport.JobID) error {
	if err := b.failing("Requeue"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return err
	}
	b.move(j, skyport.JobQueued)
	return nil
}

// Purge implements [api.Backend].
func (b *Backend) Purge(_ context.Context, ids []skyport.JobID) error {
	if err := b.failing("Purge"); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		delete(b.jobs, id)
		b.order = slices.DeleteFunc(b.order, func(x skyport.JobID) bool { return x == id })
	}
	return nil
}

// Move brings a job to a state and tells it.
func (b *Backend) Move(id skyport.JobID, to skyport.JobState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.move(b.jobs[id], to)
}

func (b *Backend) move(j *job, to skyport.JobState) {
	j.State = to
	switch {
	case to == skyport.JobRunning:
		j.Attempt = max(j.Attempt, 1)
		j.StartTime = b.now()
	case to.Terminal():
		j.EndTime = b.now()
		for _, log := range j.logs {
			log.end()
		}
	case to == skyport.JobQueued:
		j.Attempt++
		j.EndTime = time.Time{}
	}
	b.emit(j, skyport.Event{Kind: skyport.EventState})
}

// Change changes a job without telling anybody.
func (b *Backend) Change(id skyport.JobID, change func(*skyport.Job)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.jobs[id].Job)
}

// Emit tells of something that happens to a job.
func (b *Backend) Emit(id skyport.JobID, e skyport.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.emit(b.jobs[id], e)
}

func (b *Backend) emit(j *job, e skyport.Event) {
	e.Time, e.Job, e.Owner, e.Attempt, e.State = b.now(), j.ID, j.Owner, j.Attempt, string(j.State)
	if e.Kind != skyport.EventProgress {
		e.Seq = int64(len(b.events)) + 1
		b.events = append(b.events, e)
	}
	for s := range b.subscribers {
		if !matches(s.query, &e) {
			continue
		}
		select {
		case s.events <- e:
		default: // fell behind: loses its channel
			close(s.events)
			delete(b.subscribers, s)
		}
	}
}

func matches(q api.EventQuery, e *skyport.Event) bool {
	return (q.Owner == "" || q.Owner == e.Owner) && (q.Job == "" || q.Job == e.Job)
}

// Events implements [api.Backend].
func (b *Backend) Events(_ context.Context, q api.EventQuery) ([]skyport.Event, error) {
	if err := b.failing("Events"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []skyport.Event
	for i := max(q.After, 0); i < int64(len(b.events)); i++ {
		if e := &b.events[i]; matches(q, e) {
			list = append(list, *e)
			if len(list) == q.Limit {
				break
			}
		}
	}
	return list, nil
}

// Subscribe implements [api.Backend].
func (b *Backend) Subscribe(q api.EventQuery) (<-chan skyport.Event, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := b.SubscriberRoom
	if room == 0 {
		room = 64
	}
	s := &subscriber{query: q, events: make(chan skyport.Event, room)}
	if b.subscribers == nil {
		b.subscribers = map[*subscriber]struct{}{}
	}
	b.subscribers[s] = struct{}{}
	return s.events, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subscribers, s)
	}
}

// Subscribers is how many there are now.
func (b *Backend) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers)
}

// Log implements [api.Backend].
func (b *Backend) Log(_ context.Context, id skyport.JobID, attempt int, stream skyport.LogStream) (api.Log, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	log := j.logs[logKey(attempt, stream)]
	if log == nil {
		return nil, skyport.Errorf(skyport.CodeNotFound, "there is no %s yet", stream)
	}
	return log, nil
}

func logKey(attempt int, stream skyport.LogStream) string {
	return strconv.Itoa(attempt) + string(stream)
}

// Write adds to a log, which begins by it.
func (b *Backend) Write(id skyport.JobID, attempt int, stream skyport.LogStream, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := b.jobs[id]
	log := j.logs[logKey(attempt, stream)]
	if log == nil {
		log = &growing{more: !j.State.Terminal(), changed: make(chan struct{})}
		j.logs[logKey(attempt, stream)] = log
		b.emit(j, skyport.Event{Kind: skyport.EventDetails})
	}
	log.write(text)
}

// SetResults gives a job outputs.
func (b *Backend) SetResults(id skyport.JobID, results api.Results) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[id].results = results
}

// SetMetrics says what a job used.
func (b *Backend) SetMetrics(id skyport.JobID, m skyport.Metrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs[id].metrics = m
}

// Results implements [api.Backend].
func (b *Backend) Results(_ context.Context, id skyport.JobID) (api.Results, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	j, err := b.find(id)
	if err != nil {
		return nil, err
	}
	if j.results == nil {
		return nil, skyport.Errorf(skyport.CodeNotFound, "job %s has no results yet", id.Short())
	}
	return j.results, nil
}

// Staging implements [api.Backend].
func (b *Backend) Staging(skyport.UserID) (*transfer.Depot, error) {
	if b.Depot == nil {
		return nil, skyport.Errorf(skyport.CodeUnsupported, "this core takes no inputs")
	}
	return b.Depot, nil
}

// Sites implements [api.Backend].
func (b *Backend) Sites(context.Context) ([]skyport.Site, error) {
	return b.Catalog.Sites, b.failing("Sites")
}

// Flavors implements [api.Backend].
func (b *Backend) Flavors(context.Context) ([]skyport.Flavor, error) {
	return b.Catalog.Flavors, b.failing("Flavors")
}

// Images implements [api.Backend].
func (b *Backend) Images(context.Context) ([]skyport.Image, error) {
	return b.Catalog.Images, b.failing("Images")
}

// Accounts implements [api.Backend].
func (b *Backend) Accounts(context.Context) ([]skyport.Account, error) {
	return b.Catalog.Accounts, b.failing("Accounts")
}

// Partitions implements [api.Backend].
func (b *Backend) Partitions(_ context.Context, all bool) ([]skyport.Partition, error) {
	list := slices.Clone(b.Catalog.Partitions)
	if !all {
		list = slices.DeleteFunc(list, func(p skyport.Partition) bool { return p.State == skyport.PartitionDeleted })
	}
	return list, b.failing("Partitions")
}

// Sweep implements [api.Backend].
func (b *Backend) Sweep(_ context.Context, site string, dry bool) ([]skyport.Orphan, error) {
	if site != "" && !slices.ContainsFunc(b.Catalog.Sites, func(s skyport.Site) bool { return s.Name == site }) {
		return nil, skyport.Errorf(skyport.CodeUnknownSite, "there is no site %q", site)
	}
	list := slices.Clone(b.Catalog.Orphans)
	list = slices.DeleteFunc(list, func(o skyport.Orphan) bool { return site != "" && o.Site != site })
	for i := range list {
		list[i].Removed = !dry
	}
	return list, b.failing("Sweep")
}

// Ready implements [api.Backend].
func (b *Backend) Ready(context.Context) error { return b.failing("Ready") }

// growing is a log in memory.
type growing struct {
	mu      sync.Mutex
	data    []byte
	more    bool
	changed chan struct{}
}

func (g *growing) write(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.data = append(g.data, text...)
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *growing) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.more {
		g.more = false
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// ReadAt implements io.ReaderAt.
func (g *growing) ReadAt(p []byte, at int64) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at >= int64(len(g.data)) {
		return 0, io.EOF
	}
	n := copy(p, g.data[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close does nothing: the log stays.
func (g *growing) Close() error { return nil }

// Size implements [api.Log].
func (g *growing) Size() (int64, bool, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(len(g.data)), g.more, g.changed
}

// PortsOpen implements [api.Backend]: all ports of a running job are open.
func (b *Backend) PortsOpen(id skyport.JobID) map[int]bool {
	job, err := b.Job(context.Background(), id)
	if err != nil || job.State != skyport.JobRunning {
		return nil
	}
	open := map[int]bool{}
	for _, p := range job.Request.Ports {
		open[p.Number] = true
	}
	return open
}

// LastEvent implements [api.Backend].
func (b *Backend) LastEvent(context.Context) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(len(b.events)), nil
}
