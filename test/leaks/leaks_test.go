package leaks

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport/images/node"
	azuretest "github.com/openworkload/skyport/test/azure"
)

var (
	runs = flag.Int("runs", 25, "how many jobs come and go; with 100 and more one in a hundred on real machines besides")
	seed = flag.Uint64("seed", 0, "what chance is made of; 0: the clock")
	size = flag.Int("flight", 32, "how many of them make a batch, and are under way at once")
	with = flag.String("binary", "", "the skyport that is tried; empty: built from these sources")
	keep = flag.Bool("keep", false, "keep spool and logs of a failure")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// TestLeaks has jobs come and go, batch by batch. Their machines are nothing: no
// job ever begins to run.
func TestLeaks(t *testing.T) {
	t.Parallel()
	h := open(t, &azuretest.Nothing{})
	h.liveAll(*runs, min(*size, *runs), false)
}

// TestLeaksReal is a smaller share, on machines that are containers and boot:
// these jobs run, and end by themselves.
func TestLeaksReal(t *testing.T) {
	t.Parallel()
	if *runs < 100 {
		t.Skip("with -runs of 100 and more: one in a hundred")
	}
	image := node.Ensure(t)
	machines, err := azuretest.NewDocker(azuretest.DockerOptions{
		Image: image, NoEngine: true, Labels: map[string]string{"io.openworkload.skyport.test": "leaks"},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, machines)
	h.liveAll(*runs/100, 5, true)
}

// liveAll lives so many runs in batches of a size.
func (h *house) liveAll(total, size int, works bool) {
	t := h.t
	again := fmt.Sprintf("make leaks RUNS=%d SEED=%d", *runs, *seed)
	t.Logf("seed %d; again with: %s", *seed, again)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	h.giveUp = stop
	h.cloud.plantForeign()
	count := tally{weathers: map[string]int{}, kills: map[string]int{}, faults: map[azuretest.Fault]int{}}
	began := time.Now()
	for batch := 0; count.runs < total && ctx.Err() == nil; batch++ {
		h.liveBatch(ctx, batch, min(size, total-count.runs), works, &count)
	}
	if !t.Failed() {
		h.close()
	}
	t.Logf("%d runs in %s; %s", count.runs, time.Since(began).Round(time.Second), &count)
	if t.Failed() {
		t.Logf("seed %d failed; again with: %s", *seed, again)
	}
}

// tally counts what was lived through.
type tally struct {
	runs, made, partitions, calls int
	weathers, kills               map[string]int
	faults                        map[azuretest.Fault]int
	slowest                       time.Duration
}

func (c *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the cloud had something in %d of them, %d partitions in all, %d calls; slowest batch %s\n",
		c.made, c.partitions, c.calls, c.slowest.Round(100*time.Millisecond))
	for _, name := range slices.Sorted(maps.Keys(c.weathers)) {
		fmt.Fprintf(&b, "%5d runs in weather: %s\n", c.weathers[name], name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.kills)) {
		fmt.Fprintf(&b, "%5d kills of %s\n", c.kills[name], name)
	}
	for _, kind := range slices.Sorted(maps.Keys(c.faults)) {
		fmt.Fprintf(&b, "%5d faults: %s\n", c.faults[kind], kind)
	}
	return b.String()
}

// liveBatch lives some runs at once. At the end the cloud has what others have put there.
func (h *house) liveBatch(ctx context.Context, batch, size int, works bool, count *tally) {
	began := time.Now()
	around := drawWeather(batch, chance(batch))
	if works { // a boot takes long enough
		around = weather{name: "fair"}
	}
	all := make([]*run, size)
	for i := range all {
		all[i] = drawRun(count.runs+i, batch, size, works)
		if all[i].fault != nil {
			around.faults.Rules = append(around.faults.Rules, *all[i].fault)
		}
	}
	h.cloud.forgetCalls()
	h.cloud.e.SetFaults(around.faults)
	var living sync.WaitGroup
	for _, r := range all {
		living.Go(func() {
			if err := h.live(ctx, r); err != nil {
				h.fail(ctx, r, err)
			}
		})
	}
	living.Wait()
	h.cloud.e.SetFaults(azuretest.Faults{})
	count.runs += size
	count.weathers[around.name] += size
	count.slowest = max(count.slowest, time.Since(began))
	for _, r := range all {
		if n := len(h.cloud.seen(r.id)); n > 0 {
			count.made++
			count.partitions += n
		}
		if r.killed {
			count.kills[fmt.Sprintf("%-4s at %s", r.kill, r.killAt)]++
		}
	}
	for _, c := range h.cloud.e.Calls() {
		count.calls++
		if c.Fault != "" {
			count.faults[c.Fault]++
		}
	}
	if ctx.Err() == nil {
		h.checkEmpty(ctx, around, all)
	}
	h.t.Logf("batch %d, %d runs, %s: %s", batch, size, around.name, time.Since(began).Round(100*time.Millisecond))
}

// checkEmpty looks for anything of ours, and for everything of others.
func (h *house) checkEmpty(ctx context.Context, around weather, all []*run) {
	if !until(ctx, time.Minute, func() bool { live, err := h.partitions(ctx); return err == nil && len(live) == 0 }) {
		live, err := h.partitions(ctx)
		h.t.Errorf("core still has partitions: %v, %v", live, err)
	}
	strangers, missing := h.cloud.strangers()
	if len(strangers)+len(missing) == 0 {
		return
	}
	h.t.Errorf("seed %d, %s weather: the cloud has of ours\n%s\n  and misses of others\n%s", *seed, around.name,
		indent(strings.Join(strangers, "\n")), indent(strings.Join(missing, "\n")))
	for _, r := range all {
		h.t.Log(r, r.partitions)
	}
	h.giveUp()
}
