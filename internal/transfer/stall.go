package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"
)

// A connection can die without a word: a NAT forgot it, a machine is gone, a
// laptop woke up elsewhere. Three things tell that from a peer that is slow or
// busy:
//
//   - The calling end cuts a request on which nothing moved for Options.Stall,
//     and one among others that do move after four times as long: streams that
//     share a slow link do not always share it evenly.
//   - While the answering end works (compares, writes, commits), it says so every
//     few seconds with a 102 Processing, which is movement too.
//   - The answering end lets go of a peer that neither sends nor takes a piece
//     for a minute or two.
//
// What a stalled request carried goes again, as after any cut.
const (
	defaultStall   = 15 * time.Second
	heartbeat      = 3 * time.Second
	readPatience   = time.Minute
	writePatience  = 2 * time.Minute
	piece          = 128 << 10 // written at once, so that movement shows on a slow link
	patienceBeside = 4         // times the patience, for a stream beside others that move
)

var errStalled = errors.New("nothing moved")

// lifeline watches one request of the calling end.
type lifeline struct {
	m       *mover
	cancel  context.CancelCauseFunc
	busy    atomic.Int32 // this end is at work, the peer waits for us
	touched atomic.Int64 // when something moved, in nanoseconds since m.start

	mu    sync.Mutex
	timer *time.Timer
	ended bool
}

// watched derives the context of a request that is ended when nothing moves.
// Call end when the request, with its reply, is over.
func (m *mover) watched(ctx context.Context) (context.Context, *lifeline) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &lifeline{m: m, cancel: cancel}
	l.touch()
	if m.o.Stall > 0 {
		l.mu.Lock() // look may come before the timer is known
		l.timer = time.AfterFunc(m.o.Stall, l.look)
		l.mu.Unlock()
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { l.touch(); return nil },
	}), l
}

// touch notes that something moved.
func (l *lifeline) touch() {
	now := int64(time.Since(l.m.start))
	l.touched.Store(now)
	l.m.touched.Store(now)
}

// work notes that this end is at work; call what it returns when it is not any more.
func (l *lifeline) work() (done func()) {
	l.busy.Add(1)
	return func() {
		l.touch()
		l.busy.Add(-1)
	}
}

// look judges, and comes again when there is nothing to be said yet.
func (l *lifeline) look() {
	now := time.Since(l.m.start)
	mine, all := now-time.Duration(l.touched.Load()), now-time.Duration(l.m.touched.Load())
	stall := l.m.o.Stall
	if l.busy.Load() == 0 && mine >= stall && (all >= stall || mine >= patienceBeside*stall) {
		l.cancel(errStalled)
		return
	}
	wait := stall - mine
	if wait <= 0 { // busy, or others move
		wait = max(stall-all, stall/8)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.timer.Reset(wait)
	}
}

// end ends the watch and the request's context.
func (l *lifeline) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.cancel(context.Canceled)
}

// verdict makes a loss of what came of a stalled request.
func (l *lifeline) verdict(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w: %w for %s", errCut, errStalled, l.m.o.Stall)
	}
	return err
}

// reader notes what is read.
func (l *lifeline) reader(r io.Reader) io.Reader { return &touchingReader{r, l} }

type touchingReader struct {
	r    io.Reader
	line *lifeline
}

// Read implements [io.Reader].
func (t *touchingReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 {
		t.line.touch()
	}
	return n, err //nolint:wrapcheck // passes through
}

// sink is a sink at work while it takes.
func (l *lifeline) sink(s Sink) Sink { return &watchedSink{s, l} }

type watchedSink struct {
	Sink
	line *lifeline
}

// Put implements [Sink].
func (s *watchedSink) Put(ctx context.Context, span Span, data []byte) error {
	defer s.line.work()()
	return s.Sink.Put(ctx, span, data)
}

// alive does the work of a request at the answering end, and lets the peer know
// meanwhile that there is somebody. Nothing must be written before it returns.
func alive(w http.ResponseWriter, beat time.Duration, work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		work()
	}()
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			w.WriteHeader(http.StatusProcessing)
		}
	}
}

// patientReader reads a request's body, and gives up on a peer that sends nothing.
type patientReader struct {
	r          io.Reader
	controller *http.ResponseController
	armed      time.Time
}

// Read implements [io.Reader].
func (p *patientReader) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.armed) > time.Second {
		p.armed = now
		_ = p.controller.SetReadDeadline(now.Add(readPatience)) // not every connection has deadlines
	}
	return p.r.Read(b) //nolint:wrapcheck // passes through
}

// patientWriter writes a reply in pieces, and gives up on a peer that takes none.
type patientWriter struct {
	w          io.Writer
	controller *http.ResponseController
	armed      time.Time
}

// Write implements [io.Writer].
func (p *patientWriter) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if now := time.Now(); now.Sub(p.armed) > time.Second {
			p.armed = now
			_ = p.controller.SetWriteDeadline(now.Add(writePatience)) // not every connection has deadlines
		}
		var k int
		k, err = p.w.Write(b[n:min(len(b), n+piece)])
		n += k
	}
	return n, err //nolint:wrapcheck // passes through
}

// end lets what follows on the connection have no deadline.
func (p *patientWriter) end() { _ = p.controller.SetWriteDeadline(time.Time{}) } // as above
