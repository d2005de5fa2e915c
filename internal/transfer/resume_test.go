package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// cuttingClient speaks to the peer of a client over connections that break
// after a random number of bytes, as long as there are cuts left.
func cuttingClient(t testing.TB, whole *http.Client, seed uint64, longest int64, cuts *atomic.Int64) *http.Client {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, seed))
	dial := whole.Transport.(*http.Transport).DialContext
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			c := &cuttingConn{Conn: conn, cuts: cuts}
			c.left.Store(random.Int64N(longest))
			return c, nil
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

type cuttingConn struct {
	net.Conn
	left atomic.Int64
	cuts *atomic.Int64
}

func (c *cuttingConn) pass(n int, err error) (int, error) {
	if c.left.Add(-int64(n)) < 0 && c.cuts.Add(-1) >= 0 {
		return n, errors.Join(errors.New("cut by the test"), c.Close())
	}
	return n, err
}

func (c *cuttingConn) Read(p []byte) (int, error)  { return c.pass(c.Conn.Read(p)) }
func (c *cuttingConn) Write(p []byte) (int, error) { return c.pass(c.Conn.Write(p)) }

// countingPlace counts the bytes that its sinks are given.
type countingPlace struct {
	Place
	put atomic.Int64
}

type countingSink struct {
	Sink
	place *countingPlace
}

func (p *countingPlace) Open(ctx context.Context, m *Manifest) (Sink, error) {
	s, err := p.Place.Open(ctx, m)
	return countingSink{s, p}, err
}

func (p *countingPlace) Resume(ctx context.Context, hash string) (Sink, error) {
	s, err := p.Place.Resume(ctx, hash)
	return countingSink{s, p}, err
}

func (s countingSink) Put(ctx context.Context, span Span, data []byte) error {
	s.place.put.Add(int64(len(data)))
	return s.Sink.Put(ctx, span, data)
}

// forest writes a tree of about 19 MiB, large files and small.
func forest(t testing.TB) (dir string, tree *Tree) {
	dir = inMemory(t)
	plantMany(t, dir, 300, 10_000)
	random := rand.NewChaCha8([32]byte{9})
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, random, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, scanned(t, dir)
}

func TestCutsAndResume(t *testing.T) {
	t.Parallel()
	from, tree := forest(t)
	for _, direction := range []string{"push", "pull", "depot", "ahead"} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(direction, seed), func(t *testing.T) {
				t.Parallel()
				to := filepath.Join(t.TempDir(), "to")
				const allowed = 12
				var cuts atomic.Int64
				cuts.Store(allowed)
				options := Options{Streams: 3, Attempts: 100, Backoff: time.Millisecond, Ahead: direction == "ahead"}
				var place Place = NewReceiver(to, ReceiverOptions{})
				if direction == "depot" {
					depot, err := OpenDepot(to)
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = depot.Close() }()
					place = depot
				} else {
					defer func() { _ = place.(*Receiver).Close() }()
				}
				counted := &countingPlace{Place: place}
				var err error
				if direction == "pull" {
					client := cuttingClient(t, serve(t, sending(tree)), seed, 4<<20, &cuts)
					_, err = PullInto(t.Context(), client, base, counted, options)
				} else {
					client := cuttingClient(t, serve(t, receiving(counted)), seed, 4<<20, &cuts)
					_, err = Push(t.Context(), client, base, tree, options)
				}
				if err != nil {
					t.Fatal(err)
				}
				happened := min(allowed, allowed-cuts.Load())
				if happened < 2 {
					t.Fatalf("only %d cuts happened", happened)
				}
				// A frame, verified and put, may be put again when the plan is
				// made before the stream that carried it has seen its cut.
				resent := counted.put.Load() - int64(tree.Manifest().Bytes())
				if resent > happened*MaxChunk {
					t.Errorf("%d bytes were put again after %d cuts", resent, happened)
				}
				if direction != "depot" {
					same(t, from, to)
					return
				}
				check(t, place.(*Depot), tree)
			})
		}
	}
}

// check reads a tree of a depot and compares it with where it came from.
func check(t testing.TB, depot *Depot, tree Source) {
	t.Helper()
	source, err := depot.Source(tree.Manifest().Hash())
	if err != nil {
		t.Fatal(err)
	}
	m := source.Manifest()
	for n, ref := range m.indexed().chunks {
		p := make([]byte, ref.Size)
		if err := source.ReadChunk(t.Context(), ref, p); err != nil {
			t.Fatal(err)
		}
		if err := Verify(m, Span{uint32(n), 1}, p); err != nil {
			t.Fatal(err)
		}
	}
}

// hookedSource calls each before every chunk that is read.
type hookedSource struct {
	Source
	reads atomic.Int64
	each  func(read int64)
}

func (h *hookedSource) ReadChunk(ctx context.Context, c ChunkRef, p []byte) error {
	h.each(h.reads.Add(1))
	return h.Source.ReadChunk(ctx, c, p)
}

// TestKillReceiver kills the receiving process again and again, as hard as can
// be, while one Push goes on.
func TestKillReceiver(t *testing.T) {
	t.Parallel()
	from, tree := forest(t)
	for _, kind := range []string{"directory", "depot"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			to, socket := filepath.Join(dir, "to"), filepath.Join(dir, "s")
			peer := startPeer(t, kind, to, socket)
			chunks := int64(len(tree.Manifest().indexed().chunks))
			random := rand.New(rand.NewPCG(3, 4))
			var mu sync.Mutex
			next, kills := random.Int64N(chunks/3), 0
			source := &hookedSource{Source: tree, each: func(read int64) {
				mu.Lock()
				defer mu.Unlock()
				if read < next || kills == 5 {
					return
				}
				kills++
				next = read + random.Int64N(chunks/3) + 1
				peer.kill(t)
				peer = startPeer(t, kind, to, socket)
			}}
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}}
			defer transport.CloseIdleConnections()
			_, err := Push(t.Context(), &http.Client{Transport: transport}, base, source, Options{Attempts: 1000, Backoff: time.Millisecond})
			mu.Lock()
			defer mu.Unlock()
			defer peer.kill(t)
			if err != nil {
				t.Fatal(err)
			}
			if kills < 2 {
				t.Fatalf("only %d kills", kills)
			}
			// In flight at a kill: a frame of each stream, at each end, and
			// what the sockets hold; small files share frames.
			perKill := int64(defaultStreams) * 3 * (frameTarget/10_000 + 1)
			if again := source.reads.Load() - chunks; again > int64(kills)*perKill {
				t.Errorf("%d of %d chunks were read again after %d kills", again, chunks, kills)
			}
			if kind == "directory" {
				same(t, from, to)
				return
			}
			peer.kill(t)
			depot, err := OpenDepot(to)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = depot.Close() }()
			check(t, depot, tree)
		})
	}
}

type peerProcess struct {
	cmd  *exec.Cmd
	once sync.Once
}

// startPeer runs this test binary as a receiver and returns when it listens.
func startPeer(t testing.TB, kind, to, socket string) *peerProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TRANSFER_TEST_PEER="+kind, "TRANSFER_TEST_TO="+to, "TRANSFER_TEST_SOCKET="+socket)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Errorf("the peer says %q, %v", line, err)
	}
	return &peerProcess{cmd: cmd}
}

func (p *peerProcess) kill(t testing.TB) {
	p.once.Do(func() {
		if err := p.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = p.cmd.Wait() // it was killed
	})
}

// runPeer is the process that startPeer starts.
func runPeer(kind string) error {
	to, socket := os.Getenv("TRANSFER_TEST_TO"), os.Getenv("TRANSFER_TEST_SOCKET")
	var place Place = NewReceiver(to, ReceiverOptions{})
	if kind == "depot" {
		depot, err := OpenDepot(to)
		if err != nil {
			return err
		}
		place = depot
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return http.Serve(listener, receiving(place))
}

// TestResumeAfterReboot lets the journal look as if the machine had booted and
// loses some of what was written: only that comes again.
func TestResumeAfterReboot(t *testing.T) {
	t.Parallel()
	from, tree := forest(t)
	to := t.TempDir()
	r := NewReceiver(to, ReceiverOptions{})
	sink, err := r.Open(t.Context(), tree.Manifest())
	if err != nil {
		t.Fatal(err)
	}
	x := tree.Manifest().indexed()
	for n := range x.chunks {
		p := make([]byte, x.chunks[n].Size)
		if err := tree.ReadChunk(t.Context(), x.chunks[n], p); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			if err := sink.Put(t.Context(), Span{uint32(n), 1}, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	stage := filepath.Join(to, stagePrefix+tree.Manifest().Hash()[:32])
	journal, err := os.ReadFile(filepath.Join(stage, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	copy(journal, "00000000-0000-0000-0000-000000000000")
	lost := filepath.Join(stage, "tree", string(tree.Manifest().Entries[x.chunks[0].Entry].Path))
	for _, err := range []error{
		os.WriteFile(filepath.Join(stage, "journal"), append(journal, 1, 2, 3), 0o600),
		os.Truncate(lost, 0), os.Truncate(lost, int64(x.chunks[0].Size)), // as zeros
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	counted := &countingPlace{Place: r}
	if _, err := Push(t.Context(), serve(t, receiving(counted)), base, tree, Options{}); err != nil {
		t.Fatal(err)
	}
	same(t, from, to)
	var want int64
	for n := range x.chunks {
		if n%2 == 1 || n == 0 {
			want += int64(x.chunks[n].Size)
		}
	}
	if got := counted.put.Load(); got != want {
		t.Errorf("%d bytes came again, want %d", got, want)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestAttemptsEnd(t *testing.T) {
	t.Parallel()
	_, tree := forest(t)
	gone := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody there")
	}}}
	_, err := Push(t.Context(), gone, base, tree, Options{Attempts: 3, Backoff: time.Millisecond})
	if skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("Push: %v", err)
	}
	_, err = Pull(t.Context(), gone, base, t.TempDir(), Options{Attempts: 3, Backoff: time.Millisecond})
	if skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("Pull: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = Push(ctx, gone, base, tree, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Push with a deadline: %v", err)
	}
}
