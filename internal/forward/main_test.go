package forward

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// until polls a condition that no event tells.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// worker is the API of a worker as far as ports go, on a unix socket.
type worker struct {
	socket string
	job    string // where the job is dialled, without the port
	parks  map[int]*Park
	cut    func() // ends every connection at once
}

// startWorker serves until the test ends; job is the address of its job.
func startWorker(t testing.TB, job string, parks ...*Park) *worker {
	t.Helper()
	w := &worker{socket: filepath.Join(t.TempDir(), "w.sock"), job: job, parks: map[int]*Park{}}
	for _, p := range parks {
		w.parks[p.Addr().(*net.TCPAddr).Port] = p
	}
	listener, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cut := context.WithCancel(context.Background())
	w.cut = cut
	mux := http.NewServeMux()
	answer := func(rw http.ResponseWriter, err error) {
		if err != nil {
			writeProblem(rw, err)
		}
	}
	mux.HandleFunc("POST /connect", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, ServeConnect(rw, r, func(ctx context.Context) (net.Conn, error) {
			return dialTCP(ctx, net.JoinHostPort(w.job, r.FormValue("port")))
		}))
	})
	mux.HandleFunc("POST /accept", func(rw http.ResponseWriter, r *http.Request) {
		port, _ := strconv.Atoi(r.FormValue("port"))
		answer(rw, w.parks[port].Serve(rw, r))
	})
	server := &http.Server{Handler: mux, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		cut()
		_ = server.Close()
		<-done
	})
	return w
}

func (w *worker) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", w.socket)
}

func (w *worker) connect(ctx context.Context, port int) (net.Conn, error) {
	return DialUpgrade(ctx, w.dial, "/connect?port="+strconv.Itoa(port), nil)
}

func (w *worker) accept(ctx context.Context, port int) (net.Conn, error) {
	return DialUpgrade(ctx, w.dial, "/accept?port="+strconv.Itoa(port), nil)
}

func newBufio(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

var discard = slog.New(slog.DiscardHandler)
