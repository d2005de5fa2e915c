package cloud_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
)

// eager is a cloud whose calls a test can shape.
type eager struct {
	*cloudtest.Cloud
	make func(ctx context.Context, plan cloud.Plan, tell func(string)) error
	find func()
}

func (e *eager) Make(ctx context.Context, plan cloud.Plan, tell func(string)) error {
	if e.make != nil {
		if err := e.make(ctx, plan, tell); err != nil {
			return err
		}
	}
	return e.Cloud.Make(ctx, plan, tell)
}

func (e *eager) Find(ctx context.Context, id skyport.PartitionID) ([]cloud.Found, error) {
	if e.find != nil {
		e.find()
	}
	return e.Cloud.Find(ctx, id)
}

// calm gives a provider its usual pauses.
func calm(o *cloud.Options) { o.Poll, o.Retry = 0, 0 }

// await follows a partition by its changes alone, as core does.
func await(t *testing.T, p *cloud.Provider, id skyport.PartitionID, state gate.State) gate.PartitionStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // in a bubble
	defer cancel()
	for {
		changed := p.Changed()
		s, err := p.Status(ctx, "test", id)
		if err == nil && s.State == state {
			return s
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("not %s: %s %s, %v", state, s.State, s.Details, err)
		}
	}
}

func awaitGone(t *testing.T, p *cloud.Provider, id skyport.PartitionID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for {
		changed := p.Changed()
		if _, err := p.Status(ctx, "test", id); errors.Is(err, gate.ErrNotFound) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("not gone within an hour")
		}
	}
}

// What a creation does is told as it happens; it can be deleted at any moment.
func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{Step: 10 * time.Second, Boot: 30 * time.Second})
		p := open(t, w.Open(), calm)
		defer p.Close()
		s := spec("test", 2)
		began := time.Now()
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		var told []string
		for len(told) < 5 {
			changed := p.Changed()
			status, err := p.Status(t.Context(), "test", s.ID)
			if err != nil || status.State != gate.StateCreating || len(status.Nodes) != 2 {
				t.Fatal(status, err)
			}
			if !slices.Contains(told, status.Details) {
				told = append(told, status.Details)
			}
			<-changed
		}
		if !strings.Contains(strings.Join(told, "\n"), "Making network swm-"+string(s.ID)+"-net") {
			t.Errorf("told only %q", told)
		}
		up := await(t, p, s.ID, gate.StateUp)
		if up.Nodes[0].Role != skyport.RoleMain || up.Nodes[0].Endpoint == "" || up.Nodes[1].Address == "" {
			t.Errorf("up with %+v", up.Nodes)
		}
		// Ten seconds for a list, fifty for the resources, and the boot; each of the pauses between is short.
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("up after %s", took)
		}
		other := spec("test", 1)
		if err := p.Create(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if err := p.Delete(t.Context(), "test", other.ID); err != nil {
			t.Fatal(err)
		}
		if err := p.Create(t.Context(), other); err == nil || errors.Is(err, gate.ErrPermanent) {
			t.Errorf("create while deleting: %v", err)
		}
		awaitGone(t, p, other.ID)
		if left := w.Of(other.ID); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// A creation that fails is told at once, is rolled back whole, and is
// remembered until it is deleted; one that hangs is given up.
func TestRollback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{Step: time.Second})
		c := &eager{Cloud: w.Open()}
		p := open(t, c, calm, func(o *cloud.Options) { o.CreateLimit = 5 * time.Minute })
		defer p.Close()

		s := spec("test", 3)
		w.Refuse(cloud.Permanent(skyport.CodeNoCapacity, "no more small nodes in this region").WithHint("try another flavor"))
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		failed := await(t, p, s.ID, gate.StateFailed)
		if failed.Code != skyport.CodeNoCapacity || !strings.Contains(failed.Details, "try another flavor") {
			t.Errorf("told %s %q", failed.Code, failed.Details)
		}
		time.Sleep(time.Minute)
		if left := w.Of(s.ID); len(left) > 0 {
			t.Errorf("not rolled back: %v", left)
		}
		time.Sleep(24 * time.Hour)
		if again, err := p.Status(t.Context(), "test", s.ID); err != nil || again.State != gate.StateFailed || again.Details != failed.Details {
			t.Errorf("a day later: %+v, %v", again, err)
		}
		if err := p.Delete(t.Context(), "test", s.ID); err != nil {
			t.Fatal(err)
		}
		awaitGone(t, p, s.ID)

		for name, test := range map[string]struct {
			make func(context.Context, cloud.Plan, func(string)) error
			text string
		}{
			"hang": {func(ctx context.Context, _ cloud.Plan, _ func(string)) error {
				<-ctx.Done()
				return ctx.Err()
			}, "within 5m0s"},
			"error": {func(context.Context, cloud.Plan, func(string)) error {
				return errors.New("the API is on fire")
			}, "on fire"},
			"panic": {func(context.Context, cloud.Plan, func(string)) error { panic("!") }, "panicked"},
		} {
			c.make = test.make
			s := spec("test", 1)
			began := time.Now()
			if err := p.Create(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			failed := await(t, p, s.ID, gate.StateFailed)
			if !strings.Contains(failed.Details, test.text) || failed.Code != skyport.CodeUnavailable {
				t.Errorf("%s: told %s %q", name, failed.Code, failed.Details)
			}
			if took := time.Since(began); took < 4*time.Minute || took > 6*time.Minute {
				t.Errorf("%s: given up after %s", name, took)
			}
		}
	})
}

// While a cloud wants to be left alone nothing is asked of it, what is known is
// told, and the rest is said to be passing.
func TestThrottled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{})
		c := &eager{Cloud: w.Open()}
		p := open(t, c, calm)
		defer p.Close()
		live := spec("test", 1)
		if err := p.Create(t.Context(), live); err != nil {
			t.Fatal(err)
		}
		await(t, p, live.ID, gate.StateUp)

		quiet := 3 * time.Minute
		first := true
		c.make = func(context.Context, cloud.Plan, func(string)) error {
			if first {
				first = false
				return &cloud.Throttled{After: quiet, Err: errors.New("429")}
			}
			return nil
		}
		began := time.Now()
		s := spec("test", 1)
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		listed := w.Calls("Find")
		time.Sleep(time.Minute)
		if status, err := p.Status(t.Context(), "test", s.ID); err != nil || status.State != gate.StateCreating || !strings.Contains(status.Details, "no calls for 3m") {
			t.Errorf("told %+v, %v", status, err)
		}
		if status, err := p.Status(t.Context(), "test", live.ID); err != nil || status.State != gate.StateUp {
			t.Errorf("what is known: %+v, %v", status, err)
		}
		if all, err := p.List(t.Context(), "test", ""); err != nil || len(all) != 2 {
			t.Errorf("list: %v, %v", all, err)
		}
		if _, err := p.Status(t.Context(), "test", skyport.NewPartitionID()); err == nil || errors.Is(err, gate.ErrNotFound) || skyport.CodeOf(err) != skyport.CodeThrottled {
			t.Errorf("what is not known: %v", err)
		}
		if err := p.Delete(t.Context(), "test", live.ID); err == nil || errors.Is(err, gate.ErrPermanent) {
			t.Errorf("delete: %v, want a passing error", err)
		}
		time.Sleep(time.Minute)
		if n := w.Calls("Find"); n != listed {
			t.Errorf("%d listings while the cloud wanted to be left alone", n-listed)
		}
		await(t, p, s.ID, gate.StateUp)
		if took := time.Since(began); took < quiet || took > quiet+time.Minute {
			t.Errorf("up after %s", took)
		}
		awaitGone(t, p, live.ID) // the removal was taken on all the same
	})
}

// One listing serves all who ask at the same time.
func TestOneListing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{Step: time.Second, Boot: 10 * time.Second})
		p := open(t, w.Open(), calm)
		defer p.Close()
		var made []gate.PartitionSpec
		began := time.Now()
		for range 100 {
			made = append(made, spec("test", 1))
			if err := p.Create(t.Context(), made[len(made)-1]); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range made {
			await(t, p, s.ID, gate.StateUp)
		}
		if took, lists := time.Since(began), w.Calls("Find"); took > 30*time.Second || lists > 30 {
			t.Errorf("100 partitions at once were up after %s, with %d listings", took, lists)
		}
		time.Sleep(time.Hour)
		before := w.Calls("Find")
		var all sync.WaitGroup
		for range 20 {
			for _, s := range made {
				all.Go(func() { _, _ = p.Status(t.Context(), "test", s.ID) })
			}
			all.Go(func() { _, _ = p.List(t.Context(), "test", "") })
			all.Go(func() { _, _ = p.Status(t.Context(), "test", skyport.NewPartitionID()) })
		}
		all.Wait()
		if n := w.Calls("Find") - before; n > 2 {
			t.Errorf("%d listings for 2040 questions", n)
		}
	})
}

// A removal that was under way when the process was killed goes on without
// anybody asking; a creation that was cut off waits for core.
func TestResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{Step: time.Second})
		c := w.Open()
		p := open(t, c, calm)
		old, cut := spec("test", 2), spec("test", 2)
		if err := p.Create(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		await(t, p, old.ID, gate.StateUp)
		if err := p.Create(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		if err := p.Delete(t.Context(), "test", old.ID); err != nil {
			t.Fatal(err)
		}
		c.Kill()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if len(w.Of(old.ID)) == 0 || len(w.Of(cut.ID)) == 0 {
			t.Fatal("the kill came too late")
		}
		p = open(t, w.Open(), calm)
		defer p.Close()
		awaitGone(t, p, old.ID)
		if left := w.Of(old.ID); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		status, err := p.Status(t.Context(), "test", cut.ID)
		if err != nil || status.State != gate.StateCreating || status.Owner != "core" || !status.Lease.Equal(cut.Lease) {
			t.Errorf("cut off: %+v, %v", status, err)
		}
		other := cut
		other.Owner = "somebody-else"
		if err := p.Create(t.Context(), other); !errors.Is(err, gate.ErrConflict) {
			t.Errorf("another spec: %v", err)
		}
		if err := p.Create(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		await(t, p, cut.ID, gate.StateUp)
	})
}

func TestNew(t *testing.T) {
	t.Parallel()
	c := func(kind, name string) cloud.Cloud {
		return cloudtest.NewWorld(cloudtest.Options{Kind: kind, Name: name}).Open()
	}
	for name, o := range map[string]cloud.Options{
		"nothing":      {},
		"no clouds":    {Kind: "memory"},
		"another kind": {Kind: "memory", Clouds: []cloud.Cloud{c("other", "a")}},
		"twice":        {Kind: "memory", Clouds: []cloud.Cloud{c("memory", "a"), c("memory", "a")}},
		"plain http":   {Kind: "memory", Clouds: []cloud.Cloud{c("memory", "a")}, Sources: cloud.Sources{Service: "http://example.org/"}},
		"no network":   {Kind: "memory", Clouds: []cloud.Cloud{c("memory", "a")}, Sources: cloud.Sources{Fixed: []netip.Prefix{{}}}},
	} {
		if p, err := cloud.New(o); err == nil || skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

// What the kit adds between core's call and the cloud's first one.
func BenchmarkCreate(b *testing.B) {
	c := &eager{Cloud: cloudtest.NewWorld(cloudtest.Options{}).Open()}
	called := make(chan struct{})
	c.make = func(context.Context, cloud.Plan, func(string)) error {
		called <- struct{}{}
		return cloud.Permanent(skyport.CodeNoCapacity, "measured")
	}
	p, err := cloud.New(cloud.Options{
		Kind: "memory", Clouds: []cloud.Cloud{c}, Sources: cloud.Sources{Fixed: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for b.Loop() {
		if err := p.Create(b.Context(), spec("test", 3)); err != nil {
			b.Fatal(err)
		}
		<-called
	}
}
