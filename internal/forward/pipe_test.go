package forward

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

func writeProblem(w http.ResponseWriter, err error) {
	code := skyport.CodeOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code.Status())
	_ = json.NewEncoder(w).Encode(map[string]any{
		"title": http.StatusText(code.Status()), "status": code.Status(),
		"detail": err.Error(), "code": code, "hint": skyport.HintOf(err),
	})
}

// serveTCP runs a server of the job (or of the user) until the test ends.
func serveTCP(t testing.TB, address string, handle func(*net.TCPConn)) *net.TCPAddr {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return listener.Addr().(*net.TCPAddr)
}

func echo(conn *net.TCPConn) {
	if _, err := io.Copy(conn, conn); err == nil {
		_ = conn.CloseWrite()
	}
}

// pair returns both ends of a connection.
func pair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network != "tcp" {
		network, address = "unix", filepath.Join(t.TempDir(), "s")
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a, err = net.Dial(network, listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// piped returns two ends with a pipe between them, and the end of the pipe.
func piped(t testing.TB, ctx context.Context, left, right string) (user, job net.Conn, done <-chan error) {
	t.Helper()
	user, a := pair(t, left)
	b, job := pair(t, right)
	if left == "channel" {
		a = channel{a}
	}
	if right == "channel" {
		b = channel{b}
	}
	end := make(chan error, 1)
	go func() {
		_, err := Pipe(ctx, a, b)
		end <- err
	}()
	return user, job, end
}

func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(15 * time.Second):
		t.Fatalf("never came: %s", what)
		panic("unreachable")
	}
}

func mustWrite(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func mustCloseWrite(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.(closeWriter).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func mustReadAll(t testing.TB, conn net.Conn, want string) {
	t.Helper()
	if got, err := io.ReadAll(conn); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// channel is a connection that is no socket but has halves, as a channel of SSH.
type channel struct{ net.Conn }

func (c channel) CloseWrite() error { return c.Conn.(closeWriter).CloseWrite() }

var networks = [][2]string{
	{"tcp", "tcp"},
	{"tcp", "unix"},
	{"unix", "tcp"},
	{"unix", "unix"},
	{"tcp", "channel"},
	{"unix", "channel"},
	{"channel", "unix"},
	{"channel", "channel"},
}

func TestPipeHalfClose(t *testing.T) {
	t.Parallel()
	for _, n := range networks {
		t.Run(n[0]+"-"+n[1], func(t *testing.T) {
			t.Parallel()
			user, job, done := piped(t, t.Context(), n[0], n[1])
			// The user says all it has to say, the job hears the end and answers after it.
			mustWrite(t, user, "question")
			mustCloseWrite(t, user)
			mustReadAll(t, job, "question")
			mustWrite(t, job, "answer, ")
			mustWrite(t, job, "and more")
			mustCloseWrite(t, job)
			mustReadAll(t, user, "answer, and more")
			if err := receive(t, "end of the pipe", done); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Both sides end without a word: there is no traffic whose events would wake
// a pipe that forgot to look.
func TestPipeSilentEnds(t *testing.T) {
	t.Parallel()
	for _, n := range networks {
		t.Run(n[0]+"-"+n[1], func(t *testing.T) {
			t.Parallel()
			user, job, done := piped(t, t.Context(), n[0], n[1])
			mustCloseWrite(t, user)
			mustReadAll(t, job, "")
			mustCloseWrite(t, job)
			mustReadAll(t, user, "")
			if err := receive(t, "end of the pipe", done); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPipeHalfCloseOfJob(t *testing.T) {
	t.Parallel()
	user, job, done := piped(t, t.Context(), "tcp", "unix")
	mustCloseWrite(t, job)
	mustReadAll(t, user, "")
	mustWrite(t, user, "late words")
	mustCloseWrite(t, user)
	mustReadAll(t, job, "late words")
	if err := receive(t, "end of the pipe", done); err != nil {
		t.Fatal(err)
	}
}

func TestPipeContextEndsAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	user, job, done := piped(t, ctx, "tcp", "unix")
	mustWrite(t, user, "x")
	if _, err := io.ReadFull(job, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := receive(t, "end of the pipe", done); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	mustReadAll(t, user, "")
	mustReadAll(t, job, "")
}

// A side that closes altogether ends the pipe though the other side is silent.
func TestPipeHangUp(t *testing.T) {
	t.Parallel()
	t.Run("cut link", func(t *testing.T) {
		t.Parallel()
		user, link, done := piped(t, t.Context(), "tcp", "unix")
		mustWrite(t, link, "last words")
		link.Close()
		mustReadAll(t, user, "last words")
		if err := receive(t, "end of the pipe", done); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after half-close", func(t *testing.T) {
		t.Parallel()
		user, link, done := piped(t, t.Context(), "tcp", "unix")
		mustCloseWrite(t, link)
		mustReadAll(t, user, "")
		select {
		case <-done:
			t.Fatal("a half-closed pipe ended")
		default:
		}
		link.Close()
		if err := receive(t, "end of the pipe", done); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("no half-close", func(t *testing.T) {
		t.Parallel()
		user, a := pair(t, "tcp")
		b, job := net.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := Pipe(t.Context(), a, b)
			done <- err
		}()
		mustWrite(t, user, "word")
		buf := make([]byte, 4)
		if _, err := io.ReadFull(job, buf); err != nil || string(buf) != "word" {
			t.Fatal(string(buf), err)
		}
		mustCloseWrite(t, user) // cannot be passed on but by closing
		mustReadAll(t, job, "")
		if err := receive(t, "end of the pipe", done); err != nil {
			t.Fatal(err)
		}
	})
}

// A broken connection must not look like one that ended properly.
func TestPipeReset(t *testing.T) {
	t.Parallel()
	user, job, done := piped(t, t.Context(), "tcp", "tcp")
	mustWrite(t, job, "half of the")
	buf := make([]byte, 11)
	if _, err := io.ReadFull(user, buf); err != nil {
		t.Fatal(err)
	}
	if err := job.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	job.Close()
	if _, err := user.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the user sees %v", err)
	}
	if err := receive(t, "end of the pipe", done); err != nil {
		t.Fatalf("a reset is no error of the pipe: %v", err)
	}
}

// A slow reader stops its writer: what lies between them is bounded.
func TestPipeBackPressure(t *testing.T) {
	// Not parallel: it looks at the memory of the process.
	user, job, done := piped(t, t.Context(), "unix", "unix") // kernel buffers of fixed size
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const flood = 64 << 20
	chunk := make([]byte, 64<<10)
	sent := 0
	for sent < flood {
		// Nobody reads: the writer is stopped long before the flood is over.
		if err := job.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := job.Write(chunk)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if sent > 8<<20 {
		t.Fatalf("%d bytes vanished into the pipe while nobody read", sent)
	}
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 4<<20 {
		t.Fatalf("the heap grew by %d bytes", grown)
	}
	job.Close()
	if n, err := io.Copy(io.Discard, user); err != nil || n != int64(sent) {
		t.Fatalf("%d of %d bytes arrived: %v", n, sent, err)
	}
	user.Close()
	if err := receive(t, "end of the pipe", done); err != nil {
		t.Fatal(err)
	}
}

// Thousands of idle connections must not cost a buffer each.
func TestIdleConnectionsHoldNoBuffer(t *testing.T) {
	// Not parallel: it looks at the memory of the process.
	const count = 300
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC() // twice: a pool keeps its buffers over one
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse)
	}
	before := heap()
	for range count {
		user, job, _ := piped(t, t.Context(), "tcp", "unix")
		for _, conns := range [][2]net.Conn{{user, job}, {job, user}} {
			mustWrite(t, conns[0], "x")
			if _, err := io.ReadFull(conns[1], make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if each := (heap() - before) / count; each > bufferSize/4 {
		t.Errorf("an idle connection holds %d bytes", each)
	}
}

// descriptors counts those of this process, without the one that counts.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries) - 1
}

// Two thousand users at once, over the upgraded unix socket, random bytes both
// ways, half-close both ways; nothing is left behind.
func TestThousandsOfConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("2,000 connections")
	}
	users := 2000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := int(min(limit.Cur, 1<<20)) / 8; most < users { // all ends live in this process
		t.Logf("only %d descriptors are allowed: %d connections instead of %d", limit.Cur, most, users)
		users = most
	}
	// The job says the hash of what it hears after hearing its end, then bytes of its own.
	var gate sync.WaitGroup // all are connected before anyone speaks
	gate.Add(users)
	job := serveTCP(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		gate.Done()
		gate.Wait()
		hash := sha256.New()
		if _, err := io.Copy(hash, conn); err != nil {
			return
		}
		sum := hash.Sum(nil)
		if _, err := conn.Write(sum); err != nil {
			return
		}
		_, _ = io.Copy(conn, noise(sum, 20000))
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	w := startWorker(t, "127.0.0.1")
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	set, err := Open(t.Context(), Config{
		Address: "127.88.1.2", Ports: []skyport.Port{{Number: job.Port, Direction: skyport.In}},
		Connect: w.connect, Patience: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	failures := make(chan error, users)
	var all sync.WaitGroup
	for i := range users {
		all.Go(func() { failures <- oneUser(set.Status()[0].Address, byte(i), byte(i>>8)) })
	}
	all.Wait()
	for range users {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
	status := set.Status()[0]
	if status.Total != int64(users) || status.In != skyport.Bytes(users)*50000 || status.Out != skyport.Bytes(users)*(20000+sha256.Size) {
		t.Errorf("status %+v", status)
	}
	until(t, "no connection is left", func() bool { return set.Status()[0].Connections == 0 })
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "all descriptors are closed", func() bool { return descriptors(t) <= fds })
	until(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func oneUser(address string, seed ...byte) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	hash := sha256.New()
	if _, err := io.Copy(conn, io.TeeReader(noise(seed, 50000), hash)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	sum := hash.Sum(nil)
	want, _ := io.ReadAll(io.MultiReader(bytes.NewReader(sum), noise(sum, 20000)))
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back, not the %d expected", len(got), len(want))
	}
	return nil
}

// noise is n reproducible random bytes.
func noise(seed []byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(sha256.Sum256(seed)), n)
}

// The link breaks: every connection over it ends at once, at both sides.
func TestCutEndsConnections(t *testing.T) {
	var atJob sync.WaitGroup
	atJob.Add(50)
	job := serveTCP(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		_, _ = conn.Write([]byte("hello"))
		_, _ = io.Copy(io.Discard, conn)
		atJob.Done()
	})
	w := startWorker(t, "127.0.0.1")
	set, err := Open(t.Context(), Config{
		Address: "127.88.1.3", Ports: []skyport.Port{{Number: job.Port, Direction: skyport.In}}, Connect: w.connect,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	var users []net.Conn
	for range 50 {
		conn, err := net.Dial("tcp", set.Status()[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		users = append(users, conn)
	}
	w.cut()
	for _, conn := range users {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the user sees %v", err)
		}
	}
	atJob.Wait()
	until(t, "no connection is left", func() bool { return set.Status()[0].Connections == 0 })
}
