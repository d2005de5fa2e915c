package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// measureSubmissions counts how many jobs are accepted, each in a call of its
// own that is answered once the job is on disk. They wait in the queue: the
// site may have one node, and a job sleeps on it.
func measureSubmissions(ctx context.Context, b *bench) error {
	for _, clients := range []int{1, 8} {
		if err := b.submissions(ctx, clients); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) submissions(ctx context.Context, clients int) (err error) {
	s, first, err := b.up(ctx, "SWM_LOCAL_NODES=1")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	sleeper, err := first.Submit(ctx, client.Submission{Script: []byte("#!/bin/sh\n#SWM flavor local.all\nexec sleep 3600\n")})
	if err != nil {
		return fmt.Errorf("occupy the only node: %w", err)
	}
	if err := reach(ctx, first, sleeper.ID, skyport.JobRunning); err != nil {
		return err
	}

	var accepted atomic.Int64
	var work sync.WaitGroup
	var mu sync.Mutex
	var took series
	var failed []error
	running, stop := context.WithCancel(ctx)
	defer stop()
	cores, ours := s.processorTime(), ownProcessorTime()
	begin := time.Now()
	for range clients {
		c, err := s.client()
		if err != nil {
			return err
		}
		defer c.Close()
		work.Go(func() {
			var mine series
			for time.Since(begin) < b.size.submitFor && running.Err() == nil {
				start := time.Now()
				if _, err := c.Submit(running, client.Submission{Script: []byte("#!/bin/sh\ntrue\n")}); err != nil {
					stop()
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(start))
				accepted.Add(1)
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	work.Wait()
	elapsed := time.Since(begin)
	cores, ours = s.processorTime()-cores, ownProcessorTime()-ours
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	n := 0
	for job, err := range first.Jobs(ctx, client.JobFilter{States: []skyport.JobState{skyport.JobQueued}}) {
		if err != nil {
			return fmt.Errorf("count what was accepted: %w", err)
		}
		_ = job
		n++
	}
	if int64(n) != accepted.Load() {
		return fmt.Errorf("%d jobs were accepted, %d wait", accepted.Load(), n)
	}
	goal := aim{}
	if clients == 8 {
		goal = atLeast(2000)
	}
	b.report.add(fmt.Sprintf("durable submissions, clients: %d", clients), float64(n)/elapsed.Seconds(), "/s", goal,
		fmt.Sprintf("%d jobs in %s, each a call; median answer %s, p99 %s; clients and core share the cores", n, round(elapsed),
			round(took.median()), round(took.quantile(0.99))))
	b.report.add(fmt.Sprintf("processor time of a submission, clients: %d", clients), microseconds(cores+ours)/float64(n), "µs", aim{},
		fmt.Sprintf("core %s µs, client %s µs: %s/s if %d cores did nothing else", number(microseconds(cores)/float64(n)),
			number(microseconds(ours)/float64(n)), number(float64(runtime.NumCPU()*n)/(cores+ours).Seconds()), runtime.NumCPU()))
	return nil
}

// measureWarm times from the call of Submit to the moment at which the
// script's first line reaches us, on a node that is there already.
func measureWarm(ctx context.Context, b *bench) (err error) {
	s, c, err := b.up(ctx, "SWM_LOCAL_NODES=1", "SWM_KEEP_ALIVE=1h")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	idle := func(list []skyport.Partition) bool {
		return len(list) == 1 && list[0].State == skyport.PartitionReady
	}
	first, whole, err := s.firstLines(ctx, c, b.size.warm+1, idle)
	if err != nil {
		return err
	}
	// The first one made the partition.
	first, whole = first[1:], whole[1:]
	b.report.add("warm node: submit to the script's first line, median", milliseconds(first.median()), "ms", under(50), first.spread())
	b.report.add("warm node: submit to the script's first line, p99", milliseconds(first.quantile(0.99)), "ms", aim{}, "")
	b.report.add("warm node: submit to finished, median", milliseconds(whole.median()), "ms", aim{}, whole.spread())
	return nil
}

// measureCold is measureWarm with a partition of its own for every job.
func measureCold(ctx context.Context, b *bench) (err error) {
	s, c, err := b.up(ctx, "SWM_KEEP_ALIVE=0s")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	first, whole, err := s.firstLines(ctx, c, b.size.cold, func(list []skyport.Partition) bool { return len(list) == 0 })
	if err != nil {
		return err
	}
	b.report.add("cold local partition: submit to the script's first line, median", milliseconds(first.median()), "ms", under(500), first.spread())
	b.report.add("cold local partition: submit to finished, median", milliseconds(whole.median()), "ms", aim{}, whole.spread())
	return nil
}

// firstLines runs n jobs, one after another, each submitted when the
// partitions are as wanted. The script's first line writes to a pipe of ours.
func (s *stage) firstLines(ctx context.Context, c *client.Client, n int, wanted func([]skyport.Partition) bool) (first, whole series, err error) {
	path := filepath.Join(s.dir, "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // open for writing too: no end of file between jobs
	if err != nil {
		return nil, nil, fmt.Errorf("open the pipe: %w", err)
	}
	defer func() { _ = pipe.Close() }() // nothing is lost
	script := []byte("#!/bin/sh\necho >" + path + "\n")
	line := make([]byte, 16)
	for i := range n {
		start := time.Now()
		job, err := c.Submit(ctx, client.Submission{Script: script})
		if err != nil {
			return nil, nil, fmt.Errorf("submit job %d: %w", i, err)
		}
		if err := pipe.SetReadDeadline(start.Add(patience)); err != nil {
			return nil, nil, fmt.Errorf("the pipe: %w", err)
		}
		if _, err := pipe.Read(line); err != nil {
			return nil, nil, fmt.Errorf("the first line of job %d: %w", i, err)
		}
		first = append(first, time.Since(start))
		if err := reach(ctx, c, job.ID, skyport.JobFinished); err != nil {
			return nil, nil, err
		}
		whole = append(whole, time.Since(start))
		if err := partitionsBecome(ctx, c, wanted); err != nil {
			return nil, nil, err
		}
	}
	return first, whole, nil
}

// measureThroughput lets many trivial jobs that came at once run to their end
// on two slots: two nodes of one cpu.
func measureThroughput(ctx context.Context, b *bench) (err error) {
	s, c, err := b.up(ctx, "SWM_LOCAL_CPUS=2", "SWM_LOCAL_MEMORY=1T", "SWM_KEEP_ALIVE=1h")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	subs := make([]client.Submission, b.size.jobs)
	for i := range subs {
		subs[i].Script = []byte("#!/bin/sh\n#SWM flavor local.1\ntrue\n")
	}
	used := s.processorTime()
	begin := time.Now()
	if _, err := c.SubmitBatch(ctx, "", subs); err != nil {
		return fmt.Errorf("submit %d jobs: %w", len(subs), err)
	}
	submitted := time.Since(begin)
	ended := 0
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for event, err := range c.Events(ctx, client.EventFilter{}, 0) {
		if err != nil {
			return fmt.Errorf("%d of %d jobs ended: %w", ended, len(subs), err)
		}
		state := skyport.JobState(event.State)
		if event.Kind != skyport.EventState || event.Job == "" || !state.Terminal() {
			continue
		}
		if state != skyport.JobFinished {
			return fmt.Errorf("job %s came to %s: %s", event.Job, state.Word(), event.Text)
		}
		if ended++; ended == len(subs) {
			break
		}
	}
	if ended < len(subs) {
		return fmt.Errorf("%d of %d jobs ended: %w", ended, len(subs), context.Cause(ctx))
	}
	elapsed := time.Since(begin)
	used = s.processorTime() - used
	b.report.add(fmt.Sprintf("%d trivial jobs to the end, 2 slots", len(subs)), float64(ended)/elapsed.Seconds(), "/s", atLeast(100),
		fmt.Sprintf("%s in all, two cold nodes and the submission as one batch (%s) included", round(elapsed), round(submitted)))
	b.report.add("processor time of a trivial job", milliseconds(used)/float64(ended), "ms", aim{},
		fmt.Sprintf("core, gate, workers, shims and scripts together: %s/s if %d cores did nothing else",
			number(float64(runtime.NumCPU()*ended)/used.Seconds()), runtime.NumCPU()))
	return nil
}

// reach waits until a job has come to a state.
func reach(ctx context.Context, c *client.Client, id skyport.JobID, wanted skyport.JobState) error {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for event, err := range c.Events(ctx, client.EventFilter{Job: id}, 0) {
		if err != nil {
			return fmt.Errorf("wait for job %s: %w", id, err)
		}
		state := skyport.JobState(event.State)
		switch {
		case event.Kind != skyport.EventState:
		case state == wanted:
			return nil
		case state.Terminal():
			return fmt.Errorf("job %s came to %s: %s", id, state.Word(), strings.TrimSpace(event.Text))
		}
	}
	return fmt.Errorf("job %s did not come to %s: %w", id, wanted.Word(), context.Cause(ctx))
}

// partitionsBecome waits until the partitions that there are, are as wanted.
func partitionsBecome(ctx context.Context, c *client.Client, wanted func([]skyport.Partition) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		list, err := c.Partitions(ctx, false)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the partitions: %w", err)
		case wanted(list):
			return nil
		}
	}
}
