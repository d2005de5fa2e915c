package link

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/workerbin"
)

//go:embed setup.sh
var setupScript string

// binaries are the workers that can be installed.
type binaries interface {
	Hash(arch string) (string, error)
	// Packed returns the binary in a form that a node can unpack: zst or gz.
	Packed(arch, form string) ([]byte, error)
}

// carried are the workers that this program carries.
type carried struct{}

func (carried) Hash(arch string) (string, error) {
	return workerbin.Hash(arch)
}

func (carried) Packed(arch, form string) ([]byte, error) {
	if form == "gz" {
		return workerbin.Gzip(arch)
	}
	return workerbin.Compressed(arch)
}

// What a node may say while it is set up, and for how long.
const (
	setupTime = 10 * time.Minute
	maxSaid   = 64 << 10
	maxStderr = 4 << 10
)

// setup sees to it that the node is joined with the others and that the right
// worker runs. A node where all is well answers in two round trips.
func (m *machine) setup(ctx context.Context, w *wire) error {
	ctx, cancel := context.WithTimeoutCause(ctx, setupTime, fmt.Errorf("it took longer than %s", setupTime))
	defer cancel()
	script, err := m.script(ctx, w)
	if err != nil {
		return err
	}
	start := time.Now()
	session, err := w.session(ctx, "exec sh -s")
	if err != nil {
		return fmt.Errorf("%w: %w", errSetup, err)
	}
	defer session.close()
	s := &setup{machine: m, session: session, start: start}
	if _, err := io.WriteString(session.channel, script); err != nil {
		return fmt.Errorf("%w: %w", errSetup, err)
	}
	err = s.follow(ctx)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errSetup, context.Cause(ctx))
	case errors.Is(err, ErrRefused):
		return err
	default:
		return fmt.Errorf("%w: %w", errSetup, err)
	}
	m.log.Info("the node is set up", "worker", s.how, "binary", s.binary, "took", time.Since(start), "installed", s.installed, "boot", s.boot)
	w.readyWith(s.boot, s.form)
	if m.via == nil {
		m.warmLines()
	}
	return nil
}

// script is what the node runs. On a compute node it waits for the main node,
// whose files it needs.
func (m *machine) script(ctx context.Context, w *wire) (string, error) {
	vars := map[string]string{
		"dir": m.ep.dir, "node": m.name, "main": "", "main_boot": "", "main_bin": "", "keep": "", "several": "", "restart": "", "join": "",
	}
	var none error
	hashes := 0
	for _, arch := range workerbin.Archs() {
		hash, err := m.link.opts.binaries.Hash(arch)
		if err != nil {
			none = err
		} else {
			hashes++
		}
		vars["hash_"+arch] = hash
	}
	if hashes == 0 {
		return "", fmt.Errorf("%w: %w", ErrRefused, none)
	}
	if m.unanswered >= mostUnanswered {
		vars["restart"] = "yes"
	}
	if len(m.link.nodes) > 1 {
		vars["several"] = "yes"
	}
	if m.via != nil {
		main, err := m.via.await(ctx)
		if err != nil {
			return "", err
		}
		select {
		case <-main.setUp:
		case <-main.dead:
			return "", main.failure()
		case <-w.dead:
			return "", w.failure()
		case <-ctx.Done():
			return "", context.Cause(ctx) //nolint:wrapcheck // says it all
		}
		boot, _ := main.setUpWith()
		vars["main"] = m.via.name
		vars["main_boot"] = boot
		vars["main_bin"] = quote(m.via.ep.dir + "/bin/skyport-worker")
	} else if len(m.link.nodes) > 1 {
		vars["keep"] = "yes"
	}
	join := m.link.opts.Join(m.index)
	if join != "" {
		sum := sha256.Sum256([]byte(join))
		vars["join"] = hex.EncodeToString(sum[:8])
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		text.WriteString(name + "=" + quote(vars[name]) + "\n")
	}
	text.WriteString(setupScript)
	// The last line is one: what comes after it is not for the shell.
	text.WriteString("\njoin_node() (\n:\n" + join + "\n)\n\nsetup; exit\n")
	return text.String(), nil
}

// quote makes a word of the shell of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// join is the script that joins a node with the others.
func (l *Link) join(i int) string {
	j := bootstrap.Join{Keys: l.opts.Keys}
	for k, n := range l.nodes {
		m, ok := n.route.(*machine)
		if !ok {
			return ""
		}
		j.Nodes = append(j.Nodes, bootstrap.Node{Name: m.name, Address: m.ep.host, Port: int(m.port), User: m.ep.user, HostKey: n.HostKey})
		if n.Address != "" {
			j.Nodes[k].Address = n.Address
		}
		if k == i {
			j.Dir, j.User = m.ep.dir, m.ep.user
		}
	}
	return j.Script(i)
}

// setup is one run of the script on a node.
type setup struct {
	*machine
	session *session
	start   time.Time
	release func() // of the place among those who fetch

	how, form, boot string // what the node said in the end
	arch, pack      string // what the node needs
	binary          string // where the worker's binary came from
	installed       time.Duration
}

// follow answers what the node asks until it says how it went.
func (s *setup) follow(ctx context.Context) error {
	s.binary = "there"
	defer func() { s.free() }()
	in := bufio.NewReader(io.LimitReader(s.session.channel, maxSaid))
	other := ""
	for {
		line, err := in.ReadString('\n')
		word, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "skyport: ")
		switch {
		case ok:
			done, err := s.answer(ctx, word)
			if done || err != nil {
				return err
			}
		case strings.TrimSpace(line) != "":
			other = strings.TrimSpace(line) // a greeting, or why there is no shell
		}
		if err != nil {
			if said := s.session.stderr.String(); said != "" {
				other = said
			}
			return fmt.Errorf("the shell ended: %s", skyport.Abbreviate(other, 400))
		}
	}
}

func (s *setup) answer(ctx context.Context, said string) (done bool, err error) {
	word, rest, _ := strings.Cut(said, " ")
	rest = skyport.Abbreviate(rest, 800)
	switch word {
	case "need":
		arch, form, _ := strings.Cut(rest, " ")
		return false, s.provide(ctx, arch, form)
	case "unfetched":
		s.free()
		s.log.Warn("the node cannot have the worker from the main node; core uploads it", "error", rest)
		return false, s.upload()
	case "got":
		s.free()
		s.binary, s.installed = rest, time.Since(s.start)
	case "joining":
		s.log.Debug("the node is being joined with the others")
	case "unshared":
		s.log.Warn("the node has no part in the shared directory", "error", rest)
	case "ok":
		words := strings.Fields(rest)
		if len(words) < 2 {
			return false, fmt.Errorf("the node says %q", rest)
		}
		s.how, s.form = words[0], words[1]
		if len(words) > 2 {
			s.boot = words[2]
		}
		return true, nil
	case "arch":
		return false, skyport.Errorf(skyport.CodeUnsupported, "there is no worker for the node's architecture %s: %w", rest, ErrRefused)
	case "fail":
		return false, errors.New(rest)
	}
	return false, nil
}

// provide says where the worker's binary comes from.
func (s *setup) provide(ctx context.Context, arch, form string) error {
	if form != "zst" {
		form = "gz"
	}
	s.arch, s.pack = arch, form
	if s.via == nil {
		return s.upload()
	}
	select {
	case s.via.fetching <- struct{}{}:
		s.release = sync.OnceFunc(func() { <-s.via.fetching })
	case <-ctx.Done():
		return context.Cause(ctx) //nolint:wrapcheck // says it all
	}
	_, has := s.via.current().setUpWith()
	if has != form && has != "gz" {
		has = "plain"
	}
	return s.say("fetch " + has)
}

func (s *setup) free() {
	if s.release != nil {
		s.release()
	}
}

func (s *setup) say(line string) error {
	_, err := io.WriteString(s.session.channel, line+"\n")
	return err //nolint:wrapcheck // setup wraps
}

// upload sends the worker's binary, which ends what core has to say.
func (s *setup) upload() error {
	packed, err := s.link.opts.binaries.Packed(s.arch, s.pack)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := s.say("send " + s.pack); err != nil {
		return err
	}
	if _, err := s.session.channel.Write(packed); err != nil {
		return fmt.Errorf("upload the worker: %w", err)
	}
	return s.session.channel.CloseWrite() //nolint:wrapcheck // setup wraps
}

// session is a command on the node.
type session struct {
	channel ssh.Channel
	stderr  *tail
	stop    func() bool
}

// session starts a command; ctx's end breaks it.
func (w *wire) session(ctx context.Context, command string) (*session, error) {
	ch, requests, err := w.openChannel(ctx, "session", nil)
	if err != nil {
		return nil, err
	}
	s := &session{channel: ch, stderr: &tail{}}
	w.tasks.run(func() {
		ssh.DiscardRequests(requests) // its exit code says no more than its words
		w.open.Add(-1)
	})
	w.tasks.run(func() {
		_, _ = io.Copy(s.stderr, ch.Stderr()) // ends with the session
	})
	s.stop = context.AfterFunc(ctx, func() { w.end(context.Cause(ctx)) }) // a channel cannot be closed against the peer's will
	// No answer is asked for: that would be a round trip.
	if _, err := ch.SendRequest("exec", false, ssh.Marshal(struct{ Command string }{command})); err != nil {
		s.close()
		return nil, err //nolint:wrapcheck // setup wraps
	}
	return s, nil
}

func (s *session) close() {
	s.stop()
	_ = s.channel.Close() // it has ended, or is given up
}

// tail remembers the last that was written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-maxStderr):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
