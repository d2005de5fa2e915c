package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Rates in bits per second.
const (
	Mbit = 1_000_000
	Gbit = 1_000_000_000
)

// Settings of a link; zero is a link that is as good as the machine.
type Settings struct {
	// RTT is the time there and back of a packet that meets no queue.
	RTT time.Duration
	// Jitter adds an even share between 0 and itself to the way of each packet,
	// in each direction. Packets keep their order.
	Jitter time.Duration
	// Rate in bits per second of each direction; 0: no limit.
	Rate int64
	// Queue is how many bytes wait where the rate is the limit, in each
	// direction; what comes on top is dropped. 0: what the link holds in a round
	// trip, 256 KiB at least.
	Queue int64
	// Loss is the share of packets that are lost, 0 to 1.
	Loss float64
	// LossBurst is how many packets are lost in a row on average; 0: as chance has it.
	LossBurst float64
	// Reorder is the share of packets that are held back by ReorderBy (0: 10 ms),
	// so that others overtake them.
	Reorder   float64
	ReorderBy time.Duration
	// Duplicate is the share of packets that arrive twice.
	Duplicate float64
	// ForgetIdle is a NAT that forgets a TCP connection on which nothing moved for
	// so long: its packets vanish, both ways. 0: it does not.
	ForgetIdle time.Duration
	// Seed of all chance; the same one gives the same fate to the n-th packet of
	// a direction.
	Seed uint64

	// The following are looked at by Open only.

	// MTU of both devices; 0: 1500.
	MTU int
	// Join makes B the machine's own namespace: A has a default route over the
	// link, and the machine forwards what comes out of it. Networks that do not
	// know the way back (no route to the machine) need Masquerade.
	Join, Masquerade bool
}

func (s Settings) queue() int64 {
	if s.Queue > 0 {
		return s.Queue
	}
	return max(256<<10, int64(float64(s.Rate)/8*s.RTT.Seconds()))
}

// single says that packets meet their fate one by one, so that the kernel has
// to cut them before they come.
func (s Settings) single() bool {
	return s.Loss > 0 || s.Reorder > 0 || s.Duplicate > 0 || s.Rate > 0 && s.Rate < 200*Mbit
}

// Direction of packets.
type Direction int

// The two directions.
const (
	AToB Direction = iota
	BToA
)

// Link is an emulated link. All methods may be called from many goroutines.
type Link struct {
	A, B *Namespace

	name     string
	undo     []func() error // newest last
	settings atomic.Pointer[Settings]
	cut      [2]atomic.Bool
	nat      nat
	pipes    [2]*pipe
	running  sync.WaitGroup
	closing  sync.Once
	closed   error
}

// Stats counts the packets of a direction. Those that travelled as one count as
// one.
type Stats struct {
	Sent     int64 // packets that came to the link
	Packets  int64 // that arrived, those twice that were duplicated
	Bytes    int64 // of these, IP headers included
	Lost     int64 // by chance, cuts and the NAT
	Dropped  int64 // by a full queue
	Underway int64 // waiting in the queue or travelling
}

// New makes a link that is removed when the test ends. It skips the test, with
// the reason, where there can be none.
func New(t testing.TB, s Settings) *Link {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("no emulated link: %v", err)
	}
	link, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := link.Close(); err != nil {
			t.Error(err)
		}
	})
	return link
}

// Available says why there can be no link here, nil when there can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	if _, err := os.Stat(tunDevice); err != nil {
		return fmt.Errorf("the kernel has no TUN devices: %w", err)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("iproute2 is missing: %w", err)
	}
	return nil
}

// Open makes a link. What killed processes left of theirs is removed first.
func Open(ctx context.Context, s Settings) (link *Link, err error) {
	if err := Available(); err != nil {
		return nil, fmt.Errorf("make a link: %w", err)
	}
	if err := Sweep(ctx); err != nil {
		return nil, fmt.Errorf("make a link: %w", err)
	}
	if s.MTU == 0 {
		s.MTU = 1500
	}
	n := made.Add(1)
	link = &Link{name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), n), nat: nat{flows: map[flow]time.Time{}, since: time.Now()}}
	link.settings.Store(&s)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a link: %w", err), link.Close())
			link = nil
		}
	}()

	if err := link.namespaces(ctx, s); err != nil {
		return nil, err
	}
	a, b, err := freeSubnet(int(n))
	if err != nil {
		return nil, err
	}
	var devices [2]*device
	for i, end := range []struct {
		ns   *Namespace
		addr netip.Addr
		name string
	}{{link.A, a, "wire0"}, {link.B, b, link.rootDevice()}} {
		if end.ns.file != nil {
			end.name = "wire0"
		}
		end.ns.Addr, end.ns.Device = end.addr, end.name
		if devices[i], err = openDevice(end.ns, end.name); err != nil {
			return nil, err
		}
		link.undo = append(link.undo, devices[i].Close)
		if err := end.ns.configure(ctx, s.MTU); err != nil {
			return nil, err
		}
	}
	if err := link.A.ip(ctx, "route", "add", "default", "via", b.String()); err != nil {
		return nil, err
	}
	if s.Join {
		if err := link.join(ctx, s.Masquerade); err != nil {
			return nil, err
		}
	} else if err := link.B.ip(ctx, "route", "add", "default", "via", a.String()); err != nil {
		return nil, err
	}
	for way := range link.pipes {
		link.pipes[way] = newPipe(link, Direction(way), devices[way], devices[1-way])
	}
	if err := link.Set(s); err != nil {
		return nil, err
	}
	for _, p := range link.pipes {
		link.running.Go(p.read)
		link.running.Go(p.write)
	}
	return link, nil
}

var made atomic.Int64

// Set changes the settings, for packets that come from now on. Packets of TCP
// are cut to the MTU before they travel when there is loss, reordering,
// duplication or a rate below 200 Mbit/s, and travel in up to 64 KiB otherwise.
func (l *Link) Set(s Settings) error {
	before := *l.settings.Load()
	s.MTU, s.Join, s.Masquerade = before.MTU, before.Join, before.Masquerade
	if s.ForgetIdle > 0 && before.ForgetIdle == 0 {
		l.nat.begin()
	}
	l.settings.Store(&s)
	var errs []error
	for _, p := range l.pipes {
		errs = append(errs, p.from.offload(!s.single()))
	}
	return errors.Join(errs...)
}

// Settings returns the settings in force.
func (l *Link) Settings() Settings { return *l.settings.Load() }

// Cut lets nothing through, in the given directions or both. Nobody is told:
// packets vanish, those that are on their way too.
func (l *Link) Cut(ways ...Direction) { l.cuts(true, ways) }

// Mend ends a cut, in the given directions or both.
func (l *Link) Mend(ways ...Direction) { l.cuts(false, ways) }

func (l *Link) cuts(cut bool, ways []Direction) {
	for way := range l.cut {
		if len(ways) == 0 || slices.Contains(ways, Direction(way)) {
			l.cut[way].Store(cut)
		}
	}
}

// Forget makes the NAT forget all TCP connections of now, as a router does that
// was restarted: their packets vanish. New ones work.
func (l *Link) Forget() { l.nat.forget() }

// Stats tells what went a way so far.
func (l *Link) Stats(way Direction) Stats { return l.pipes[way].stats() }

// Close removes the link with its devices and namespaces. Processes that still
// run in them keep their namespace, without a link, until they end.
func (l *Link) Close() error {
	l.closing.Do(func() {
		var errs []error
		for _, p := range l.pipes {
			if p != nil {
				p.stop()
			}
		}
		for _, undo := range slices.Backward(l.undo) {
			errs = append(errs, undo())
		}
		l.running.Wait()
		l.closed = errors.Join(errs...)
	})
	return l.closed
}
