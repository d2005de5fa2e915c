package docker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
)

// knife stands before the engine and cuts everybody off after a number of calls
// that change something: the last one is made, its answer is lost.
type knife struct {
	host  string
	left  atomic.Int64
	cut   chan struct{}
	close func()
}

func newKnife(t *testing.T, calls int64) *knife {
	t.Helper()
	engine := connect(t)
	host, err := url.Parse(engine.DaemonHost())
	if err != nil || host.Scheme != "unix" {
		t.Skipf("needs an engine on a unix socket, not %s", engine.DaemonHost())
	}
	dir := t.TempDir()
	k := &knife{host: "unix://" + filepath.Join(dir, "s"), cut: make(chan struct{})}
	k.left.Store(calls)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", host.Path)
	}}
	to := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite:      func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "docker" },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	var once sync.Once
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { //nolint:gosec // a test's
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			switch left := k.left.Add(-1); {
			case left < 0:
				panic(http.ErrAbortHandler) // dead
			case left == 0:
				answer := &lost{header: http.Header{}}
				to.ServeHTTP(answer, r)
				once.Do(func() { close(k.cut) })
				panic(http.ErrAbortHandler)
			}
		}
		to.ServeHTTP(w, r)
	})}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }() // ends by Close
	k.close = sync.OnceFunc(func() {
		_ = server.Close() // all connections, as a kill does
		<-served
		transport.CloseIdleConnections()
	})
	t.Cleanup(k.close)
	return k
}

// lost is an answer that nobody gets.
type lost struct{ header http.Header }

func (l *lost) Header() http.Header         { return l.header }
func (l *lost) Write(b []byte) (int, error) { return len(b), nil }
func (l *lost) WriteHeader(int)             {}

// TestCutOff kills the gate after each call that changes something at the
// engine, in a creation and in a removal. The next one carries on; nothing is left.
func TestCutOff(t *testing.T) {
	t.Parallel()
	step := int64(1)
	if testing.Short() {
		step = 3
	}
	for calls := int64(1); calls <= 14; calls += step {
		t.Run(fmt.Sprintf("after %d calls", calls), func(t *testing.T) {
			t.Parallel()
			o := options(t)
			spec := specFor(o, 1)
			cutOff(t, o, calls, func(ctx context.Context, p *docker.Provider) bool {
				if err := p.Create(ctx, spec); err != nil {
					return false
				}
				s, err := p.Status(ctx, o.Site, spec.ID)
				return err == nil && s.State == gate.StateUp
			})
			second := open(t, o)
			until(t, second, "create", func() (bool, error) {
				err := second.Create(t.Context(), spec)
				if errors.Is(err, gate.ErrPermanent) {
					t.Fatal(err)
				}
				return err == nil, err
			})
			await(t, second, spec, gate.StateUp)
			if err := second.Extend(t.Context(), o.Site, spec.ID, spec.Lease); err != nil {
				t.Error(err)
			}
			if err := second.Close(); err != nil {
				t.Error(err)
			}
			decided := false
			cutOff(t, o, calls, func(ctx context.Context, p *docker.Provider) bool {
				if err := p.Delete(ctx, o.Site, spec.ID); err != nil {
					return false
				}
				decided = true
				_, err := p.Status(ctx, o.Site, spec.ID)
				return errors.Is(err, gate.ErrNotFound)
			})
			third := open(t, o)
			if !decided {
				remove(t, third, spec) // core asks again
			}
			until(t, third, "removal", func() (bool, error) {
				_, err := third.Status(t.Context(), o.Site, spec.ID)
				return errors.Is(err, gate.ErrNotFound), err
			})
		})
	}
}

// cutOff lets a provider do something, again and again until it is done, or
// until its calls are used up and it is as dead.
func cutOff(t *testing.T, o docker.Options, calls int64, do func(context.Context, *docker.Provider) bool) {
	t.Helper()
	k := newKnife(t, calls)
	o.Host = k.host
	p, err := docker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-k.cut:
		case <-ctx.Done():
		}
		cancel()
	}()
	for !do(ctx, p) && ctx.Err() == nil {
		select {
		case <-p.Changed():
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	cancel()
	<-ended
	k.close()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
