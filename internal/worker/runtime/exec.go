package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/session"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// Exec runs the command as a process of the node: in the run's cgroup and with
// its mark, so that Clean finds what it leaves.
func (p *Process) Exec(ctx context.Context, run *Run, command protocol.Command, s *session.Served) session.Exit {
	c := &running{ctx: ctx, served: s, tty: command.TTY, size: session.Size{Rows: command.Rows, Cols: command.Cols}}
	env := maps.Clone(p.env)
	c.dir = env["HOME"]
	if run != nil {
		env, c.dir = p.runEnv(*run), run.Work
		c.group = p.base.Group(p.prefix + run.Spec.Run)
	} else if info, err := os.Stat(c.dir); err != nil || !info.IsDir() {
		c.dir = "/"
	}
	maps.Copy(env, command.Env)
	if command.TTY && env["TERM"] == "" {
		env["TERM"] = "xterm"
	}
	if run != nil { // whatever the caller says
		name, value, _ := strings.Cut(mark(run.Spec.Run), "=")
		env[name] = value
	}
	c.env = entries(env)
	if command.Dir != "" {
		c.dir = within(c.dir, command.Dir)
	}
	if c.argv = command.Argv; len(c.argv) == 0 {
		c.argv = []string{shell()}
	}
	var err error
	if c.path, err = lookup(c.argv[0], env["PATH"], c.dir); err != nil {
		return notFound(err)
	}
	if len(command.Argv) == 0 && run == nil {
		c.argv = []string{"-" + filepath.Base(c.path)} // a login shell
	}
	return c.run()
}

// within joins a path to dir, unless it is absolute.
func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// lookup finds a program as a shell does.
func lookup(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(within(dir, name))
	}
	failed := skyport.Errorf(skyport.CodeNotFound, "%s: command not found", skyport.Abbreviate(name, 200))
	for _, d := range filepath.SplitList(path) {
		candidate := filepath.Join(within(dir, d), name)
		err := executable(candidate)
		if err == nil {
			return candidate, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			failed = skyport.Errorf(skyport.CodeForbidden, "%s: %w", candidate, err)
		}
	}
	return "", failed
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return skyport.Errorf(skyport.CodeNotFound, "%s: no such file", skyport.Abbreviate(path, 200))
	case err != nil:
		return fmt.Errorf("find the command: %w", err)
	case info.IsDir() || info.Mode().Perm()&0o111 == 0:
		return skyport.Errorf(skyport.CodeForbidden, "%s: %w", skyport.Abbreviate(path, 200), fs.ErrPermission)
	}
	return nil
}

// notFound has the exit codes that shells have.
func notFound(err error) session.Exit {
	exit := session.Failed(err)
	exit.Code = 126
	if skyport.CodeOf(err) == skyport.CodeNotFound {
		exit.Code = 127
	}
	return exit
}

// shell is the login shell of this process's user.
func shell() string {
	uid := strconv.Itoa(os.Getuid())
	if data, err := os.ReadFile("/etc/passwd"); err == nil {
		for line := range strings.Lines(string(data)) {
			fields := strings.Split(strings.TrimSpace(line), ":")
			if len(fields) == 7 && fields[2] == uid && executable(fields[6]) == nil {
				return fields[6]
			}
		}
	}
	return "/bin/sh"
}
