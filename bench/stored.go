package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/core/store"
)

// measureStored reads lists of, and starts on, a store with many jobs of one
// user, all but a few ended. They are written by core's own store, with an
// attempt and the events of a whole life each.
func measureStored(ctx context.Context, b *bench) (err error) {
	s, err := b.newStage(ctx, "SWM_LOCAL_NODES=1", "SWM_LIMITS_RETENTION=0s")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	owner, err := s.user()
	if err != nil {
		return err
	}
	filling := time.Now()
	if err := fill(ctx, s.layout.Database(), owner, b.size.stored); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	filled := fmt.Sprintf("filled in %s", round(time.Since(filling)))

	if _, err := s.start(ctx, "gate"); err != nil {
		return err
	}
	var starts series
	var c *client.Client
	for i := range b.size.starts {
		if i > 0 {
			c.Close()
			if err := s.stop(); err != nil {
				return err
			}
		}
		begin := time.Now()
		if c, err = s.start(ctx, "core"); err != nil {
			return err
		}
		starts = append(starts, time.Since(begin))
	}
	what := fmt.Sprintf(", %d jobs stored", b.size.stored)
	b.report.add("core: start to ready"+what+", median", milliseconds(starts.median()), "ms", under(1000), starts.spread()+"; "+filled)
	return b.readLists(ctx, s, c, what)
}

func (b *bench) readLists(ctx context.Context, s *stage, c *client.Client, what string) error {
	var page series
	for range b.size.reads {
		begin, n := time.Now(), 0
		for _, err := range c.Jobs(ctx, client.JobFilter{Limit: 100}) {
			if err != nil {
				return fmt.Errorf("list jobs: %w", err)
			}
			n++
		}
		if n != 100 {
			return fmt.Errorf("the first page has %d jobs", n)
		}
		page = append(page, time.Since(begin))
	}
	b.report.add("first page of GET /v1/jobs, 100 jobs"+what+", median", milliseconds(page.median()), "ms", under(50), page.spread())

	plain, err := s.plainHTTP()
	if err != nil {
		return err
	}
	defer plain.CloseIdleConnections()
	for _, list := range []struct {
		name, query string
		reads       int
		aim         aim
	}{
		{"GET /user/job?limit=100", "?limit=100", b.size.reads, under(50)},
		{"GET /user/job, all jobs in one answer", "", max(1, b.size.reads/10), under(50)},
	} {
		var begun, whole series
		var bytes int64
		for range list.reads {
			first, all, n, err := get(ctx, plain, s.url+"/user/job"+list.query)
			if err != nil {
				return err
			}
			begun, whole, bytes = append(begun, first), append(whole, all), n
		}
		b.report.add(list.name+what+", median", milliseconds(whole.median()), "ms", list.aim,
			fmt.Sprintf("%s of JSON; the answer begins after %s", skyport.Bytes(bytes), round(begun.median())))
	}
	return nil
}

// get reads a whole answer and tells when it began, how long it took and how
// long it is.
func get(ctx context.Context, c *http.Client, url string) (begun, whole time.Duration, bytes int64, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("get %s: %w", url, err)
	}
	start := time.Now()
	answer, err := c.Do(request)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("get %s: %w", url, err)
	}
	begun = time.Since(start)
	bytes, err = io.Copy(io.Discard, answer.Body)
	err = errors.Join(err, answer.Body.Close())
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	if err != nil {
		return 0, 0, 0, fmt.Errorf("get %s: %w", url, err)
	}
	return begun, time.Since(start), bytes, nil
}

// fill writes n jobs of an owner as core leaves them, by many writers, so that
// they share commits. One in a thousand waits in the queue.
func fill(ctx context.Context, path string, owner skyport.UserID, n int) error {
	db, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		return fmt.Errorf("open it: %w", err)
	}
	const writers, batch = 4, 100
	var work sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for w := range writers {
		work.Go(func() {
			for first := w * batch; first < n; first += writers * batch {
				err := db.Update(ctx, func(tx *store.Tx) error {
					for i := first; i < min(n, first+batch); i++ {
						if err := life(tx, owner, i); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	work.Wait()
	return errors.Join(append(failed, db.Close())...)
}

// life writes a job that has lived: its attempt, and its events.
func life(tx *store.Tx, owner skyport.UserID, i int) error {
	const script = "#!/bin/sh\n#SWM name stored\n#SWM time 10:00\n#SWM output-files result.csv\n./work\n"
	job := skyport.Job{
		ID: skyport.NewJobID(), Owner: owner, Account: "default", Name: fmt.Sprintf("stored-%d", i), State: skyport.JobQueued,
		Details: skyport.DetailsQueued, Origin: "127.0.0.1",
		Request: skyport.Request{Name: fmt.Sprintf("stored-%d", i), Account: "default", Site: "local", CPUs: 1, TimeLimit: 600, OutputFiles: []string{"result.csv"}},
	}
	if err := tx.InsertJob(&job, []byte(script)); err != nil {
		return err
	}
	if i%1000 == 0 {
		return nil
	}
	attempt := skyport.Attempt{Job: job.ID, Number: 1, Partition: skyport.NewPartitionID(), CPUs: 1}
	if err := tx.InsertAttempt(&attempt); err != nil {
		return err
	}
	job.Attempt, job.Partition, job.Site, job.Flavor = 1, attempt.Partition, "local", "local.1"
	job.NodeNames = skyport.NodeNames(attempt.Partition, 1)
	attempt.Started, job.StartTime = tx.Now(), tx.Now()
	for _, move := range []struct {
		to      skyport.JobState
		details string
	}{
		{skyport.JobWaiting, skyport.DetailsConnected},
		{skyport.JobTransferring, skyport.DetailsDataUploading},
		{skyport.JobRunning, skyport.DetailsRunning},
		{skyport.JobFinished, "Finished"},
	} {
		if err := tx.MoveJob(&job, move.to, move.details); err != nil {
			return err
		}
	}
	attempt.Phase, attempt.Ended = skyport.PhaseReleased, tx.Now()
	return tx.UpdateAttempt(&attempt)
}
