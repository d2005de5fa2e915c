package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

const rshUsage = `usage: swm-rsh [options of ssh] node command [argument ...]

Runs a command on a node of this job with sh -c, in the job's container where it has
one, for programs that want a remote shell, such as mpirun. The node is one of those
in $SWM_JOB_HOSTFILE. Options of ssh are taken and mean nothing, but -n: no standard
input. The exit code is the command's, or 255 when it could not be run.

Example:
  swm-rsh node-2 uname -a
`

// RemoteShell is the program swm-rsh. It returns the exit code.
func RemoteShell(args []string) int {
	call, err := parseShell(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "swm-rsh: %v\n%s", err, rshUsage)
		return unknownCode
	}
	if call.help {
		_, err := fmt.Fprint(os.Stdout, rshUsage)
		return exitCode(0, err)
	}
	job, err := OpenJob()
	if err != nil {
		return complain("swm-rsh", err)
	}
	node, ok := job.Find(call.host)
	if !ok {
		var names []string
		for _, n := range job.Nodes {
			names = append(names, n.Name)
		}
		return complain("swm-rsh", skyport.Errorf(skyport.CodeNotFound, "the job has no node %s", call.host).
			WithHint("its nodes are %s", strings.Join(names, ", ")))
	}
	code, err := call.run(job, node)
	if err != nil {
		return complain("swm-rsh", fmt.Errorf("%s: %w", node.Name, err))
	}
	return code
}

// shellCall is one call of swm-rsh.
type shellCall struct {
	host    string
	command []string
	noInput bool
	help    bool
}

// withValue are the options of ssh that have a value; the others have none.
const withValue = "bcDEeFIiJLlmOopQRSWw"

// parseShell reads arguments as ssh does: options may stand before the host and
// right behind it.
func parseShell(args []string) (shellCall, error) {
	var c shellCall
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			args = args[1:]
			if c.host == "" && len(args) > 0 {
				c.host, args = args[0], args[1:]
			}
			c.command, args = args, nil
			continue
		case arg == "--help" || arg == "-h":
			c.help = true
			return c, nil
		case len(arg) > 1 && arg[0] == '-':
			args = args[1:]
			for i := 1; i < len(arg); i++ {
				c.noInput = c.noInput || arg[i] == 'n'
				if strings.IndexByte(withValue, arg[i]) < 0 {
					continue
				}
				if i == len(arg)-1 { // its value is the next argument
					if len(args) == 0 {
						return c, fmt.Errorf("option -%c wants a value", arg[i])
					}
					args = args[1:]
				}
				break
			}
			continue
		case c.host == "":
			c.host, args = arg, args[1:]
			continue
		}
		c.command, args = args, nil
	}
	if _, host, ok := strings.Cut(c.host, "@"); ok {
		c.host = host
	}
	switch {
	case c.host == "":
		return c, errors.New("which node?")
	case len(c.command) == 0:
		return c, errors.New("which command?")
	}
	return c, nil
}

func (c shellCall) run(job *Job, node Node) (int, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals, told := make(chan os.Signal, 16), make(chan syscall.Signal, 16)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	var forwarding sync.WaitGroup
	defer forwarding.Wait()
	defer cancel()
	forwarding.Go(func() {
		for {
			select {
			case sig := <-signals:
				if number, ok := sig.(syscall.Signal); ok {
					select {
					case told <- number:
					default: // it has not yet taken the ones before
					}
				}
			case <-ctx.Done():
				return
			}
		}
	})
	with := session.Caller{Stdout: os.Stdout, Stderr: os.Stderr, Signals: told}
	if !c.noInput {
		with.Stdin = os.Stdin
	}
	exit, err := job.Run(ctx, protocol.Command{
		Argv: []string{"/bin/sh", "-c", strings.Join(c.command, " ")}, Node: node.Name,
	}, with)
	if err == nil {
		err = exit.Err()
	}
	return exit.Code, err
}
