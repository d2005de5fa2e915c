package leaks

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// daemon is core or the gate. It is started again whenever it was killed, unless
// it is to stay away.
type daemon struct {
	h      *house
	name   string
	random *rand.Rand // used by one goroutine at a time

	mu      sync.Mutex
	process *os.Process // nil while there is none
	killed  bool
	last    bool          // is not started again
	over    chan struct{} // closed when there will be none again
	code    int           // of the end of the last one
}

func (d *daemon) start() {
	d.mu.Lock()
	d.last = false
	d.mu.Unlock()
	d.over = make(chan struct{})
	go func() {
		defer close(d.over)
		// The kernel kills core and gate with the thread that made them, so
		// that they do not outlive a test that is killed.
		runtime.LockOSThread()
		for d.once() {
			time.Sleep(time.Duration(d.random.Int64N(int64(200 * time.Millisecond)))) // what an init system takes
		}
	}()
}

// once runs the daemon until it ends and says whether it is to be started again.
func (d *daemon) once() bool {
	log, err := os.OpenFile(d.h.path(d.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.h.t.Errorf("start %s: %v", d.name, err)
		return false
	}
	defer func() { _ = log.Close() }() // the daemon has its own
	cmd := exec.Command(d.h.binary, d.name, "--log-level", "debug")
	cmd.Env, cmd.Stdout, cmd.Stderr = d.h.env, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	d.mu.Lock()
	if d.last {
		d.mu.Unlock()
		return false
	}
	err = cmd.Start()
	d.process, d.killed = cmd.Process, false
	d.mu.Unlock()
	if err != nil {
		d.h.t.Errorf("start %s: %v", d.name, err)
		return false
	}
	err = cmd.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process, d.code = nil, cmd.ProcessState.ExitCode()
	switch {
	case d.last:
		return false
	case !d.killed:
		d.h.t.Errorf("%s ended by itself: %v\n%s", d.name, err, d.h.logTail("", 30))
		d.h.giveUp()
		return false
	}
	return true
}

// kill kills the daemon, and says whether there was one.
func (d *daemon) kill() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil || d.killed {
		return false
	}
	d.killed = true
	_ = d.process.Kill() // it may have ended
	return true
}

// stop ends the daemon for good and returns its exit code.
func (d *daemon) stop(how syscall.Signal) int {
	if d.over == nil {
		return 0
	}
	d.mu.Lock()
	d.last = true
	if d.process != nil {
		_ = d.process.Signal(how) // it may have ended
	}
	d.mu.Unlock()
	select {
	case <-d.over:
	case <-time.After(30 * time.Second):
		d.h.t.Errorf("%s does not end", d.name)
		d.kill()
		<-d.over
	}
	return d.code
}
