package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/test/wire"
)

const sshd = "/usr/sbin/sshd"

// remote is a node behind an OpenSSH server with its stock settings, and a
// process on this side that has the product's link to it. The two sides are
// network namespaces with an emulated link between them, or loopback.
type remote struct {
	b    *bench
	dir  string
	link *wire.Link // nil: loopback
	near *wire.Namespace
	far  *wire.Namespace
	host string
	port int
	cmd  *exec.Cmd // the server

	child   *exec.Cmd // has the link
	asking  *json.Encoder
	answers *json.Decoder
	told    func(skyport.Transfer) // progress of a push that tells
	runs    int
}

func (b *bench) newRemote(ctx context.Context, s *wire.Settings) (r *remote, err error) {
	b.stages++
	r = &remote{b: b, dir: filepath.Join(b.dir, "n"+strconv.Itoa(b.stages)), near: &wire.Namespace{}, far: &wire.Namespace{}, host: "127.0.0.1"}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a node: %w", err)
	}
	if s != nil {
		if r.link, err = wire.Open(ctx, *s); err != nil {
			return nil, err
		}
		r.near, r.far, r.host = r.link.A, r.link.B, r.link.B.Addr.String()
	}
	keys, err := bootstrap.NewKeys([]string{"node"})
	if err != nil {
		return nil, err
	}
	if err := r.startServer(ctx, keys); err != nil {
		return nil, err
	}
	return r, r.startChild(keys)
}

// startServer starts the node's OpenSSH server, as Debian sets it up but for
// its keys and its port.
func (r *remote) startServer(ctx context.Context, keys *bootstrap.Keys) error {
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return fmt.Errorf("start an SSH server: %w", err)
		}
	}
	var err error
	if r.port, err = freePort(ctx); err != nil {
		return err
	}
	config := fmt.Sprintf(`ListenAddress %s
Port %d
HostKey %s
AuthorizedKeysFile %s
StrictModes no
PidFile none
KbdInteractiveAuthentication no
PasswordAuthentication no
Subsystem sftp internal-sftp
`, r.host, r.port, r.path("host"), r.path("authorized"))
	for name, text := range map[string]string{
		"sshd_config": config, "host": string(keys.Hosts[0].Private), "client": string(keys.Client.Private),
		"authorized":  keys.Client.Public + "\n",
		"known_hosts": fmt.Sprintf("[%s]:%d %s\n", r.host, r.port, keys.Hosts[0].Public),
	} {
		if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("start an SSH server: %w", err)
		}
	}
	r.cmd = exec.Command(sshd, "-D", "-f", r.path("sshd_config"), "-E", r.path("sshd.log"))
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := r.far.Start(r.cmd); err != nil {
		return fmt.Errorf("start an SSH server: %w", err)
	}
	address := net.JoinHostPort(r.host, strconv.Itoa(r.port))
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := r.near.Dial(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return fmt.Errorf("wait for the SSH server: %w", err)
		}
	}
}

func (r *remote) path(name string) string { return filepath.Join(r.dir, name) }

// startChild starts the process that has the link, on the near side.
func (r *remote) startChild(keys *bootstrap.Keys) error {
	login := os.Getenv("USER")
	if login == "" {
		login = "root"
	}
	r.child = exec.Command(r.b.self, "remote")
	r.child.Stderr = os.Stderr
	in, err := r.child.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the link: %w", err)
	}
	out, err := r.child.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the link: %w", err)
	}
	if err := r.near.Start(r.child); err != nil {
		return fmt.Errorf("start the link: %w", err)
	}
	r.asking, r.answers = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	node := skyport.Node{
		Name: "node", Role: skyport.RoleMain, Address: r.host, HostKey: keys.Hosts[0].Public,
		Endpoint: fmt.Sprintf("ssh://%s@%s%s", login, net.JoinHostPort(r.host, strconv.Itoa(r.port)), r.path("node")),
	}
	_, err = r.ask(request{Op: "up", Node: node, Keys: keys})
	return err
}

// ask has the other process do something.
func (r *remote) ask(q request) (reply, error) {
	if err := r.asking.Encode(q); err != nil {
		return reply{}, fmt.Errorf("ask the process with the link: %w", err)
	}
	for {
		var a reply
		if err := r.answers.Decode(&a); err != nil {
			return a, fmt.Errorf("hear of the process with the link: %w", err)
		}
		if a.Progress != nil {
			if r.told != nil {
				r.told(*a.Progress)
			}
			continue
		}
		if a.Error != "" {
			return a, fmt.Errorf("%s: %s", q.Op, a.Error)
		}
		return a, nil
	}
}

// prepare makes a run that takes inputs, and tells where they land.
func (r *remote) prepare() (run, work string, err error) {
	r.runs++
	run = fmt.Sprintf("bench.%d", r.runs)
	_, err = r.ask(request{Op: "prepare", Run: run, Script: "#!/bin/sh\ntrue\n"})
	return run, filepath.Join(r.path("node"), "runs", run, "work"), err
}

// forget removes a run with its files.
func (r *remote) forget(run string) error {
	_, err := r.ask(request{Op: "remove", Run: run})
	return err
}

// serve runs the job with a port and tells where the port answers on this side.
func (r *remote) serve(ctx context.Context) (run string, port int, address string, err error) {
	if port, err = freePort(ctx); err != nil {
		return "", 0, "", err
	}
	r.runs++
	run = fmt.Sprintf("bench.%d", r.runs)
	script := fmt.Sprintf("#!/bin/sh\nexec %s serve 127.0.0.1:%d\n", quoted(r.b.self), port)
	a, err := r.ask(request{Op: "serve", Run: run, Script: script, Port: port})
	return run, port, a.Address, err
}

// options are those of OpenSSH's programs.
func (r *remote) options() []string {
	return []string{
		"-F", "none", "-i", r.path("client"), "-o", "UserKnownHostsFile=" + r.path("known_hosts"), "-o", "StrictHostKeyChecking=yes",
		"-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
	}
}

// tunnel starts ssh -L to a port of the node.
func (r *remote) tunnel(ctx context.Context, port int) (address string, stop func(), err error) {
	local, err := freePort(ctx)
	if err != nil {
		return "", nil, err
	}
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(local))
	args := append(r.options(), "-N", "-o", "ExitOnForwardFailure=yes", "-L", fmt.Sprintf("%s:127.0.0.1:%d", address, port), "-p", strconv.Itoa(r.port), r.host)
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Stderr = os.Stderr
	if err := r.near.Start(cmd); err != nil {
		return "", nil, fmt.Errorf("start ssh -L: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := r.near.Dial(ctx, "tcp", address)
		if err == nil {
			return address, stop, conn.Close()
		}
		if time.Now().After(end) {
			stop()
			return "", nil, fmt.Errorf("wait for ssh -L: %w", err)
		}
	}
}

// tool is a way by a program over SSH, from the near side.
func (r *remote) tool(name string) func(ctx context.Context, from, to string) error {
	return func(ctx context.Context, from, to string) error {
		var cmd *exec.Cmd
		if name == "rsync" {
			words := []string{"ssh", "-p", strconv.Itoa(r.port)}
			for _, o := range r.options() {
				words = append(words, quoted(o))
			}
			cmd = exec.CommandContext(ctx, "rsync", "-a", "-e", strings.Join(words, " "), "--", from+"/", r.host+":"+to+"/")
		} else {
			cmd = exec.CommandContext(ctx, "scp", append(append(r.options(), "-q", "-r", "-p", "-P", strconv.Itoa(r.port), "--"), from, r.host+":"+to)...)
		}
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := r.near.Exec(cmd); err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		return nil
	}
}

// close ends the processes, the node's worker too, and removes the rest.
func (r *remote) close() error {
	var errs []error
	if r.child != nil && r.child.Process != nil {
		_, err := r.ask(request{Op: "close"})
		errs = append(errs, err)
		if err != nil {
			_ = r.child.Process.Kill() // it may have ended
		}
		errs = append(errs, r.child.Wait())
	}
	if r.cmd != nil && r.cmd.Process != nil {
		_ = r.cmd.Process.Kill() // it may have ended
		_ = r.cmd.Wait()         // it was killed
	}
	(&stage{dir: r.dir}).endNodes()
	if r.link != nil {
		errs = append(errs, r.link.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(r.dir))...)
}

// scribble changes 1 % of a file, in 16 stretches.
func scribble(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("change a file: %w", err)
	}
	stretch := max(size/100/16, 1)
	for range 16 {
		if _, err = io.Copy(io.NewOffsetWriter(f, mathrand.Int64N(size-stretch)), io.LimitReader(rand.Reader, stretch)); err != nil {
			break
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("change a file: %w", err)
	}
	return nil
}

// sameBytes compares two files.
func sameBytes(a, b string) error {
	var sums [2][]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("compare files: %w", err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("compare files: %w", err)
		}
		sums[i] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%s differs from %s", b, a)
	}
	return nil
}
