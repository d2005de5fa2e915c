package task

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// launch is one call of swm-task.
type launch struct {
	job            *Job
	argv           []string
	tasks, perNode int
	label, bad     bool // --label, --kill-on-bad-exit
	out, errs      *merged

	cancel context.CancelFunc
	mu     sync.Mutex
	worst  int
	told   []chan syscall.Signal
	ending bool
}

// passed are the signals that go on to the tasks.
var passed = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

// run runs the tasks and returns the highest exit code.
func (l *launch) run(ctx context.Context) (int, error) {
	if err := l.distribute(); err != nil {
		return 0, err
	}
	port, err := freePort()
	if err != nil {
		return 0, err
	}
	if l.tasks == 1 && !l.label {
		l.out.raw, l.errs.raw = true, true
	}
	ctx, l.cancel = context.WithCancel(ctx)
	defer l.cancel()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	over := make(chan struct{})
	var all, forwarding sync.WaitGroup
	for range l.tasks {
		l.told = append(l.told, make(chan syscall.Signal, 16))
	}
	forwarding.Go(func() {
		for {
			select {
			case sig := <-signals:
				if number, ok := sig.(syscall.Signal); ok {
					l.tell(number)
				}
			case <-over:
				return
			}
		}
	})
	base := inherited(os.Environ())
	slots := make(chan struct{}, starting)
	for rank := range l.tasks {
		all.Go(func() { l.task(ctx, rank, port, base, slots) })
	}
	all.Wait()
	close(over)
	forwarding.Wait()
	l.out.flush()
	l.errs.flush()
	return l.worst, nil
}

// starting is how many tasks are being started at one time.
const starting = 32

// distribute finds out how many tasks there are, and on which nodes.
func (l *launch) distribute() error {
	nodes := len(l.job.Nodes)
	if l.perNode == 0 {
		l.perNode = 1
	}
	if l.tasks == 0 {
		l.tasks = nodes * l.perNode
	}
	if l.tasks > nodes*l.perNode {
		return skyport.Errorf(skyport.CodeInvalid, "%d tasks are too many for %s with %s on each",
			l.tasks, plural(nodes, "node"), plural(l.perNode, "task")).
			WithHint("give --ntasks-per-node %d", (l.tasks+nodes-1)/nodes)
	}
	return nil
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// freePort finds a port that nobody listens on now, for the tasks to meet at.
func freePort() (int, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", ":0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = l.Close()
	}
	port, convErr := strconv.Atoi(text)
	if err := errors.Join(err, convErr); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// inherited are the entries of our own environment that the tasks get: all but
// those which another node, or a process of its own, has its own of.
func inherited(environ []string) map[string]string {
	own := []string{
		"HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TMPDIR", "USER", "_",
		HostFileEnv, "SWM_RUN", "OMPI_MCA_orte_default_hostfile", "OMPI_MCA_plm_rsh_agent",
		"PRTE_MCA_prte_default_hostfile", "PRTE_MCA_plm_ssh_agent", "HYDRA_HOST_FILE", "HYDRA_LAUNCHER_EXEC",
	}
	env := make(map[string]string)
	for _, entry := range environ {
		if key, value, ok := strings.Cut(entry, "="); ok && key != "" && !slices.Contains(own, key) {
			env[key] = value
		}
	}
	return env
}

// environment is what a task knows of itself and the others: under our own
// names, under those of torchrun, and under those by which programs that are
// not started by mpirun find their rank. The names of an MPI library's own
// start-up (PMI_RANK, PMIX_RANK, OMPI_COMM_WORLD_…) are left alone: a library
// that sees them looks for a server that is not there.
func (l *launch) environment(rank, port int, base map[string]string) map[string]string {
	node := rank / l.perNode
	local := min(l.perNode, l.tasks-node*l.perNode)
	nodes := (l.tasks + l.perNode - 1) / l.perNode
	main := l.job.Nodes[0].Address
	if main == "" {
		main = "127.0.0.1" // all nodes are this machine
		if len(l.job.Nodes) > 1 && l.resolves(l.job.Nodes[0].Name) {
			main = l.job.Nodes[0].Name
		}
	}
	env := make(map[string]string, len(base)+20)
	for key, value := range base {
		env[key] = value
	}
	for key, value := range map[string]int{
		"SWM_TASK_RANK": rank, "SWM_TASK_SIZE": l.tasks, "SWM_TASK_LOCAL_RANK": rank % l.perNode, "SWM_TASK_LOCAL_SIZE": local,
		"SWM_TASK_NODE_RANK": node, "SWM_TASK_NODES": nodes, "SWM_TASK_PORT": port,
		"RANK": rank, "WORLD_SIZE": l.tasks, "LOCAL_RANK": rank % l.perNode, "LOCAL_WORLD_SIZE": local,
		"GROUP_RANK": node, "GROUP_WORLD_SIZE": nodes, "MASTER_PORT": port,
		"MPI_LOCALRANKID": rank % l.perNode, "MPI_LOCALNRANKS": local,
	} {
		env[key] = strconv.Itoa(value)
	}
	env["SWM_TASK_MAIN_ADDRESS"], env["MASTER_ADDR"] = main, main
	return env
}

func (l *launch) resolves(name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	return err == nil && len(addresses) > 0
}

// tell passes a signal on to all tasks.
func (l *launch) tell(sig syscall.Signal) {
	for _, told := range l.told {
		select {
		case told <- sig:
		default: // it has not yet taken the ones before
		}
	}
}

// task runs one task from its start to its end.
func (l *launch) task(ctx context.Context, rank, port int, base map[string]string, slots chan struct{}) {
	node := l.job.Nodes[rank/l.perNode].Name
	code, err := l.session(ctx, rank, node, port, base, slots)
	what := fmt.Sprintf("swm-task: task %d on %s", rank, node)
	switch {
	case err != nil:
		text := err.Error()
		if hint := skyport.HintOf(err); hint != "" {
			text += " (" + hint + ")"
		}
		l.complain("%s: %s", what, text)
	case code > 128 && code < 128+65:
		l.complain("%s was ended by signal %d (%s)", what, code-128, syscall.Signal(code-128))
	case code != 0:
		l.complain("%s ended with exit code %d", what, code)
	}
	l.mu.Lock()
	l.worst = max(l.worst, code)
	end := code != 0 && l.bad && !l.ending
	l.ending = l.ending || end
	l.mu.Unlock()
	if end {
		l.complain("swm-task: ends the other tasks")
		l.tell(syscall.SIGTERM)
		late := time.AfterFunc(killTime, l.cancel)
		context.AfterFunc(ctx, func() { late.Stop() })
	}
}

// killTime is how long the others are given when one of them failed.
const killTime = 5 * time.Second

// unknownCode is the exit code of a task whose end is not known.
const unknownCode = 255

func (l *launch) session(ctx context.Context, rank int, node string, port int, base map[string]string, slots chan struct{}) (int, error) {
	stdout, err := l.log("stdout", rank, l.out)
	if err != nil {
		return unknownCode, err
	}
	stderr, err := l.log("stderr", rank, l.errs)
	if err != nil {
		return unknownCode, errors.Join(err, stdout.close())
	}
	command := protocol.Command{Argv: l.argv, Env: l.environment(rank, port, base), Dir: l.job.here(), Node: node}
	slots <- struct{}{}
	// A slot is free again when the task says something, or a moment later: then
	// its connection stands.
	var once sync.Once
	free := func() { once.Do(func() { <-slots }) }
	later := time.AfterFunc(time.Second, free)
	exit, err := l.job.Run(ctx, command, session.Caller{Stdout: stdout, Stderr: stderr, Signals: l.told[rank]})
	later.Stop()
	free()
	logged := errors.Join(stdout.close(), stderr.close())
	switch {
	case err != nil && ctx.Err() != nil:
		return 128 + int(syscall.SIGKILL), nil //nolint:nilerr // by us
	case err != nil:
		return unknownCode, err
	case exit.Err() != nil:
		return max(exit.Code, 1), exit.Err()
	}
	return exit.Code, logged
}

func (l *launch) complain(format string, args ...any) {
	l.errs.line(fmt.Sprintf(format, args...))
}

// log is where the output of a task goes: into a file of its own and, joined
// with that of the others, to ours.
func (l *launch) log(stream string, rank int, to *merged) (*taskLog, error) {
	name := fmt.Sprintf("%s-task%d.log", stream, rank)
	f, err := os.Create(name)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeForbidden, "write the log of a task: %w", err).
			WithHint("call swm-task in a directory that can be written to")
	}
	if path, err := filepath.Abs(name); err == nil {
		name = path
	}
	t := &taskLog{name: name, file: f}
	if l.label {
		t.out = to.labeled(strconv.Itoa(rank) + ": ")
	} else {
		t.out = to.labeled("")
	}
	return t, nil
}

// taskLog is one stream of a task. A full disk does not end the task: it is told
// at the end.
type taskLog struct {
	name string
	file *os.File
	err  error
	out  io.Writer
}

func (t *taskLog) Write(p []byte) (int, error) {
	if t.err == nil {
		_, t.err = t.file.Write(p)
	}
	return t.out.Write(p) //nolint:wrapcheck // says what it is
}

func (t *taskLog) close() error {
	if err := errors.Join(t.err, t.file.Close()); err != nil {
		return fmt.Errorf("the log %s is not complete: %w", t.name, err)
	}
	return nil
}
