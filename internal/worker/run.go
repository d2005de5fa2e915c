package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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
	logins := spec.Registries
	spec.Registries = nil
	data, err := json.Marshal(spec)
	if err == nil && len(logins) > 0 {
		err = shim.Write(dir, loginsFile, logins)
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

// within joins a path of the request to dir, unless it is absolute.
func within(dir, path, otherwise string) string {
	if path == "" {
		path = otherwise
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// live drives the run until it has ended. When the worker ends first it
// returns, and the shim goes on without a worker.
func (r *run) live(ctx context.Context) {
	defer r.settle()
	state, err := r.w.notify.add(r.dir, unix.IN_MOVED_TO, r.refresh)
	if err != nil {
		r.log.Error("cannot watch the run; its changes are seen late", "error", err)
	} else {
		defer r.w.notify.drop(state)
	}
	r.refresh() // what came before the watch
	// And what comes until its end: a watch that is dropped tells no more of what
	// it has seen, such as the end of a script that ended just now.
	defer r.refresh()
	if err := r.prepare(ctx); err != nil {
		r.refuse(ctx, err)
		return
	}
	if !r.awaitStart(ctx) {
		return
	}
	r.observe()
	for attempt := 1; ctx.Err() == nil; attempt++ {
		done, err := r.attend(ctx, attempt)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.refuse(ctx, err)
			return
		case done:
			return
		}
	}
}

// prepare makes the runtime ready for the run, unless it is to be stopped before.
func (r *run) prepare(ctx context.Context) error {
	if shim.Exists(r.dir, shim.LaunchFile) || shim.Exists(r.dir, shim.ExitFile) || shim.Exists(r.dir, shim.StopFile) {
		return r.forgetLogins()
	}
	preparing, cancel := context.WithCancel(ctx)
	defer cancel()
	prepared := make(chan error, 1)
	go func() {
		err := r.w.runtime.Prepare(preparing, r.rt, func(details string) {
			r.change(func(s *protocol.RunStatus) { s.Details = details })
		})
		if err == nil {
			err = r.awaitShared(preparing)
		}
		prepared <- err
	}()
	for {
		select {
		case err := <-prepared:
			if shim.Exists(r.dir, shim.StopFile) {
				return r.forgetLogins()
			}
			if err == nil { // what was told of the way there is over
				r.change(func(s *protocol.RunStatus) {
					if s.State == protocol.RunStaging {
						s.Details = ""
					}
				})
			}
			return errors.Join(err, r.forgetLogins())
		case <-r.wake:
			if shim.Exists(r.dir, shim.StopFile) {
				cancel()
			}
		}
	}
}

// forgetLogins removes what only the image was needed for.
func (r *run) forgetLogins() error {
	select {
	case <-r.w.ctx.Done():
		return nil // the next worker may need them
	default:
	}
	if err := os.Remove(r.path(loginsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the registries' logins: %w", err)
	}
	return nil
}

// awaitStart waits until the start is asked for, and says whether it was. A
// stop may come first.
func (r *run) awaitStart(ctx context.Context) bool {
	for {
		switch {
		case shim.Exists(r.dir, shim.ExitFile):
			return false
		case shim.Exists(r.dir, shim.LaunchFile):
			return true // by an earlier worker: a shim may live
		case shim.Exists(r.dir, shim.StopFile):
			r.conclude(ctx, shim.Exit{Stopped: true, Ended: time.Now().UTC()})
			return false
		case shim.Exists(r.dir, startFile):
			return true
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// maxShims is how often a shim is started that does not get as far as begin.
const maxShims = 3

// attend brings the run one step on: it waits for the shim that lives, or
// starts one when none did so far. It says whether the run is over.
func (r *run) attend(ctx context.Context, attempt int) (done bool, err error) {
	lock, err := shim.TryLock(r.dir)
	if err != nil {
		return false, err
	}
	if lock != nil {
		defer func() { _ = lock.Close() }()
		// Nobody holds the lock, so nobody writes these files any more.
		switch {
		case shim.Exists(r.dir, shim.ExitFile):
			return true, nil
		case shim.Exists(r.dir, shim.BeganFile):
			if r.holds() && r.heldSince() {
				return true, r.hold(ctx)
			}
			r.lose(ctx)
			return true, nil
		}
		if err := r.launch(); err != nil {
			return false, err
		}
		if r.holds() {
			return true, r.hold(ctx)
		}
		if attempt > maxShims {
			return false, fmt.Errorf("the shim does not start: %s", r.complaint())
		}
		_ = lock.Close() // the shim's now
	}
	p, err := r.shimProcess(lock == nil)
	if err != nil || p == nil {
		return false, err
	}
	defer p.close()
	if shim.Exists(r.dir, shim.StopFile) {
		r.tell(shim.StopSignal) // asked for while no worker was there
	}
	err = p.wait(ctx)
	r.refresh()
	return false, err
}

// shimProcess finds the shim that lives, or starts one. When one lives but has
// not yet begun, another is started that waits behind it: should the first die
// without having begun, the second takes over at once.
func (r *run) shimProcess(lives bool) (*process, error) {
	var began shim.Began
	if lives && shim.Read(r.dir, shim.BeganFile, &began) == nil {
		p, err := find(began)
		if errors.Is(err, os.ErrProcessDone) {
			return nil, nil // a moment ago: look again
		}
		return p, err
	}
	return spawn(r.w.shimCommand, r.dir)
}

// launch writes down what the shim executes and opens the out ports.
func (r *run) launch() error {
	if err := r.openParks(); err != nil {
		return err
	}
	if err := r.openTasks(); err != nil {
		return err
	}
	if shim.Exists(r.dir, shim.LaunchFile) {
		return nil
	}
	if err := os.MkdirAll(r.rt.Work, 0o700); err != nil {
		return diskError("make the work directory", err)
	}
	launch, err := r.w.runtime.Launch(r.rt)
	if err != nil {
		return err
	}
	for _, path := range []string{r.rt.Stdout, r.rt.Stderr} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), create(path)); err != nil {
			return diskError("make the log "+path, err)
		}
	}
	r.watchLogs()
	return shim.Write(r.dir, shim.LaunchFile, launch)
}

// openParks listens for the job on its out ports.
func (r *run) openParks() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.spec.Request.Ports {
		if p.Direction != skyport.Out || r.spec.Member || r.parks[p.Number] != nil {
			continue
		}
		park, err := forward.NewPark(p.Number, forward.ParkOptions{Logger: r.log})
		if err != nil {
			return fmt.Errorf("out port %d of the job: %w", p.Number, err)
		}
		r.parks[p.Number] = park
	}
	return nil
}

// observe looks after a run that an earlier worker started.
func (r *run) observe() {
	if !shim.Exists(r.dir, shim.LaunchFile) {
		return
	}
	r.watchLogs()
	if err := r.openParks(); err != nil {
		r.log.Warn("an out port of a running job is closed", "error", err)
	}
	if err := r.openTasks(); err != nil {
		r.log.Warn("a running job can start no tasks", "error", err)
	}
}

// watchLogs has the kernel tell when the logs grow.
func (r *run) watchLogs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.watches) > 0 {
		return
	}
	for _, path := range []string{r.rt.Stdout, r.rt.Stderr} {
		watch, err := r.w.logNotify.add(path, unix.IN_MODIFY, r.refresh)
		if err != nil {
			r.log.Warn("growth of a log is seen late", "error", err)
			continue
		}
		r.watches = append(r.watches, watch)
	}
}

// settle ends what goes on around the run and is of use only while it lives.
func (r *run) settle() {
	r.mu.Lock()
	parks, watches, tasks := r.parks, r.watches, r.tasks
	r.parks, r.watches, r.tasks = make(map[int]*forward.Park), nil, nil
	r.mu.Unlock()
	tasks.close()
	for _, watch := range watches {
		r.w.logNotify.drop(watch)
	}
	for port, park := range parks {
		if err := park.Close(); err != nil {
			r.log.Warn("close an out port", "port", port, "error", err)
		}
	}
}

// lose says that the shim died without a record of the end. The script may
// have run, so it is not run again; what is left of it is killed.
func (r *run) lose(ctx context.Context) {
	if err := r.w.runtime.Clean(ctx, r.rt); err != nil && ctx.Err() == nil {
		r.log.Error("remains of a lost run", "error", err)
	}
	details := "the processes of the run vanished without a record of its end"
	var began shim.Began
	if shim.Read(r.dir, shim.BeganFile, &began) == nil && began.BootID != r.w.bootID {
		details = "the node booted while the script ran"
	}
	if c := r.complaint(); c != "" {
		details += ": " + c
	}
	r.log.Warn("run lost", "details", details)
	r.change(func(s *protocol.RunStatus) {
		s.State, s.Details, s.Started = protocol.RunLost, details, began.Time
	})
}

// refuse says that the run cannot be started here.
func (r *run) refuse(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	r.log.Warn("run refused", "error", err)
	why := err.Error()
	if hint := skyport.HintOf(err); hint != "" {
		why += " (" + hint + ")"
	}
	r.conclude(ctx, shim.Exit{Refused: why, Ended: time.Now().UTC()})
}

// conclude writes the end of a run that never began. Only with the lock in
// hand, for a shim of an earlier worker may be on its way.
func (r *run) conclude(ctx context.Context, exit shim.Exit) {
	lock, err := r.lock(ctx, func() {})
	if ctx.Err() != nil {
		return // the next worker comes to the same end
	}
	if err == nil {
		defer func() { _ = lock.Close() }()
		if !shim.Exists(r.dir, shim.BeganFile) && !shim.Exists(r.dir, shim.ExitFile) {
			err = shim.Write(r.dir, shim.ExitFile, exit)
		}
	}
	if err != nil {
		// Such as a full disk: it holds as long as this worker lives.
		r.log.Error("cannot write down the end of a run", "error", err)
		r.change(func(s *protocol.RunStatus) { conclude(s, exit) })
		return
	}
	r.refresh()
}

// complaint is the last line that a shim wrote before it gave up.
func (r *run) complaint() string {
	data, err := os.ReadFile(filepath.Join(r.dir, shim.LogFile))
	if err != nil {
		return ""
	}
	data = bytes.TrimSpace(data[max(0, len(data)-4096):])
	return skyport.Abbreviate(strings.TrimSpace(string(data[bytes.LastIndexByte(data, '\n')+1:])), 500)
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

// stop asks for the run to end. The file is found by a shim that has not yet
// begun; one that has is told by a signal.
func (r *run) stop() error {
	if err := touch(r.dir, shim.StopFile); err != nil {
		return diskError("stop run "+r.name, err)
	}
	r.nudge()
	r.tell(shim.StopSignal)
	return nil
}

func (r *run) nudge() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// tell sends a signal to the shim, if one has begun.
func (r *run) tell(sig syscall.Signal) {
	var began shim.Began
	if shim.Read(r.dir, shim.BeganFile, &began) != nil || began.BootID != r.w.bootID {
		return
	}
	p, err := find(began)
	if err != nil {
		return // it has ended
	}
	defer p.close()
	if err := p.signal(sig); err != nil {
		r.log.Error("cannot tell the shim", "error", err)
	}
}

// remove ends what lives of the run and forgets it. When it returns nothing is
// left but the user's own work directory, if the job named one.
func (r *run) remove(ctx context.Context) error {
	r.mu.Lock()
	r.removed = true
	r.mu.Unlock()
	if err := touch(r.dir, shim.StopFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("remove run "+r.name, err)
	}
	r.cancel() // live returns; the shim has its own life
	<-r.ended
	r.endCommands()
	lock, err := r.kill(ctx)
	if err != nil {
		return err
	}
	// With the lock in hand: a shim that waits for it finds nothing to do.
	defer func() { _ = lock.Close() }()
	// A container outlives the end of its run when its engine was away then.
	left := !shim.Exists(r.dir, shim.ExitFile) || shim.Exists(r.dir, shim.ContainerFile)
	if left && shim.Exists(r.dir, shim.LaunchFile) || shim.Exists(r.dir, commandsFile) {
		if err := r.w.runtime.Clean(ctx, r.rt); err != nil {
			return err
		}
	}
	if err := r.inputs.Close(); err != nil {
		r.log.Warn("close the inputs", "error", err)
	}
	r.w.files.forget(r.name)
	if r.shared != "" && !r.spec.Member {
		if err := removeAll(r.shared); err != nil {
			return diskError("remove run "+r.name, err)
		}
	}
	trash := filepath.Join(r.w.runs, fmt.Sprintf(".trash-%s-%d", r.name, time.Now().UnixNano()))
	if err := os.Rename(r.dir, trash); err != nil {
		return fmt.Errorf("remove run %s: %w", r.name, err)
	}
	r.w.forget(r)
	return removeAll(trash)
}

// killTime is how long a shim is given to kill its tree before it is killed
// itself.
const killTime = 10 * time.Second

// kill ends the shim, its tree first, and returns its lock.
func (r *run) kill(ctx context.Context) (*os.File, error) {
	deadline := time.Now().Add(killTime)
	lock, err := r.lock(ctx, func() {
		if time.Now().Before(deadline) {
			r.tell(shim.KillSignal)
		} else {
			r.tell(syscall.SIGKILL)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("end run %s: %w", r.name, err)
	}
	return lock, nil
}

// lock takes the lock of the run's directory and calls waiting before each new
// attempt. Nobody tells when a lock becomes free; and the kernel's own waiting
// cannot be ended.
func (r *run) lock(ctx context.Context, waiting func()) (*os.File, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		lock, err := shim.TryLock(r.dir)
		if err != nil || lock != nil {
			return lock, err
		}
		waiting()
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil, ctx.Err() //nolint:wrapcheck // the caller's own
		}
	}
}

// removeAll removes a tree whose directories the job may have made unwritable.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err //nolint:wrapcheck // names the path
	}
	walkErr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a directory; names the path
		}
		return err
	})
	if err := os.RemoveAll(dir); err != nil {
		return errors.Join(err, walkErr)
	}
	return nil
}

// touch makes an empty file of a run's directory.
func touch(dir, name string) error { return create(filepath.Join(dir, name)) }

func create(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // names the path
	}
	return f.Close() //nolint:wrapcheck // names the path
}

// diskError gives an error of the file system its code.
func diskError(what string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return skyport.Errorf(skyport.CodeNoSpace, "%s: %w", what, err).WithHint("make room on the node")
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (r *run) path(name string) string { return filepath.Join(r.dir, name) }

func (r *run) beganAt() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.began.Time
}
