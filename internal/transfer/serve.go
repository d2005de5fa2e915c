package transfer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// Four routes make a transfer. The ends of the paths below count, so the
// handlers may be mounted under any prefix, stripped or not.
//
//	POST …/manifest          manifest, and the frames of a small tree  ->  planReply
//	POST …/chunks/{hash}     frames                                    ->  planReply without Missing
//	GET  …/manifest?eager=N  ->  manifest, and the frames of a tree of at most N bytes
//	POST …/read/{hash}       spans as JSON                             ->  frames
//
// A small tree takes one round trip, any other two and as many parallel
// streams as one likes; these may go ahead of the manifest, with ?ahead. Whichever request brings the last chunk also commits.
const (
	manifestRoute = "manifest"
	chunksRoute   = "chunks"
	readRoute     = "read"
	contentType   = "application/vnd.skyport.transfer"
)

// planReply answers what came.
type planReply struct {
	Committed bool   `json:"committed"`
	Missing   []Span `json:"missing,omitempty"`
}

// NewReceiveHandler takes trees over HTTP. place is asked at every request and
// must give the same place for the same tree. The server above sets deadlines
// and sees who may call.
func NewReceiveHandler(place func(*http.Request) (Place, error), limits Limits) http.Handler {
	return &receiveHandler{place: place, limits: limits, beat: heartbeat}
}

type receiveHandler struct {
	place  func(*http.Request) (Place, error)
	limits Limits
	beat   time.Duration
	ahead  meetings
}

func (h *receiveHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, hash := routeOf(r)
	var reply planReply
	var err error
	body := &patientReader{r: r.Body, controller: http.NewResponseController(w)}
	switch {
	case r.Method == http.MethodPost && route == manifestRoute:
		alive(w, h.beat, func() { reply, err = h.plan(r, body) })
	case r.Method == http.MethodPost && route == chunksRoute:
		alive(w, h.beat, func() { reply, err = h.chunks(r, body, hash) })
	default:
		err = skyport.Errorf(skyport.CodeNotFound, "%s %s is not a call of a transfer", r.Method, r.URL.Path)
	}
	if err != nil {
		// What the sender is still sending is not wanted.
		w.Header().Set("Connection", "close")
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply) // a peer that is gone asks again
}

func (h *receiveHandler) plan(r *http.Request, body io.Reader) (planReply, error) {
	place, err := h.place(r)
	if err != nil {
		return planReply{}, err
	}
	var waiting *meeting
	if name := r.URL.Query().Get(aheadQuery); name != "" {
		waiting = h.ahead.at(name)
		defer waiting.settle(nil) // unless it was
	}
	m, err := readManifest(body, h.limits)
	if err != nil {
		return planReply{}, err
	}
	sink, err := place.Open(r.Context(), m)
	if err != nil {
		return planReply{}, err
	}
	if waiting != nil {
		waiting.settle(sink)
	}
	return take(r, body, sink)
}

func (h *receiveHandler) chunks(r *http.Request, body io.Reader, hash string) (planReply, error) {
	place, err := h.place(r)
	if err != nil {
		return planReply{}, err
	}
	sink, err := h.resume(r, place, hash)
	if err != nil {
		return planReply{}, err
	}
	reply, err := take(r, body, sink)
	reply.Missing = nil // other streams are bringing it
	return reply, err
}

func take(r *http.Request, body io.Reader, sink Sink) (planReply, error) {
	if err := readFrames(r.Context(), body, sink, nil); err != nil {
		return planReply{}, err
	}
	if missing := sink.Missing(); len(missing) > 0 {
		return planReply{Missing: missing}, nil
	}
	if err := sink.Commit(r.Context()); err != nil {
		return planReply{}, err
	}
	return planReply{Committed: true}, nil
}

// NewSendHandler gives a tree over HTTP. source is asked at every request and
// should keep the source it gives: a pull is several requests.
func NewSendHandler(source func(*http.Request) (Source, error)) http.Handler {
	return &sendHandler{source, heartbeat}
}

type sendHandler struct {
	source func(*http.Request) (Source, error)
	beat   time.Duration
}

func (h *sendHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, hash := routeOf(r)
	switch {
	case r.Method == http.MethodGet && route == manifestRoute:
		h.manifest(w, r)
	case r.Method == http.MethodPost && route == readRoute:
		h.read(w, r, hash)
	default:
		writeProblem(w, skyport.Errorf(skyport.CodeNotFound, "%s %s is not a call of a transfer", r.Method, r.URL.Path))
	}
}

func (h *sendHandler) manifest(w http.ResponseWriter, r *http.Request) {
	var source Source
	var encoded []byte
	var err error
	alive(w, h.beat, func() { // the source may have to be read first
		if source, err = h.source(r); err == nil {
			encoded, err = manifestBytes(source.Manifest())
		}
	})
	if err != nil {
		writeProblem(w, err)
		return
	}
	w.Header().Set("Content-Type", contentType)
	out := &patientWriter{w: w, controller: http.NewResponseController(w)}
	defer out.end()
	if _, err := out.Write(encoded); err != nil {
		return // the peer is gone and asks again
	}
	var spans []Span
	if limit, err := strconv.ParseInt(r.URL.Query().Get("eager"), 10, 64); err == nil {
		spans = eager(source.Manifest(), skyport.Bytes(limit))
	}
	sendFrames(out, r, source, spans)
}

// eager returns all chunks of a tree that is small enough to travel with its
// manifest, on one stream: in one round trip.
func eager(m *Manifest, limit skyport.Bytes) []Span {
	x := m.indexed()
	if x.bytes > limit || len(x.chunks) > eagerChunks {
		return nil
	}
	return x.spans(func(uint32) bool { return true })
}

// largestRequest bounds the spans that a peer may ask for at once.
const largestRequest = 16 << 20

func (h *sendHandler) read(w http.ResponseWriter, r *http.Request, hash string) {
	var source Source
	var err error
	alive(w, h.beat, func() { source, err = h.source(r) })
	if err != nil {
		writeProblem(w, err)
		return
	}
	if source.Manifest().Hash() != hash {
		writeProblem(w, skyport.Errorf(skyport.CodeConflict, "the tree is not what it was: fetch its manifest again"))
		return
	}
	var spans []Span
	if err := json.NewDecoder(io.LimitReader(r.Body, largestRequest)).Decode(&spans); err != nil {
		writeProblem(w, skyport.Errorf(skyport.CodeInvalid, "reading what is asked for: %w", err))
		return
	}
	known := uint64(len(source.Manifest().indexed().chunks))
	for _, s := range spans {
		if uint64(s.First)+uint64(s.Count) > known {
			writeProblem(w, skyport.Errorf(skyport.CodeInvalid, "the tree has no chunk %d", uint64(s.First)+uint64(s.Count)))
			return
		}
	}
	w.Header().Set("Content-Type", contentType)
	out := &patientWriter{w: w, controller: http.NewResponseController(w)}
	defer out.end()
	sendFrames(out, r, source, spans)
}

func sendFrames(w io.Writer, r *http.Request, source Source, spans []Span) {
	ctx := r.Context()
	f := newFramer(source, compressionOf(r))
	defer f.release()
	end := endFrame(nil)
	for s := range func(yield func(Span) bool) { f.x.batches(spans, yield) } {
		frame, err := f.frame(ctx, s)
		if err != nil {
			end = endFrame(err)
			break
		}
		start := time.Now()
		if _, err := w.Write(frame); err != nil {
			return // the peer is gone and asks again
		}
		f.wrote(len(frame), time.Since(start))
	}
	_, _ = w.Write(end) // as above
}

func compressionOf(r *http.Request) Compression {
	switch r.URL.Query().Get("compress") {
	case "never":
		return CompressNever
	case "always":
		return CompressAlways
	}
	return CompressAuto
}

// routeOf returns the route at the end of the path, and the hash with it.
func routeOf(r *http.Request) (route, hash string) {
	parts := strings.Split(strings.TrimSuffix(r.URL.Path, "/"), "/")
	last := parts[len(parts)-1]
	if last == manifestRoute {
		return last, ""
	}
	if len(parts) > 1 && isHash(last) {
		return parts[len(parts)-2], last
	}
	return "", ""
}

// On the wire a manifest has its length before it: frames follow.
func manifestBytes(m *Manifest) ([]byte, error) {
	var b strings.Builder
	b.Write(make([]byte, 8))
	if _, err := m.WriteTo(&b); err != nil {
		return nil, err
	}
	encoded := []byte(b.String())
	binary.BigEndian.PutUint64(encoded, uint64(len(encoded)-8))
	return encoded, nil
}

func readManifest(r io.Reader, limits Limits) (*Manifest, error) {
	var length [8]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, cut(err)
	}
	n := binary.BigEndian.Uint64(length[:])
	if n > largestManifest {
		return nil, skyport.Errorf(skyport.CodeTooLarge, "the manifest has %d bytes, more than the limit of %d", n, uint64(largestManifest))
	}
	limited := &io.LimitedReader{R: r, N: int64(n)}
	m, err := ReadManifest(limited, limits)
	switch {
	case err == nil:
	case limited.N > 0 && errors.Is(err, io.ErrUnexpectedEOF):
		return nil, cut(err)
	case skyport.CodeOf(err) == skyport.CodeInternal:
		return nil, skyport.Errorf(skyport.CodeInvalid, "%w", err)
	default:
		return nil, err
	}
	if limited.N > 0 {
		return nil, skyport.Errorf(skyport.CodeInvalid, "something follows the manifest")
	}
	return m, nil
}

// problem is an error on the wire, as RFC 9457 says.
type problem struct {
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   skyport.Code `json:"code"`
	Hint   string       `json:"hint,omitempty"`
}

func problemOf(err error) problem {
	code := skyport.CodeOf(err)
	if code == skyport.CodeInternal && isCut(err) {
		code = skyport.CodeUnavailable
	}
	return problem{
		Title: http.StatusText(code.Status()), Status: code.Status(),
		Detail: skyport.Abbreviate(err.Error(), 8<<10), Code: code, Hint: skyport.Abbreviate(skyport.HintOf(err), 2<<10),
	}
}

func (p problem) err() error {
	if p.Code == "" {
		p.Code = skyport.CodeInternal
	}
	return &skyport.Error{Code: p.Code, Message: skyport.Abbreviate(p.Detail, 8<<10), Hint: skyport.Abbreviate(p.Hint, 2<<10)}
}

func writeProblem(w http.ResponseWriter, err error) {
	p := problemOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)          // a peer that is gone asks again
	_ = http.NewResponseController(w).Flush() // as above
}

// replyError reads the problem of a reply that is not 200.
func replyError(reply *http.Response) error {
	var p problem
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxProblem))
	if err != nil {
		return cut(err)
	}
	if json.Unmarshal(body, &p) == nil && p.Code != "" {
		return p.err()
	}
	code := skyport.CodeInternal
	if reply.StatusCode >= 500 {
		code = skyport.CodeUnavailable
	}
	return skyport.Errorf(code, "the peer answered %s: %s", reply.Status, skyport.Abbreviate(fmt.Sprintf("%q", body), 200))
}
