package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// A peer that speaks first may be read together with the header before it.
func TestUpgradeDeliversWhatWasReadAhead(t *testing.T) {
	t.Parallel()
	t.Run("client", func(t *testing.T) {
		t.Parallel()
		near, far := pair(t, "unix")
		go func() {
			_, _ = http.ReadRequest(newBufio(far))
			_, _ = io.WriteString(far, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: skyport-tcp\r\n\r\nSSH-2.0-hello\r\n")
		}()
		conn, err := DialUpgrade(t.Context(), func(context.Context) (net.Conn, error) { return near, nil }, "/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := conn.(*upgraded); !ok {
			t.Fatal("nothing was read ahead: the test does not test")
		}
		// Through a pipe, and by reading.
		mustWrite(t, far, "more")
		mustCloseWrite(t, far)
		a, user := pair(t, "tcp")
		go func() { _, _ = Pipe(context.Background(), a, conn) }()
		mustReadAll(t, user, "SSH-2.0-hello\r\nmore")
		mustWrite(t, user, "bye")
		mustCloseWrite(t, user)
		mustReadAll(t, far, "bye")
	})
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		got := make(chan string, 1)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := Upgrade(w, r)
			if err != nil {
				got <- err.Error()
				return
			}
			defer conn.Close()
			data, _ := io.ReadAll(conn)
			got <- string(data)
			mustWrite(t, conn, "after your end")
			if err := conn.(closeWriter).CloseWrite(); err != nil {
				t.Error(err)
			}
		}))
		defer server.Close()
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		mustWrite(t, conn, "POST /x HTTP/1.1\r\nHost: w\r\nConnection: keep-alive, Upgrade\r\nUpgrade: SKYPORT-TCP\r\n\r\nhasty words")
		mustCloseWrite(t, conn)
		if text := receive(t, "the words", got); text != "hasty words" {
			t.Fatal(text)
		}
		resp, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(resp), "HTTP/1.1 101 ") || !strings.HasSuffix(string(resp), "\r\n\r\nafter your end") {
			t.Fatalf("%q %v", resp, err)
		}
	})
}

func TestUpgradeRefusesPlainRequests(t *testing.T) {
	t.Parallel()
	for _, header := range []http.Header{
		{},
		{"Connection": {"Upgrade"}},
		{"Upgrade": {Protocol}},
		{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}},
	} {
		r := httptest.NewRequest(http.MethodPost, "/x", nil)
		r.Header = header
		if _, err := Upgrade(httptest.NewRecorder(), r); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%v: %v", header, err)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/x", nil) // a recorder cannot be taken over
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {Protocol}}
	if _, err := Upgrade(httptest.NewRecorder(), r); skyport.CodeOf(err) != skyport.CodeUnsupported {
		t.Error(err)
	}
}

// answers dials a peer that gives a fixed answer.
func answers(t testing.TB, answer string) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		near, far := pair(t, "unix")
		go func() {
			_, _ = http.ReadRequest(newBufio(far))
			_, _ = io.WriteString(far, answer)
			far.Close()
		}()
		return near, nil
	}
}

func TestDialUpgradeRefusals(t *testing.T) {
	t.Parallel()
	problem := `{"title":"Conflict","status":409,"detail":"the run has ended","code":"key_reused","hint":"look at it"}`
	for _, c := range []struct{ name, answer, code, text, hint string }{
		{"problem", "HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\nContent-Length: 200\r\n\r\n" + problem + strings.Repeat(" ", 200-len(problem)), "key_reused", "the run has ended", "look at it"},
		{"by status", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "not_found", "404", ""},
		{"unknown status", "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n", "internal", "418", ""},
		{"not upgraded", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "internal", "200", ""},
		{"other protocol", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "internal", "websocket", ""},
		{"silence", "", "internal", "unexpected EOF", ""},
		{"nonsense", "SSH-2.0-OpenSSH\r\n", "internal", "malformed", ""},
		{"endless header", "HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", maxResponseHeader+1), "internal", "EOF", ""},
		{"endless body", "HTTP/1.1 503 No\r\nConnection: close\r\n\r\n\"" + strings.Repeat("x", maxProblem+1), "unavailable", "503", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := DialUpgrade(t.Context(), answers(t, c.answer), "/x?y=z", http.Header{"A": {"b"}})
			if err == nil || string(skyport.CodeOf(err)) != c.code || !strings.Contains(err.Error(), c.text) || skyport.HintOf(err) != c.hint {
				t.Fatalf("got %q, code %s, hint %q", err, skyport.CodeOf(err), skyport.HintOf(err))
			}
		})
	}
}

func TestDialUpgradeContext(t *testing.T) {
	t.Parallel()
	near, far := pair(t, "unix")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := DialUpgrade(ctx, func(context.Context) (net.Conn, error) { return near, nil }, "/x", nil)
		done <- err
	}()
	if _, err := http.ReadRequest(newBufio(far)); err != nil { // it waits for the answer now
		t.Fatal(err)
	}
	cancel()
	if err := receive(t, "the end of the dialling", done); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the connection is still open: %v", err)
	}
}

// Whatever a node answers: no panic, no more memory than the bounds, an error
// with a code, or a connection that delivers exactly what followed the header.
func FuzzDialUpgrade(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: skyport-tcp\r\n\r\nrest"))
	f.Add([]byte("HTTP/1.1 409 Conflict\r\n\r\n{\"code\":\"conflict\",\"detail\":\"x\"}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn, err := requestUpgrade(&scripted{Reader: bytes.NewReader(answer)}, mustURL("/x"), nil)
		if err != nil {
			if conn != nil || err.Error() == "" {
				t.Fatal(conn, err)
			}
			return
		}
		rest, err := io.ReadAll(conn)
		if err != nil || !bytes.HasSuffix(answer, rest) {
			t.Fatalf("%q is no end of the answer: %v", rest, err)
		}
	})
}

// scripted is a peer that has said everything already.
type scripted struct {
	net.Conn
	io.Reader
}

func (s *scripted) Read(p []byte) (int, error)         { return s.Reader.Read(p) }
func (s *scripted) Write(p []byte) (int, error)        { return len(p), nil }
func (s *scripted) SetWriteDeadline(_ time.Time) error { return nil }
