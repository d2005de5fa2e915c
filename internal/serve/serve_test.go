package serve_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport/internal/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a server on loopback with a certificate of its own.
type running struct {
	url    string
	client *http.Client
	stop   context.CancelFunc
	ended  chan error
	listen net.Listener
}

func run(t *testing.T, handler http.HandlerFunc) *running {
	t.Helper()
	lender := httptest.NewTLSServer(nil) // only its certificate is wanted
	client := lender.Client()
	server := serve.Server(handler, slog.New(slog.DiscardHandler))
	server.TLSConfig = &tls.Config{Certificates: lender.TLS.Certificates, MinVersion: tls.VersionTLS12}
	lender.Close()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{url: "https://" + listener.Addr().String(), client: client, stop: cancel, ended: make(chan error, 1), listen: listener}
	go func() { r.ended <- serve.TLS(ctx, server, listener) }()
	t.Cleanup(func() {
		cancel()
		client.CloseIdleConnections()
	})
	return r
}

func (r *running) get(ctx context.Context, t *testing.T) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r.client.Do(req) //nolint:wrapcheck // the test looks at it
}

func TestAnswersAndEnds(t *testing.T) {
	t.Parallel()
	r := run(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	resp, err := r.get(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil || string(body) != "hello" {
		t.Errorf("answered %q, %v", body, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := r.get(t.Context(), t); err == nil {
		t.Error("it answers after its end")
	}
}

// A stream sees the end of the server at once, and ends cleanly.
func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	r := run(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.WriteString(w, "begin ")
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
		_, _ = io.WriteString(w, "end")
	})
	resp, err := r.get(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	start := time.Now()
	r.stop()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil || string(body) != "begin end" {
		t.Errorf("the stream was %q, %v", body, err)
	}
	if err := <-r.ended; err != nil || time.Since(start) > 4*time.Second {
		t.Errorf("ended with %v after %s", err, time.Since(start))
	}
}

// A server whose listener breaks says so.
func TestABrokenListener(t *testing.T) {
	t.Parallel()
	r := run(t, func(http.ResponseWriter, *http.Request) {})
	if err := r.listen.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-r.ended; err == nil || !strings.Contains(err.Error(), "serve 127.0.0.1") {
		t.Errorf("ended with %v", err)
	}
}
