package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/pki"
	"github.com/openworkload/skyport/internal/spool"
)

// patience bounds every wait for something that should come at once.
const patience = 2 * time.Minute

// stage is a throw-away spool with the program on it.
type stage struct {
	b       *bench
	dir     string
	layout  spool.Layout
	env     []string
	daemons []*daemon
	url     string
}

// daemon is a running skyport up, core or gate.
type daemon struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	err    error
	forced bool
}

// newStage sets a spool up; the settings are SWM_ variables of its daemons.
func (b *bench) newStage(ctx context.Context, settings ...string) (*stage, error) {
	b.stages++
	s := &stage{b: b, dir: filepath.Join(b.dir, strconv.Itoa(b.stages))}
	home := filepath.Join(s.dir, "home")
	s.layout = spool.Layout{Dir: filepath.Join(s.dir, "s")}
	s.env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SWM_SPOOL=" + s.layout.Dir, "SWM_LOG_LEVEL=warn",
	}, settings...)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("make a stage: %w", err)
	}

	setup := exec.CommandContext(ctx, b.skyport, "setup", "--yes", "--listen", "127.0.0.1:0", "--gate-listen", "127.0.0.1:0")
	setup.Env = s.env
	if out, err := setup.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("skyport setup: %w: %s", err, out)
	}
	return s, nil
}

// up makes a stage with core, gate and the local site, ready for jobs.
func (b *bench) up(ctx context.Context, settings ...string) (*stage, *client.Client, error) {
	s, err := b.newStage(ctx, settings...)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.start(ctx, "up")
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	return s, c, nil
}

// start starts a daemon and waits until it answers; what has a core gives a
// client of it.
func (s *stage) start(ctx context.Context, command string) (*client.Client, error) {
	name := command
	if command == "up" {
		name = "core"
	}
	logFile, err := os.OpenFile(filepath.Join(s.dir, command+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of skyport %s: %w", command, err)
	}
	d := &daemon{cmd: exec.Command(s.b.skyport, command), ended: make(chan struct{})}
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = s.env, logFile, logFile
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us: we stop it
	err = d.cmd.Start()
	_ = logFile.Close() // the daemon has its own
	if err != nil {
		return nil, fmt.Errorf("start skyport %s: %w", command, err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	s.daemons = append(s.daemons, d)

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var address spool.Address
	if err := s.until(ctx, d, func() error { address, err = s.layout.Announced(name); return err }); err != nil {
		return nil, fmt.Errorf("skyport %s: %w: %s", command, err, s.lastWords(command))
	}
	if name != "core" {
		return nil, nil
	}
	s.url = address.URL
	c, err := s.client()
	if err != nil {
		return nil, err
	}
	if err := s.until(ctx, d, func() error { return c.Ready(ctx) }); err != nil {
		return nil, fmt.Errorf("skyport %s: %w: %s", command, err, s.lastWords(command))
	}
	return c, nil
}

// until tries something until it works, every half millisecond: its moment is
// what some figures are made of.
func (s *stage) until(ctx context.Context, d *daemon, try func() error) error {
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-d.ended:
			return fmt.Errorf("it ended: %w", errors.Join(d.err, err))
		case <-ctx.Done():
			return fmt.Errorf("%w, after %w", err, context.Cause(ctx))
		}
	}
}

func (s *stage) lastWords(command string) []byte {
	text, _ := os.ReadFile(filepath.Join(s.dir, command+".log")) // there may be none
	return text[max(0, len(text)-500):]
}

// client makes a client with connections of its own.
func (s *stage) client() (*client.Client, error) {
	pair := spool.HomePair(filepath.Join(s.dir, "home"))
	c, err := client.New(client.Options{
		URL: s.url, CAFile: s.layout.CAChain(), CertFile: pair.Cert, KeyFile: pair.Key, Patience: -1, UserAgent: "skyport-bench",
	})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return c, nil
}

// plainHTTP is what a terminal uses that knows /user only.
func (s *stage) plainHTTP() (*http.Client, error) {
	pair := spool.HomePair(filepath.Join(s.dir, "home"))
	certificate, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, fmt.Errorf("read the user's certificate: %w", err)
	}
	chain, err := os.ReadFile(s.layout.CAChain())
	if err != nil {
		return nil, fmt.Errorf("read the CAs: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{certificate},
	}}}, nil
}

// user is whom the stage's clients are taken for.
func (s *stage) user() (skyport.UserID, error) {
	chain, err := pki.ReadCertificates(spool.HomePair(filepath.Join(s.dir, "home")).Cert)
	if err != nil {
		return "", fmt.Errorf("read the user's certificate: %w", err)
	}
	id, _, err := pki.UserOf(chain[0])
	if err != nil {
		return "", fmt.Errorf("read the user's certificate: %w", err)
	}
	return id, nil
}

// pid is that of the daemon started last.
func (s *stage) pid() int { return s.daemons[len(s.daemons)-1].cmd.Process.Pid }

// stop ends the daemon started last, cleanly.
func (s *stage) stop() error {
	d := s.daemons[len(s.daemons)-1]
	s.daemons = s.daemons[:len(s.daemons)-1]
	return d.stop()
}

func (d *daemon) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		d.forced = true
		_ = d.cmd.Process.Kill() // it may have ended
		<-d.ended
	}
	switch {
	case d.forced:
		return fmt.Errorf("skyport %s did not end within 30 s of TERM", d.cmd.Args[1])
	case d.err != nil:
		return fmt.Errorf("skyport %s: %w", d.cmd.Args[1], d.err)
	}
	return nil
}

// close ends everything of the stage, nodes and jobs too, and removes it.
func (s *stage) close() error {
	var errs []error
	for len(s.daemons) > 0 {
		errs = append(errs, s.stop())
	}
	s.endNodes()
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// closing closes the stage at the end of a measurement.
func (s *stage) closing(err *error) { *err = errors.Join(*err, s.close()) }

// endNodes kills what the stage's nodes run, which outlives its daemons. What
// they start meanwhile is found by looking until a look finds nothing.
func (s *stage) endNodes() {
	for range 100 {
		found := s.processes()
		if len(found) == 0 {
			return
		}
		for _, pid := range found {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}

// processes finds the stage's daemons, nodes and jobs: they have the stage's
// directory, whose name is like no other, in their arguments or environment.
func (s *stage) processes() (found []int) {
	mark := []byte(s.dir + "/")
	entries, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil || pid == os.Getpid() {
			continue
		}
		arguments, err := os.ReadFile(filepath.Join(entry, "cmdline")) //nolint:gosec // of a process
		environment, _ := os.ReadFile(filepath.Join(entry, "environ")) //nolint:gosec // not readable when it is somebody else's
		if err == nil && bytes.Contains(append(arguments, environment...), mark) {
			found = append(found, pid)
		}
	}
	return found
}

// processorTime is what the stage's processes have used so far, with those
// that they waited for. Unlike a rate it hardly depends on what else runs.
func (s *stage) processorTime() (sum time.Duration) {
	const tick = 10 * time.Millisecond // of all Linux that there is
	for _, pid := range s.processes() {
		text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat")) // it may have ended
		_, rest, _ := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); len(fields) > 14 {
			for _, field := range fields[11:15] { // user, system, and both of children
				n, _ := strconv.Atoi(field) // the kernel's
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// ownProcessorTime is what this program has used so far.
func ownProcessorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
