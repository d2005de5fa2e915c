package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/store"
)

// Fixture is one database of its own.
type Fixture struct {
	// Open opens the store; called again after Close it finds what was written.
	Open func(t *testing.T, onCommit func(store.Commit)) *store.Store
}

// Exercise runs the suite; make returns a fresh, empty fixture.
func Exercise(t *testing.T, make func(t *testing.T) Fixture) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"JobRoundTrip", jobRoundTrip},
		{"IllegalMovesAreRefused", illegalMoves},
		{"FailedUpdateLeavesNothing", failedUpdate},
		{"CommitsTellChangesInOrder", commitsTell},
		{"ConcurrentUpdatesAllCommit", concurrentUpdates},
		{"PagesNeitherSkipNorRepeat", pages},
		{"Filters", filters},
		{"Submissions", submissions},
		{"AttemptsNeverGoBack", attempts},
		{"ActiveIsWhatIsNotOver", active},
		{"ForgetLeavesNothing", forget},
		{"CanceledContext", canceledContext},
		{"Secrets", secrets},
		{"PartitionKeys", partitionKeys},
		{"LastOwner", lastOwner},
		{"Costs", costs},
		{"CostsOutliveJobs", costsOutliveJobs},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, make(t))
		})
	}
}

func newJob(name string) skyport.Job {
	return skyport.Job{
		ID: skyport.NewJobID(), Owner: "9b2f7c11-4c1d-4a54-9d2e-0d3a54d7e0a1", Account: "default", Name: name, State: skyport.JobQueued,
		Details: skyport.DetailsQueued, NodeNames: []string{}, Origin: "127.0.0.1",
		Request: skyport.Request{Name: name, Nodes: 1, Relocatable: true, Env: map[string]string{"A": "b"}, Ports: []skyport.Port{{Number: 8888, Direction: skyport.In}}},
		Inputs:  []skyport.StagedInput{{Name: "in", Manifest: "00ff", Bytes: 3, Files: 1}},
	}
}

func insert(t *testing.T, s *store.Store, jobs ...*skyport.Job) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		for _, job := range jobs {
			if err := tx.InsertJob(job, []byte("#!/bin/sh\n"+job.Name)); err != nil {
				return err
			}
		}
		return nil
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func jobRoundTrip(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	job := newJob("round trip")
	insert(t, s, &job)
	if job.Number == 0 || job.SubmitTime.IsZero() {
		t.Fatalf("number and submit time are not set: %+v", job)
	}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		got, err := tx.Job(job.ID)
		if err != nil {
			return err
		}
		got.Attempt, got.Warnings, got.ExitCode, got.StartTime = 2, []string{"one", "two"}, 3, tx.Now()
		job = got
		return tx.MoveJob(&job, skyport.JobWaiting, skyport.DetailsNewPartition)
	}))
	must(t, s.Close())
	s = f.Open(t, nil)
	defer s.Close()
	got, err := s.Job(t.Context(), job.ID)
	must(t, err)
	if diff := cmp.Diff(job, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("job differs after reopening (-want +got):\n%s", diff)
	}
	script, err := s.Script(t.Context(), job.ID)
	must(t, err)
	if string(script) != "#!/bin/sh\nround trip" {
		t.Errorf("script is %q", script)
	}
	events, err := s.Events(t.Context(), store.EventFilter{Job: job.ID})
	must(t, err)
	if len(events) != 2 || events[0].State != "Q" || events[1].State != "W" || events[0].Seq >= events[1].Seq {
		t.Errorf("events are %+v", events)
	}
	second := newJob("after reopening")
	insert(t, s, &second)
	if second.Number <= job.Number {
		t.Errorf("number %d does not follow %d", second.Number, job.Number)
	}
}

func illegalMoves(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	job := newJob("moves")
	insert(t, s, &job)
	err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.MoveJob(&job, skyport.JobFinished, "skipped all") })
	if skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("Q to F gave %v", err)
	}
	got, err := s.Job(t.Context(), job.ID)
	must(t, err)
	if got.State != skyport.JobQueued {
		t.Errorf("state is %s", got.State)
	}
}

func failedUpdate(t *testing.T, f Fixture) {
	var commits int
	s := f.Open(t, func(store.Commit) { commits++ })
	job, broken := newJob("kept"), errors.New("broken on purpose")
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.InsertJob(&job, nil); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v", err)
	}
	_, err = s.Job(t.Context(), job.ID)
	if skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("the job of a failed update gives %v", err)
	}
	events, err := s.Events(t.Context(), store.EventFilter{})
	must(t, err)
	must(t, s.Close())
	if len(events) != 0 || commits != 0 {
		t.Errorf("a failed update left %d events, told %d commits", len(events), commits)
	}
}

func commitsTell(t *testing.T, f Fixture) {
	var seqs []int64
	var jobs int
	s := f.Open(t, func(c store.Commit) {
		for _, e := range c.Events {
			seqs = append(seqs, e.Seq)
		}
		jobs += len(c.Jobs)
	})
	for i := range 20 {
		job := newJob(fmt.Sprint(i))
		insert(t, s, &job)
	}
	must(t, s.Close())
	if jobs != 20 || len(seqs) != 20 {
		t.Fatalf("told %d jobs and %d events, want 20", jobs, len(seqs))
	}
	for i, seq := range seqs {
		if seq != int64(i+1) {
			t.Fatalf("event %d has seq %d", i, seq)
		}
	}
}

func concurrentUpdates(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 25 {
				job := newJob(fmt.Sprintf("%d-%d", i, k))
				if err := s.Update(t.Context(), func(tx *store.Tx) error {
					if err := tx.InsertJob(&job, nil); err != nil {
						return err
					}
					if k%5 == 4 {
						return errors.New("undone")
					}
					return nil
				}); (err != nil) != (k%5 == 4) {
					t.Errorf("update %d-%d: %v", i, k, err)
				}
			}
		})
	}
	wg.Wait()
	jobs, err := s.Jobs(t.Context(), store.JobFilter{})
	must(t, err)
	if len(jobs) != 160 {
		t.Errorf("%d jobs, want 160", len(jobs))
	}
	events, err := s.Events(t.Context(), store.EventFilter{})
	must(t, err)
	for i, e := range events {
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has seq %d: an undone update left a hole", i, e.Seq)
		}
	}
}

func pages(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	const all = 23
	for i := range all {
		job := newJob(fmt.Sprint(i))
		insert(t, s, &job)
	}
	for _, ascending := range []bool{true, false} {
		seen, after := map[skyport.JobID]bool{}, int64(0)
		for {
			page, err := s.Jobs(t.Context(), store.JobFilter{Limit: 5, After: after, Ascending: ascending})
			must(t, err)
			if len(page) == 0 {
				break
			}
			for _, job := range page {
				if seen[job.ID] || (after != 0 && (job.Number > after) != ascending) {
					t.Fatalf("job %d repeats or is out of order", job.Number)
				}
				seen[job.ID], after = true, job.Number
			}
			late := newJob("late")
			if !ascending {
				insert(t, s, &late) // a job that comes while somebody pages
			}
		}
		if len(seen) < all {
			t.Errorf("pages show %d of %d jobs", len(seen), all)
		}
	}
}

func filters(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	a, b, c := newJob("apple_pie"), newJob("pear"), newJob("applepie")
	b.Owner, c.Account = "1c8fb5f0-5bb5-4c3d-8e6e-6a9c0f3c5f50", "physics"
	insert(t, s, &a, &b, &c)
	must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.MoveJob(&b, skyport.JobCanceled, "no") }))
	for _, test := range []struct {
		filter store.JobFilter
		want   []string
	}{
		{store.JobFilter{}, []string{"applepie", "pear", "apple_pie"}},
		{store.JobFilter{Owner: a.Owner}, []string{"applepie", "apple_pie"}},
		{store.JobFilter{Name: "e_p"}, []string{"apple_pie"}},
		{store.JobFilter{Account: "physics"}, []string{"applepie"}},
		{store.JobFilter{States: []skyport.JobState{skyport.JobCanceled, skyport.JobRunning}}, []string{"pear"}},
		{store.JobFilter{IDPrefix: string(a.ID[:13])}, []string{"apple_pie"}},
		{store.JobFilter{Ascending: true, Limit: 2}, []string{"apple_pie", "pear"}},
	} {
		jobs, err := s.Jobs(t.Context(), test.filter)
		must(t, err)
		var names []string
		for _, job := range jobs {
			names = append(names, job.Name)
		}
		if diff := cmp.Diff(test.want, names); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.filter, diff)
		}
	}
}

func submissions(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	ids := []skyport.JobID{skyport.NewJobID()}
	look := func(owner skyport.UserID, key, hash string) (got []skyport.JobID, err error) {
		err = s.Update(t.Context(), func(tx *store.Tx) (err error) {
			got, err = tx.Submission(owner, key, hash)
			return err
		})
		return got, err
	}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.RememberSubmission("u", "k", "h", ids) }))
	if got, err := look("u", "k", "h"); err != nil || !cmp.Equal(got, ids) {
		t.Errorf("same submission: %v, %v", got, err)
	}
	if _, err := look("u", "k", "other"); skyport.CodeOf(err) != skyport.CodeKeyReused {
		t.Errorf("same key, other body: %v", err)
	}
	if got, err := look("v", "k", "h"); err != nil || got != nil {
		t.Errorf("another user's key: %v, %v", got, err)
	}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.ForgetSubmissions(tx.Now().Add(time.Hour)) }))
	if got, err := look("u", "k", "other"); err != nil || got != nil {
		t.Errorf("a forgotten key: %v, %v", got, err)
	}
}

func attempts(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	a := skyport.Attempt{Job: skyport.NewJobID(), Number: 1, Partition: skyport.NewPartitionID(), CPUs: 2, Memory: 1 << 30, Usage: skyport.Usage{Count: 1, CPUAvg: 99.5}}
	write := func(phase skyport.Phase) {
		must(t, s.Update(t.Context(), func(tx *store.Tx) error {
			next := a
			next.Phase = phase
			return tx.UpdateAttempt(&next)
		}))
	}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertAttempt(&a) }))
	write(skyport.PhaseRunning)
	write(skyport.PhaseStaging)
	got, err := s.Attempts(t.Context(), a.Job)
	must(t, err)
	a.Phase = skyport.PhaseRunning
	if diff := cmp.Diff([]skyport.Attempt{a}, got); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}

func active(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	queued, ended, held, purged := newJob("queued"), newJob("ended"), newJob("held"), newJob("purged")
	insert(t, s, &queued, &ended, &held, &purged)
	gone := skyport.Partition{ID: skyport.NewPartitionID(), State: skyport.PartitionDeleting}
	there := skyport.Partition{ID: skyport.NewPartitionID(), State: skyport.PartitionReady, Nodes: []skyport.Node{{Name: "n", Role: skyport.RoleMain}}}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		purged.Purged = true
		return errors.Join(
			tx.MoveJob(&ended, skyport.JobCanceled, ""), tx.MoveJob(&held, skyport.JobCanceled, ""), tx.MoveJob(&purged, skyport.JobCanceled, ""),
			tx.InsertAttempt(&skyport.Attempt{Job: held.ID, Number: 1, Phase: skyport.PhaseDone}),
			tx.InsertAttempt(&skyport.Attempt{Job: ended.ID, Number: 1, Phase: skyport.PhaseReleased}),
			tx.InsertPartition(&gone), tx.InsertPartition(&there),
			tx.MovePartition(&gone, skyport.PartitionDeleted, ""))
	}))
	a, err := s.Active(t.Context())
	must(t, err)
	var names []string
	for _, job := range a.Jobs {
		names = append(names, job.Name)
	}
	if diff := cmp.Diff([]string{"queued", "purged", "held"}, names); diff != "" {
		t.Errorf("active jobs (-want +got):\n%s", diff)
	}
	if len(a.Attempts) != 1 || a.Attempts[0].Job != held.ID {
		t.Errorf("active attempts: %+v", a.Attempts)
	}
	if diff := cmp.Diff([]skyport.Partition{there}, a.Partitions); diff != "" {
		t.Errorf("active partitions (-want +got):\n%s", diff)
	}
	if _, err := s.Job(t.Context(), purged.ID); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("a purged job is still shown: %v", err)
	}
}

func forget(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	job := newJob("forgotten")
	insert(t, s, &job)
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.InsertAttempt(&skyport.Attempt{Job: job.ID, Number: 1}), tx.ForgetJob(job.ID))
	}))
	events, err := s.Events(t.Context(), store.EventFilter{Job: job.ID})
	must(t, err)
	list, err := s.Attempts(t.Context(), job.ID)
	must(t, err)
	_, scriptErr := s.Script(t.Context(), job.ID)
	if len(events)+len(list) != 0 || skyport.CodeOf(scriptErr) != skyport.CodeNotFound {
		t.Errorf("left: %d events, %d attempts, script: %v", len(events), len(list), scriptErr)
	}
}

func canceledContext(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, func(*store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("update with a canceled context: %v", err)
	}
}
