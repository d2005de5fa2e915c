package task

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/openworkload/skyport"
)

const usage = `usage: swm-task [-n N] [--ntasks-per-node M] [--label] [--kill-on-bad-exit] [--] command [argument ...]

Starts a command as tasks over the nodes of this job, in the job's container where
it has one, and waits for all of them. Call it in a job's script.

  -n, --ntasks N          tasks in all; default: as many as fit
      --ntasks-per-node M tasks on each node, the first nodes are filled first; default: 1
  -l, --label             put the task's number before each line of its output
  -k, --kill-on-bad-exit  when a task fails, end the others
  -h, --help              print this

The output of the tasks appears here, by whole lines, and in stdout-taskN.log and
stderr-taskN.log in the current directory. Their standard input is empty. INT, TERM,
HUP, USR1 and USR2 are passed on to them. The exit code is the highest of theirs.

Each task finds in its environment:
  SWM_TASK_RANK, SWM_TASK_SIZE               its number, how many there are
  SWM_TASK_LOCAL_RANK, SWM_TASK_LOCAL_SIZE   the same on its node
  SWM_TASK_NODE_RANK, SWM_TASK_NODES         the number of its node, how many have tasks
  SWM_TASK_MAIN_ADDRESS, SWM_TASK_PORT       where task 0's node is, and a free port there
  RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR MASTER_PORT
                                             the same under the names of torchrun

Examples:
  swm-task hostname                             once on each node
  swm-task --ntasks-per-node 4 --label ./work   four times on each node
  swm-task -n 2 python3 train.py --epochs 3     twice, on the first two nodes
`

// Main is the program swm-task. It returns the exit code.
func Main(args []string) int {
	l, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		_, err := fmt.Fprint(os.Stdout, usage)
		return exitCode(0, err)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "swm-task: %v\n%s", err, usage)
		return 2
	}
	if l.job, err = OpenJob(); err != nil {
		return complain("swm-task", err)
	}
	code, err := l.run(context.Background())
	if err != nil {
		return complain("swm-task", err)
	}
	return code
}

func exitCode(code int, err error) int {
	if err != nil {
		return 1
	}
	return code
}

// complain tells a person what failed and returns the exit code for it.
func complain(program string, err error) int {
	fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
	if hint := skyport.HintOf(err); hint != "" {
		fmt.Fprintf(os.Stderr, "%s: hint: %s\n", program, hint)
	}
	return unknownCode
}

// count is a flag with a number of tasks.
type count struct{ n *int }

func (c count) String() string { return "" }

// Set implements flag.Value.
func (c count) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxTasks {
		return fmt.Errorf("want a number from 1 to %d", maxTasks)
	}
	*c.n = n
	return nil
}

// maxTasks bounds the tasks of one call.
const maxTasks = 4096

func parse(args []string) (*launch, error) {
	l := &launch{out: &merged{w: os.Stdout}, errs: &merged{w: os.Stderr}}
	flags := flag.NewFlagSet("swm-task", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for _, name := range []string{"n", "ntasks"} {
		flags.Var(count{&l.tasks}, name, "")
	}
	flags.Var(count{&l.perNode}, "ntasks-per-node", "")
	for _, name := range []string{"l", "label"} {
		flags.BoolVar(&l.label, name, false, "")
	}
	for _, name := range []string{"k", "kill-on-bad-exit"} {
		flags.BoolVar(&l.bad, name, false, "")
	}
	if err := flags.Parse(args); err != nil {
		return nil, err //nolint:wrapcheck // says which flag
	}
	if l.argv = flags.Args(); len(l.argv) == 0 {
		return nil, errors.New("which command?")
	}
	return l, nil
}
