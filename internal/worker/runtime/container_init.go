package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport/internal/worker/shim"
)

// The files of an init's directory, its box.
const (
	ordersFile = "orders.json" // what to do
	begunFile  = "begun"       // the init listens to signals; from here on the script may run
	reportFile = "report.json" // how it ended
)

// initOrders is what an init has to do.
type initOrders struct {
	Image  string   `json:"image"` // for messages
	Run    string   `json:"run"`   // the run's directory
	Script string   `json:"script"`
	Work   string   `json:"work"`
	Stdin  string   `json:"stdin"`
	Stdout string   `json:"stdout"`
	Stderr string   `json:"stderr"`
	Bin    string   `json:"bin,omitempty"`
	User   string   `json:"user"`            // name on the node
	Given  []string `json:"given,omitempty"` // of HOME and USER: set by the job
	// Member: there is no script; be there for commands until told to end.
	Member bool `json:"member,omitempty"`
}

// Init is the first process of a container, whatever the image: it starts the
// script, reaps what the script leaves behind, passes TERM to all of it, and
// ends as the script did. It runs nothing a second time. Only a process of its
// own may call it.
func Init(box string) error {
	told := make(chan os.Signal, 4)
	// Not ignored: the script would ignore them, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE)
	signal.Notify(told, syscall.SIGTERM)
	var orders initOrders
	if err := shim.Read(box, ordersFile, &orders); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	if err := shim.Reserve(box, reportFile); err != nil {
		return err
	}
	begun, err := os.OpenFile(filepath.Join(box, begunFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("the script was started before")
	}
	if err != nil {
		return fmt.Errorf("note the start: %w", err)
	}
	if err := begun.Close(); err != nil {
		return fmt.Errorf("note the start: %w", err)
	}
	var res shim.Result
	if orders.Member {
		waitIdle(told)
		endAll(told)
	} else if pid, err := orders.start(); err != nil {
		res.Refused = err.Error()
	} else {
		res.ExitCode, res.Signal = attendScript(pid, told)
	}
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err == nil {
		res.CPUSeconds = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
		res.PeakMemory = usage.Maxrss * 1024
	}
	peak, killed := ownMemory()
	res.PeakMemory, res.OutOfMem = max(res.PeakMemory, peak), killed > 0
	if err := shim.Write(box, reportFile, res); err != nil {
		return err
	}
	os.Exit(res.ExitCode)
	return nil
}

// start starts the script.
func (o *initOrders) start() (int, error) {
	argv, err := o.interpreter()
	if err != nil {
		return 0, err
	}
	var files []uintptr
	for _, open := range []func() (*os.File, error){
		func() (*os.File, error) { return os.Open(o.Stdin) },
		func() (*os.File, error) { return os.OpenFile(o.Stdout, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) },
		func() (*os.File, error) { return os.OpenFile(o.Stderr, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) },
	} {
		f, err := open()
		if err != nil {
			return 0, fmt.Errorf("open the script's files: %w", err)
		}
		defer func() { _ = f.Close() }() // the script has its own
		files = append(files, f.Fd())
	}
	syscall.Umask(0o022)
	restore := preferForOutOfMemory()
	defer restore()
	attr := &syscall.ProcAttr{Dir: o.Work, Env: o.environment(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	pid, err := syscall.ForkExec(argv[0], argv, attr) //nolint:gosec // to run what a user says is its purpose
	if errors.Is(err, syscall.ENOENT) {
		return 0, fmt.Errorf("start %s in container image %s: its loader or a library is missing there", argv[0], o.Image)
	}
	if err != nil {
		return 0, fmt.Errorf("start %s in container image %s: %w", argv[0], o.Image, err)
	}
	return pid, nil
}

// interpreter says what executes the script, and fails when the image lacks it.
func (o *initOrders) interpreter() ([]string, error) {
	path, argument, err := firstLine(o.Script)
	if err != nil {
		return nil, err
	}
	if path == "" {
		if executable("/bin/sh") != nil {
			return nil, fmt.Errorf("the script has no #! line, and container image %s has no /bin/sh", o.Image)
		}
		return []string{"/bin/sh", o.Script}, nil
	}
	if !filepath.IsAbs(path) || executable(path) != nil {
		return nil, fmt.Errorf("the script asks for %q, which container image %s does not have", path, o.Image)
	}
	if name, _, _ := strings.Cut(argument, " "); filepath.Base(path) == "env" && name != "" && name[0] != '-' && !strings.Contains(name, "=") {
		if _, err := lookup(name, os.Getenv("PATH"), o.Work); err != nil {
			return nil, fmt.Errorf("the script asks for %q, which container image %s does not have in its PATH", name, o.Image)
		}
	}
	if argument != "" {
		return []string{path, argument, o.Script}, nil
	}
	return []string{path, o.Script}, nil
}

// environment adds who the user is: as the image knows it, or else as the node
// does, with the work directory for a home.
func (o *initOrders) environment() []string {
	name, home := passwd(os.Getuid())
	if info, err := os.Stat(home); home == "" || home == "/" || err != nil || !info.IsDir() {
		home = o.Work
	}
	if name == "" {
		name = o.User
	}
	env := os.Environ()
	set := func(key, value string) {
		env = slices.DeleteFunc(env, func(entry string) bool { return strings.HasPrefix(entry, key+"=") })
		env = append(env, key+"="+value)
	}
	if !slices.Contains(o.Given, "HOME") {
		set("HOME", home)
	}
	if !slices.Contains(o.Given, "USER") {
		set("USER", name)
		set("LOGNAME", name)
	}
	if os.Getenv("SHELL") == "" {
		set("SHELL", "/bin/sh") // who starts something elsewhere wants to know, mpirun for one
	}
	return env
}

// attendScript reaps until the script and all that it started have ended.
func attendScript(script int, told <-chan os.Signal) (code, sig int) {
	type child struct {
		pid    int
		status syscall.WaitStatus
	}
	reaped := make(chan child)
	go func() {
		defer close(reaped)
		for {
			var c child
			var err error
			c.pid, err = syscall.Wait4(-1, &c.status, syscall.WALL, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil {
				return // ECHILD: nobody is left
			}
			reaped <- c
		}
	}()
	var again <-chan time.Time
	for {
		select {
		case c, more := <-reaped:
			if !more {
				return code, sig
			}
			if c.pid == script {
				if code = c.status.ExitStatus(); c.status.Signaled() {
					sig = int(c.status.Signal())
					code = 128 + sig
				}
				again = time.After(time.Millisecond) // what it left behind goes without a grace
			}
		case <-told:
			_ = syscall.Kill(-1, syscall.SIGTERM) // all but this process
			_ = syscall.Kill(-1, syscall.SIGCONT) // a stopped process cannot end
		case <-again:
			_ = syscall.Kill(-1, syscall.SIGKILL)
			again = time.After(20 * time.Millisecond) // who forked meanwhile is found the next time
		}
	}
}

// waitIdle reaps what commands leave behind until it is told to end.
func waitIdle(told <-chan os.Signal) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-told:
			return
		case <-ended:
			for {
				var status syscall.WaitStatus
				if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); err != nil || pid <= 0 {
					break
				}
			}
		}
	}
}

// endAll ends the commands of a member; they are not this process's children,
// and the end of the container kills those who do not listen.
func endAll(told <-chan os.Signal) {
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT)
	deadline := time.After(DefaultGrace)
	for syscall.Kill(-1, 0) == nil { // ESRCH: nobody is left
		select {
		case <-time.After(10 * time.Millisecond):
		case <-told:
			_ = syscall.Kill(-1, syscall.SIGTERM)
		case <-deadline:
			return
		}
		var status syscall.WaitStatus
		_, _ = syscall.Wait4(-1, &status, syscall.WNOHANG, nil) // what they left behind
	}
}

// preferForOutOfMemory makes the script rather than this process the one that
// is killed for memory: who survives can tell of it.
func preferForOutOfMemory() (restore func()) {
	const path = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(path)
	if err != nil {
		return func() {}
	}
	own, err := strconv.Atoi(strings.TrimSpace(string(before)))
	if err != nil || os.WriteFile(path, []byte(strconv.Itoa(min(own+300, 1000))), 0o600) != nil {
		return func() {}
	}
	return func() { _ = os.WriteFile(path, before, 0o600) } // back to what it was is always allowed
}

// ownMemory reads from the container's own cgroup the most that it used, and how
// many of its processes were killed for it.
func ownMemory() (peak int64, killed int) {
	number := func(text string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	for _, files := range [][2]string{
		{"/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory.events"},
		{"/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory/memory.oom_control"},
	} {
		events, err := os.ReadFile(files[1])
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(events)) {
			if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
				killed = int(number(count))
			}
		}
		if data, err := os.ReadFile(files[0]); err == nil {
			peak = number(string(data))
		}
		break
	}
	return peak, killed
}
