package wire_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport/test/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv("WIRE_TEST_HOLD") != "" {
		hold()
	}
	goleak.VerifyTestMain(m)
}

// pair connects a TCP connection over the link: from A, to B.
func pair(t *testing.T, link *wire.Link) (near, far net.Conn) {
	t.Helper()
	return connect(t, link.A, link.B, link.B.Addr)
}

func connect(t *testing.T, from, to *wire.Namespace, address netip.Addr) (near, far net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	listener, err := to.Listen(ctx, "tcp", net.JoinHostPort(address.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if near, err = from.Dial(ctx, "tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	if far, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// trip sends a byte there and back.
func trip(near, far net.Conn, patience time.Duration) (time.Duration, error) {
	begin := time.Now()
	one := []byte{1}
	for _, step := range []struct{ from, to net.Conn }{{near, far}, {far, near}} {
		if _, err := step.from.Write(one); err != nil {
			return 0, err
		}
		if err := step.to.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(step.to, one); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

// TestRoundTrip: never shorter than set, and the median of 15 at most 10 ms
// longer, which is what a busy machine may add.
func TestRoundTrip(t *testing.T) {
	for _, rtt := range []time.Duration{0, 50 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			t.Parallel()
			near, far := pair(t, wire.New(t, wire.Settings{RTT: rtt}))
			var took []time.Duration
			for range 15 {
				d, err := trip(near, far, 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				took = append(took, d)
			}
			slices.Sort(took)
			if took[0] < rtt || took[len(took)/2] > rtt+10*time.Millisecond {
				t.Errorf("round trips %v to %v, median %v; set to %v", took[0], took[len(took)-1], took[len(took)/2], rtt)
			}
		})
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	const rtt, jitter = 20 * time.Millisecond, 20 * time.Millisecond
	near, far := pair(t, wire.New(t, wire.Settings{RTT: rtt, Jitter: jitter}))
	var sum time.Duration
	const n = 60
	for range n {
		d, err := trip(near, far, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if d < rtt {
			t.Errorf("a round trip of %v", d)
		}
		sum += d - rtt
	}
	// Two ways add half of the jitter each on average; 60 trips are within 15 % of it.
	if mean := sum / n; mean < jitter*70/100 || mean > jitter*150/100 {
		t.Errorf("jitter adds %v on average, want about %v", mean, jitter)
	}
}

// shots sends n numbered packets of UDP from A to B and returns the numbers
// that came, in their order.
func shots(t *testing.T, link *wire.Link, n int) []uint32 {
	t.Helper()
	ctx := t.Context()
	to, err := link.B.ListenPacket(ctx, "udp", net.JoinHostPort(link.B.Addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	holdAll(t, to.(*net.UDPConn))
	from, err := link.A.Dial(ctx, "udp", to.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	came := make(chan []uint32)
	go func() {
		var seen []uint32
		buf := make([]byte, 64)
		for {
			k, _, err := to.ReadFrom(buf)
			if err != nil || k == 1 {
				break
			}
			seen = append(seen, binary.BigEndian.Uint32(buf))
		}
		came <- seen
	}()
	for i := range n {
		if _, err := from.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 { // in flocks that the receiver's buffer holds
			over(t, link, int64(i-1000))
		}
	}
	over(t, link, int64(n))
	if err := link.Set(wire.Settings{}); err != nil { // the last words must come through
		t.Fatal(err)
	}
	for {
		if _, err := from.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		select {
		case seen := <-came:
			return seen
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// holdAll gives a socket a buffer for all packets of a test, past what the
// system allows to all: what its reader is late for must not count as lost on the
// link.
func holdAll(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
}

// over waits until all but the packets after the n-th from A to B have arrived
// or will not.
func over(t *testing.T, link *wire.Link, n int64) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		if s := link.Stats(wire.AToB); s.Sent >= n && s.Underway <= max(0, s.Sent-n) {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("packets stay under way: %+v", link.Stats(wire.AToB))
		}
	}
}

// TestLoss: of 20,000 packets the share that is lost is within four standard
// deviations of what is set.
func TestLoss(t *testing.T) {
	const n = 20_000
	for _, loss := range []float64{0.01, 0.05} {
		link := wire.New(t, wire.Settings{Loss: loss, Seed: 7})
		lost := n - len(shots(t, link, n))
		if want, dev := n*loss, 4*math.Sqrt(n*loss*(1-loss)); math.Abs(float64(lost)-want) > dev {
			t.Errorf("%d of %d packets are lost, want %.0f ± %.0f", lost, n, want, dev)
		}
	}
}

// TestLossInBursts: bursts of 8 on average, the share as set. Bursts are few
// (about 125), so the tolerance is a third.
func TestLossInBursts(t *testing.T) {
	const n, loss, burst = 20_000, 0.05, 8
	seen := shots(t, wire.New(t, wire.Settings{Loss: loss, LossBurst: burst, Seed: 3}), n)
	lost, bursts, next := n-len(seen), 0, uint32(0)
	for _, i := range seen {
		if i != next {
			bursts++
		}
		next = i + 1
	}
	if mean := float64(lost) / float64(bursts); math.Abs(mean-burst) > burst/3. || math.Abs(float64(lost)-n*loss) > n*loss/3 {
		t.Errorf("%d of %d packets are lost in %d bursts of %.1f", lost, n, bursts, mean)
	}
}

func TestReorderAndDuplicate(t *testing.T) {
	const n, share = 5000, 0.1
	link := wire.New(t, wire.Settings{RTT: 10 * time.Millisecond, Reorder: share, ReorderBy: 2 * time.Millisecond, Duplicate: share, Seed: 5})
	seen := shots(t, link, n)
	late, twice, most := 0, 0, uint32(0)
	times := map[uint32]int{}
	for _, i := range seen {
		if times[i]++; times[i] == 2 {
			twice++
		}
		if i < most && times[i] == 1 {
			late++
		}
		most = max(most, i)
	}
	if len(times) != n {
		t.Errorf("%d of %d packets came", len(times), n)
	}
	want, dev := n*share, 5*math.Sqrt(n*share*(1-share))
	if math.Abs(float64(twice)-want) > dev {
		t.Errorf("%d of %d packets came twice, want %.0f", twice, n, want)
	}
	// All are held back alike, so only those are overtaken that have others close behind.
	if float64(late) > want+dev || float64(late) < want/2 {
		t.Errorf("%d of %d packets came late, want about %.0f", late, n, want)
	}
}

// stream sends bytes over TCP and tells how fast they came, in bits per second.
func stream(t testing.TB, near, far net.Conn, bytes int64) float64 {
	t.Helper()
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, 256<<10)
		for left := bytes; left > 0; left -= int64(len(block)) {
			block = block[:min(left, int64(len(block)))]
			if _, err := near.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	if err := far.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.LimitReader(far, bytes)}, make([]byte, 256<<10))
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	return float64(bytes) * 8 / time.Since(begin).Seconds()
}

// TestRate: what TCP gets is never above the rate, and at least 80 % of it when
// the link is slow enough for any machine.
func TestRate(t *testing.T) {
	for _, test := range []struct {
		name  string
		set   wire.Settings
		bytes int64
		least float64
	}{
		{"10Mbit", wire.Settings{Rate: 10 * wire.Mbit, RTT: 50 * time.Millisecond}, 2 << 20, 0.6},
		{"100Mbit", wire.Settings{Rate: 100 * wire.Mbit, RTT: 10 * time.Millisecond}, 16 << 20, 0.4},
		{"1Gbit", wire.Settings{Rate: wire.Gbit, RTT: 2 * time.Millisecond}, 128 << 20, 0.3},
		{"1Gbit at 50ms", wire.Settings{Rate: wire.Gbit, RTT: 50 * time.Millisecond}, 128 << 20, 0.1},
		{"machine", wire.Settings{}, 512 << 20, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			link := wire.New(t, test.set)
			near, far := pair(t, link)
			got := stream(t, near, far, test.bytes)
			t.Logf("%.0f Mbit/s, %+v", got/1e6, link.Stats(wire.AToB))
			if set := float64(test.set.Rate); set > 0 && (got > set || got < test.least*set) {
				t.Errorf("%.1f Mbit/s, set to %.0f", got/1e6, set/1e6)
			}
		})
	}
}

// TestQueue: a queue of bytes holds what it should and drops the rest.
func TestQueue(t *testing.T) {
	const n, size, queue = 2000, 32, 8 << 10
	link := wire.New(t, wire.Settings{Rate: wire.Mbit, Queue: queue})
	seen := shots(t, link, n)
	s := link.Stats(wire.AToB)
	if s.Dropped == 0 || s.Lost != 0 || len(seen) < queue/size-1 || len(seen)+int(s.Dropped) != n {
		t.Errorf("%d of %d packets came through a queue of %d: %+v", len(seen), n, queue/size, s)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	link := wire.New(t, wire.Settings{RTT: 10 * time.Millisecond})
	near, far := pair(t, link)
	for _, ways := range [][]wire.Direction{nil, {wire.AToB}, {wire.BToA}} {
		link.Cut(ways...)
		if d, err := trip(near, far, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("cut %v: a round trip in %v, %v", ways, d, err)
		}
		link.Mend()
		// What was lost comes again: wait for the byte that was under way.
		waiting := far
		if len(ways) == 1 && ways[0] == wire.BToA {
			waiting = near
		}
		if err := waiting.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(waiting, []byte{0}); err != nil {
			t.Fatalf("mended %v: %v", ways, err)
		}
		if _, err := trip(near, far, 10*time.Second); err != nil {
			t.Fatalf("mended %v: %v", ways, err)
		}
	}
}

func TestForgetIdle(t *testing.T) {
	t.Parallel()
	const idle = 500 * time.Millisecond
	link := wire.New(t, wire.Settings{})
	old, oldFar := pair(t, link)
	if err := link.Set(wire.Settings{ForgetIdle: idle}); err != nil {
		t.Fatal(err)
	}
	if _, err := trip(old, oldFar, 5*time.Second); err != nil {
		t.Fatalf("a connection of before: %v", err)
	}
	busy, busyFar := pair(t, link)
	for begin := time.Now(); time.Since(begin) < 2*idle; time.Sleep(idle / 10) {
		if _, err := trip(busy, busyFar, 5*time.Second); err != nil {
			t.Fatalf("a busy connection: %v", err)
		}
	}
	for range 2 { // for ever
		if _, err := trip(old, oldFar, idle/2); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an idle connection is not forgotten: %v", err)
		}
	}
	fresh, freshFar := pair(t, link)
	if _, err := trip(fresh, freshFar, 5*time.Second); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	link.Forget()
	if _, err := trip(fresh, freshFar, idle/2); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the NAT has not forgotten: %v", err)
	}
}

// TestJoin: two namespaces reach each other through the machine, over a link each.
func TestJoin(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		one := wire.New(t, wire.Settings{Join: true, Masquerade: masquerade, RTT: 20 * time.Millisecond})
		two := wire.New(t, wire.Settings{Join: true, RTT: 10 * time.Millisecond})
		near, far := connect(t, one.A, two.A, two.A.Addr)
		d, err := trip(near, far, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if d < 30*time.Millisecond {
			t.Errorf("a round trip over 20 ms and 10 ms takes %v", d)
		}
		want := one.A.Addr.String()
		if masquerade {
			want = two.B.Addr.String()
		}
		if from, _, _ := net.SplitHostPort(far.RemoteAddr().String()); from != want {
			t.Errorf("masquerade %v: it comes from %s, want %s", masquerade, from, want)
		}
		near, far = connect(t, one.A, one.B, one.B.Addr)
		if _, err := trip(near, far, 10*time.Second); err != nil {
			t.Errorf("to the machine: %v", err)
		}
	}
}

// hold makes a link and waits to be killed.
func hold() {
	link, err := wire.Open(context.Background(), wire.Settings{Join: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(link.A.Name)
	select {}
}

// TestSweep: what a killed process left is removed by the next.
func TestSweep(t *testing.T) {
	if err := wire.Available(); err != nil {
		t.Skip(err)
	}
	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), "WIRE_TEST_HOLD=1")
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	name, err := bufio.NewReader(out).ReadString('\n')
	if err := errors.Join(err, holder.Process.Kill()); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	name = strings.TrimSpace(name)
	file := filepath.Join("/run/netns", name)
	if _, err := os.Stat(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := wire.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", file, err)
	}
	rules, err := exec.CommandContext(t.Context(), "iptables", "-w", "10", "-S").Output()
	if err != nil {
		t.Skipf("no iptables: %v", err)
	}
	if link := strings.TrimSuffix(name, "-a"); strings.Contains(string(rules), link) {
		t.Errorf("rules of %s are left:\n%s", link, rules)
	}
}
