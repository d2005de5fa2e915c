package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

// follower shows the life of one job as it happens: its events to standard
// error, its logs to where the job wrote them.
type follower struct {
	a       *app
	c       *client.Client
	job     skyport.Job
	begun   time.Time
	state   skyport.JobState
	details string

	bars    map[string]*progress // transfers on their way, by name
	attempt int                  // whose logs are shown
	logs    sync.WaitGroup
}

// follow shows a job until it has ended and ends as the job did. Events and
// logs survive a restart of core; an interruption leaves the job alone.
func follow(ctx context.Context, a *app, c *client.Client, job skyport.Job) error {
	f := &follower{a: a, c: c, job: job, begun: a.Now(), bars: map[string]*progress{}}
	end, err := f.run(ctx)
	if err != nil {
		return stillThere(a, job.ID, err)
	}
	if a.JSON {
		if err := a.printJSONLine(map[string]skyport.Job{"job": end}); err != nil {
			return err
		}
		return jobExit(end)
	}
	a.printEnd(end)
	// The timeline is a gift: without it the job has ended all the same.
	if steps, err := c.Timeline(ctx, job.ID); err == nil {
		printTimeline(a.Err, steps, a.Now())
	}
	if end.ResultBytes > 0 {
		a.Err.printf("%s\n", a.Err.paint(faint, "skyport results "+job.ID.Short()+" fetches the results, "+end.ResultBytes.String()))
	}
	return jobExit(end)
}

// run shows events until the job has ended, then waits for the logs.
func (f *follower) run(ctx context.Context) (skyport.Job, error) {
	logs, stopLogs := context.WithCancel(ctx)
	defer f.logs.Wait()
	defer stopLogs()
	if !f.a.JSON {
		f.a.Err.printf("job %s\n", f.job.ID)
	}
	for e, err := range f.c.Events(ctx, client.EventFilter{Job: f.job.ID}, 0) {
		if err != nil {
			f.endBars(false)
			return skyport.Job{}, err
		}
		state := skyport.JobState(e.State)
		ended := e.Kind == skyport.EventState && state.Terminal()
		if e.Kind == skyport.EventState && (state == skyport.JobRunning || state == skyport.JobFinished) {
			f.showLogs(logs, e.Attempt)
		}
		if ended {
			f.waitForLogs(ctx, stopLogs)
		}
		if err := f.show(e); err != nil {
			return skyport.Job{}, err
		}
		if ended {
			f.endBars(false)
			return f.c.Job(ctx, f.job.ID)
		}
	}
	f.endBars(false)
	if err := ctx.Err(); err != nil {
		return skyport.Job{}, err //nolint:wrapcheck // says all
	}
	return skyport.Job{}, skyport.Errorf(skyport.CodeUnavailable, "follow job %s: the events ended before the job did", f.job.ID.Short())
}

// show prints what one event tells, when it tells anything new.
func (f *follower) show(e skyport.Event) error {
	if f.a.JSON {
		return f.a.printJSONLine(map[string]skyport.Event{"event": e})
	}
	switch e.Kind {
	case skyport.EventProgress, skyport.EventTransfer:
		if e.Transfer != nil {
			f.showTransfer(*e.Transfer, e.Kind == skyport.EventTransfer)
		}
	case skyport.EventWarning:
		f.say(e, yellow, "warning", oneLine(e.Text))
	case skyport.EventState, skyport.EventDetails:
		state := skyport.JobState(e.State)
		if state.Terminal() || state == f.state && e.Text == f.details {
			return nil // the end has words of its own
		}
		f.state, f.details = state, e.Text
		f.say(e, stateStyle(state), state.Word(), oneLine(e.Text))
	}
	return nil
}

func (f *follower) say(e skyport.Event, st style, word, said string) {
	since := max(0, e.Time.Sub(f.job.SubmitTime))
	if said != "" {
		word = fmt.Sprintf("%-12s  ", word) // as long as transferring
	}
	f.a.Err.printf("%s  %s%s\n", f.a.Err.paint(faint, pad(duration(since), 7)), f.a.Err.paint(st, word), said)
}

// showTransfer moves the bar of a transfer, or ends it.
func (f *follower) showTransfer(t skyport.Transfer, ended bool) {
	bar := f.bars[t.Name]
	if bar == nil {
		if ended && t.Total == 0 {
			return // nothing was moved
		}
		for name, other := range f.bars { // one bar at a time
			other.end(true)
			delete(f.bars, name)
		}
		bar = f.a.newProgress(transferWords(t.Name))
		f.bars[t.Name] = bar
	}
	bar.update(t.Done, t.Total)
	if ended {
		bar.end(true)
		delete(f.bars, t.Name)
	}
}

func transferWords(name string) string {
	switch name {
	case "outputs":
		return "download outputs"
	case "inputs", "worker":
		return "upload " + name
	}
	return oneLine(name)
}

func (f *follower) endBars(ok bool) {
	for name, bar := range f.bars {
		bar.end(ok)
		delete(f.bars, name)
	}
}

// showLogs begins to show the logs of an attempt, once.
func (f *follower) showLogs(ctx context.Context, attempt int) {
	if attempt <= f.attempt {
		return
	}
	f.attempt = attempt
	for stream, to := range map[skyport.LogStream]io.Writer{skyport.Stdout: f.a.Out, skyport.Stderr: f.a.Err} {
		f.logs.Go(func() {
			err := f.copyLog(ctx, stream, to, attempt)
			if err != nil && ctx.Err() == nil && skyport.CodeOf(err) != skyport.CodeNotFound {
				f.a.tell(err)
			}
		})
	}
}

func (f *follower) copyLog(ctx context.Context, stream skyport.LogStream, to io.Writer, attempt int) error {
	log, err := f.c.Logs(ctx, f.job.ID, stream, client.LogOptions{Follow: true, Attempt: attempt})
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // only read
	if f.a.JSON {
		return f.a.printLogLines(stream, log)
	}
	_, err = io.Copy(to, log)
	return readingLog(stream, errors.Join(f.a.Out.failed(), err))
}

// logPatience is how long the end of a job waits for the rest of its logs.
const logPatience = 10 * time.Second

// waitForLogs lets the logs come to their end, and ends them when they do not.
func (f *follower) waitForLogs(ctx context.Context, stop context.CancelFunc) {
	done := make(chan struct{})
	go func() { defer close(done); f.logs.Wait() }() // ends with the logs, which stop ends
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	stop()
	<-done
}
