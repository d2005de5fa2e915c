package forward

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// Protocol is the name that a raw connection has in the Upgrade header.
const Protocol = "skyport-tcp"

const (
	maxResponseHeader = 64 << 10
	maxProblem        = 64 << 10
	// The request and the answer 101 are a few hundred bytes: who does not take
	// them in this time is gone.
	handshakeTime = 10 * time.Second
)

// Upgrade turns a request into the raw connection that it asks for. The error
// has a code; nothing was written when it is CodeInvalid or CodeUnsupported, and the
// caller answers it as any other error. After success the connection is the caller's to close; the
// server's Shutdown does not know it any more. CloseWrite works as below.
func Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if !hasToken(r.Header, "Connection", "upgrade") || !hasToken(r.Header, "Upgrade", Protocol) {
		return nil, skyport.Errorf(skyport.CodeInvalid, "%s is a raw connection: the request must upgrade to %s", r.URL.Path, Protocol).
			WithHint("send the headers Connection: Upgrade and Upgrade: %s over HTTP/1.1", Protocol)
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeUnsupported, "take over the connection of %s: %w", r.URL.Path, err)
	}
	up, err := switchProtocols(conn, rw)
	if err != nil {
		_ = conn.Close() // the error says it
		return nil, skyport.Errorf(skyport.CodeUnavailable, "upgrade the connection of %s: %w", r.URL.Path, err)
	}
	return up, nil
}

func switchProtocols(conn net.Conn, rw *bufio.ReadWriter) (net.Conn, error) {
	// The server may have left deadlines for headers on the connection.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadline: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, fmt.Errorf("set the deadline: %w", err)
	}
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Protocol); err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadline: %w", err)
	}
	return withRest(conn, rw.Reader)
}

// hasToken says whether a comma-separated header has the token, in any case.
func hasToken(h http.Header, key, token string) bool {
	for _, line := range h.Values(key) {
		for word := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(word), token) {
				return true
			}
		}
	}
	return false
}

// DialUpgrade dials and asks for the raw connection at path (which may have a
// query), by POST with the further headers. It waits for the answer as long as
// ctx lives: the worker answers when it has the connection. A refusal
// is a *skyport.Error with the code that the worker gave. Once returned, the
// connection does not depend on ctx any more.
func DialUpgrade(ctx context.Context, dial func(ctx context.Context) (net.Conn, error), path string, header http.Header) (net.Conn, error) {
	target, err := url.Parse(path)
	if err != nil {
		return nil, fmt.Errorf("raw connection: %w", err)
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial for %s: %w", target.Path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ctx's error is told below
	up, err := requestUpgrade(conn, target, header)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the error says it
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("raw connection %s: %w", target.Path, err)
	}
	return up, nil
}

func requestUpgrade(conn net.Conn, target *url.URL, header http.Header) (net.Conn, error) {
	req := &http.Request{
		Method: http.MethodPost, URL: target, Host: "worker",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
	}
	for key, values := range header {
		req.Header[key] = values
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	if err := conn.SetWriteDeadline(time.Now().Add(handshakeTime)); err != nil {
		return nil, fmt.Errorf("set the deadline: %w", err)
	}
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear the deadline: %w", err)
	}
	// What the reader takes beyond the answer belongs to the raw connection.
	reader := bufio.NewReader(io.LimitReader(conn, maxResponseHeader))
	resp, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = resp.Body.Close() }() // the connection goes with it
		return nil, refusal(resp)
	}
	if !hasToken(resp.Header, "Upgrade", Protocol) {
		return nil, fmt.Errorf("the peer switched to %q, not to %s", skyport.Abbreviate(resp.Header.Get("Upgrade"), 60), Protocol)
	}
	return withRest(conn, reader)
}

// refusal reads an RFC 9457 problem; a peer that sends none gets a code by its status.
func refusal(resp *http.Response) *skyport.Error {
	var problem struct {
		Title  string       `json:"title"`
		Detail string       `json:"detail"`
		Code   skyport.Code `json:"code"`
		Hint   string       `json:"hint"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err == nil {
		err = json.Unmarshal(body, &problem)
	}
	text := skyport.Abbreviate(problem.Detail, 1000)
	if text == "" {
		text = skyport.Abbreviate(problem.Title, 1000)
	}
	if err != nil || text == "" {
		text = "the worker answered " + resp.Status
	}
	if problem.Code == "" {
		problem.Code = codeOf(resp.StatusCode)
	}
	refused := skyport.Errorf(problem.Code, "%s", text)
	refused.Hint = skyport.Abbreviate(problem.Hint, 1000)
	return refused
}

func codeOf(status int) skyport.Code {
	for _, code := range []skyport.Code{
		skyport.CodeInvalid, skyport.CodeUnauthorized, skyport.CodeForbidden, skyport.CodeNotFound,
		skyport.CodeConflict, skyport.CodeTooLarge, skyport.CodeUnavailable, skyport.CodeUnsupported,
	} {
		if code.Status() == status {
			return code
		}
	}
	return skyport.CodeInternal
}

// upgraded is a connection whose first bytes were read together with the HTTP
// header before it. [Pipe] delivers them and then works on the bare connection.
type upgraded struct {
	net.Conn

	mu   sync.Mutex
	rest []byte
}

// withRest returns the bare connection when the reader holds nothing of it.
func withRest(conn net.Conn, reader *bufio.Reader) (net.Conn, error) {
	n := reader.Buffered()
	if n == 0 {
		return conn, nil
	}
	rest, err := reader.Peek(n)
	if err != nil {
		return nil, fmt.Errorf("take what was read ahead: %w", err)
	}
	return &upgraded{Conn: conn, rest: append([]byte(nil), rest...)}, nil
}

// Read delivers what was read ahead first.
func (u *upgraded) Read(p []byte) (int, error) {
	u.mu.Lock()
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	u.mu.Unlock()
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return u.Conn.Read(p) //nolint:wrapcheck // a net.Conn returns errors as they are
}

// CloseWrite ends the writing half, or says that the connection below cannot.
func (u *upgraded) CloseWrite() error {
	half, ok := u.Conn.(closeWriter)
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// take returns what was read ahead; it is delivered once.
func (u *upgraded) take() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	rest := u.rest
	u.rest = nil
	return rest
}
