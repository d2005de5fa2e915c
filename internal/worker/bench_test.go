package worker_test

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport/internal/worker/protocol"
)

// From the request to the first line of the script in the watch stream, one
// after another.
func BenchmarkFirstLine(b *testing.B) {
	client := open(b)
	events := make(chan protocol.Event, 1000)
	go func() {
		_ = client.Watch(b.Context(), func(e protocol.Event) error { events <- e; return nil }) // ends with the test
	}()
	var reached, said time.Duration
	for b.Loop() {
		spec := script("#!/bin/sh\ndate +%s.%N\n")
		begin := time.Now()
		if _, err := client.Prepare(b.Context(), spec); err != nil {
			b.Fatal(err)
		}
		seen := false // the line; the news of it and of the end may be one
		for e := range events {
			if e.Status == nil || e.Status.Run != spec.Run {
				continue
			}
			if !seen && e.Status.Stdout > 0 {
				seen = true
				said += time.Since(begin)
			}
			if e.Status.State == protocol.RunEnded {
				break
			}
		}
		var out bytes.Buffer
		if _, err := client.Log(b.Context(), spec.Run, "stdout", 0, &out); err != nil {
			b.Fatal(err)
		}
		seconds, err := time.ParseDuration(strings.TrimSpace(out.String()) + "s")
		if err != nil {
			b.Fatal(err)
		}
		reached += time.Unix(0, 0).Add(seconds).Sub(begin)
		if err := client.Remove(b.Context(), spec.Run); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(reached.Microseconds())/float64(b.N)/1000, "ms-to-script")
	b.ReportMetric(float64(said.Microseconds())/float64(b.N)/1000, "ms-to-line-seen")
}

// Trivial jobs from request to removal, two at a time.
func BenchmarkTrivialJobs(b *testing.B) {
	client := open(b)
	specs := make(chan protocol.RunSpec)
	ended := make(map[string]chan struct{})
	var mu sync.Mutex
	go func() {
		_ = client.Watch(b.Context(), func(e protocol.Event) error { // ends with the test
			if e.Status != nil && e.Status.State == protocol.RunEnded {
				mu.Lock()
				defer mu.Unlock()
				if done := ended[e.Status.Run]; done != nil {
					delete(ended, e.Status.Run)
					close(done)
				}
			}
			return nil
		})
	}()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for spec := range specs {
				done := make(chan struct{})
				mu.Lock()
				ended[spec.Run] = done
				mu.Unlock()
				if _, err := client.Prepare(b.Context(), spec); err != nil {
					b.Error(err)
					return
				}
				<-done
				if err := client.Remove(b.Context(), spec.Run); err != nil {
					b.Error(err)
				}
			}
		})
	}
	cpus := 0
	if os.Geteuid() == 0 {
		cpus = 1
	}
	for b.Loop() {
		spec := script("#!/bin/sh\n:\n")
		spec.CPUs = cpus
		specs <- spec
	}
	close(specs)
	all.Wait()
}
