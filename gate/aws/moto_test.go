package aws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// motoVersion is the one that the tests were written against.
const motoVersion = "5.2.5"

// motoMain runs the server on a free port until its standard input ends, which
// it does when the tests die, however they die.
const motoMain = `
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", "0"])
`

// moto is the server that all tests share: its URL, or why there is none.
var moto = sync.OnceValues(startMoto)

var stopMoto = func() error { return nil }

func TestMain(m *testing.M) {
	code := m.Run()
	if err := stopMoto(); err != nil {
		fmt.Fprintln(os.Stderr, "moto:", err)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func startMoto() (string, error) {
	python, err := pythonWithMoto()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(context.Background(), python, "-c", motoMain) //nolint:gosec // the interpreter that was made for this
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var reading sync.WaitGroup
	stopMoto = func() error {
		err := in.Close()
		reading.Wait() // all that it says is read before the end is waited for
		return errors.Join(err, cmd.Wait())
	}
	url := make(chan string, 1)
	reading.Go(func() {
		defer close(url)
		told := false
		for lines := bufio.NewScanner(said); lines.Scan(); { // to its end: a full pipe would hold it up
			if _, at, found := strings.Cut(lines.Text(), "Running on "); found && !told {
				told = true
				url <- strings.TrimSpace(at)
			}
		}
	})
	select {
	case at, ok := <-url:
		if !ok {
			return "", errors.New("moto's server ended at once")
		}
		return at, nil
	case <-time.After(time.Minute):
		return "", errors.New("moto's server does not start within a minute")
	}
}

// pythonWithMoto is in a virtual environment that is made once and kept in the
// user's cache.
func pythonWithMoto() (string, error) {
	system, err := exec.LookPath("python3")
	if err != nil {
		return "", errors.New("there is no python3")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "skyport-tools", "moto-"+motoVersion)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // a cache, no secret
		return "", err
	}
	lock, err := os.Create(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()                                                     //nolint:errcheck // and with it the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil { //nolint:gosec // a file descriptor
		return "", err
	}
	python := filepath.Join(dir, "bin", "python")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	do := func(args ...string) error {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput() //nolint:gosec // made here
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(out))
		}
		return nil
	}
	if do(python, "-c", "import moto.server, sys; sys.exit(moto.__version__ != '"+motoVersion+"')") == nil {
		return python, nil
	}
	if err := do(system, "-m", "venv", "--clear", dir); err != nil {
		return "", fmt.Errorf("no virtual environment can be made, is python3-venv there? %w", err)
	}
	if err := do(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "moto[server]=="+motoVersion); err != nil {
		return "", fmt.Errorf("moto cannot be installed: %w", err)
	}
	return python, nil
}

func tail(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[max(0, len(text)-300):]
}
