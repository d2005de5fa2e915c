package azure_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	azuretest "github.com/openworkload/skyport/test/azure"
)

var storms = flag.Int("storms", 8, "how many seeds TestStorm runs")

// TestStorm kills the gate at a random moment of a partition's life in a cloud
// that errs, loses answers, does things twice and shows what was a moment ago.
// At the end the cloud has nothing left, every time.
func TestStorm(t *testing.T) {
	t.Parallel()
	for seed := range *storms {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			storm(t, uint64(seed))
		})
	}
}

func storm(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that can be repeated
	often := func() float64 { return 0.08 * rng.Float64() }
	e := emulator(t, func(o *azuretest.Options) {
		o.Seed = seed
		o.Faults = azuretest.Faults{
			Throttle: often(), Error: often(), ErrorAfter: often(), CutBefore: often(), CutAfter: often(), Duplicate: often(), NoCapacity: often(),
			ListLag: time.Duration(rng.IntN(150)) * time.Millisecond, GetLag: time.Duration(rng.IntN(15)) * time.Millisecond,
		}
	})
	spec := plan(t, "Standard_D4s_v5", 1+rng.IntN(3), rng.IntN(2) == 0).PartitionSpec
	dir, last := t.TempDir(), ""
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	for life := range 1 + rng.IntN(3) {
		p := provider(t, e, dir)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		until(ctx, t, e, "the partition is asked for", func() bool {
			err := p.Create(ctx, spec)
			return err == nil || errors.Is(err, gate.ErrPermanent)
		})
		switch rng.IntN(3) {
		case 0: // as far as it comes
			until(ctx, t, e, "the partition is up or has failed", func() bool {
				status, err := p.Status(ctx, "az", spec.ID)
				last = fmt.Sprintf("%+v, %v", status, err)
				return err == nil && (status.State == gate.StateUp || status.State == gate.StateFailed) || errors.Is(err, gate.ErrNotFound)
			})
		case 1:
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond) // the moment of the kill is chance itself
		}
		cancel()
		if err := p.Close(); err != nil {
			t.Errorf("life %d: %v", life, err)
		}
	}
	p := provider(t, e, dir)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until(ctx, t, e, "the removal is asked for", func() bool { return p.Delete(ctx, "az", spec.ID) == nil })
	until(ctx, t, e, "the partition is gone", func() bool {
		_, err := p.Status(ctx, "az", spec.ID)
		return errors.Is(err, gate.ErrNotFound)
	})
	if left := e.Resources(); len(left) > 0 {
		t.Errorf("the gate says that nothing is left, the cloud has %+v", left)
	}
}

// until waits for a condition.
func until(ctx context.Context, t *testing.T, e *azuretest.Emulator, what string, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-ctx.Done():
			calls := e.Calls()
			t.Fatalf("in vain until %s; last calls: %+v", what, calls[max(0, len(calls)-10):])
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestInterruption tells that Azure took a node back, and that somebody removed one.
func TestInterruption(t *testing.T) {
	t.Parallel()
	for _, spot := range []bool{true, false} {
		e := emulator(t, nil)
		c := open(t, e)
		p := plan(t, "Standard_D4s_v5", 2, spot)
		if _, err := make1(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(e.Resources(), func(r azuretest.Resource) bool { return strings.HasSuffix(r.ID, "/virtualMachines/"+p.Nodes[1]) })
		if at < 0 {
			t.Fatalf("no %s in %+v", p.Nodes[1], e.Resources())
		}
		if err := e.Evict(e.Resources()[at].ID); err != nil {
			if spot {
				t.Fatal(err)
			}
			continue // only spot machines can be taken back
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		until(ctx, t, e, "the loss is told", func() bool {
			f := find1(t, c, p.ID)
			return f != nil && skyport.CodeOf(f.Failure) == skyport.CodeInterrupted
		})
		cancel()
	}
}
