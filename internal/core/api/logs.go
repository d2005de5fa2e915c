package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/openworkload/skyport"
)

// Headers of a log's answer: where its first byte lies in the log, and of
// which attempt the log is. A follower resumes with both.
const (
	logOffsetHeader  = "Skyport-Log-Offset"
	logAttemptHeader = "Skyport-Log-Attempt"
)

// logRoutes give the logs of jobs.
func (a *api) logRoutes() {
	operation(a, huma.Operation{
		OperationID: "get-log", Method: http.MethodGet, Path: "/v1/jobs/{id}/logs/{stream}", Tags: []string{"Logs"},
		Summary: "A log of a job, as bytes",
		Description: "What core has of the log. Ranges are understood. With follow=true the answer goes on until the log ends; " +
			"it waits for a log that has not begun, and a connection that breaks before the end breaks visibly.",
		Responses: map[string]*huma.Response{"200": {
			Description: "The log from Skyport-Log-Offset on",
			Headers: map[string]*huma.Param{
				logOffsetHeader:  {Description: "Where the first byte of the answer lies in the log", Schema: &huma.Schema{Type: huma.TypeInteger}},
				logAttemptHeader: {Description: "Attempt that the log is of", Schema: &huma.Schema{Type: huma.TypeInteger}},
			},
			Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, func(ctx context.Context, in *struct {
		jobPath
		Stream  string `path:"stream" enum:"stdout,stderr"`
		Attempt int    `query:"attempt" minimum:"0" doc:"Number of the attempt; 0: the current one"`
		Offset  int64  `query:"offset" minimum:"0" doc:"Skip so many bytes"`
		Tail    int    `query:"tail" minimum:"0" doc:"Only the last so many lines; goes before offset"`
		Follow  bool   `query:"follow" doc:"Go on until the log ends"`
	},
	) (*huma.StreamResponse, error) {
		job := jobOf(ctx)
		stream := LogStream(in.Stream)
		log, attempt, err := a.openLog(ctx, job, in.Attempt, stream)
		if err != nil && (!in.Follow || skyport.CodeOf(err) != skyport.CodeNotFound) {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			r, w := humago.Unwrap(hctx)
			if log == nil {
				log, attempt, err = a.awaitLog(r.Context(), job.ID, in.Attempt, stream)
				if err != nil {
					a.writeProblem(w, r, err)
					return
				}
				if log == nil {
					writeBytes(w, textPlain, nil)
					return
				}
			}
			defer func() { _ = log.Close() }() // it was only read
			w.Header().Set(logAttemptHeader, strconv.Itoa(attempt))
			size, _, _ := log.Size()
			offset := in.Offset
			if in.Tail > 0 {
				if offset, err = tailOffset(log, size, in.Tail); err != nil {
					a.writeProblem(w, r, err)
					return
				}
			}
			w.Header().Set(logOffsetHeader, strconv.FormatInt(offset, 10))
			if in.Follow {
				a.followLog(r.Context(), w, log, offset)
				return
			}
			offset = min(offset, size)
			serveLog(w, r, offsetReader{log, offset}, size-offset)
		}}, nil
	})
}

// openLog opens the log of an attempt, 0 being the current one.
func (a *api) openLog(ctx context.Context, job skyport.Job, attempt int, stream LogStream) (Log, int, error) {
	if attempt == 0 {
		attempt = job.Attempt
	}
	if attempt == 0 {
		return nil, 0, skyport.Errorf(skyport.CodeNotFound, "there is no %s yet: the job has not begun", stream)
	}
	log, err := a.Backend.Log(ctx, job.ID, attempt, stream)
	if err != nil {
		return nil, 0, err
	}
	return log, attempt, nil
}

// awaitLog waits for a log to begin, hearing of it by the events of the job.
// It returns none when the job ended without.
func (a *api) awaitLog(ctx context.Context, id skyport.JobID, attempt int, stream LogStream) (Log, int, error) {
	// A log may begin a moment after the event that tells of the start.
	recheck := time.NewTicker(time.Second)
	defer recheck.Stop()
	live, stop := a.Backend.Subscribe(EventQuery{Job: id})
	defer func() { stop() }()
	for {
		job, err := a.Backend.Job(ctx, id)
		if err != nil {
			return nil, 0, err
		}
		log, n, err := a.openLog(ctx, job, attempt, stream)
		if err == nil || skyport.CodeOf(err) != skyport.CodeNotFound {
			return log, n, err
		}
		if job.State.Terminal() {
			return nil, 0, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err() //nolint:wrapcheck // nobody hears it
		case <-recheck.C:
		case _, open := <-live:
			if !open {
				stop()
				live, stop = a.Backend.Subscribe(EventQuery{Job: id})
			}
		}
	}
}

// followLog sends a log from offset until it ends. When it cannot be sent to
// its end the connection is broken, so that no follower takes that for the end.
func (a *api) followLog(ctx context.Context, w http.ResponseWriter, log Log, offset int64) {
	a.metrics.streams.Inc()
	defer a.metrics.streams.Dec()
	streaming(w)
	w.Header().Set("Content-Type", textPlain)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	if err := out.Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
	for {
		size, more, changed := log.Size()
		if offset < size {
			n, err := io.Copy(w, io.NewSectionReader(log, offset, size-offset))
			offset += n
			if err != nil {
				a.Logger.DebugContext(ctx, "a follower of a log is lost", "error", err)
				panic(http.ErrAbortHandler)
			}
			if n == 0 {
				a.Logger.WarnContext(ctx, "a log is shorter than it was", "size", size, "offset", offset)
				panic(http.ErrAbortHandler)
			}
			if err := out.Flush(); err != nil {
				panic(http.ErrAbortHandler)
			}
			continue
		}
		if !more {
			return
		}
		select {
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		case <-changed:
		}
	}
}

// serveLog answers with the first size bytes of a log, or the range of them
// that was asked for.
func serveLog(w http.ResponseWriter, r *http.Request, log io.ReaderAt, size int64) {
	w.Header().Set("Content-Type", textPlain)
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(log, 0, size))
}

// offsetReader is a log without its first bytes.
type offsetReader struct {
	log    io.ReaderAt
	offset int64
}

func (o offsetReader) ReadAt(p []byte, at int64) (int, error) {
	return o.log.ReadAt(p, at+o.offset) //nolint:wrapcheck // io.EOF must stay io.EOF
}

// tailOffset finds where the last n lines of a log begin, reading from its end.
func tailOffset(log io.ReaderAt, size int64, n int) (int64, error) {
	block := make([]byte, 32<<10)
	end := size
	lines := 0
	for end > 0 {
		part := block[:min(int64(len(block)), end)]
		begin := end - int64(len(part))
		if read, err := log.ReadAt(part, begin); read < len(part) && !errors.Is(err, io.EOF) {
			return 0, skyport.Errorf(skyport.CodeInternal, "read a log: %w", err)
		}
		for at := len(part); at > 0; {
			at = bytes.LastIndexByte(part[:at], '\n')
			if at < 0 {
				break
			}
			if begin+int64(at) == size-1 { // the end of the last line begins none
				continue
			}
			if lines++; lines == n {
				return begin + int64(at) + 1, nil
			}
		}
		end = begin
	}
	return 0, nil
}
