package local

import (
	"context"
	"fmt"
	"time"

	"github.com/openworkload/skyport/gate"
)

// What a worker is granted before it is given up.
const (
	bootTime  = 30 * time.Second // until its socket answers
	steady    = 30 * time.Second // answered for so long: earlier deaths are forgiven
	maxDeaths = 5                // in a row
)

// supervise keeps one node's worker running until ctx ends, as the init of a
// real node would. The worker itself outlives ctx.
func (p *Provider) supervise(ctx context.Context, part *partition, n *node, adopt bool, faults Faults) {
	if faults.NeverBoot {
		p.say(n, gate.StateBooting, "does not boot: a fault is switched on")
		<-ctx.Done()
		return
	}
	var w *worker
	if adopt {
		w = p.adopt(n)
	}
	if w == nil && !rest(ctx, min(p.options.BootDelay, time.Until(part.created.Add(p.options.BootDelay)))) {
		return
	}
	deaths, pause := 0, 100*time.Millisecond
	for {
		err := p.socket.ensure(n.socket)
		if err == nil && w == nil {
			w, err = p.launch(part, n, faults)
		}
		if err == nil {
			var lived time.Duration
			lived, err = p.watch(ctx, n, w)
			if ctx.Err() != nil {
				return
			}
			if said := lastWords(part.log(n)); lived == 0 && said != "" {
				err = fmt.Errorf("%w: %s", err, said) // the log goes with the partition
			}
			if lived >= steady {
				deaths, pause = 0, 100*time.Millisecond
			}
			w = nil
		}
		deaths++
		p.log.Warn("worker is gone", "node", n.name, "error", err, "deaths", deaths)
		if deaths >= maxDeaths {
			p.say(n, gate.StateFailed, "%v", err)
			p.giveUp(part, fmt.Sprintf("node %s: worker ended %d times in a row, the last time: %v", n.name, deaths, err))
			return
		}
		p.say(n, gate.StateBooting, "starting the worker again: %v", err)
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// watch waits for a worker to answer, says that the node is up, and returns
// when the worker has ended, with how long it was up, or when ctx ends.
func (p *Provider) watch(ctx context.Context, n *node, w *worker) (up time.Duration, err error) {
	defer w.close()
	ended, stop := w.ended(ctx)
	defer stop()

	deadline := time.Now().Add(bootTime)
	for pause := 2 * time.Millisecond; ; pause = min(pause*3/2, 100*time.Millisecond) {
		err := n.probe(ctx)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			w.kill()
			<-ended
			return 0, fmt.Errorf("no answer within %s: %w", bootTime, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ended:
			timer.Stop()
			return 0, w.verdict()
		}
	}
	p.say(n, gate.StateUp, "")
	since := time.Now()
	<-ended
	return time.Since(since), w.verdict()
}
