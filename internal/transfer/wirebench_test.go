package transfer

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/openworkload/skyport/test/wire"
)

// BenchmarkWire is a push and a pull over an emulated link: plain TCP, both ends
// and the link in one process.
func BenchmarkWire(b *testing.B) {
	size := 256 << 20
	if mib, err := strconv.Atoi(os.Getenv("TRANSFER_BENCH_MIB")); err == nil {
		size = mib << 20
	}
	for _, tree := range []struct {
		name        string
		files, size int
	}{{"large", 1, size}, {"small", 10_000, 4 << 10}} {
		from := inMemory(b)
		plantMany(b, from, tree.files, tree.size)
		for _, rtt := range []time.Duration{0, 50 * time.Millisecond} {
			settings := wire.Settings{RTT: rtt}
			if rtt > 0 {
				settings.Rate = wire.Gbit
			}
			for _, direction := range []string{"push", "ahead", "pull"} {
				b.Run(fmt.Sprintf("%s/%v/%s", tree.name, rtt, direction), func(b *testing.B) {
					benchmarkWire(b, settings, from, direction, int64(tree.files*tree.size))
				})
			}
		}
	}
}

func benchmarkWire(b *testing.B, settings wire.Settings, from, direction string, size int64) {
	link := wire.New(b, settings)
	b.SetBytes(size)
	target := inMemory(b)
	for n := 0; b.Loop(); n++ {
		tree, err := Scan(b.Context(), ScanOptions{Root: from})
		if err != nil {
			b.Fatal(err)
		}
		to := filepath.Join(target, fmt.Sprint(n))
		r := NewReceiver(to, ReceiverOptions{})
		if direction != "pull" {
			_, err = Push(b.Context(), over(b, link, receiving(r)), base, tree, Options{Ahead: direction == "ahead"})
		} else {
			_, err = PullInto(b.Context(), over(b, link, sending(tree)), base, r, Options{})
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// over serves on side B of a link and returns a client on side A.
func over(t testing.TB, link *wire.Link, handler http.Handler) *http.Client {
	t.Helper()
	listener, err := link.B.Listen(t.Context(), "tcp", net.JoinHostPort(link.B.Addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return link.A.Dial(ctx, network, listener.Addr().String())
		},
		MaxIdleConnsPerHost: 16,
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		<-done
	})
	return &http.Client{Transport: transport}
}
