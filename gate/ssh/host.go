package ssh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
)

const (
	lookTime    = 10 * time.Second // for a look, with the dial
	claimTime   = 25 * time.Second // for a claim, which may clear away what is past its lease
	releaseTime = 2 * time.Minute  // for a removal, which waits for a container engine
	lookAge     = 2 * time.Second  // how old a look may be to tell a state by
	maxSkew     = 2 * time.Minute  // leases end by the host's clock
)

// host is one machine. Looks may run at any time; what changes something on it
// comes one at a time.
type host struct {
	config Host
	site   string
	key    ssh.PublicKey
	wire   *wire
	spawn  func(func()) bool // false when the provider is closed
	ctx    context.Context   //nolint:containedctx // of the provider: looks outlive who asked for them

	changing chan struct{}

	mu     sync.Mutex
	seen   look
	at     time.Time     // when seen was begun; zero: never
	err    error         // of the last look, if it failed
	since  time.Time     // since when looks fail; zero: they do not
	failed time.Time     // when the last one did
	pause  time.Duration // until the next try
	flight chan struct{} // closed when the look under way is over
	facts  facts
	probed bool // the facts are of this life of the gate
}

// look returns what the host said, not longer ago than age. A host that does
// not answer is not asked at once again.
func (h *host) look(ctx context.Context, age time.Duration) (look, error) {
	h.mu.Lock()
	if h.since.IsZero() && !h.at.IsZero() && time.Since(h.at) < age {
		defer h.mu.Unlock()
		return h.seen, nil
	}
	if h.err != nil && time.Since(h.failed) < h.pause {
		defer h.mu.Unlock()
		return h.seen, h.err
	}
	flight := h.flight
	if flight == nil {
		flight = make(chan struct{})
		h.flight = flight
		h.mu.Unlock()
		if !h.spawn(func() { h.fly(flight) }) {
			h.land(flight)
			return look{}, fmt.Errorf("host %s: the gate ends", h.config.Name)
		}
	} else {
		h.mu.Unlock()
	}
	select {
	case <-flight:
	case <-ctx.Done():
		return look{}, fmt.Errorf("host %s: %w", h.config.Name, ctx.Err())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen, h.err
}

// fly is one look.
func (h *host) fly(flight chan struct{}) {
	defer h.land(flight)
	ctx, cancel := context.WithTimeout(h.ctx, lookTime)
	defer cancel()
	begun := time.Now()
	seen, _, err := h.ask(ctx, "look")
	h.note(begun, seen, err)
	h.mu.Lock()
	probed := h.probed
	h.mu.Unlock()
	if err != nil || probed {
		return
	}
	answer, err := h.wire.run(ctx, script("probe"))
	if err != nil {
		return // the next look tries again
	}
	if f, err := parseFacts(answer); err == nil {
		h.mu.Lock()
		h.facts, h.probed = f, true
		h.mu.Unlock()
	}
}

func (h *host) land(flight chan struct{}) {
	h.mu.Lock()
	h.flight = nil
	h.mu.Unlock()
	close(flight)
}

// note takes in what a look found, unless something newer is known.
func (h *host) note(begun time.Time, seen look, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		if h.ctx.Err() != nil {
			return
		}
		if h.since.IsZero() {
			h.since = begun
		}
		h.err, h.failed = err, time.Now()
		h.pause = min(max(time.Second, 2*h.pause), 30*time.Second)
		return
	}
	h.err, h.since, h.pause = nil, time.Time{}, 0
	if begun.After(h.at) {
		h.seen, h.at = seen, begun
	}
}

// ask lets an operation run that answers with a look. An error may be the answer too.
func (h *host) ask(ctx context.Context, operation string, variables ...assignment) (seen look, answered bool, err error) {
	variables = append([]assignment{{"BASE", h.config.Dir}}, variables...)
	answer, err := h.wire.run(ctx, script(operation, variables...))
	if err != nil {
		return look{}, false, err
	}
	if seen, err = parseLook(answer, time.Now()); err != nil {
		return look{}, true, fmt.Errorf("host %s: %w", h.config.Name, err)
	}
	return seen, true, nil
}

// change lets an operation run that changes something, alone on the host.
func (h *host) change(ctx context.Context, most time.Duration, operation string, variables ...assignment) (look, error) {
	select {
	case h.changing <- struct{}{}:
		defer func() { <-h.changing }()
	case <-ctx.Done():
		return look{}, fmt.Errorf("host %s is busy: %w", h.config.Name, ctx.Err())
	}
	limited, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	seen, answered, err := h.ask(limited, operation, variables...)
	if err == nil || !answered && ctx.Err() == nil {
		h.note(time.Now(), seen, err) // looks that began before are outdated
	}
	return seen, err
}

// claim takes the host for a node of the partition, or finds that it has it.
func (h *host) claim(ctx context.Context, r *record, node int, keys string) error {
	text, err := r.claim(node)
	if err != nil {
		return err
	}
	h.mu.Lock()
	engine := h.facts.Engine
	h.mu.Unlock()
	seen, err := h.change(ctx, claimTime, "claim", assignment{"ID", string(r.Spec.ID)}, assignment{"NODE", r.Spec.Nodes[node]},
		assignment{"CLAIM", text}, assignment{"KEYS", keys}, assignment{"LEASE", fmt.Sprint(r.Spec.Lease.Unix())}, assignment{"ENGINE", engine})
	switch {
	case err != nil:
		return err
	case seen.taken || !seen.has(r.Spec.ID):
		return skyport.Errorf(skyport.CodeUnavailable, "host %s was taken by %s meanwhile", h.config.Name, holderOf(&seen))
	case seen.claim.Host != h.config.Name:
		// Not ours to give back: another host of the partition has it.
		return skyport.Errorf(skyport.CodeConflict, "host %s shares its directory %s with host %s: %w", h.config.Name, seen.base, seen.claim.Host, errShared).
			WithHint("set dir of each host to a directory of its own, on a local disk")
	}
	return nil
}

// errShared means that two hosts keep their claims in one directory.
var errShared = errors.New("the directory is shared")

// release removes all that belongs to the partition, and looks whether it is gone.
func (h *host) release(ctx context.Context, id skyport.PartitionID, node string) error {
	seen, err := h.change(ctx, releaseTime, "release", assignment{"ID", string(id)}, assignment{"NODE", node})
	switch {
	case err != nil:
		return err
	case seen.has(id) || seen.left:
		return fmt.Errorf("host %s still has something of the partition", h.config.Name)
	}
	return nil
}

// extend moves the end of the lease, if the partition is there.
func (h *host) extend(ctx context.Context, id skyport.PartitionID, until time.Time) error {
	_, err := h.change(ctx, lookTime, "extend", assignment{"ID", string(id)}, assignment{"LEASE", fmt.Sprint(until.Unix())})
	return err
}

// trouble says since when and why the host does not answer.
func (h *host) trouble() (since time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since, h.err
}

// holderOf puts into words who has a host.
func holderOf(l *look) string {
	if l.claim.Partition == "" {
		return "a claim that cannot be read, " + l.base + "/claim"
	}
	return fmt.Sprintf("partition %s of core %s until %s", l.claim.Partition, plain(l.claim.Record.Spec.Owner), l.lease.Format(time.RFC3339))
}

// size is what is configured of the host, completed by what it says.
func (h *host) size() (f facts, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f = h.facts
	if h.config.CPUs > 0 {
		f.CPUs = h.config.CPUs
	}
	if h.config.Memory > 0 {
		f.Memory = h.config.Memory
	}
	if h.config.GPUs > 0 {
		f.GPUs = h.config.GPUs
	}
	return f, f.CPUs > 0 && f.Memory > 0
}

// remember takes the facts of an earlier life of the gate.
func (h *host) remember(f facts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.probed {
		h.facts = f
	}
}

// asked says whether the host has been looked at, and probed if it answered.
func (h *host) asked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.probed || h.err != nil
}
