package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// measureMemory looks at the resident memory of core, running apart from the
// gate: idle, and with many active jobs. The machine's cpus are pretended to
// be many, so that some of the jobs run, each on a node of its own; the rest
// wait in the queue.
func measureMemory(ctx context.Context, b *bench) (err error) {
	running := b.size.running
	s, err := b.newStage(ctx, "SWM_LOCAL_CPUS="+strconv.Itoa(running), "SWM_LOCAL_MEMORY=1000T")
	if err != nil {
		return err
	}
	defer s.closing(&err)
	if _, err := s.start(ctx, "gate"); err != nil {
		return err
	}
	c, err := s.start(ctx, "core")
	if err != nil {
		return err
	}
	idle, err := s.resident(ctx)
	if err != nil {
		return err
	}
	b.report.add("resident memory of core, idle", idle, "MB", under(100), "the most in 2 s")

	subs := make([]client.Submission, b.size.active)
	for i := range subs {
		subs[i].Script = []byte("#!/bin/sh\n#SWM flavor local.1\nexec sleep 3600\n")
	}
	if _, err := c.SubmitBatch(ctx, "", subs); err != nil {
		return fmt.Errorf("submit %d jobs: %w", len(subs), err)
	}
	begun := 0
	wait, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for event, err := range c.Events(wait, client.EventFilter{}, 0) {
		if err != nil {
			return fmt.Errorf("%d of %d jobs run: %w", begun, running, err)
		}
		if event.Kind == skyport.EventState && event.Job != "" && event.State == string(skyport.JobRunning) {
			if begun++; begun == running {
				break
			}
		}
	}
	if begun < running {
		return fmt.Errorf("%d of %d jobs run: %w", begun, running, context.Cause(wait))
	}
	busy, err := s.resident(ctx)
	if err != nil {
		return err
	}
	peak := memoryOf(s.pid(), "VmHWM")
	b.report.add(fmt.Sprintf("resident memory of core, %d active jobs", len(subs)), busy, "MB", under(100),
		fmt.Sprintf("%d run on as many nodes, %d wait in the queue; the most in 2 s; the most ever %s MB", running, len(subs)-running, number(peak)))
	return nil
}

// resident is the most resident memory that the last daemon has in two seconds.
func (s *stage) resident(ctx context.Context) (most float64, err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		most = max(most, memoryOf(s.pid(), "VmRSS"))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("look at the memory: %w", context.Cause(ctx))
		}
	}
	if most == 0 {
		return 0, fmt.Errorf("core's memory cannot be read in /proc/%d/status", s.pid())
	}
	return most, nil
}

// memoryOf reads a size of a process in MB, 0 when it cannot.
func memoryOf(pid int, key string) float64 {
	value := valueIn(filepath.Join("/proc", strconv.Itoa(pid), "status"), key, ":")
	kib, err := strconv.ParseFloat(strings.TrimSuffix(value, " kB"), 64)
	if err != nil {
		return 0
	}
	return kib * 1024 / 1e6
}
