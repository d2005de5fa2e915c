package worker

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// check refuses a specification that could not be kept.
func check(spec protocol.RunSpec) error {
	if !validName(spec.Run) {
		return skyport.Errorf(skyport.CodeInvalid, "%q is not the name of a run", skyport.Abbreviate(spec.Run, 80))
	}
	req := spec.Request
	for what, path := range map[string]string{
		"standard input": req.Stdin, "standard output": req.Stdout, "standard error": req.Stderr, "work directory": req.WorkDir,
	} {
		if path != "" && !filepath.IsAbs(path) && !filepath.IsLocal(path) {
			return skyport.Errorf(skyport.CodeInvalid, "%s %q leads out of the work directory", what, skyport.Abbreviate(path, 200))
		}
	}
	if err := errors.Join(checkEnv(spec.Env), checkStorage(spec)); err != nil {
		return err
	}
	for _, p := range spec.Peers {
		if !validName(p.Name) {
			return skyport.Errorf(skyport.CodeInvalid, "%q is not the name of a node", skyport.Abbreviate(p.Name, 80))
		}
	}
	if spec.CPUs < 0 || spec.Memory < 0 || spec.Grace < 0 || req.TimeLimit < 0 {
		return skyport.Errorf(skyport.CodeInvalid, "a limit of run %s is negative", spec.Run)
	}
	return nil
}

func checkEnv(env map[string]string) error {
	for key, value := range env {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00") {
			return skyport.Errorf(skyport.CodeInvalid, "environment entry %q cannot be set", skyport.Abbreviate(key, 80))
		}
	}
	return nil
}

// validName says whether a name can be that of a directory, a cgroup and an
// environment entry, and nothing else.
func validName(name string) bool {
	if name == "" || len(name) > 100 || name[0] == '.' || name[0] == '-' {
		return false
	}
	for _, c := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", c) {
			return false
		}
	}
	return true
}
