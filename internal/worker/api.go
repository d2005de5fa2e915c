package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// maxSpec bounds the body of a specification: a script of 16 MB in base64.
const maxSpec = 24 << 20

// handler serves the routes that package protocol lists.
func (w *Worker) handler() http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Sky Port worker", w.opts.Version)
	config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", nil
	api := humago.New(mux, config)

	huma.Register(api, op(http.MethodGet, "/v1/worker", "info", "Who this is"), w.getInfo)
	put := op(http.MethodPut, "/v1/runs/{run}", "prepare", "Make the run's directory")
	put.MaxBodyBytes = maxSpec
	// It is checked by hand: a schema would refuse the additions of a newer core.
	put.SkipValidateBody = true
	huma.Register(api, put, w.putRun)
	huma.Register(api, op(http.MethodGet, "/v1/runs/{run}", "status", "How far the run is"), w.getRun)
	huma.Register(api, op(http.MethodPost, "/v1/runs/{run}/start", "start", "Start the script, once"), w.startRun)
	huma.Register(api, op(http.MethodPost, "/v1/runs/{run}/stop", "stop", "End the run: TERM, grace, KILL"), w.stopRun)
	huma.Register(api, op(http.MethodDelete, "/v1/runs/{run}", "remove", "Kill what is left and forget everything"), w.deleteRun)
	huma.Register(api, op(http.MethodGet, "/v1/runs/{run}/metrics", "metrics", "Samples of cpu and memory"), w.getMetrics)
	huma.Register(api, op(http.MethodGet, "/v1/usage", "usage", "What the node uses"), w.getUsage)
	huma.Register(api, op(http.MethodPut, "/v1/lease", "lease", "Until when the node lives"), w.putLease)

	mux.Handle("/v1/runs/{run}/inputs/", transfer.NewReceiveHandler(w.inputs, transfer.Limits{}))
	mux.Handle("/v1/runs/{run}/outputs/", transfer.NewSendHandler(w.outputs))
	mux.HandleFunc("GET /v1/watch", w.watch)
	mux.HandleFunc("GET /v1/runs/{run}/logs/{stream}", w.serveLog)
	mux.HandleFunc("POST /v1/runs/{run}/connect", w.connect)
	mux.HandleFunc("POST /v1/runs/{run}/accept", w.accept)
	mux.HandleFunc("POST /v1/commands", w.serveCommand)
	mux.Handle("/v1/runs/{run}/files/put/{path}/", transfer.NewReceiveHandler(w.putFiles, transfer.Limits{}))
	mux.Handle("/v1/runs/{run}/files/get/{path}/", transfer.NewSendHandler(w.getFiles))
	mux.Handle("GET /v1/metrics", w.counts.handler())
	mux.Handle("GET /metrics", w.counts.handler())
	return mux
}

func op(method, path, id, summary string) huma.Operation {
	return huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary,
		// The one caller is core, maybe behind a slow link: a large script takes what it takes.
		BodyReadTimeout: -1,
	}
}

// RunPath is exported because huma fills embedded fields by reflection.
type RunPath struct {
	Run string `path:"run" doc:"Name of the run" maxLength:"100"`
}

type answer[T any] struct{ Body T }

func (w *Worker) getInfo(context.Context, *struct{}) (*answer[protocol.Info], error) {
	return &answer[protocol.Info]{protocol.Info{
		Version: w.opts.Version, Node: w.opts.Node, Arch: runtime.GOARCH, BootID: w.bootID, PID: os.Getpid(), Started: w.started,
	}}, nil
}

type putInput struct {
	RunPath
	Body protocol.RunSpec
}

func (w *Worker) putRun(_ context.Context, in *putInput) (*answer[protocol.RunStatus], error) {
	spec := in.Body
	if spec.Run != in.Run {
		return nil, problem(skyport.Errorf(skyport.CodeInvalid, "the specification of run %s is named %q", in.Run, skyport.Abbreviate(spec.Run, 80)))
	}
	r, err := w.put(spec)
	if err != nil {
		return nil, problem(err)
	}
	return &answer[protocol.RunStatus]{r.current()}, nil
}

func (w *Worker) getRun(_ context.Context, in *RunPath) (*answer[protocol.RunStatus], error) {
	r, err := w.known(in.Run)
	if err != nil {
		return nil, problem(err)
	}
	return &answer[protocol.RunStatus]{r.current()}, nil
}

func (w *Worker) startRun(_ context.Context, in *RunPath) (*answer[protocol.RunStatus], error) {
	r, err := w.known(in.Run)
	if err == nil {
		err = r.start()
	}
	if err != nil {
		return nil, problem(err)
	}
	return &answer[protocol.RunStatus]{r.current()}, nil
}

func (w *Worker) stopRun(_ context.Context, in *RunPath) (*struct{}, error) {
	r, err := w.known(in.Run)
	if err == nil {
		err = r.stop()
	}
	if err != nil {
		return nil, problem(err)
	}
	return nil, nil
}

func (w *Worker) deleteRun(_ context.Context, in *RunPath) (*struct{}, error) {
	// Not the request's context: what has begun to be removed goes on.
	if err := w.remove(w.ctx, in.Run); err != nil { //nolint:contextcheck // as said above
		return nil, problem(err)
	}
	return nil, nil
}

type metrics struct {
	Samples []protocol.Sample `json:"samples"`
}

func (w *Worker) getMetrics(_ context.Context, in *RunPath) (*answer[metrics], error) {
	r, err := w.known(in.Run)
	if err != nil {
		return nil, problem(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return &answer[metrics]{metrics{append([]protocol.Sample{}, r.record.samples...)}}, nil
}

// known returns a run, or CodeNotFound.
func (w *Worker) known(name string) (*run, error) {
	if r := w.find(name); r != nil {
		return r, nil
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "this worker has no run %s", skyport.Abbreviate(name, 80))
}

func problem(err error) error { return protocol.NewProblem(err) }

// inputs is where the inputs of a run land, until it starts.
func (w *Worker) inputs(req *http.Request) (transfer.Place, error) {
	r, err := w.known(req.PathValue("run"))
	if err != nil {
		return nil, err
	}
	if state := r.current().State; state != protocol.RunStaging {
		return nil, skyport.Errorf(skyport.CodeConflict, "run %s is %s: it takes no more inputs", r.name, state)
	}
	return r.inputs, nil
}

// outputs is what the job made of the files that were asked for, once it has ended.
func (w *Worker) outputs(req *http.Request) (transfer.Source, error) {
	r, err := w.known(req.PathValue("run"))
	if err != nil {
		return nil, err
	}
	switch state := r.current().State; state {
	case protocol.RunEnded, protocol.RunLost, protocol.RunRefused:
	default:
		return nil, skyport.Errorf(skyport.CodeConflict, "run %s is %s: its outputs are not complete", r.name, state)
	}
	return r.scanOutputs(req.Context())
}

// scanOutputs scans once; requests that come meanwhile wait for it.
func (r *run) scanOutputs(ctx context.Context) (*transfer.Tree, error) {
	for {
		r.mu.Lock()
		tree, scanning := r.outputs, r.scanning
		if tree == nil && scanning == nil {
			scanning = make(chan struct{})
			r.scanning = scanning
			r.mu.Unlock()
			return r.scan(scanning)
		}
		r.mu.Unlock()
		if tree != nil {
			return tree, nil
		}
		select {
		case <-scanning:
		case <-ctx.Done():
			return nil, fmt.Errorf("scan the outputs of run %s: %w", r.name, ctx.Err())
		}
	}
}

func (r *run) scan(done chan struct{}) (*transfer.Tree, error) {
	names := r.spec.Request.OutputFiles
	opts := transfer.ScanOptions{Root: r.rt.Work, Names: names}
	if len(names) == 0 {
		opts.Exclude = func(string) bool { return true } // nothing is asked for
	}
	// Others wait for the answer too: it does not end with one request.
	tree, err := transfer.Scan(r.w.ctx, opts)
	r.mu.Lock()
	r.outputs, r.scanning = tree, nil
	r.mu.Unlock()
	close(done)
	if err != nil {
		return nil, fmt.Errorf("scan the outputs of run %s: %w", r.name, err)
	}
	return tree, nil
}

// watch streams the statuses.
func (w *Worker) watch(rw http.ResponseWriter, req *http.Request) {
	rw.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(rw)
	beat := time.NewTicker(protocol.Heartbeat)
	defer beat.Stop()
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)() //nolint:contextcheck // whichever ends first, call or worker
	encode := json.NewEncoder(rw)
	_ = w.board.watch(ctx, beat.C, func(events []protocol.Event) error {
		for _, e := range events {
			if err := encode.Encode(e); err != nil {
				return err //nolint:wrapcheck // the reader has gone
			}
		}
		return control.Flush()
	})
}

// serveLog answers with what there is of a log from an offset on.
func (w *Worker) serveLog(rw http.ResponseWriter, req *http.Request) {
	if err := w.sendLog(rw, req); err != nil {
		protocol.WriteProblem(rw, err)
	}
}

func (w *Worker) sendLog(rw http.ResponseWriter, req *http.Request) error {
	r, err := w.known(req.PathValue("run"))
	if err != nil {
		return err
	}
	var path string
	switch stream := req.PathValue("stream"); stream {
	case "stdout":
		path = r.rt.Stdout
	case "stderr":
		path = r.rt.Stderr
	default:
		return skyport.Errorf(skyport.CodeNotFound, "there is no log %q: want stdout or stderr", skyport.Abbreviate(stream, 80))
	}
	offset := int64(0)
	if text := req.URL.Query().Get("offset"); text != "" {
		if offset, err = strconv.ParseInt(text, 10, 64); err != nil || offset < 0 {
			return skyport.Errorf(skyport.CodeInvalid, "offset %q is not a number of bytes", skyport.Abbreviate(text, 40))
		}
	}
	rw.Header().Set("Content-Type", "application/octet-stream")
	size := int64(sizeOf(path)) // 0 for what is not a plain file: a pipe would block
	n := min(size-offset, protocol.MaxLog)
	if n <= 0 {
		rw.Header().Set("Content-Length", "0")
		return nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		rw.Header().Set("Content-Length", "0")
		return nil
	}
	if err != nil {
		return fmt.Errorf("read a log of run %s: %w", r.name, err)
	}
	defer func() { _ = file.Close() }() // was only read
	// A length that is promised and not kept breaks the answer: the job cut its log.
	rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.Copy(rw, io.NewSectionReader(file, offset, n)) // the reader has gone, or sees the cut
	return nil
}

// connect becomes a connection to where the job listens.
func (w *Worker) connect(rw http.ResponseWriter, req *http.Request) {
	r, port, err := w.port(req)
	if err == nil {
		err = forward.ServeConnect(rw, req, func(ctx context.Context) (net.Conn, error) { return r.dial(ctx, port) })
	}
	if err != nil {
		protocol.WriteProblem(rw, err)
	}
}

func (r *run) dial(ctx context.Context, port int) (net.Conn, error) {
	r.mu.Lock()
	listener, ok := r.sockets[port]
	state := r.status.State
	r.mu.Unlock()
	if !slices.Contains(r.inPorts, port) {
		return nil, skyport.Errorf(skyport.CodeForbidden, "%d is not an in port of run %s", port, r.name)
	}
	if state != protocol.RunRunning || !ok {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the job does not listen on port %d", port)
	}
	addrs := []netip.Addr{listener.Address.Addr()}
	switch v4 := netip.AddrFrom4([4]byte{127, 0, 0, 1}); {
	case addrs[0].IsUnspecified() && addrs[0].Is4():
		addrs = []netip.Addr{v4}
	case addrs[0].IsUnspecified():
		addrs = []netip.Addr{netip.IPv6Loopback(), v4} // it may be for IPv4 too, on a node without IPv6
	}
	var d net.Dialer
	var errs []error
	for _, addr := range addrs {
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, uint16(port)).String()) //nolint:gosec // a port
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// accept becomes the next connection of the job to an out port.
func (w *Worker) accept(rw http.ResponseWriter, req *http.Request) {
	r, port, err := w.port(req)
	if err == nil {
		r.mu.Lock()
		park := r.parks[port]
		r.mu.Unlock()
		if park == nil {
			err = skyport.Errorf(skyport.CodeUnavailable, "run %s has no open out port %d", r.name, port)
		} else {
			err = park.Serve(rw, req)
		}
	}
	if err != nil {
		protocol.WriteProblem(rw, err)
	}
}

func (w *Worker) port(req *http.Request) (*run, int, error) {
	r, err := w.known(req.PathValue("run"))
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.Atoi(req.URL.Query().Get("port"))
	if err != nil {
		return nil, 0, skyport.Errorf(skyport.CodeInvalid, "port %q is not a number", skyport.Abbreviate(req.URL.Query().Get("port"), 40))
	}
	return r, port, nil
}
