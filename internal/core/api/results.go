package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// resultRoutes give the outputs of jobs: what there is, one file of it, or all
// of it by a transfer.
func (a *api) resultRoutes() {
	operation(a, huma.Operation{
		OperationID: "list-results", Method: http.MethodGet, Path: "/v1/jobs/{id}/results", Tags: []string{"Results"},
		Summary: "The outputs that arrived",
	}, func(ctx context.Context, _ *jobPath) (*body[skyport.Results], error) {
		results, err := a.Backend.Results(ctx, jobOf(ctx).ID)
		if err != nil {
			return nil, err
		}
		defer closeIfCloser(results)
		return &body[skyport.Results]{Body: summaryOf(results)}, nil
	})

	operation(a, huma.Operation{
		OperationID: "get-result", Method: http.MethodGet, Path: "/v1/jobs/{id}/results/files/{path...}", Tags: []string{"Results"},
		Summary: "One file of the outputs; ranges are understood",
		Parameters: []*huma.Param{{
			Name: "path", In: "path", Required: true, Description: "Path in the outputs, with slashes",
			Schema: &huma.Schema{Type: huma.TypeString},
		}},
		Responses: map[string]*huma.Response{"200": {
			Description: "The bytes of the file",
			Content:     map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
		}},
	}, func(ctx context.Context, _ *jobPath) (*huma.StreamResponse, error) {
		results, err := a.Backend.Results(ctx, jobOf(ctx).ID)
		if err != nil {
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hctx huma.Context) {
			defer closeIfCloser(results)
			r, w := humago.Unwrap(hctx)
			a.serveResult(w, r, results, r.PathValue("path"))
		}}, nil
	})

	send := transfer.NewSendHandler(func(r *http.Request) (transfer.Source, error) {
		return a.Backend.Results(r.Context(), jobOf(r.Context()).ID)
	})
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		a.handle(method+" /v1/jobs/{id}/results/transfer/{rest...}", func(w http.ResponseWriter, r *http.Request) {
			streaming(w)
			send.ServeHTTP(w, r)
		})
	}
}

// stagingRoutes take inputs into the caller's own depot.
func (a *api) stagingRoutes() {
	receive := transfer.NewReceiveHandler(func(r *http.Request) (transfer.Place, error) {
		return a.Backend.Staging(callerOf(r.Context()).ID)
	}, a.Manifest)
	a.handle("POST /v1/staging/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		streaming(w)
		receive.ServeHTTP(w, r)
	})
}

func summaryOf(results Results) skyport.Results {
	m := results.Manifest()
	out := skyport.Results{
		Files:   make([]skyport.ResultFile, 0, len(m.Entries)),
		Count:   m.Files(),
		Bytes:   m.Bytes(),
		Missing: notNil(results.Missing()),
	}
	kinds := map[transfer.Kind]string{transfer.File: "file", transfer.Dir: "dir", transfer.Symlink: "symlink"}
	for i := range m.Entries {
		e := &m.Entries[i]
		out.Files = append(out.Files, skyport.ResultFile{
			Path: strings.ToValidUTF8(string(e.Path), "�"), Kind: kinds[e.Kind], Bytes: skyport.Bytes(e.Size), Mode: e.Mode,
		})
	}
	slices.SortFunc(out.Files, func(x, y skyport.ResultFile) int { return strings.Compare(x.Path, y.Path) })
	return out
}

// serveResult answers with one file, put together from its chunks.
func (a *api) serveResult(w http.ResponseWriter, r *http.Request, results Results, name string) {
	m := results.Manifest()
	at := slices.IndexFunc(m.Entries, func(e transfer.Entry) bool { return string(e.Path) == name })
	if at < 0 || m.Entries[at].Kind != transfer.File {
		a.writeProblem(w, r, skyport.Errorf(skyport.CodeNotFound, "the results have no file %q", skyport.Abbreviate(name, 200)))
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", "attachment")
	file := &chunkedFile{ctx: r.Context(), source: results, entry: at, size: m.Entries[at].Size}
	var offset int64
	for _, c := range m.Entries[at].Chunks {
		file.starts = append(file.starts, offset)
		offset += int64(c.Size)
	}
	file.chunks = m.Entries[at].Chunks
	http.ServeContent(w, r, path.Base(name), m.Entries[at].ModTime, file)
}

// chunkedFile reads a file of a source through its chunks, one at a time. It
// is for one request and one goroutine.
type chunkedFile struct {
	ctx    context.Context //nolint:containedctx // of the request: a seeker's methods take none
	source transfer.Source
	entry  int
	size   int64
	chunks []transfer.Chunk
	starts []int64 // offset of each chunk

	at      int64
	current int // index of the chunk in buffer, plus one
	buffer  []byte
}

// Read gives what is left of the chunk under the position.
func (f *chunkedFile) Read(p []byte) (int, error) {
	if f.at >= f.size {
		return 0, io.EOF
	}
	i, exact := slices.BinarySearch(f.starts, f.at)
	if !exact {
		i--
	}
	if i < 0 || i >= len(f.chunks) {
		return 0, io.ErrUnexpectedEOF
	}
	if f.current != i+1 {
		size := int(f.chunks[i].Size)
		if cap(f.buffer) < size {
			f.buffer = make([]byte, size)
		}
		f.buffer = f.buffer[:size]
		ref := transfer.ChunkRef{Chunk: f.chunks[i], Entry: f.entry, Offset: f.starts[i]}
		if err := f.source.ReadChunk(f.ctx, ref, f.buffer); err != nil {
			return 0, err
		}
		f.current = i + 1
	}
	n := copy(p, f.buffer[min(f.at-f.starts[i], int64(len(f.buffer))):])
	if n == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	f.at += int64(n)
	return n, nil
}

// Seek moves the position.
func (f *chunkedFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errors.Join(fs.ErrInvalid, errors.New("seek before the beginning"))
	}
	f.at = offset
	return offset, nil
}

// closeIfCloser lets go of results that hold something open.
func closeIfCloser(v any) {
	if c, ok := v.(io.Closer); ok {
		_ = c.Close() // it was only read
	}
}
