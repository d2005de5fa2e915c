package protocoltest

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func (w *Worker) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/worker", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, protocol.Info{Version: "test", Node: "test", BootID: "test"}, nil)
	})
	mux.HandleFunc("GET /v1/watch", w.watch)
	w.lookRoutes(mux)
	mux.HandleFunc("PUT /v1/lease", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("PUT /v1/runs/{run}", w.prepare)
	mux.HandleFunc("GET /v1/runs/{run}", w.with(func(*run) error { return nil }))
	mux.HandleFunc("POST /v1/runs/{run}/start", w.with(w.start))
	mux.HandleFunc("POST /v1/runs/{run}/stop", w.with(w.stop))
	mux.HandleFunc("DELETE /v1/runs/{run}", func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		if name := req.PathValue("run"); w.runs[name] != nil {
			_ = w.runs[name].inputs.Close() // what it has open is forgotten
			delete(w.runs, name)
			w.wake()
		}
		w.mu.Unlock()
		rw.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /v1/runs/{run}/logs/{stream}", w.log)
	mux.Handle("/v1/runs/{run}/inputs/", transfer.NewReceiveHandler(func(req *http.Request) (transfer.Place, error) {
		if err := w.wait(req); err != nil {
			return nil, err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		r := w.runs[req.PathValue("run")]
		if r == nil {
			return nil, skyport.Errorf(skyport.CodeNotFound, "no run %s", req.PathValue("run"))
		}
		return r.inputs, nil
	}, transfer.Limits{}))
	mux.Handle("/v1/runs/{run}/outputs/", transfer.NewSendHandler(func(req *http.Request) (transfer.Source, error) {
		if err := w.wait(req); err != nil {
			return nil, err
		}
		spec, _ := w.Spec(req.PathValue("run"))
		return transfer.Scan(req.Context(), transfer.ScanOptions{Root: w.Work(spec.Run), Names: spec.Request.OutputFiles})
	}))
	return mux
}

// with answers with the status of the run after doing something with it.
func (w *Worker) with(do func(*run) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		r := w.runs[req.PathValue("run")]
		if r == nil {
			protocol.WriteProblem(rw, skyport.Errorf(skyport.CodeNotFound, "no run %s", req.PathValue("run")))
			return
		}
		err := do(r)
		reply(rw, r.status, err)
	}
}

func (w *Worker) prepare(rw http.ResponseWriter, req *http.Request) {
	var spec protocol.RunSpec
	if err := json.NewDecoder(req.Body).Decode(&spec); err != nil {
		protocol.WriteProblem(rw, skyport.Errorf(skyport.CodeInvalid, "%w", err))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		protocol.WriteProblem(rw, w.refuse)
		return
	}
	r := w.runs[spec.Run]
	if r == nil {
		r = &run{spec: spec, logs: map[string][]byte{}, status: protocol.RunStatus{Run: spec.Run, State: protocol.RunStaging}}
		if err := os.MkdirAll(w.Work(spec.Run), 0o700); err != nil {
			protocol.WriteProblem(rw, err)
			return
		}
		r.inputs = transfer.NewReceiver(w.Work(spec.Run), transfer.ReceiverOptions{})
		w.runs[spec.Run] = r
		w.told(r)
	}
	var err error
	if spec.Start {
		err = w.start(r)
	}
	reply(rw, r.status, err)
}

// start is called with w.mu held.
func (w *Worker) start(r *run) error {
	if r.status.State != protocol.RunStaging {
		return nil
	}
	w.started++
	r.status.State, r.status.Started = protocol.RunRunning, time.Now().UTC()
	if do := w.onStart; do != nil {
		w.mu.Unlock()
		do(w, r.spec)
		w.mu.Lock()
	}
	w.told(r)
	return nil
}

func (w *Worker) stop(r *run) error {
	if r.status.State == protocol.RunRunning {
		r.status.Stopped = true
		if !w.stubborn {
			r.status.State, r.status.Signal, r.status.Ended = protocol.RunEnded, 15, time.Now().UTC()
		}
		w.told(r)
	}
	return nil
}

func (w *Worker) log(rw http.ResponseWriter, req *http.Request) {
	offset, err := strconv.ParseInt(req.URL.Query().Get("offset"), 10, 64)
	if err != nil {
		protocol.WriteProblem(rw, skyport.Errorf(skyport.CodeInvalid, "%w", err))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.runs[req.PathValue("run")]; r != nil {
		log := r.logs[req.PathValue("stream")]
		_, _ = rw.Write(log[min(offset, int64(len(log))):]) // a peer that is gone asks again
	}
}

// watch tells all runs, and then whatever changes.
func (w *Worker) watch(rw http.ResponseWriter, req *http.Request) {
	control, encode := http.NewResponseController(rw), json.NewEncoder(rw)
	seen := map[string]uint64{}
	var events []protocol.Event
	for synced := false; ; synced = true {
		w.mu.Lock()
		changed := w.changed
		for name, r := range w.runs {
			if seen[name] != r.status.Version {
				seen[name] = r.status.Version
				status := r.status
				events = append(events, protocol.Event{Status: &status})
			}
		}
		for name := range seen {
			if w.runs[name] == nil {
				delete(seen, name)
				events = append(events, protocol.Event{Removed: name})
			}
		}
		w.mu.Unlock()
		if !synced {
			events = append(events, protocol.Event{Synced: true})
		}
		for _, e := range events {
			if encode.Encode(e) != nil {
				return
			}
		}
		if control.Flush() != nil {
			return
		}
		events = nil
		select {
		case <-changed:
		case <-time.After(protocol.Heartbeat):
			events = []protocol.Event{{}} // a sign of life
		case <-req.Context().Done():
			return
		}
	}
}

func reply(rw http.ResponseWriter, body any, err error) {
	if err != nil {
		protocol.WriteProblem(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(body) // a peer that is gone asks again
}
