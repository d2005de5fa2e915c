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

	"github.com/openworkload/skyport"
)

// Caller is what the caller of a command connects with it. All may be nil.
type Caller struct {
	Stdin          io.Reader // nil: empty
	Stdout, Stderr io.Writer // nil: thrown away
	Resize         <-chan Size
	Signals        <-chan syscall.Signal
}

// WriteOpen writes the first frame of a session: what open says in JSON. Call
// does it; only who passes on a session needs it.
func WriteOpen(w io.Writer, open any) error {
	data, err := json.Marshal(open)
	if err != nil {
		return fmt.Errorf("ask for a command: %w", err)
	}
	if len(data) > maxOpen {
		return skyport.Errorf(skyport.CodeTooLarge, "the command and its environment have %d bytes, more than %d", len(data), maxOpen).
			WithHint("put long arguments into a file")
	}
	f := frameWriter{w: w}
	if err := f.write(kindOpen, data); err != nil {
		return fmt.Errorf("ask for a command: %w", err)
	}
	return nil
}

// Call asks the server at the other end of conn for a command and connects c
// with it until the command has ended or ctx has. It owns conn and closes it.
// An error means that the end of the command is not known; that it could not be
// started says Exit.Err. When Call returns early, the server ends the command.
//
// A Read of Stdin that hangs is not waited for: its goroutine ends with it.
func Call(ctx context.Context, conn net.Conn, open any, c Caller) (Exit, error) {
	defer func() { _ = conn.Close() }() // all was said
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := WriteOpen(conn, open); err != nil {
		return Exit{}, because(ctx, err)
	}
	call := &call{conn: conn, out: &frameWriter{w: conn}, fail: cancel, room: window, more: make(chan struct{}, 1)}
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel(nil) // before the wait
	all.Go(func() { call.tell(ctx, c) })
	go func() { // see the comment on Stdin above
		if err := call.feed(ctx, c.Stdin); err != nil {
			cancel(err)
		}
	}()
	exit, err := call.listen(c)
	if err != nil {
		return Exit{}, because(ctx, err)
	}
	return exit, nil
}

// because prefers the reason why everything was ended to what that broke.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("run a command elsewhere: %w", cause)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if skyport.CodeOf(err) == skyport.CodeInternal {
		return skyport.Errorf(skyport.CodeUnavailable, "the connection to a running command broke: %w", err)
	}
	return err
}

type call struct {
	conn net.Conn
	out  *frameWriter
	fail context.CancelCauseFunc // ends the call for a reason on this side

	mu   sync.Mutex
	room int           // bytes of input that the server takes
	more chan struct{} // holds one: room has grown
}

// listen takes what the server sends, up to the exit.
func (c *call) listen(to Caller) (Exit, error) {
	in := bufio.NewReaderSize(c.conn, maxFrame)
	buf := make([]byte, maxFrame)
	for {
		k, payload, err := readFrame(in, buf, maxFrame)
		if err != nil {
			return Exit{}, err
		}
		switch k {
		case kindStdout:
			err = c.write(to.Stdout, payload)
		case kindStderr:
			err = c.write(to.Stderr, payload)
		case kindWindow:
			err = c.widen(payload)
		case kindExit:
			return decodeExit(payload)
		default:
			err = wrong("frame %d", k)
		}
		if err != nil {
			return Exit{}, err
		}
	}
}

func (c *call) write(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	if err != nil {
		err = fmt.Errorf("write the command's output: %w", err)
		c.fail(err)
	}
	return err
}

func (c *call) widen(payload []byte) error {
	n, err := decodeWindow(payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room += n; c.room > window {
		return wrong("more room than there is")
	}
	select {
	case c.more <- struct{}{}:
	default:
	}
	return nil
}

// feed sends the input, as far as there is room for it.
func (c *call) feed(ctx context.Context, from io.Reader) error {
	buf := make([]byte, piece)
	for from != nil {
		room, err := c.await(ctx)
		if err != nil {
			return nil //nolint:nilerr // it is over
		}
		n, err := from.Read(buf[:min(room, len(buf))])
		if n > 0 {
			c.mu.Lock()
			c.room -= n
			c.mu.Unlock()
			if c.out.write(kindStdin, buf[:n]) != nil {
				return nil //nolint:nilerr // listen meets it too, and knows more
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return skyport.Errorf(skyport.CodeInputUnreadable, "read the command's input: %w", err)
		}
	}
	_ = c.out.write(kindStdinClosed, nil) // as above
	return nil
}

// await waits until there is room for input.
func (c *call) await(ctx context.Context) (int, error) {
	for {
		c.mu.Lock()
		room := c.room
		c.mu.Unlock()
		if room > 0 {
			return room, ctx.Err() //nolint:wrapcheck // only whether it is nil matters
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return 0, ctx.Err() //nolint:wrapcheck // as above
		}
	}
}

// tell passes on signals and sizes.
func (c *call) tell(ctx context.Context, from Caller) {
	for {
		var err error
		select {
		case size, ok := <-from.Resize:
			if !ok {
				from.Resize = nil
				continue
			}
			err = c.out.write(kindResize, size.encode())
		case sig, ok := <-from.Signals:
			if !ok {
				from.Signals = nil
				continue
			}
			if sig > 0 && sig <= maxSignal {
				err = c.out.write(kindSignal, []byte{byte(sig)})
			}
		case <-ctx.Done():
			return
		}
		if err != nil {
			return // listen meets it too
		}
	}
}
