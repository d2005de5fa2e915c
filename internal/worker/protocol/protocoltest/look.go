package protocoltest

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"

	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// OnCommand has f run the commands that are asked for; without, they are
// refused. The run is the one that core named, else the frame's.
func (w *Worker) OnCommand(f func(ctx context.Context, c protocol.Command, s *session.Served) session.Exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onCommand = f
}

// SetUsage says what the node uses, and the run.
func (w *Worker) SetUsage(usage protocol.NodeUsage, samples ...protocol.Sample) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.usage, w.samples = usage, samples
}

func (w *Worker) lookRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/commands", w.command)
	mux.HandleFunc("GET /v1/usage", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		reply(rw, w.usage, nil)
	})
	mux.HandleFunc("GET /v1/runs/{run}/metrics", func(rw http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		reply(rw, map[string]any{"samples": w.samples}, nil)
	})
	mux.Handle("/v1/runs/{run}/files/put/{path}/", transfer.NewReceiveHandler(func(req *http.Request) (transfer.Place, error) {
		path, err := protocol.FilesPath(req.PathValue("path"))
		if err != nil {
			return nil, err
		}
		dir := filepath.Join(w.Work(req.PathValue("run")), path)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.places[dir] == nil {
			w.places[dir] = transfer.NewReceiver(dir, transfer.ReceiverOptions{})
		}
		return w.places[dir], nil
	}, transfer.Limits{}))
	mux.Handle("/v1/runs/{run}/files/get/{path}/", transfer.NewSendHandler(func(req *http.Request) (transfer.Source, error) {
		path, err := protocol.FilesPath(req.PathValue("path"))
		if err != nil {
			return nil, err
		}
		if path == "." {
			return transfer.Scan(req.Context(), transfer.ScanOptions{Root: w.Work(req.PathValue("run"))})
		}
		whole := filepath.Join(w.Work(req.PathValue("run")), path)
		return transfer.Scan(req.Context(), transfer.ScanOptions{Root: filepath.Dir(whole), Names: []string{filepath.Base(whole)}})
	}))
}

func (w *Worker) command(rw http.ResponseWriter, req *http.Request) {
	conn, err := forward.Upgrade(rw, req)
	if err != nil {
		protocol.WriteProblem(rw, err)
		return
	}
	w.mu.Lock()
	do := w.onCommand
	w.mu.Unlock()
	err = session.Serve(conn, func(ctx context.Context, open json.RawMessage, s *session.Served) session.Exit {
		var c protocol.Command
		if err := json.Unmarshal(open, &c); err != nil || do == nil {
			return session.Exit{Code: 255, Error: "no command is wanted here"}
		}
		if run := req.URL.Query().Get("run"); run != "" {
			c.Run = run
		}
		return do(ctx, c, s)
	})
	if err != nil {
		w.t.Logf("a command: %v", err)
	}
}
