package forward

import (
	"context"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/openworkload/skyport"
)

// Each way is measured against a direct connection to the same server in the
// same run: compare the sub-benchmarks.

func BenchmarkThroughput(b *testing.B) {
	sink := func(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn); _, _ = conn.Write([]byte{1}) }
	benchWays(b, sink, func(b *testing.B, conn net.Conn) {
		chunk := make([]byte, 256<<10)
		b.SetBytes(int64(len(chunk)))
		for b.Loop() {
			if _, err := conn.Write(chunk); err != nil {
				b.Fatal(err)
			}
		}
		// The last byte has arrived when the server says so.
		if err := conn.(closeWriter).CloseWrite(); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, chunk[:1]); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	benchWays(b, echo, func(b *testing.B, conn net.Conn) {
		var one [1]byte
		for b.Loop() {
			if _, err := conn.Write(one[:]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, one[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// benchWays runs a benchmark over a direct connection and over those that a
// user may get: a shared network's one hop, and two hops with the link between.
func benchWays(b *testing.B, job func(*net.TCPConn), run func(*testing.B, net.Conn)) {
	server := serveTCP(b, "127.0.0.1:0", job)
	number := strconv.Itoa(server.Port)
	b.Run("direct", func(b *testing.B) { benchConn(b, server.String(), run) })
	for _, way := range []struct {
		name   string
		shared bool
	}{{"shared", true}, {"remote", false}} {
		w := startWorker(b, "127.0.0.1")
		set, err := Open(context.Background(), Config{
			Address: "127.77.1.2", Ports: []skyport.Port{{Number: server.Port, Direction: skyport.In}},
			Connect: w.connect, SharedNetwork: way.shared,
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := set.Listening(server.Port, "127.0.0.1"); err != nil {
			b.Fatal(err)
		}
		b.Run(way.name, func(b *testing.B) { benchConn(b, "127.77.1.2:"+number, run) })
		if err := set.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func benchConn(b *testing.B, address string, run func(*testing.B, net.Conn)) {
	conn, err := dialTCP(b.Context(), address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	run(b, conn)
}
