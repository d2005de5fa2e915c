package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/openworkload/skyport"
)

// The exit codes are a promise: scripts decide by them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitJobFailed   = 124
	exitJobCanceled = 125
	exitInterrupted = 130
)

const exitCodesLine = `0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 core not reachable, 130 interrupted`

const exitCodesHelp = `Every command ends with one of these codes:

    0  done
    1  failed: the message says what and on what
    2  wrong usage: no such command or flag, or arguments that do not go together
    3  not found: no such job, log, result or file of that name
    4  refused: a wrong job script, an unknown account, site, flavor or image, a
       job of somebody else, a state that does not allow it
    5  core not reachable, or not ready to answer
  130  interrupted by Ctrl-C

"skyport submit --follow", "skyport submit --wait" and "skyport wait" end as the
job did:

    0  the script ended with 0
  1-255 the exit code of the script; 128 and the number of the signal when a
       signal ended it, such as 137 after SIGKILL
  124  the job came to state E: Sky Port or the site failed, not the script
  125  the job was canceled

"skyport exec", "skyport attach" and "skyport ssh" end as their command did:

    0  the command ended with 0
  1-254 its exit code; 128 and the number of the signal when a signal ended it;
       126 and 127 when it cannot be executed or there is no such command
  255  it could not be run, or the connection to it was lost: standard error
       says why; only wrong usage is still 2

With several jobs "skyport wait" ends with the first code, in the order of the
arguments, that is not 0. Where a script ends with a code of the first table,
standard error tells the difference: Sky Port's own errors begin with
"skyport: ".`

// usageError is a mistake in the arguments.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

// endWith ends the program with a code and no message: everything was said.
type endWith int

func (e endWith) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// jobExit is the code that a command ends with when it waited for a job.
func jobExit(job skyport.Job) error {
	switch {
	case job.State == skyport.JobCanceled:
		return endWith(exitJobCanceled)
	case job.State == skyport.JobFailed:
		return endWith(exitJobFailed)
	case job.Signal != 0:
		return endWith(128 + job.Signal)
	case job.ExitCode != 0:
		return endWith(job.ExitCode)
	}
	return nil
}

// exit tells the error of a command, if any, and returns the code to end with.
func (a *app) exit(ctx context.Context, command string, err error) int {
	code := a.exitCode(ctx, err)
	if _, silent := errors.AsType[endWith](err); err == nil || silent {
		return code
	}
	if code == exitInterrupted {
		a.Err.printf("skyport: interrupted\n")
		return code
	}
	a.tell(err)
	if code == exitUsage {
		a.Err.printf("  %s %s --help shows how it is used\n", a.Err.paint(cyan, "hint:"), command)
	}
	return code
}

func (a *app) exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if end, ok := errors.AsType[endWith](err); ok {
		return int(end)
	}
	// What fails before a command began is the fault of the arguments: an
	// unknown command or flag, or a wrong number of arguments.
	if _, ok := errors.AsType[usageError](err); ok || !a.began {
		return exitUsage
	}
	if ctx.Err() != nil {
		return exitInterrupted
	}
	switch skyport.CodeOf(err) {
	case skyport.CodeNotFound:
		return exitNotFound
	case skyport.CodeUnavailable:
		return exitUnreachable
	case skyport.CodeInternal, skyport.CodeNoSpace:
		return exitFailure
	default:
		return exitRefused
	}
}

// tell prints an error for people: what failed, then what to do about it.
func (a *app) tell(err error) {
	if wrong, ok := errors.AsType[scriptError](err); ok {
		wrong.tell(a)
		return
	}
	a.Err.printf("%s %s\n", a.Err.paint(red, "skyport:"), plain(strings.TrimSpace(err.Error())))
	if hint := skyport.HintOf(err); hint != "" {
		a.Err.printf("  %s %s\n", a.Err.paint(cyan, "hint:"), plain(hint))
	}
}
