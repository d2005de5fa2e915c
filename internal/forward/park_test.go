package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

func newPark(t testing.TB, opts ParkOptions) (*Park, int) {
	t.Helper()
	p, err := NewPark(0, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, p.Addr().(*net.TCPAddr).Port
}

func dialPort(t testing.TB, host string, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestParkLosesNone(t *testing.T) {
	t.Parallel()
	p, port := newPark(t, ParkOptions{Waiting: 2})
	var jobs []net.Conn
	for range 5 { // three wait in the kernel
		jobs = append(jobs, dialPort(t, "127.0.0.1", port))
	}
	seen := map[string]bool{}
	for range jobs {
		conn, err := p.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[conn.RemoteAddr().String()] = true
		conn.Close()
	}
	for _, job := range jobs {
		if !seen[job.LocalAddr().String()] {
			t.Errorf("%s was lost", job.LocalAddr())
		}
	}
}

func TestParkPatience(t *testing.T) {
	t.Parallel()
	p, port := newPark(t, ParkOptions{Patience: 20 * time.Millisecond})
	mustReadAll(t, dialPort(t, "127.0.0.1", port), "") // closed, for nobody fetches it
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if conn, err := p.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(conn, err)
	}
}

func TestParkClose(t *testing.T) {
	t.Parallel()
	p, port := newPark(t, ParkOptions{})
	waiting := dialPort(t, "127.0.0.1", port)
	next := make(chan error, 1)
	served, err := p.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	go func() {
		_, err := p.Next(context.Background())
		next <- err
	}()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "the end of Next", next); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Fatal(err)
	}
	mustReadAll(t, waiting, "")
	again, err := NewPark(port, ParkOptions{})
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	if _, err := NewPark(port, ParkOptions{}); skyport.CodeOf(err) != skyport.CodeConflict || skyport.HintOf(err) == "" {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// A burst of connections of the job reaches the user's service, over two parked requests.
func TestReverse(t *testing.T) {
	t.Parallel()
	user := serveTCP(t, "127.0.0.1:0", echo)
	p, port := newPark(t, ParkOptions{})
	w := startWorker(t, "127.0.0.1", p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Reverse(ctx,
			func(ctx context.Context) (net.Conn, error) { return w.accept(ctx, port) },
			func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, user.String()) },
			ReverseOptions{Parked: 2})
	}()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			conn, err := net.Dial("tcp", p.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "ping"); err != nil {
				t.Error(err)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != "ping" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
	all.Wait()
	open := dialPort(t, "127.0.0.1", port)
	mustWrite(t, open, "x")
	if _, err := io.ReadFull(open, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done // with the connection that was open
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Fatal("still open")
	}
}

// The link is away for a while: a connection of the job waits and is served after it.
func TestReverseSurvivesTheLink(t *testing.T) {
	t.Parallel()
	user := serveTCP(t, "127.0.0.1:0", echo)
	p, port := newPark(t, ParkOptions{})
	w := startWorker(t, "127.0.0.1", p)
	ctx, cancel := context.WithCancel(context.Background())
	back := make(chan struct{})
	tried := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Reverse(ctx,
			func(ctx context.Context) (net.Conn, error) {
				select {
				case <-back:
					return w.accept(ctx, port)
				default:
					tried <- struct{}{}
					return nil, errors.New("the link is away")
				}
			},
			func(ctx context.Context) (net.Conn, error) { return dialTCP(ctx, user.String()) },
			ReverseOptions{})
	}()
	job := dialPort(t, "127.0.0.1", port)
	mustWrite(t, job, "patience")
	mustCloseWrite(t, job)
	for range 6 {
		receive(t, "a try", tried)
	}
	close(back)
	mustReadAll(t, job, "patience")
	cancel()
	<-done
}

// A connection that was to be handed to a request of a core that has gone is
// not lost: the next request gets it.
func TestParkKeepsConnectionOfFailedUpgrade(t *testing.T) {
	t.Parallel()
	p, port := newPark(t, ParkOptions{})
	w := startWorker(t, "127.0.0.1", p)
	job := dialPort(t, "127.0.0.1", port)
	mustWrite(t, job, "still here")
	mustCloseWrite(t, job)
	plain, err := w.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	mustWrite(t, plain, "POST /accept?port="+strconv.Itoa(port)+" HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
	if _, err := io.ReadAll(plain); err != nil { // refused: it asks for no upgrade
		t.Fatal(err)
	}
	conn, err := w.accept(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mustReadAll(t, conn, "still here")
}
