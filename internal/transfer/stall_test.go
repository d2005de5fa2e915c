package transfer

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/test/wire"
)

// TestStall cuts the link in the middle of a transfer without a word, twice:
// once for a while, once for good for all connections of then.
func TestStall(t *testing.T) {
	t.Parallel()
	from, tree := forest(t)
	for _, direction := range []string{"push", "pull"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			link := wire.New(t, wire.Settings{RTT: 10 * time.Millisecond, Rate: 100 * wire.Mbit})
			to := filepath.Join(inMemory(t), "to")
			r := NewReceiver(to, ReceiverOptions{})
			defer r.Close()
			counted := &countingPlace{Place: r}
			var mu sync.Mutex
			cuts := 0
			var mending []*time.Timer
			options := Options{Stall: time.Second, Progress: func(now skyport.Transfer) {
				mu.Lock()
				defer mu.Unlock()
				if done := float64(now.Done) / float64(now.Total+1); now.Total > 0 && done > 0.3*float64(cuts+1) && cuts < 2 {
					cuts++
					if cuts == 1 {
						link.Cut()
						mending = append(mending, time.AfterFunc(3*time.Second, func() { link.Mend() }))
						return
					}
					link.Forget()
				}
			}}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var err error
			if direction == "push" {
				_, err = Push(ctx, over(t, link, receiving(counted)), base, tree, options)
			} else {
				_, err = PullInto(ctx, over(t, link, sending(tree)), base, counted, options)
			}
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, m := range mending {
				m.Stop()
			}
			if cuts != 2 {
				t.Errorf("%d cuts happened", cuts)
			}
			same(t, from, to)
			again := counted.put.Load() - int64(tree.Manifest().Bytes())
			t.Logf("%d of %d bytes were put again", again, tree.Manifest().Bytes())
			if again > 2*MaxChunk {
				t.Errorf("%d bytes were put again", again)
			}
		})
	}
}

// busyPlace opens and commits slowly, as a place does that compares much.
type busyPlace struct {
	Place
	takes time.Duration
	opens int
}

type busySink struct {
	Sink
	takes time.Duration
}

func (p *busyPlace) Open(ctx context.Context, m *Manifest) (Sink, error) {
	p.opens++
	time.Sleep(p.takes)
	s, err := p.Place.Open(ctx, m)
	return busySink{s, p.takes}, err
}

func (s busySink) Put(ctx context.Context, span Span, data []byte) error {
	if span.First == 0 {
		time.Sleep(s.takes)
	}
	return s.Sink.Put(ctx, span, data)
}

func (s busySink) Commit(ctx context.Context) error {
	time.Sleep(s.takes)
	return s.Sink.Commit(ctx)
}

// TestBusyIsNoStall: an end that is at work for much longer than the patience is
// waited for, at either side.
func TestBusyIsNoStall(t *testing.T) {
	t.Parallel()
	_, tree := forest(t)
	const stall = 600 * time.Millisecond
	for _, direction := range []string{"push", "pull"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			r := NewReceiver(inMemory(t), ReceiverOptions{})
			defer r.Close()
			place := &busyPlace{Place: r, takes: 3 * stall}
			options := Options{Stall: stall, Attempts: 1}
			var err error
			if direction == "push" {
				handler := receiving(place).(*receiveHandler)
				handler.beat = stall / 6
				_, err = Push(t.Context(), serve(t, handler), base, tree, options)
			} else {
				handler := NewSendHandler(func(*http.Request) (Source, error) { time.Sleep(2 * stall); return tree, nil }).(*sendHandler)
				handler.beat = stall / 6
				_, err = PullInto(t.Context(), serve(t, handler), base, place, options)
			}
			if err != nil || place.opens != 1 {
				t.Errorf("it was opened %d times: %v", place.opens, err)
			}
		})
	}
}

// TestSlowIsNoStall: nothing is cut, and so nothing sent again, on a link of
// 10 Mbit/s that eight streams share, which loses packets.
func TestSlowIsNoStall(t *testing.T) {
	t.Parallel()
	dir := inMemory(t)
	plantMany(t, dir, 3, 1<<20)
	tree := scanned(t, dir)
	for _, direction := range []string{"push", "pull"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			link := wire.New(t, wire.Settings{RTT: 100 * time.Millisecond, Rate: 10 * wire.Mbit, Loss: 0.01, Seed: 1})
			r := NewReceiver(inMemory(t), ReceiverOptions{})
			defer r.Close()
			place := &busyPlace{Place: r}
			options := Options{Stall: 3 * time.Second, Attempts: 1}
			var err error
			if direction == "push" {
				_, err = Push(t.Context(), over(t, link, receiving(place)), base, tree, options)
			} else {
				_, err = PullInto(t.Context(), over(t, link, sending(tree)), base, place, options)
			}
			if err != nil || place.opens != 1 {
				t.Errorf("it was opened %d times: %v", place.opens, err)
			}
		})
	}
}
