package runtime

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/cgroup"
	"github.com/openworkload/skyport/internal/worker/proc"
	"github.com/openworkload/skyport/internal/worker/shim"
)

// DefaultGrace is how long a tree is given between TERM and KILL.
const DefaultGrace = 10 * time.Second

// Process runs scripts as processes of the node, as the worker's own user. The
// limits are cgroups where there are any, else rlimits.
type Process struct {
	base   cgroup.Base
	prefix string // of the names of this worker's cgroups
	env    map[string]string
}

var _ Runtime = (*Process)(nil)

// NewProcess returns the runtime of the worker that lives in dir.
func NewProcess(dir string) *Process {
	sum := sha256.Sum256([]byte(dir))
	return &Process{
		base:   cgroup.Find(),
		prefix: "skyport-" + hex.EncodeToString(sum[:4]) + "-",
		env:    environment(),
	}
}

// Name returns "process".
func (p *Process) Name() string { return "process" }

// Prepare has nothing to do.
func (p *Process) Prepare(context.Context, Run, func(string)) error { return nil }

// Launch executes the script by its #! line, or by /bin/sh when it has none.
func (p *Process) Launch(run Run) (shim.Launch, error) {
	spec := run.Spec
	if spec.Request.ContainerImage != "" {
		return shim.Launch{}, skyport.Errorf(skyport.CodeNoEngine,
			"container image %s: this node has no container engine", spec.Request.ContainerImage)
	}
	if spec.Member {
		return shim.Launch{}, nil // processes need nothing to be there
	}
	interpreter, err := interpreterOf(run.Script)
	if err != nil {
		return shim.Launch{}, err
	}
	launch := shim.Launch{
		Argv:      append(interpreter, run.Script),
		Dir:       run.Work,
		Stdin:     run.Stdin,
		Stdout:    run.Stdout,
		Stderr:    run.Stderr,
		TimeLimit: spec.Request.TimeLimit.Duration(),
		Grace:     spec.Grace.Duration(),
		CPUs:      spec.CPUs,
		Memory:    int64(spec.Memory),
		Base:      p.base,
		Group:     p.prefix + spec.Run,
	}
	if launch.Grace <= 0 {
		launch.Grace = DefaultGrace
	}
	launch.Env = entries(p.runEnv(run))
	return launch, nil
}

// Ready has nothing to wait for.
func (p *Process) Ready(context.Context, Run) error { return nil }

// runEnv is the environment of the run's script and commands.
func (p *Process) runEnv(run Run) map[string]string {
	env := maps.Clone(p.env)
	env["TMPDIR"] = filepath.Join(run.Dir, "tmp")
	maps.Copy(env, run.Spec.Env)
	if run.Bin != "" {
		env["PATH"] = run.Bin + ":" + env["PATH"]
	}
	name, value, _ := strings.Cut(mark(run.Spec.Run), "=")
	env[name] = value
	return env
}

// entries is an environment as programs get it.
func entries(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, key := range slices.Sorted(maps.Keys(env)) {
		list = append(list, key+"="+env[key])
	}
	return list
}

// interpreterOf reads the #! line. The kernel could do it, but refuses a
// script that any process has open for writing at that moment, as a sibling
// that is just being forked may; and its error names the script, not the
// interpreter that is missing.
func interpreterOf(script string) ([]string, error) {
	path, argument, err := firstLine(script)
	if err != nil {
		return nil, err
	}
	if path == "" {
		return []string{"/bin/sh"}, nil
	}
	if _, err := exec.LookPath(path); err != nil || !filepath.IsAbs(path) {
		return nil, skyport.Errorf(skyport.CodeUnsupported, "the script asks for %s, which this node does not have",
			skyport.Abbreviate(path, 200))
	}
	if argument != "" {
		return []string{path, argument}, nil
	}
	return []string{path}, nil
}

// firstLine reads the interpreter that a script asks for, and its one argument,
// blanks and all, as the kernel has it. A script that asks for none has no path.
func firstLine(script string) (path, argument string, err error) {
	f, err := os.Open(script)
	if err != nil {
		return "", "", fmt.Errorf("read the script: %w", err)
	}
	defer func() { _ = f.Close() }()                         // was only read
	first, _ := bufio.NewReaderSize(f, 4096).ReadSlice('\n') // an empty script has none
	line, ok := strings.CutPrefix(string(first), "#!")
	if !ok {
		return "", "", nil
	}
	path, argument, _ = strings.Cut(strings.TrimSpace(line), " ")
	return path, strings.TrimSpace(argument), nil
}

// Clean kills what is left of the run's processes and removes its cgroup. A
// run whose shim was killed may have left some.
func (p *Process) Clean(ctx context.Context, run Run) error {
	return p.clean(ctx, run.Spec.Run)
}

func (p *Process) clean(ctx context.Context, run string) error {
	group := p.base.Group(p.prefix + run)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return fmt.Errorf("end the processes of run %s: %w", run, ctx.Err())
		case <-pause.C:
		}
		group.Kill()
		left := len(group.Processes())
		table, err := proc.Snapshot()
		if err != nil {
			return err
		}
		for _, pid := range table.Marked(mark(run)) {
			if row, ok := table.Process(pid); ok && !row.Zombie {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
				left++
			}
		}
		if left == 0 {
			return group.Remove()
		}
		pause.Reset(min(time.Duration(round+1)*2*time.Millisecond, 100*time.Millisecond))
	}
}

// Sweep removes the cgroups of runs that no longer exist.
func (p *Process) Sweep(ctx context.Context, keep func(run string) bool) error {
	for _, name := range p.base.List(p.prefix) {
		run := strings.TrimPrefix(name, p.prefix)
		if keep(run) {
			continue
		}
		if err := p.clean(ctx, run); err != nil {
			return err
		}
	}
	return nil
}

// mark is the entry of a process's environment that says to which run it
// belongs: processes that lost their shim are found by it.
func mark(run string) string { return "SWM_RUN=" + run }

// environment is what every script gets beside its SWM_… entries: nothing of
// the worker's own but where programs are and who the user is.
func environment() map[string]string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": "/",
		"LANG": "C.UTF-8",
	}
	if u, err := user.Current(); err == nil {
		env["USER"], env["LOGNAME"], env["HOME"] = u.Username, u.Username, u.HomeDir
	}
	for _, key := range []string{"PATH", "HOME", "USER", "LANG"} {
		if value := os.Getenv(key); value != "" {
			env[key] = value
		}
	}
	return env
}
