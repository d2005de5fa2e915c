package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Served is what the server of a command connects with it.
type Served struct {
	Stdin          io.Reader // an io.Closer too, which frees a Read that waits
	Stdout, Stderr io.Writer
	Resize         <-chan Size           // the latest size only
	Signals        <-chan syscall.Signal // at most 16 wait; further ones are dropped
	// Started, when it is not nil, is told the process of the command, where it is
	// one of this machine.
	Started func(pid int)
}

const (
	// openTime is how long a caller may take to say what it wants.
	openTime = 30 * time.Second
	// lastTime is how long a caller may take to read the rest of the output
	// when it has to read no more than what the kernel holds.
	lastTime = 10 * time.Second
)

// errGone is why the context of a command ends when its caller does.
var errGone = errors.New("the caller of the command went away")

// ReadOpen reads the first frame of a session and nothing beyond it, for who
// must know what is asked before deciding who serves it; see ServeOpened.
func ReadOpen(conn net.Conn) (json.RawMessage, error) {
	if err := conn.SetReadDeadline(time.Now().Add(openTime)); err != nil {
		return nil, fmt.Errorf("wait for a command: %w", err)
	}
	k, payload, err := readFrame(conn, nil, maxOpen)
	if err == nil && (k != kindOpen || !json.Valid(payload)) {
		err = wrong("the first frame does not say which command")
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return nil, fmt.Errorf("wait for a command: %w", err)
	}
	return payload, nil
}

// Serve reads what the caller at the other end of conn wants and lets do do it.
// do's context ends when the caller goes away or breaks the rules; from then on
// writes of output fail. Serve owns conn and closes it. It returns when do has
// returned; an error says that the caller did not learn its exit.
func Serve(conn net.Conn, do func(ctx context.Context, open json.RawMessage, s *Served) Exit) error {
	open, err := ReadOpen(conn)
	if err != nil {
		_ = conn.Close() // the error says it
		return err
	}
	return ServeOpened(conn, open, do)
}

// ServeOpened is Serve for a connection whose first frame was read by ReadOpen.
func ServeOpened(conn net.Conn, open json.RawMessage, do func(ctx context.Context, open json.RawMessage, s *Served) Exit) error {
	defer func() { _ = conn.Close() }() // all was said
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	out := &frameWriter{w: conn}
	s := &served{conn: conn, out: out, resize: make(chan Size, 1), signals: make(chan syscall.Signal, 16)}
	s.stdin.init(func(n int) { _ = out.write(kindWindow, encodeWindow(n)) }) // a caller that is gone shows elsewhere
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		err := s.listen()
		cancel(err)
		s.stdin.close(err)
		// Who writes output to a caller that does not read it must not hang.
		_ = conn.SetWriteDeadline(time.Now()) // fails on a connection that is closed
	}()
	exit := do(ctx, open, &Served{
		Stdin: &s.stdin, Stdout: stream{out, kindStdout}, Stderr: stream{out, kindStderr},
		Resize: s.resize, Signals: s.signals,
	})
	s.stdin.close(io.ErrClosedPipe)
	err := s.finish(exit, listening)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("tell the end of a command: %w", err)
	}
	return nil
}

type served struct {
	conn    net.Conn
	out     *frameWriter
	stdin   input
	resize  chan Size
	signals chan syscall.Signal
}

// finish sends the exit and waits, not for long, until the caller has hung up:
// to close a connection with unread input would break what is on its way.
func (s *served) finish(exit Exit, listening <-chan struct{}) error {
	data, err := json.Marshal(exit)
	if err != nil || len(data) > maxFrame {
		data, err = json.Marshal(Failed(errors.New("the end of the command cannot be told")))
	}
	if err == nil {
		err = s.out.end(kindExit, data)
	}
	if err != nil || s.conn.SetReadDeadline(time.Now().Add(lastTime)) != nil {
		_ = s.conn.Close() // ends listen
	}
	<-listening
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		err = errGone
	}
	return err
}

// listen takes what the caller sends, until it hangs up. It never waits for the
// command.
func (s *served) listen() error {
	in := bufio.NewReaderSize(s.conn, piece)
	buf := make([]byte, maxFrame)
	for {
		k, payload, err := readFrame(in, buf, maxFrame)
		if err != nil {
			if errors.Is(err, errProtocol) {
				return err
			}
			return errGone
		}
		switch k {
		case kindStdin:
			err = s.stdin.add(payload)
		case kindStdinClosed:
			s.stdin.close(io.EOF)
		case kindResize:
			var size Size
			if size, err = decodeSize(payload); err == nil {
				select {
				case <-s.resize: // nobody took the one before
				default:
				}
				s.resize <- size // never waits: it has room for one, and no one else sends
			}
		case kindSignal:
			var sig syscall.Signal
			if sig, err = decodeSignal(payload); err == nil {
				select {
				case s.signals <- sig:
				default: // a command that does not take so many will not take one more
				}
			}
		default:
			err = wrong("frame %d", k)
		}
		if err != nil {
			return err
		}
	}
}

// input is what came for the command and was not yet read.
type input struct {
	mu    sync.Mutex
	grown *sync.Cond
	data  []byte
	err   error     // after data
	took  int       // read by the command, not yet told to the caller
	widen func(int) // tells the caller that there is room again
}

func (i *input) init(widen func(int)) {
	i.grown = sync.NewCond(&i.mu)
	i.widen = widen
}

// add takes bytes of the caller, who was told how many there is room for.
func (i *input) add(p []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err != nil {
		if errors.Is(i.err, io.EOF) {
			return wrong("input after its end")
		}
		return nil // the command has ended: thrown away
	}
	if len(i.data)+i.took+len(p) > window {
		return wrong("more input than there is room for")
	}
	i.data = append(i.data, p...)
	i.grown.Broadcast()
	return nil
}

func (i *input) close(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil || !errors.Is(err, io.EOF) {
		i.err = err
	}
	i.grown.Broadcast()
}

// Close frees who waits for input; there is no more.
func (i *input) Close() error {
	i.close(io.ErrClosedPipe)
	return nil
}

// Read waits for input. A caller that went away is io.ErrUnexpectedEOF.
func (i *input) Read(p []byte) (int, error) {
	i.mu.Lock()
	for len(i.data) == 0 && i.err == nil && len(p) > 0 {
		i.grown.Wait()
	}
	n := copy(p, i.data)
	if i.data = i.data[n:]; len(i.data) == 0 {
		i.data = nil
	}
	i.took += n
	err := i.err
	room := 0
	if i.took >= window/4 || (len(i.data) == 0 && i.took > 0) {
		room, i.took = i.took, 0
	}
	i.mu.Unlock()
	if room > 0 && err == nil {
		i.widen(room)
	}
	switch {
	case n > 0 || len(p) == 0 || err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		return 0, io.EOF
	case errors.Is(err, io.ErrClosedPipe):
		return 0, io.ErrClosedPipe
	}
	return 0, fmt.Errorf("read input: %w", io.ErrUnexpectedEOF)
}
