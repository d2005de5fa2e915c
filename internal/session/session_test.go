package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type do = func(ctx context.Context, open json.RawMessage, s *Served) Exit

// pair is two ends of a connection: net.Pipe, which holds nothing back, or TCP.
func pair(t *testing.T, tcp bool) (caller, server net.Conn) {
	t.Helper()
	if !tcp {
		caller, server = net.Pipe()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if caller, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if server, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = caller.Close(); _ = server.Close() })
	return caller, server
}

// serve runs do at the server's end and returns what Serve returned, once.
func serve(t *testing.T, conn net.Conn, do do) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- Serve(conn, do) }()
	return done
}

func TestCommand(t *testing.T) {
	t.Parallel()
	for _, tcp := range []bool{false, true} {
		caller, server := pair(t, tcp)
		done := serve(t, server, func(_ context.Context, open json.RawMessage, s *Served) Exit {
			in, err := io.ReadAll(s.Stdin)
			if err != nil {
				return Failed(err)
			}
			_, _ = s.Stdout.Write(append(open, in...))
			_, _ = s.Stderr.Write([]byte("oops"))
			return Exit{Code: 7}
		})
		var stdout, stderr bytes.Buffer
		exit, err := Call(t.Context(), caller, map[string]int{"a": 1}, Caller{
			Stdin: strings.NewReader("input"), Stdout: &stdout, Stderr: &stderr,
		})
		if err != nil || exit != (Exit{Code: 7}) || stdout.String() != `{"a":1}input` || stderr.String() != "oops" {
			t.Errorf("%+v, %v, %q, %q", exit, err, &stdout, &stderr)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestMuchBothWays(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	for _, tcp := range []bool{false, true} {
		caller, server := pair(t, tcp)
		done := serve(t, server, func(_ context.Context, _ json.RawMessage, s *Served) Exit {
			if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
				return Failed(err)
			}
			return Exit{}
		})
		var out bytes.Buffer
		exit, err := Call(t.Context(), caller, nil, Caller{Stdin: bytes.NewReader(data), Stdout: &out})
		if err != nil || exit != (Exit{}) || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%+v, %v, %d bytes", exit, err, out.Len())
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// endless is input without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Signals and sizes get through to a command that reads none of its input, and
// the exit to a caller that still sends.
func TestSignalPassesInput(t *testing.T) {
	t.Parallel()
	for _, tcp := range []bool{false, true} {
		caller, server := pair(t, tcp)
		done := serve(t, server, func(ctx context.Context, _ json.RawMessage, s *Served) Exit {
			select {
			case size := <-s.Resize:
				if size != (Size{50, 200}) {
					return Exit{Code: 99}
				}
			case <-ctx.Done():
				return Exit{Code: 98}
			}
			return Exit{Code: int(<-s.Signals)}
		})
		signals, sizes := make(chan syscall.Signal, 1), make(chan Size, 1)
		sizes <- Size{50, 200}
		signals <- syscall.SIGUSR2
		exit, err := Call(t.Context(), caller, nil, Caller{Stdin: endless{}, Signals: signals, Resize: sizes})
		if err != nil || exit.Code != int(syscall.SIGUSR2) {
			t.Errorf("%+v, %v", exit, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A caller that goes away ends the command, also one that reads or writes.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	commands := map[string]do{
		"waits": func(ctx context.Context, _ json.RawMessage, _ *Served) Exit { <-ctx.Done(); return Exit{} },
		"reads": func(_ context.Context, _ json.RawMessage, s *Served) Exit {
			_, err := io.ReadAll(s.Stdin)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("reading got %v", err)
			}
			return Exit{}
		},
		"writes": func(_ context.Context, _ json.RawMessage, s *Served) Exit {
			_, err := io.Copy(s.Stdout, endless{})
			if err == nil {
				t.Error("writing went on")
			}
			return Exit{}
		},
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller, server := pair(t, true)
			began := make(chan struct{})
			done := serve(t, server, func(ctx context.Context, open json.RawMessage, s *Served) Exit {
				close(began)
				return command(ctx, open, s)
			})
			ctx, cancel := context.WithCancel(t.Context())
			called := make(chan error, 1)
			reader, writer := io.Pipe()
			defer func() { _ = writer.Close() }()
			go func() {
				_, err := Call(ctx, caller, nil, Caller{Stdin: reader})
				called <- err
			}()
			<-began
			cancel()
			if err := <-called; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if err := <-done; err == nil {
				t.Error("the server believes that the caller knows")
			}
		})
	}
}

// A caller that does not read its output, and goes: the command is freed.
func TestCallerStuck(t *testing.T) {
	t.Parallel()
	caller, server := pair(t, false)
	done := serve(t, server, func(_ context.Context, _ json.RawMessage, s *Served) Exit {
		_, _ = io.Copy(s.Stdout, endless{})
		return Exit{}
	})
	if err := WriteOpen(caller, nil); err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadFull(caller, make([]byte, 100)) // it writes
	_ = caller.Close()
	if err := <-done; err == nil {
		t.Error("no error")
	}
}

func TestServerGone(t *testing.T) {
	t.Parallel()
	caller, server := pair(t, true)
	go func() {
		_, _ = ReadOpen(server)
		_ = server.Close()
	}()
	_, err := Call(t.Context(), caller, nil, Caller{})
	if skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Error(err)
	}
}

func TestOutputBroken(t *testing.T) {
	t.Parallel()
	caller, server := pair(t, true)
	done := serve(t, server, func(ctx context.Context, _ json.RawMessage, s *Served) Exit {
		_, _ = s.Stdout.Write([]byte("x"))
		<-ctx.Done()
		return Exit{}
	})
	reader, writer := io.Pipe()
	_ = reader.CloseWithError(syscall.ENOSPC)
	if _, err := Call(t.Context(), caller, nil, Caller{Stdout: writer}); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	<-done
}

func TestInputBroken(t *testing.T) {
	t.Parallel()
	caller, server := pair(t, true)
	done := serve(t, server, func(_ context.Context, _ json.RawMessage, s *Served) Exit {
		if _, err := io.ReadAll(s.Stdin); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("half of the input passes for all of it: %v", err)
		}
		return Exit{}
	})
	reader, writer := io.Pipe()
	_ = writer.CloseWithError(syscall.EIO)
	if _, err := Call(t.Context(), caller, nil, Caller{Stdin: reader}); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	<-done
}

func TestFailed(t *testing.T) {
	t.Parallel()
	caller, server := pair(t, true)
	done := serve(t, server, func(context.Context, json.RawMessage, *Served) Exit {
		return Failed(skyport.Errorf(skyport.CodeNotFound, "no such run").WithHint("look"))
	})
	exit, err := Call(t.Context(), caller, nil, Caller{})
	if got := exit.Err(); err != nil || skyport.CodeOf(got) != skyport.CodeNotFound || skyport.HintOf(got) != "look" || exit.Code == 0 {
		t.Errorf("%+v, %v", exit, err)
	}
	<-done
}

func TestTooLongCommand(t *testing.T) {
	t.Parallel()
	caller, _ := pair(t, true)
	if _, err := Call(t.Context(), caller, strings.Repeat("x", maxOpen), Caller{}); skyport.CodeOf(err) != skyport.CodeTooLarge {
		t.Error(err)
	}
}

// What a caller may not send ends the session; the command learns it.
func TestEvilCaller(t *testing.T) {
	t.Parallel()
	tests := map[string][]byte{
		"unknown":       {200, 0, 0, 0, 0},
		"too long":      {byte(kindStdin), 255, 255, 255, 255},
		"second open":   {byte(kindOpen), 0, 0, 0, 2, '{', '}'},
		"output":        {byte(kindStdout), 0, 0, 0, 1, 'x'},
		"short size":    {byte(kindResize), 0, 0, 0, 1, 'x'},
		"signal 0":      {byte(kindSignal), 0, 0, 0, 1, 0},
		"signal 255":    {byte(kindSignal), 0, 0, 0, 1, 255},
		"no signal":     {byte(kindSignal), 0, 0, 0, 0},
		"after the end": {byte(kindStdinClosed), 0, 0, 0, 0, byte(kindStdin), 0, 0, 0, 1, 'x'},
		"no window":     bytes.Repeat(append([]byte{byte(kindStdin), 0, 0, 128, 0}, make([]byte, 32<<10)...), window/(32<<10)+1),
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller, server := pair(t, true)
			done := serve(t, server, func(ctx context.Context, _ json.RawMessage, _ *Served) Exit {
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), errProtocol) {
					t.Errorf("ended by %v", context.Cause(ctx))
				}
				return Exit{}
			})
			if err := WriteOpen(caller, nil); err != nil {
				t.Fatal(err)
			}
			_, _ = caller.Write(frames)
			if err := <-done; err == nil {
				t.Error("taken")
			}
		})
	}
}

func TestEvilFirstFrame(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{"\x02\x00\x00\x00\x00", "\x01\x00\x00\x00\x01{", "\x01\x7f\xff\xff\xff", "GET / HTTP/1.1\r\n", ""} {
		caller, server := pair(t, true)
		done := serve(t, server, func(context.Context, json.RawMessage, *Served) Exit {
			t.Errorf("%q: something was started", frame)
			return Exit{}
		})
		_, _ = caller.Write([]byte(frame))
		_ = caller.Close()
		if err := <-done; err == nil {
			t.Errorf("%q: taken", frame)
		}
	}
}

func TestEvilServer(t *testing.T) {
	t.Parallel()
	tests := map[string][]byte{
		"unknown":     {200, 0, 0, 0, 0},
		"too long":    {byte(kindStdout), 255, 255, 255, 255},
		"input":       {byte(kindStdin), 0, 0, 0, 1, 'x'},
		"more room":   {byte(kindWindow), 0, 0, 0, 4, 0, 0, 0, 1},
		"much room":   {byte(kindWindow), 0, 0, 0, 4, 255, 255, 255, 255},
		"broken exit": {byte(kindExit), 0, 0, 0, 1, 'x'},
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			caller, server := pair(t, true)
			var all sync.WaitGroup
			all.Go(func() {
				if _, err := ReadOpen(server); err != nil {
					t.Error(err)
				}
				_, _ = server.Write(frames)
				_, _ = io.Copy(io.Discard, server)
			})
			reader, writer := io.Pipe()
			_, err := Call(t.Context(), caller, nil, Caller{Stdin: reader})
			if !errors.Is(err, errProtocol) {
				t.Error(err)
			}
			_ = writer.Close()
			all.Wait()
		})
	}
}

// A server that ends without waiting for input that is under way is heard.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	caller, middle1 := pair(t, true)
	middle2, server := pair(t, true)
	done := serve(t, server, func(_ context.Context, open json.RawMessage, _ *Served) Exit {
		return Exit{Code: len(open)}
	})
	var all sync.WaitGroup
	all.Go(func() {
		open, err := ReadOpen(middle1)
		if err == nil {
			err = WriteOpen(middle2, open)
		}
		if err != nil {
			t.Error(err)
		}
		go func() { _, _ = io.Copy(middle2, middle1); _ = middle2.Close() }()
		_, _ = io.Copy(middle1, middle2)
		_ = middle1.Close()
	})
	exit, err := Call(t.Context(), caller, "four", Caller{Stdin: endless{}})
	if err != nil || exit.Code != 6 {
		t.Errorf("%+v, %v", exit, err)
	}
	all.Wait()
	<-done
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{byte(kindStdin), 0, 0, 0, 1, 'x', byte(kindResize), 0, 0, 0, 4, 0, 1, 0, 2, byte(kindSignal), 0, 0, 0, 1, 9})
	f.Add([]byte{byte(kindExit), 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{byte(kindWindow), 0, 0, 0, 4, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		// As the server reads it …
		caller, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = Serve(server, func(_ context.Context, _ json.RawMessage, s *Served) Exit {
				_, _ = io.Copy(io.Discard, s.Stdin)
				return Exit{}
			})
		}()
		go func() { _, _ = io.Copy(io.Discard, caller) }()
		_ = WriteOpen(caller, nil)
		_ = caller.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = caller.Write(data)
		_ = caller.Close()
		<-done
		// … and as the caller does.
		asking, answering := net.Pipe()
		go func() {
			_, _ = ReadOpen(answering)
			_, _ = answering.Write(data)
			_ = answering.Close()
		}()
		_, _ = Call(t.Context(), asking, nil, Caller{})
		_ = answering.Close()
	})
}
