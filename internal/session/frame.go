package session

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/openworkload/skyport"
)

// kind says what a frame is.
type kind byte

const (
	kindOpen        kind = 1 // JSON
	kindStdin       kind = 2
	kindStdinClosed kind = 3
	kindResize      kind = 4 // rows, columns: two bytes each
	kindSignal      kind = 5 // its number: one byte
	kindStdout      kind = 16
	kindStderr      kind = 17
	kindWindow      kind = 18 // bytes of input that there is room for again: four bytes
	kindExit        kind = 19 // JSON
)

const (
	headerSize = 5
	// maxFrame bounds the payload of a frame, maxOpen that of the first: it has
	// a command line and an environment.
	maxFrame = 64 << 10
	maxOpen  = 1 << 20
	// piece is how much of a stream goes into one frame.
	piece = 32 << 10
	// window is how much input may be under way, or wait for the command.
	window = 256 << 10
)

// errProtocol matches what a peer sent against the rules.
var errProtocol = skyport.Errorf(skyport.CodeInvalid, "the peer does not speak the protocol of commands")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...))
}

// readFrame reads one frame and nothing beyond it. The payload lies in buf when
// that is large enough. A stream that ends between two frames is io.EOF.
func readFrame(r io.Reader, buf []byte, limit int) (kind, []byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err //nolint:wrapcheck // the callers say what it means
	}
	size := binary.BigEndian.Uint32(header[1:])
	if int64(size) > int64(limit) {
		return 0, nil, wrong("a frame of %d bytes", size)
	}
	if int(size) > len(buf) {
		buf = make([]byte, size)
	}
	payload := buf[:size]
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return kind(header[0]), payload, nil
}

// frameWriter writes frames, each as a whole, from many goroutines.
type frameWriter struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
	err error // after an error nothing is written any more: half a frame may be out
}

func (f *frameWriter) write(k kind, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.buf = append(f.buf[:0], byte(k), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(f.buf[1:], uint32(len(payload))) //nolint:gosec // bounded by the callers
	f.buf = append(f.buf, payload...)
	_, f.err = f.w.Write(f.buf)
	return f.err
}

// end writes the last frame: whoever writes later is told so.
func (f *frameWriter) end(k kind, payload []byte) error {
	err := f.write(k, payload)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = io.ErrClosedPipe
	}
	return err
}

// stream is an io.Writer whose bytes become frames of one kind.
type stream struct {
	f *frameWriter
	k kind
}

func (s stream) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(n+piece, len(p))]
		if err := s.f.write(s.k, part); err != nil {
			return n, fmt.Errorf("send output: %w", err)
		}
		n += len(part)
	}
	return n, nil
}

// Size is the size of a terminal in characters.
type Size struct{ Rows, Cols int }

func (s Size) encode() []byte {
	clamp := func(n int) uint16 { return uint16(min(max(n, 0), 1<<16-1)) }
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, clamp(s.Rows)), clamp(s.Cols))
}

func decodeSize(p []byte) (Size, error) {
	if len(p) != 4 {
		return Size{}, wrong("a size of %d bytes", len(p))
	}
	return Size{Rows: int(binary.BigEndian.Uint16(p)), Cols: int(binary.BigEndian.Uint16(p[2:]))}, nil
}

// maxSignal is the highest number of a signal.
const maxSignal = 64

func decodeSignal(p []byte) (syscall.Signal, error) {
	if len(p) != 1 || p[0] == 0 || p[0] > maxSignal {
		return 0, wrong("signal %x", p)
	}
	return syscall.Signal(p[0]), nil
}

func decodeWindow(p []byte) (int, error) {
	if len(p) != 4 || binary.BigEndian.Uint32(p) > window {
		return 0, wrong("a window of %x", p)
	}
	return int(binary.BigEndian.Uint32(p)), nil
}

func encodeWindow(n int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(n)) //nolint:gosec // at most window
}

// Exit tells how a command ended.
type Exit struct {
	// Code is the exit code, 128+Signal when a signal ended it.
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
	// Error says why the command was not started or is known no further;
	// ErrorCode is its code, when it has one, and Hint what to do.
	Error     string       `json:"error,omitempty"`
	ErrorCode skyport.Code `json:"error_code,omitempty"`
	Hint      string       `json:"hint,omitempty"`
}

// Failed is the exit of a command that could not be started.
func Failed(err error) Exit {
	return Exit{
		Code: failedCode, Error: skyport.Abbreviate(err.Error(), maxError),
		ErrorCode: skyport.CodeOf(err), Hint: skyport.Abbreviate(skyport.HintOf(err), maxError),
	}
}

const (
	failedCode = 255 // as ssh ends when it could not do what it should
	maxError   = 8 << 10
)

// Err is the error of a command that could not be started, with its code, else nil.
func (e Exit) Err() error {
	if e.Error == "" {
		return nil
	}
	code := e.ErrorCode
	if code == "" {
		code = skyport.CodeInternal
	}
	return &skyport.Error{Code: code, Message: e.Error, Hint: e.Hint}
}

func decodeExit(p []byte) (Exit, error) {
	var e Exit
	if err := json.Unmarshal(p, &e); err != nil {
		return Exit{}, wrong("an exit that is no JSON")
	}
	e.Error, e.Hint = skyport.Abbreviate(e.Error, maxError), skyport.Abbreviate(e.Hint, maxError)
	return e, nil
}
