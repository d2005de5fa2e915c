package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

func newAttachCommand(a *app) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "attach [flags] JOB",
		Short: "Open a shell beside the script of a job",
		Long: `Open a shell with a terminal beside the script of a job, while the job is on its
nodes: in its container if it has one, in its work directory, with its
environment. The job does not notice. Leave it with exit or Ctrl-D; Enter, ~ and
a dot end a connection that hangs.

` + jobHelp,
		Example:           lines("skyport attach @last", "skyport attach 1a2b --node compute1"),
		Args:              cobra.ExactArgs(1),
		Annotations:       commandExitAnnotation,
		ValidArgsFunction: a.completeJob(skyport.JobRunning, skyport.JobTransferring),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.besideJob(cmd.Context(), args[0], node, client.Command{TTY: true})
		},
	}
	nodeFlag(a, cmd, &node)
	return cmd
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// rawTerminal is a terminal whose keys all go to a command elsewhere.
type rawTerminal struct {
	fd     int
	before *term.State
	sizes  chan client.Size // the latest only

	changed chan os.Signal
	done    chan struct{}
	ended   sync.WaitGroup
}

func makeRaw(f *os.File) (*rawTerminal, error) {
	fd := int(f.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	r := &rawTerminal{fd: fd, before: before, sizes: make(chan client.Size, 1), changed: make(chan os.Signal, 1), done: make(chan struct{})}
	signal.Notify(r.changed, syscall.SIGWINCH)
	r.ended.Go(r.follow)
	return r, nil
}

// restore makes the terminal what it was.
func (r *rawTerminal) restore() {
	signal.Stop(r.changed)
	close(r.done)
	r.ended.Wait()
	_ = term.Restore(r.fd, r.before) // it fails when the terminal is gone
}

func (r *rawTerminal) size() client.Size {
	cols, rows, err := term.GetSize(r.fd)
	if err != nil {
		return client.Size{}
	}
	return client.Size{Rows: rows, Cols: cols}
}

// follow tells each change of the size.
func (r *rawTerminal) follow() {
	for {
		select {
		case <-r.done:
			return
		case <-r.changed:
		}
		select {
		case <-r.sizes: // nobody took the one before
		default:
		}
		r.sizes <- r.size() // never waits: it has room for one, and no one else sends
	}
}

var errHungUp = skyport.Errorf(skyport.CodeUnavailable, "the connection was ended by ~.")

// escapes passes on what is typed and looks for a tilde and a dot at the
// beginning of a line: the way out of a connection that does not answer.
type escapes struct {
	in     io.Reader
	hangUp func()

	fresh bool // at the beginning of a line
	tilde bool // a tilde is kept back there
}

// Read implements [io.Reader].
func (e *escapes) Read(p []byte) (int, error) {
	if len(p) < 2 { // there must be room for what was kept back
		return e.in.Read(p) //nolint:wrapcheck // as it is
	}
	buf := make([]byte, len(p)-1)
	for {
		n, err := e.in.Read(buf)
		out := p[:0]
		for _, key := range buf[:n] {
			if e.tilde {
				e.tilde = false
				switch key {
				case '.':
					e.hangUp()
					return len(out), io.EOF
				case '~': // one of the two
				default:
					out = append(out, '~')
				}
			} else if e.fresh && key == '~' {
				e.tilde, e.fresh = true, false
				continue
			}
			out = append(out, key)
			e.fresh = key == '\r' || key == '\n'
		}
		if err != nil && e.tilde {
			e.tilde = false
			out = append(out, '~')
		}
		if len(out) > 0 || err != nil {
			return len(out), err
		}
	}
}

// passed are the signals that a command elsewhere gets in place of this process.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

var errInsisted = errors.New("interrupted three times")

// passSignals returns a context that no signal ends at once, and what signals
// come: they are the command's. The third request to end is for this process.
func passSignals(outer context.Context) (context.Context, <-chan syscall.Signal, func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(outer))
	caught, signals := make(chan os.Signal, 16), make(chan syscall.Signal, 16)
	signal.Notify(caught, passed...)
	ended := outer.Done()
	var passing sync.WaitGroup
	passing.Go(func() {
		for asked := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-ended:
				ended = nil
				if context.Cause(outer) == context.Canceled { //nolint:errorlint // no signal did it, see notRun
					cancel(context.Canceled)
				}
			case s := <-caught:
				sig, ok := s.(syscall.Signal)
				if !ok {
					continue
				}
				if sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGHUP {
					asked++
				}
				if asked >= 3 {
					cancel(errInsisted)
					return
				}
				select {
				case signals <- sig:
				default: // the connection hangs
				}
			}
		}
	})
	return ctx, signals, func() {
		signal.Stop(caught)
		cancel(nil)
		passing.Wait()
	}
}
