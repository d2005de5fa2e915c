package forward

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/openworkload/skyport"
)

func writeProblem(w http.ResponseWriter, err error) {
	code := skyport.CodeOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code.Status())
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(code.Status()), "status": code.Status(), "detail": err.Error(), "code": code, "hint": skyport.HintOf(err)})
}

// serveTCP runs a server of the job (or of the user) until the test ends.
func serveTCP(t testing.TB, address string, handle func(*net.TCPConn)) *net.TCPAddr {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().(*net.TCPAddr)
}

func echo(conn *net.TCPConn) {
	if _, err := io.Copy(conn, conn); err == nil {
		_ = conn.CloseWrite()
	}
}

func TestConnectEcho(t *testing.T) {
	job := serveTCP(t, "127.0.0.1:0", echo)
	w := startWorker(t, "127.0.0.1")
	conn, err := w.connect(t.Context(), job.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(closeWriter).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestConnectRefused(t *testing.T) {
	w := startWorker(t, "127.0.0.1")
	_, err := w.connect(context.Background(), 1)
	if skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Fatalf("got %v", err)
	}
}
