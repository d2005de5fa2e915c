package transfer

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openworkload/skyport"
)

// Compression says when chunks are compressed on the wire.
type Compression int

// Data that does not look as if it would shrink is never compressed.
const (
	CompressAuto Compression = iota // unless the wire shows that it is faster than compressing
	CompressNever
	CompressAlways
)

// Options of Push and Pull. The zero value is good.
type Options struct {
	// Name of the transfer, in what Progress is told.
	Name string
	// Streams is how many requests carry chunks at once; 0: 8. On a link with a
	// long way each one has a window of its own.
	Streams int
	// Stall is how long nothing may move before a request is cut and made anew;
	// 0: 15 s, negative: for ever. Work at either end counts as movement.
	Stall time.Duration
	// Ahead lets Push send before the peer has said what it lacks: good where the
	// peer most likely has nothing and round trips take long.
	Ahead bool
	// Compression of the chunks.
	Compression Compression
	// Attempts is how many times in a row may fail without any progress before
	// the error is returned; 0: until the context ends.
	Attempts int
	// Backoff is the wait before the first new attempt, doubled up to 5 s while
	// there is no progress; 0: 100 ms.
	Backoff time.Duration
	// Progress is told how it goes, at most ten times a second, and at the end.
	// It is called by one goroutine at a time and must not block.
	Progress func(skyport.Transfer)
	// Manifest is told the tree that Pull receives, as soon as it is known.
	Manifest func(*Manifest)
	// Receiver says how Pull receives, and what it accepts.
	Receiver ReceiverOptions
}

// Push sends a tree to the receive handler at baseURL. When it returns nil, the
// peer has all of it, verified and in its place.
//
// Only what the peer lacks is sent. A broken connection is made anew, and only
// what was on its way goes again, until ctx ends or Options.Attempts are used
// up. Errors that trying again cannot mend are returned at once with the peer's
// code: CodeNoSpace, CodeConflict when a file changed meanwhile or something is
// in the way, CodeInvalid, CodeTooLarge and the like. A later Push of the same
// tree goes on where this one stopped.
func Push(ctx context.Context, client *http.Client, baseURL string, source Source, o Options) (skyport.Transfer, error) {
	p := &push{mover: newMover(client, baseURL, o), source: source}
	p.sending = true
	p.total(source.Manifest())
	err := p.persist(ctx, p.attempt)
	if err != nil {
		err = fmt.Errorf("pushing: %w", err)
	}
	return p.report(true), err
}

// Pull fetches the tree of the send handler at baseURL into the directory dir;
// see [Receiver] for how it is placed and [Push] for errors and new attempts.
func Pull(ctx context.Context, client *http.Client, baseURL, dir string, o Options) (skyport.Transfer, error) {
	r := NewReceiver(dir, o.Receiver)
	told, err := PullInto(ctx, client, baseURL, r, o)
	return told, errors.Join(err, r.Close())
}

// PullInto is Pull into any place.
func PullInto(ctx context.Context, client *http.Client, baseURL string, place Place, o Options) (skyport.Transfer, error) {
	p := &pull{mover: newMover(client, baseURL, o), place: place}
	err := p.persist(ctx, p.attempt)
	if err != nil {
		err = fmt.Errorf("pulling: %w", err)
	}
	return p.report(true), err
}

const (
	defaultStreams = 8
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 5 * time.Second
	// eagerBytes and eagerChunks are the size of a tree that travels with its
	// manifest.
	eagerBytes  = 1 << 20
	eagerChunks = 1000
	// leastBatch is how much a stream of a pull asks for at least.
	leastBatch = 8 << 20
)

// mover is what both directions share: the requests, the attempts, the count.
type mover struct {
	client  *http.Client
	base    string
	o       Options
	start   time.Time
	touched *atomic.Int64 // when something moved on any request, see lifeline

	mu       sync.Mutex
	state    skyport.Transfer
	told     time.Time
	progress bool // since the last attempt
	sending  bool // what moves may not arrive
}

func newMover(client *http.Client, base string, o Options) mover {
	if o.Streams <= 0 {
		o.Streams = defaultStreams
	}
	if o.Backoff <= 0 {
		o.Backoff = firstBackoff
	}
	if o.Stall == 0 {
		o.Stall = defaultStall
	}
	return mover{
		client: client, base: strings.TrimSuffix(base, "/"), o: o, start: time.Now(), touched: new(atomic.Int64), state: skyport.Transfer{Name: o.Name},
	}
}

// errAgain asks for another attempt at once: the peer forgot what was agreed.
var errAgain = errors.New("the peer has to be asked anew")

func isCut(err error) bool {
	var network *url.Error
	return errors.Is(err, errCut) || errors.Is(err, errAgain) || errors.As(err, &network)
}

// persist makes attempts until one succeeds or trying again cannot help.
func (m *mover) persist(ctx context.Context, attempt func(context.Context) error) error {
	failed, wait := 0, m.o.Backoff
	for {
		err := attempt(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		code := skyport.CodeOf(err)
		if !isCut(err) && code != skyport.CodeUnavailable {
			return err
		}
		m.mu.Lock()
		progress := m.progress
		m.progress = false
		m.mu.Unlock()
		if progress {
			failed, wait = 0, m.o.Backoff
		} else {
			failed++
		}
		if m.o.Attempts > 0 && failed >= m.o.Attempts {
			if code == skyport.CodeInternal {
				return skyport.Errorf(skyport.CodeUnavailable, "given up after %d attempts without progress: %w", failed, err)
			}
			return fmt.Errorf("given up after %d attempts without progress: %w", failed, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
		wait = min(2*wait, longestBackoff)
	}
}

func (m *mover) total(manifest *Manifest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.Total, m.state.Files = manifest.Bytes(), manifest.Files()
}

// there sets how much is at its end; knowing better than before is no progress,
// having more is.
func (m *mover) there(missing skyport.Bytes) {
	m.mu.Lock()
	m.state.Done = max(0, m.state.Total-missing)
	m.mu.Unlock()
	m.report(false)
}

func (m *mover) moved(size, wire int) {
	m.mu.Lock()
	// A chunk that is in several places counts once here; the end sets it right.
	m.state.Done = min(m.state.Total, m.state.Done+skyport.Bytes(size))
	m.state.Wire += skyport.Bytes(wire)
	m.progress = m.progress || size > 0 && !m.sending
	m.mu.Unlock()
	m.report(false)
}

func (m *mover) report(last bool) skyport.Transfer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.o.Progress != nil && (last || time.Since(m.told) >= 100*time.Millisecond) {
		m.told = time.Now()
		m.o.Progress(m.state)
	}
	return m.state
}

func (m *mover) request(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, m.base+"/"+path, body)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", m.base, err)
	}
	if body != nil {
		r.Header.Set("Content-Type", contentType)
	}
	reply, err := m.client.Do(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says method and URL
	}
	if reply.StatusCode != http.StatusOK {
		defer func() { _ = reply.Body.Close() }() // only read
		return nil, replyError(reply)
	}
	return reply, nil
}

// streams runs do on several streams. One that is cut does not end the others:
// what they have under way arrives. Any other error ends all.
func (m *mover) streams(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed, cutOff error // the first of its kind: those that follow may be its consequence
	for range m.o.Streams {
		wg.Go(func() {
			err := do(ctx)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
			case isCut(err):
				cutOff = cmp.Or(cutOff, err)
			default:
				failed = cmp.Or(failed, err)
				cancel()
			}
		})
	}
	wg.Wait()
	return cmp.Or(failed, cutOff) //nolint:wrapcheck // of our own
}

// queue hands out spans to streams.
type queue struct {
	mu    sync.Mutex
	x     *index
	spans []Span
	left  skyport.Bytes

	planned chan struct{} // not nil: nobody knows yet what is lacking; closed when somebody does
	allowed skyport.Bytes // that may go before

	split  bool          // the rest is shared out evenly
	evenly skyport.Bytes // in such parts
}

func newQueue(x *index, spans []Span) *queue {
	q := &queue{x: x, left: x.bytesOf(spans)}
	x.batches(spans, func(s Span) bool { q.spans = append(q.spans, s); return true })
	return q
}

// next takes one frame's worth. It waits while too much went ahead of the plan.
func (q *queue) next(ctx context.Context) (Span, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.planned != nil && len(q.spans) > 0 {
		if size := q.x.bytesOf(q.spans[:1]); size <= q.allowed {
			q.allowed -= size
			break
		}
		planned := q.planned
		q.mu.Unlock()
		select {
		case <-planned:
		case <-ctx.Done():
		}
		q.mu.Lock()
		if ctx.Err() != nil {
			return Span{}, false
		}
	}
	if len(q.spans) == 0 {
		return Span{}, false
	}
	s := q.spans[0]
	q.spans = q.spans[1:]
	return s, true
}

// take takes spans of a share of what is left: large ones first, so that
// requests are few, then smaller ones, so that streams end together.
func (q *queue) take(streams int) []Span {
	q.mu.Lock()
	defer q.mu.Unlock()
	want := max(leastBatch, q.left/skyport.Bytes(2*streams))
	if q.left < skyport.Bytes(streams)*leastBatch && !q.split {
		q.evenly, q.split = q.left/skyport.Bytes(streams)+1, true
	}
	if q.evenly > 0 {
		want = q.evenly // all in one round trip
	}
	var size skyport.Bytes
	n := 0
	for n < len(q.spans) && size < want {
		size += q.x.bytesOf(q.spans[n : n+1])
		n++
	}
	taken := q.spans[:n]
	q.spans, q.left = q.spans[n:], q.left-size
	return taken
}

// push is one Push.
type push struct {
	mover
	source Source
	before skyport.Bytes // missing at the attempt before
	again  bool          // not the first attempt
}

func (p *push) attempt(ctx context.Context) error {
	m := p.source.Manifest()
	encoded, err := manifestBytes(m)
	if err != nil {
		return err
	}
	var first []Span
	if !p.again {
		first = eager(m, eagerBytes)
		p.again = true
		if p.o.Ahead && first == nil && len(m.indexed().chunks) > 0 {
			return p.ahead(ctx, m, encoded)
		}
	}
	reply, err := p.send(ctx, manifestRoute, encoded, newQueue(m.indexed(), first), longestReply(m))
	if err != nil {
		return err
	}
	if reply.Committed {
		p.there(0)
		return nil
	}
	if err := p.lacks(m, reply); err != nil {
		return err
	}
	committed, err := p.carry(ctx, m, newQueue(m.indexed(), reply.Missing), "")
	if committed {
		p.there(0)
		return nil
	}
	if err == nil {
		err = errAgain
	}
	return err
}

// lacks notes what the peer says that it lacks.
func (p *push) lacks(m *Manifest, reply planReply) error {
	for _, s := range reply.Missing {
		if uint64(s.First)+uint64(s.Count) > uint64(len(m.indexed().chunks)) {
			return skyport.Errorf(skyport.CodeInvalid, "the peer asks for chunks that the tree does not have")
		}
	}
	missing := m.indexed().bytesOf(reply.Missing)
	p.mu.Lock()
	p.progress = missing < p.before
	p.before = missing
	p.mu.Unlock()
	p.there(missing)
	return nil
}

// carry brings what a queue holds, on all streams.
func (p *push) carry(ctx context.Context, m *Manifest, q *queue, query string) (committed bool, err error) {
	err = p.streams(ctx, func(ctx context.Context) error {
		q.mu.Lock()
		empty := len(q.spans) == 0
		q.mu.Unlock()
		if empty {
			return nil
		}
		reply, err := p.send(ctx, chunksRoute+"/"+m.Hash()+query, nil, q, 4<<10)
		if skyport.CodeOf(err) == skyport.CodeNotFound {
			return errAgain // the peer started anew
		}
		if err == nil && reply.Committed {
			p.mu.Lock()
			committed = true
			p.mu.Unlock()
		}
		return err
	})
	return committed, err
}

// longestReply bounds what a peer may say about what it lacks.
func longestReply(m *Manifest) int64 {
	return 4<<10 + 64*int64(len(m.indexed().chunks))
}

// send makes one request of a head and the frames of what the queue holds.
func (p *push) send(ctx context.Context, path string, head []byte, q *queue, limit int64) (planReply, error) {
	ctx, line := p.watched(ctx)
	defer line.end()
	body := &frameStream{ctx: ctx, line: line, rest: head, framer: newFramer(p.source, p.o.Compression), queue: q, told: p.moved}
	defer body.finish()
	if head != nil {
		p.moved(0, len(head))
	}
	reply, err := p.request(ctx, http.MethodPost, path, body)
	if failed := body.failure(); failed != nil {
		if reply != nil {
			_ = reply.Body.Close() // the reason is ours
		}
		return planReply{}, line.verdict(ctx, failed)
	}
	if err != nil {
		return planReply{}, line.verdict(ctx, err)
	}
	defer func() { _ = reply.Body.Close() }() // only read
	var said planReply
	if err := json.NewDecoder(io.LimitReader(line.reader(reply.Body), limit)).Decode(&said); err != nil {
		return planReply{}, line.verdict(ctx, cut(err))
	}
	return said, nil
}

// frameStream is the body of a request: it makes frames as they are read. The
// HTTP client may still read when the request is over: finish ends that.
type frameStream struct {
	ctx   context.Context //nolint:containedctx // an io.Reader is given none
	line  *lifeline
	queue *queue
	told  func(size, wire int)

	mu       sync.Mutex
	framer   *framer // nil when all is over
	writing  bool    // the framer's buffer is being written; who writes lets go of it
	finished bool
	rest     []byte
	start    time.Time // when rest was made
	length   int
	size     int
	ended    bool
	err      error
}

// Read implements [io.Reader].
func (s *frameStream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fill(); err != nil {
		return 0, err
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	s.line.touch()
	return n, nil
}

// WriteTo implements [io.WriterTo]: nothing is copied on the way.
func (s *frameStream) WriteTo(w io.Writer) (written int64, err error) {
	for err == nil {
		s.mu.Lock()
		err = s.fill()
		if err != nil {
			s.mu.Unlock()
			break
		}
		n := min(len(s.rest), piece)
		now := s.rest[:n]
		s.rest = s.rest[n:]
		s.writing = true
		s.mu.Unlock()

		n, err = w.Write(now)
		written += int64(n)
		s.line.touch()

		s.mu.Lock()
		s.writing = false
		if s.finished {
			s.release()
			err = errCut
		}
		s.mu.Unlock()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return written, err
}

// fill sees to it that there is a rest. The lock is held.
func (s *frameStream) fill() error {
	if s.framer == nil {
		return errCut
	}
	if len(s.rest) > 0 {
		return nil
	}
	if s.length > 0 {
		s.framer.wrote(s.length, time.Since(s.start))
		s.told(s.size, s.length)
		s.length = 0
	}
	if s.ended {
		return io.EOF
	}
	defer s.line.work()()
	span, ok := s.queue.next(s.ctx)
	if !ok {
		s.rest, s.ended = endFrame(nil), true
		return nil
	}
	frame, err := s.framer.frame(s.ctx, span)
	if err != nil {
		s.err = err
		return err
	}
	s.rest, s.length, s.start = frame, len(frame), time.Now()
	s.size, _ = s.framer.x.size(span)
	return nil
}

// Close implements [io.Closer].
func (s *frameStream) Close() error { return nil }

func (s *frameStream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *frameStream) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	if !s.writing {
		s.release()
	}
}

func (s *frameStream) release() {
	if s.framer != nil {
		s.framer.release()
		s.framer = nil
	}
}

// pull is one Pull.
type pull struct {
	mover
	place Place
	sink  Sink // nil until the manifest came, and again when the peer has another
	anew  int  // how often that happened
}

func (p *pull) attempt(ctx context.Context) error {
	if p.sink == nil {
		if err := p.begin(ctx); err != nil {
			return err
		}
	}
	missing := p.sink.Missing()
	if len(missing) > 0 {
		if err := p.fetch(ctx, missing); err != nil {
			return err
		}
	}
	if err := p.sink.Commit(ctx); err != nil {
		return err
	}
	p.there(0)
	return nil
}

// begin fetches the manifest, and with it the chunks of a small tree.
func (p *pull) begin(ctx context.Context) error {
	ctx, line := p.watched(ctx)
	defer line.end()
	reply, err := p.request(ctx, http.MethodGet, manifestRoute+"?eager="+strconv.Itoa(eagerBytes)+p.wish("&"), nil)
	if err != nil {
		return line.verdict(ctx, err)
	}
	defer func() { _ = reply.Body.Close() }() // only read
	body := line.reader(reply.Body)
	m, err := readManifest(body, p.o.Receiver.Limits)
	if err != nil {
		return line.verdict(ctx, err)
	}
	p.total(m)
	if p.o.Manifest != nil {
		p.o.Manifest(m)
	}
	done := line.work() // comparing with what is there can take its time
	p.sink, err = p.place.Open(ctx, m)
	done()
	if err != nil {
		return err
	}
	p.there(m.indexed().bytesOf(p.sink.Missing()))
	return line.verdict(ctx, readFrames(ctx, body, line.sink(p.sink), p.moved))
}

func (p *pull) wish(separator string) string {
	switch p.o.Compression {
	case CompressNever:
		return separator + "compress=never"
	case CompressAlways:
		return separator + "compress=always"
	case CompressAuto:
	}
	return ""
}

func (p *pull) fetch(ctx context.Context, missing []Span) error {
	m := p.sink.Manifest()
	q := newQueue(m.indexed(), missing)
	p.there(q.left)
	path := readRoute + "/" + m.Hash() + p.wish("?")
	err := p.streams(ctx, func(ctx context.Context) error {
		for {
			spans := q.take(p.o.Streams)
			if len(spans) == 0 {
				return nil
			}
			if err := p.read(ctx, path, spans); err != nil {
				return err
			}
		}
	})
	if skyport.CodeOf(err) == skyport.CodeConflict && p.anew < 3 {
		// The peer has another tree now. What both have in common stays useful
		// only by content: the place sees to that.
		p.anew++
		p.sink = nil
		return errors.Join(errAgain, err)
	}
	return err
}

func (p *pull) read(ctx context.Context, path string, spans []Span) error {
	body, err := json.Marshal(merge(spans))
	if err != nil {
		return fmt.Errorf("asking for chunks: %w", err)
	}
	ctx, line := p.watched(ctx)
	defer line.end()
	reply, err := p.request(ctx, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return line.verdict(ctx, err)
	}
	defer func() { _ = reply.Body.Close() }() // only read
	if err := readFrames(ctx, line.reader(reply.Body), line.sink(p.sink), p.moved); err != nil {
		return line.verdict(ctx, err)
	}
	// Read to the very end, so that the connection is used again.
	_, _ = io.CopyN(io.Discard, reply.Body, 1) // nothing is expected
	return nil
}

// merge joins spans that follow one another.
func merge(spans []Span) []Span {
	var merged []Span
	for _, s := range spans {
		if k := len(merged) - 1; k >= 0 && merged[k].First+merged[k].Count == s.First {
			merged[k].Count += s.Count
			continue
		}
		merged = append(merged, s)
	}
	return merged
}
