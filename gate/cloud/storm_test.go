package cloud_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
)

var long = flag.Bool("long", false, "storm for minutes")

// Whatever is created, deleted, extended, killed, taken back and started again
// at a cloud that errs in every way: what core wants stays, what it does not
// want goes, and what is not ours is never touched.
func TestStorm(t *testing.T) {
	t.Parallel()
	rounds := 1
	if *long {
		rounds = 50
	}
	for range rounds {
		rapid.Check(t, func(rt *rapid.T) {
			s := storm{
				faults: cloudtest.Faults{
					Lag:   time.Duration(rapid.IntRange(0, 30).Draw(rt, "lag")) * time.Second,
					Error: rapid.Float64Range(0, 0.2).Draw(rt, "error"), Lost: rapid.Float64Range(0, 0.2).Draw(rt, "lost"),
					Late: rapid.Float64Range(0, 0.1).Draw(rt, "late"), Twice: rapid.Float64Range(0, 0.2).Draw(rt, "twice"),
					Throttle: rapid.Float64Range(0, 0.1).Draw(rt, "throttle"),
					Quiet:    time.Duration(rapid.IntRange(0, 60).Draw(rt, "quiet")) * time.Second,
				},
				seed: rapid.Uint64().Draw(rt, "seed"),
				steps: rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
					return step{
						what:  rapid.SampledFrom([]string{"create", "create", "create", "delete", "delete", "kill", "kill", "extend", "take back", "refuse", "look"}).Draw(rt, "what"),
						which: rapid.IntRange(0, 5).Draw(rt, "which"),
						then:  time.Duration(rapid.SampledFrom([]int{0, 0, 10, 500, 3000, 10000, 30000, 40000, 90000}).Draw(rt, "then")) * time.Millisecond,
					}
				}), 1, 25).Draw(rt, "steps"),
			}
			var err error
			synctest.Test(t, func(t *testing.T) { err = s.run(t) })
			if err != nil {
				rt.Fatal(err)
			}
		})
	}
}

type step struct {
	what  string
	which int
	then  time.Duration
}

type storm struct {
	faults cloudtest.Faults
	seed   uint64
	steps  []step

	w      *cloudtest.World
	c      *cloudtest.Cloud
	p      *cloud.Provider
	wanted []*wanted
}

// wanted is a partition as core has it.
type wanted struct {
	spec    gate.PartitionSpec
	asked   bool // Create has answered that it is being made, in this process
	made    bool // it was seen up
	deleted bool
	fate    bool // something was done to it at the site
}

func (s *storm) run(t *testing.T) error {
	s.w = cloudtest.NewWorld(cloudtest.Options{Step: time.Second, Boot: 20 * time.Second, Faults: s.faults, Seed: s.seed})
	s.w.Foreign("swm-of-somebody", map[string]string{"owner": "somebody"})
	s.w.Foreign("plain", nil)
	s.w.Foreign("half-tagged", map[string]string{cloud.TagOwner: "core"})
	s.start(t)
	defer func() { s.stop(t) }()
	for _, step := range s.steps {
		s.act(t, step)
		for pause := step.then; pause >= 0; pause -= 7 * time.Second {
			time.Sleep(min(pause, 7*time.Second))
			if err := s.look(t.Context()); err != nil {
				return fmt.Errorf("after %s: %w", step.what, err)
			}
		}
	}
	// The first that is live stays; core wants no others.
	var stays *wanted
	for _, w := range s.wanted {
		if stays == nil && w.made && !w.deleted && !w.fate {
			stays = w
			continue
		}
		w.deleted = true
	}
	if err := s.sweep(t.Context(), stays); err != nil {
		return err
	}
	if stays != nil {
		if n := len(s.w.Of(stays.spec.ID)); n < 3+len(stays.spec.Nodes) {
			return fmt.Errorf("of a live partition only %d resources are left", n)
		}
		stays.deleted = true
		return s.sweep(t.Context(), nil)
	}
	return nil
}

func (s *storm) start(t *testing.T) {
	s.c = s.w.Open()
	s.p = open(t, s.c, func(o *cloud.Options) { o.Poll, o.Retry = 0, 0 })
}

func (s *storm) stop(t *testing.T) {
	s.c.Kill()
	if err := s.p.Close(); err != nil {
		t.Error(err)
	}
}

func (s *storm) act(t *testing.T, do step) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var w *wanted
	if len(s.wanted) > 0 {
		w = s.wanted[do.which%len(s.wanted)]
	}
	switch {
	case do.what == "kill":
		s.stop(t)
		s.start(t)
		for _, w := range s.wanted { // core asks again for what it wants
			w.asked = false
			if !w.deleted && !w.made {
				w.asked = s.p.Create(ctx, w.spec) == nil
			}
		}
	case do.what == "refuse" || (do.what == "create" && (w == nil || do.which > 2)):
		s.w.Refuse()
		if do.what == "refuse" {
			s.w.Refuse(cloud.Permanent(skyport.CodeNoCapacity, "no more of these"))
			for _, w := range s.wanted { // it may be any of them
				w.fate = w.fate || !w.made
			}
		}
		id := skyport.NewPartitionID()
		w = &wanted{fate: do.what == "refuse", spec: gate.PartitionSpec{
			ID: id, Owner: "core", Site: "test", Flavor: "small", Nodes: skyport.NodeNames(id, 1+do.which%3),
			Lease: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second),
		}}
		s.wanted = append(s.wanted, w)
		w.asked = s.p.Create(ctx, w.spec) == nil
	case w == nil:
	case do.what == "create" && !w.deleted && !w.made:
		w.asked = s.p.Create(ctx, w.spec) == nil || w.asked
	case do.what == "delete":
		w.deleted = true
		_ = s.p.Delete(ctx, "test", w.spec.ID)
	case do.what == "extend" && w.made && !w.deleted:
		_ = s.p.Extend(ctx, "test", w.spec.ID, time.Now().Add(48*time.Hour))
	case do.what == "take back":
		w.fate = true
		s.w.TakeBack(w.spec.ID)
	}
}

// look holds what the provider tells, and what is there, against what core wants.
func (s *storm) look(ctx context.Context) error {
	if err := s.foreign(); err != nil {
		return err
	}
	for _, w := range s.wanted {
		if w.deleted || w.fate {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		status, err := s.p.Status(ctx, "test", w.spec.ID)
		cancel()
		switch {
		case err == nil && status.State == gate.StateUp:
			w.made = true
		case w.asked && errors.Is(err, gate.ErrNotFound):
			return fmt.Errorf("a partition that was just asked for is told as not there")
		case !w.made:
		case errors.Is(err, gate.ErrNotFound), err == nil && (status.State == gate.StateFailed || status.State == gate.StateDeleting):
			return fmt.Errorf("live partition is told as %w %s %s", err, status.State, status.Details)
		}
		if n := len(s.w.Of(w.spec.ID)); w.made && n < 3+len(w.spec.Nodes) {
			return fmt.Errorf("of a live partition only %d resources are left", n)
		}
	}
	return nil
}

func (s *storm) foreign() error {
	for _, name := range []string{"swm-of-somebody", "plain", "half-tagged"} {
		if !slices.ContainsFunc(s.w.Resources(), func(r cloudtest.Resource) bool { return r.Name == name && r.Tags[cloud.TagCondemned] == "" }) {
			return fmt.Errorf("a foreign resource, %s, was touched", name)
		}
	}
	return nil
}

// sweep deletes what core does not want, as core does, until nothing is left.
func (s *storm) sweep(ctx context.Context, stays *wanted) error {
	left := []skyport.PartitionID{}
	for _, w := range s.wanted {
		if w.deleted {
			left = append(left, w.spec.ID)
		}
	}
	for end := time.Now().Add(3 * time.Hour); time.Now().Before(end); time.Sleep(20 * time.Second) {
		bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
		all, err := s.p.List(bounded, "test", "core")
		for _, status := range all {
			if (stays == nil || status.ID != stays.spec.ID) && !slices.Contains(left, status.ID) {
				left = append(left, status.ID)
			}
		}
		cancel()
		left = slices.DeleteFunc(left, func(id skyport.PartitionID) bool {
			bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if s.p.Delete(bounded, "test", id) != nil {
				return false
			}
			_, err := s.p.Status(bounded, "test", id)
			return errors.Is(err, gate.ErrNotFound)
		})
		if err != nil || len(left) > 0 || s.w.Pending() {
			continue
		}
		there := slices.DeleteFunc(s.w.Resources(), func(r cloudtest.Resource) bool {
			return r.Tags[cloud.TagPartition] == "" || (stays != nil && r.Tags[cloud.TagPartition] == string(stays.spec.ID))
		})
		if len(there) == 0 {
			return s.foreign()
		}
	}
	return fmt.Errorf("after hours there is still %v; not deleted: %v", s.w.Resources(), left)
}
