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
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/test/wire"
)

const sshd = "/usr/sbin/sshd"

// remote is nodes behind OpenSSH servers with their stock settings, and a
// process on this side that has the product's link to them. The two sides are
// network namespaces with an emulated link between them, or loopback.
type remote struct {
	b       *bench
	dir     string
	link    *wire.Link // nil: loopback
	near    *wire.Namespace
	far     *wire.Namespace
	host    string
	port    int // of the main node's server
	keys    *bootstrap.Keys
	nodes   []skyport.Node
	servers []*exec.Cmd

	child   *exec.Cmd // has the link
	asking  *json.Encoder
	answers *json.Decoder
	told    func(skyport.Transfer) // progress of a push that tells
	runs    int
}

// newRemote returns a node to which the link is up.
func (b *bench) newRemote(ctx context.Context, s *wire.Settings) (r *remote, err error) {
	r, err = b.newNodes(ctx, s, 1)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.startServers(ctx); err != nil {
		return nil, err
	}
	return r, r.up()
}

// newNodes returns nodes whose servers do not run yet, and a process that has no
// link to them yet.
func (b *bench) newNodes(ctx context.Context, s *wire.Settings, n int) (r *remote, err error) {
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
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("node-%d", i))
	}
	if r.keys, err = bootstrap.NewKeys(names); err != nil {
		return nil, err
	}
	for i, name := range names {
		if err := r.configure(ctx, i, name); err != nil {
			return nil, err
		}
	}
	return r, r.startChild()
}

// configure writes what a node's OpenSSH server needs: it is as Debian sets it
// up but for its keys and its port, and that bash, by SHLVL, does not run the
// .bashrc of who measures, which is no node's and may take long.
func (r *remote) configure(ctx context.Context, i int, name string) error {
	port, err := freePort(ctx)
	for err == nil && r.has(port) {
		port, err = freePort(ctx)
	}
	if err != nil {
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
SetEnv SHLVL=2
Subsystem sftp internal-sftp
`, r.host, port, r.path(name+".host"), r.path("authorized"))
	files := map[string]string{name + ".sshd": config, name + ".host": string(r.keys.Hosts[i].Private)}
	role := skyport.RoleCompute
	if i == 0 {
		r.port, role = port, skyport.RoleMain
		files["client"] = string(r.keys.Client.Private)
		files["authorized"] = r.keys.Client.Public + "\n" + r.keys.Inner.Public + "\n"
		files["known_hosts"] = fmt.Sprintf("[%s]:%d %s\n", r.host, port, r.keys.Hosts[0].Public)
	}
	for file, text := range files {
		if err := os.WriteFile(r.path(file), []byte(text), 0o600); err != nil {
			return fmt.Errorf("set up an SSH server: %w", err)
		}
	}
	r.nodes = append(r.nodes, skyport.Node{
		Name: name, Role: role, Address: r.host, HostKey: r.keys.Hosts[i].Public,
		Endpoint: fmt.Sprintf("ssh://%s@%s%s", login(), net.JoinHostPort(r.host, strconv.Itoa(port)), r.path(name)),
	})
	return nil
}

// has says whether a port is that of a node, whose server does not listen yet.
func (r *remote) has(port int) bool {
	return slices.ContainsFunc(r.nodes, func(n skyport.Node) bool { return strings.Contains(n.Endpoint, fmt.Sprintf(":%d/", port)) })
}

func login() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "root"
}

// startServers starts the nodes' servers and returns when they listen.
func (r *remote) startServers(ctx context.Context) error {
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return fmt.Errorf("start an SSH server: %w", err)
		}
	}
	for _, n := range r.nodes {
		cmd := exec.Command(sshd, "-D", "-f", r.path(n.Name+".sshd"), "-E", r.path(n.Name+".log"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := r.far.Start(cmd); err != nil {
			return fmt.Errorf("start an SSH server: %w", err)
		}
		r.servers = append(r.servers, cmd)
	}
	for _, n := range r.nodes {
		if err := r.listens(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *remote) listens(ctx context.Context, n skyport.Node) error {
	endpoint, err := url.Parse(n.Endpoint)
	if err != nil {
		return fmt.Errorf("wait for the SSH server: %w", err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		conn, err := r.near.Dial(ctx, "tcp", endpoint.Host)
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
func (r *remote) startChild() error {
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
	return nil
}

// open makes the link without waiting for it.
func (r *remote) open() error {
	_, err := r.ask(request{Op: "open", Nodes: r.nodes, Keys: r.keys})
	return err
}

// up makes the link and waits for it.
func (r *remote) up() error {
	if err := r.open(); err != nil {
		return err
	}
	_, err := r.ask(request{Op: "up"})
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
	return run, filepath.Join(r.path(r.nodes[0].Name), "runs", run, "work"), err
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
	for _, s := range r.servers {
		_ = s.Process.Kill() // it may have ended
		_ = s.Wait()         // it was killed
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
