package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
)

// How often a provider that cannot tell of changes is asked during a long
// poll: soon at first, then with growing calm.
const (
	firstPoll = 100 * time.Millisecond
	calmPoll  = 5 * time.Second
)

// status answers at once, or, when the caller names the version that it has
// seen, as soon as there is another one. An error of the provider is an answer
// too: core decides how often to ask again.
func (s *Server) status(ctx context.Context, in *statusInput) (*statusAnswer, error) {
	id, h, err := s.partition(ctx, in.ID, in.Site)
	if err != nil {
		return nil, problemOf(err)
	}
	ask := func() (versionedStatus, error) {
		status, err := call(ctx, s, h, "status", func(ctx context.Context) (PartitionStatus, error) {
			return h.provider.Status(ctx, in.Site, id)
		})
		if err != nil {
			return versionedStatus{}, err
		}
		return versioned(status)
	}

	wait := min(time.Duration(in.Wait)*time.Second, maxWait)
	over := time.NewTimer(wait)
	defer over.Stop()
	watcher, watched := h.provider.(Watcher)
	pause := firstPoll
	for first := true; ; first = false {
		// The channel is taken before asking: a change in between closes it.
		var changed <-chan struct{}
		if watched {
			changed = watcher.Changed()
		}
		now, err := ask()
		if err != nil {
			return nil, problemOf(err)
		}
		if in.After == "" || wait == 0 || now.Version != in.After {
			return &statusAnswer{Body: now}, nil
		}
		if first {
			s.metrics.waiting.Inc()
			defer s.metrics.waiting.Dec()
		}
		var again <-chan time.Time
		if !watched {
			again = time.After(pause)
			pause = min(pause*3/2, calmPoll)
		}
		select {
		case <-changed:
		case <-again:
		case <-over.C:
			return &statusAnswer{Body: now}, nil
		case <-s.stopping:
			return &statusAnswer{Body: now}, nil
		case <-ctx.Done():
			return nil, problemOf(skyport.Errorf(skyport.CodeUnavailable, "the caller is gone: %w", ctx.Err()))
		}
	}
}

// versioned names the content of a status.
func versioned(status PartitionStatus) (versionedStatus, error) {
	status.Nodes = full(status.Nodes)
	text, err := json.Marshal(status)
	if err != nil {
		return versionedStatus{}, fmt.Errorf("status of partition %s: %w", status.ID, err)
	}
	sum := sha256.Sum256(text)
	return versionedStatus{PartitionStatus: status, Version: hex.EncodeToString(sum[:8])}, nil
}
