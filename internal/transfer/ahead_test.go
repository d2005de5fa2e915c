package transfer

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openworkload/skyport/test/wire"
)

// TestAhead: what goes ahead arrives once, whether the receiver has nothing,
// something or all.
func TestAhead(t *testing.T) {
	t.Parallel()
	from, tree := forest(t)
	for _, have := range []string{"nothing", "something", "all"} {
		t.Run(have, func(t *testing.T) {
			t.Parallel()
			link := wire.New(t, wire.Settings{RTT: 20 * time.Millisecond})
			to := filepath.Join(inMemory(t), "to")
			r := NewReceiver(to, ReceiverOptions{})
			defer r.Close()
			before := int64(0)
			if have != "nothing" {
				if _, err := Push(t.Context(), serve(t, receiving(r)), base, tree, Options{}); err != nil {
					t.Fatal(err)
				}
				before = int64(tree.Manifest().Bytes())
			}
			if have == "something" {
				if err := os.Remove(filepath.Join(to, "large")); err != nil {
					t.Fatal(err)
				}
				before -= 16 << 20
			}
			place := &busyPlace{Place: r}
			counted := &countingPlace{Place: place}
			moved, err := Push(t.Context(), over(t, link, receiving(counted)), base, tree, Options{Ahead: true})
			if err != nil || place.opens > 2 { // once more when the streams ended before the tree was whole
				t.Fatalf("it was opened %d times: %v", place.opens, err)
			}
			same(t, from, to)
			if moved.Done != moved.Total {
				t.Errorf("at the end %+v", moved)
			}
			if put, least := counted.put.Load(), int64(tree.Manifest().Bytes())-before; put < least || have == "nothing" && put != least {
				t.Errorf("%d bytes were put, %d were missing", put, least)
			}
		})
	}
}

// TestAheadWaits: of a large tree only a part goes before the plan is known.
func TestAheadWaits(t *testing.T) {
	t.Parallel()
	dir := inMemory(t)
	plantMany(t, dir, 5, 16<<20)
	tree := scanned(t, dir)
	r := NewReceiver(inMemory(t), ReceiverOptions{})
	defer r.Close()
	place := &busyPlace{Place: r, takes: 300 * time.Millisecond}
	source := &hookedSource{Source: tree, each: func(int64) {}}
	var atPlan int64
	if _, err := Push(t.Context(), serve(t, receiving(openedPlace{place, func() { atPlan = source.reads.Load() }})), base, source, Options{Ahead: true}); err != nil {
		t.Fatal(err)
	}
	if largest := int64(aheadPart/minChunk) + 1; atPlan == 0 || atPlan > largest {
		t.Errorf("%d chunks went ahead, at most %d should", atPlan, largest)
	}
}

// openedPlace tells when a tree was opened.
type openedPlace struct {
	Place
	opened func()
}

func (p openedPlace) Open(ctx context.Context, m *Manifest) (Sink, error) {
	s, err := p.Place.Open(ctx, m)
	p.opened()
	return s, err
}
