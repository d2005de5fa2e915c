package crash

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport/images/node"
)

var (
	kills  = flag.Int("kills", 0, "how often something is killed; 0: 40 times, on remote nodes 10 times, on those of a cloud 6 times")
	seed   = flag.Uint64("seed", 0, "what chance is made of; 0: the clock")
	flight = flag.Int("flight", 0, "jobs that are under way at once; 0: 6, on remote nodes 3, on those of a cloud 2")
	pace   = flag.Duration("pace", 1200*time.Millisecond, "longest pause between two kills")
)

// TestCrash is the crash matrix of the local site.
func TestCrash(t *testing.T) {
	live(t, cmp.Or(*kills, 40), cmp.Or(*flight, 6), newLocal)
}

// TestCrashRemote is the crash matrix of nodes that core reaches by SSH.
func TestCrashRemote(t *testing.T) {
	image := node.Ensure(t)
	live(t, cmp.Or(*kills, 10), cmp.Or(*flight, 3), func(h *house) site { return newRemote(h, image) })
}

// TestCrashAzure is the crash matrix of nodes that a cloud makes.
func TestCrashAzure(t *testing.T) {
	image := node.Ensure(t)
	live(t, cmp.Or(*kills, 6), cmp.Or(*flight, 2), func(h *house) site { return newAzure(h, image) })
}

// live opens a house at a site, kills so often, and looks what has become of it.
func live(t *testing.T, kills, flight int, at func(*house) site) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	again := fmt.Sprintf("go test ./test/crash -count=1 -timeout 60m -v -run '^%s$' -kills %d -flight %d -pace %s -seed %d",
		t.Name(), kills, flight, *pace, *seed)
	t.Logf("seed %d; again with: %s", *seed, again)
	began := time.Now()
	h := open(t, flight, at)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h.giveUp = stop

	var all sync.WaitGroup
	defer all.Wait()
	done := make(chan struct{})
	all.Go(func() { h.watch.follow(ctx, h.user) })
	all.Go(func() { h.keepBusy(ctx, done) })
	count := h.killAll(ctx, kills)
	close(done)
	h.jobs.Wait()
	if !t.Failed() {
		h.checkRemains(ctx)
	}
	stop()
	all.Wait()
	h.close()
	if !t.Failed() {
		h.checkKeys(t.Context())
	}

	for _, name := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%4d kills: %s", count[name], name)
	}
	t.Logf("%d kills in %s; %s", total(count), time.Since(began).Round(time.Second), h.tally())
	if t.Failed() {
		t.Logf("seed %d failed; again with: %s", *seed, again)
	}
}

// A victim is what is killed together.
type victim string

const (
	theCore   victim = "core"
	theGate   victim = "gate"
	aWorker   victim = "worker" // and nothing else: its shims and scripts go on
	aNode     victim = "node"   // all that is on it: what was running is lost
	aShim     victim = "shim"   // of one run, or of all on a node: the script dies with it
	aServer   victim = "sshd"   // of a node: all connections to it end
	aBoot     victim = "boot"   // a node is stopped and started again
	allAtOnce victim = "all"    // core, gate and every worker
	machine   victim = "power"  // core, gate and every node: the plug was pulled
)

// killAll goes through the matrix, every other time at a random moment instead.
func (h *house) killAll(ctx context.Context, kills int) map[string]int {
	victims := h.site.victims()
	count := map[string]int{}
	random := rand.New(rand.NewPCG(*seed, 0))
	cell := random.IntN(1 << 16)
	for n := 0; n < kills && ctx.Err() == nil; n++ {
		if !rest(ctx, time.Duration(random.Int64N(int64(*pace)))) {
			break
		}
		if n%2 == 1 {
			who := h.kill(ctx, victims[random.IntN(len(victims))], random)
			count[fmt.Sprintf("%-7s at random", who)]++
			continue
		}
		cell++
		// This comes to every pair, and to another victim each time.
		at, who := stages[cell%len(stages)], victims[(cell+cell/len(stages))%len(victims)]
		switch at {
		case stageAccepted:
			h.killAfterAnswer(ctx)
			who = theCore
		case stageSubmitting:
			h.killBeforeAnswer(ctx, time.Duration(random.Int64N(int64(20*time.Millisecond))))
			who = theCore
		default:
			h.watch.await(ctx, at, h.patience)
			if !rest(ctx, time.Duration(random.Int64N(int64(30*time.Millisecond)))) {
				break
			}
			who = h.kill(ctx, who, random)
		}
		count[fmt.Sprintf("%-7s at %s", who, at)]++
	}
	return count
}

// kill kills a victim, or core when there is none of the kind for a while, and
// says which.
func (h *house) kill(ctx context.Context, who victim, random *rand.Rand) victim {
	switch who {
	case theCore:
		h.core.kill()
	case theGate:
		h.gate.kill()
	case allAtOnce, machine:
		h.core.kill()
		h.gate.kill()
		h.site.strike(ctx, who, random)
	default:
		if !h.site.strike(ctx, who, random) {
			h.core.kill()
			return theCore
		}
	}
	return who
}

// keepBusy has so many jobs under way until done.
func (h *house) keepBusy(ctx context.Context, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case h.room <- struct{}{}:
		}
		w := h.newWork()
		h.jobs.Go(func() {
			defer func() { <-h.room }()
			if err := h.submit(ctx, w); err != nil {
				h.fail(ctx, w, "submit: %v", err)
				return
			}
			h.live(ctx, w)
		})
	}
}

func total(count map[string]int) (sum int) {
	for _, n := range count {
		sum += n
	}
	return sum
}

// rest waits; it is false when the context ended first.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// until waits for a condition of the world outside.
func until(ctx context.Context, most time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for !holds() {
		if !rest(ctx, 20*time.Millisecond) {
			return holds()
		}
	}
	return true
}

// indent shows a text below a message.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
