package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/forward"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/internal/worker/runtime"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// The files of a run's directory that only the worker knows; the others are
// those of package shim.
const (
	specFile    = "spec.json"
	startFile   = "start" // the start was asked for
	scriptFile  = "script"
	metricsFile = "metrics.json"
	loginsFile  = "registries.json" // for the image, until it is there
	workDir     = "work"
	stageDir    = "stage" // inputs that are not complete
	tempDir     = "tmp"
)

// run is one attempt of a job on this worker. One goroutine (live) drives it
// from preparation to end; requests only leave a file that says what they want
// and wake it.
type run struct {
	w    *Worker
	name string
	dir  string
	// shared is its directory that all nodes of the partition have; empty: none.
	shared string
	spec   protocol.RunSpec
	rt     runtime.Run
	log    *slog.Logger

	wake   chan struct{} // holds one: look at the files again
	cancel context.CancelFunc
	ended  chan struct{} // closed when live has returned

	mu       sync.Mutex
	status   protocol.RunStatus
	began    shim.Began
	record   record
	parks    map[int]*forward.Park
	inPorts  []int
	sockets  map[int]proc.Listener // what was found to listen, by port
	watches  []int32               // in the log notifier
	inputs   *transfer.Receiver
	outputs  *transfer.Tree
	scanning chan struct{} // closed when the scan of outputs is over
	removed  bool
	visits   map[*visit]struct{} // commands beside the script
	// ending is there while what went on beside a script that has ended is ended,
	// and closed then.
	ending chan struct{}
	// beside are the processes of those that are children of ours, and the cpu
	// time that their trees were last seen to have used; over is that of others
	// which have ended.
	beside map[int]time.Duration
	over   time.Duration
	tasks  *taskServer
	asked  bool // whether a member is ready
	ready  bool // of a member: commands can be run
}

// makeRun puts a new run on disk: all of it, or nothing.
func (w *Worker) makeRun(spec protocol.RunSpec) error {
	final := filepath.Join(w.runs, spec.Run)
	dir, err := os.MkdirTemp(w.runs, ".new-")
	if err != nil {
		return diskError("make run "+spec.Run, err)
	}
	logins, storage := spec.Registries, spec.Storage
	spec.Registries, spec.Storage = nil, nil
	data, err := json.Marshal(spec)
	if err == nil && len(logins) > 0 {
		err = shim.Write(dir, loginsFile, logins)
	}
	if err == nil && storage != nil {
		err = shim.Write(dir, storageFile, storage)
	}
	if err == nil {
		err = errors.Join(
			os.WriteFile(filepath.Join(dir, specFile), data, 0o600),
			os.WriteFile(filepath.Join(dir, scriptFile), spec.Script, 0o700), //nolint:gosec // a script is executed
			os.Mkdir(filepath.Join(dir, workDir), 0o700),
			os.Mkdir(filepath.Join(dir, tempDir), 0o700),
		)
	}
	if shared := w.sharedWork(spec); err == nil && shared != "" && !spec.Member {
		err = os.MkdirAll(filepath.Join(shared, workDir), 0o700) // the members wait for it
	}
	if err == nil && spec.Start {
		err = touch(dir, startFile)
	}
	if err == nil {
		err = os.Rename(dir, final)
	}
	if err != nil {
		return errors.Join(diskError("make run "+spec.Run, err), os.RemoveAll(dir))
	}
	return nil
}

// openRun reads a run from disk and sets it going.
func (w *Worker) openRun(name string) (*run, error) {
	dir := filepath.Join(w.runs, name)
	r := &run{
		w: w, name: name, dir: dir, log: w.log.With("run", name),
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
		parks: make(map[int]*forward.Park), sockets: make(map[int]proc.Listener), visits: make(map[*visit]struct{}),
		beside: make(map[int]time.Duration),
	}
	if err := shim.Read(dir, specFile, &r.spec); err != nil {
		return nil, err
	}
	r.shared = w.sharedWork(r.spec)
	work := r.workDir()
	r.rt = runtime.Run{
		Spec: r.spec, Dir: dir, Work: work, Script: filepath.Join(dir, scriptFile),
		Stdin:  within(work, r.spec.Request.Stdin, os.DevNull),
		Stdout: within(work, r.spec.Request.Stdout, "stdout.log"),
		Stderr: within(work, r.spec.Request.Stderr, "stderr.log"),
		Task:   filepath.Join(dir, taskDir), Bin: filepath.Join(w.opts.Dir, binDir),
	}
	if r.spec.Member { // those in the work directory are the script's
		r.rt.Stdin, r.rt.Stdout, r.rt.Stderr = os.DevNull, filepath.Join(dir, "stdout.log"), filepath.Join(dir, "stderr.log")
	}
	r.rt.Spec.Env = r.environment()
	for _, p := range r.spec.Request.Ports {
		if p.Direction == skyport.In && !r.spec.Member { // the ports are the script's
			r.inPorts = append(r.inPorts, p.Number)
		}
	}
	if err := shim.Read(dir, loginsFile, &r.rt.Spec.Registries); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	r.inputs = transfer.NewReceiver(work, transfer.ReceiverOptions{Stage: r.stage()})
	r.record.load(filepath.Join(dir, metricsFile))
	r.status = protocol.RunStatus{Run: name, State: protocol.RunStaging}
	r.refresh()
	ctx, cancel := context.WithCancel(w.ctx)
	r.cancel = cancel
	w.mu.Lock()
	w.byName[name] = r
	w.mu.Unlock()
	w.observer.nudge() // when refresh did, it could not yet be found
	w.all.Go(func() {
		defer close(r.ended)
		defer cancel()
		r.live(ctx)
	})
	return r, nil
}

// workDir is where the script runs: a directory of the run's own, or the one
// that the job names. An absolute one is the user's: it is made when it is not
// there, and never removed.
func (r *run) workDir() string {
	dir := r.dir
	if r.shared != "" {
		dir = r.shared
	}
	return within(filepath.Join(dir, workDir), r.spec.Request.WorkDir, "")
}

// stage is where incomplete inputs lie: on the file system of the work directory.
func (r *run) stage() string {
	if filepath.IsAbs(r.spec.Request.WorkDir) {
		return "" // the receiver's own choice, inside the directory
	}
	if r.shared != "" {
		return filepath.Join(r.shared, stageDir)
	}
	return filepath.Join(r.dir, stageDir)
}

// start asks for the script to be started. It can be called any number of times.
func (r *run) start() error {
	if !shim.Exists(r.dir, startFile) {
		if err := touch(r.dir, startFile); err != nil {
			return diskError("start run "+r.name, err)
		}
	}
	r.nudge()
	return nil
}

func (r *run) nudge() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

func (r *run) beganAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began.Time
}
