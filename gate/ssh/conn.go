package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
)

const (
	dialTime  = 8 * time.Second  // for a connection with its login
	aliveTime = 15 * time.Second // between two signs of life
	maxAnswer = 256 << 10        // of one script
)

// wire is the connection to a host: dialled when it is needed, kept, and given
// up when it shows no life.
type wire struct {
	config *Host
	key    ssh.PublicKey
	work   *sync.WaitGroup // the keepers of connections

	dialling chan struct{} // has room for the one who dials
	mu       sync.Mutex
	client   *ssh.Client
	closed   bool
}

func newWire(config *Host, key ssh.PublicKey, work *sync.WaitGroup) *wire {
	return &wire{config: config, key: key, work: work, dialling: make(chan struct{}, 1)}
}

// close ends the connection for good.
func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	client := w.client
	w.mu.Unlock()
	if client != nil {
		_ = client.Close() // nothing is under way that matters
	}
}

// ip is the address that the connection leads to, empty without one.
func (w *wire) ip() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(w.client.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// connect returns the connection, dialled if there is none; fresh says so.
func (w *wire) connect(ctx context.Context) (client *ssh.Client, fresh bool, err error) {
	select {
	case w.dialling <- struct{}{}:
		defer func() { <-w.dialling }()
	case <-ctx.Done():
		return nil, false, fmt.Errorf("host %s: %w", w.config.Name, ctx.Err())
	}
	w.mu.Lock()
	client = w.client
	w.mu.Unlock()
	if client != nil {
		return client, false, nil
	}
	client, err = w.dial(ctx)
	if err != nil {
		return nil, false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, false, errors.Join(fmt.Errorf("host %s: the gate ends", w.config.Name), client.Close())
	}
	w.client = client
	w.work.Go(func() { w.keep(client) })
	return client, true, nil
}

func (w *wire) dial(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	say := func(err error) error { return fmt.Errorf("host %s at %s: %w", w.config.Name, w.config.Address, err) }
	keys, closer, err := signers(ctx, w.config.KeyFile)
	if err != nil {
		return nil, say(err)
	}
	defer func() { _ = closer.Close() }() // the agent's
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.config.Address)
	if err != nil {
		return nil, say(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	inner, channels, requests, err := ssh.NewClientConn(conn, w.config.Address, &ssh.ClientConfig{
		User:              w.config.User,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(keys...)},
		HostKeyCallback:   vouched(w.config.Name, w.key),
		HostKeyAlgorithms: algorithms(w.key),
		ClientVersion:     "SSH-2.0-SkyPort",
	})
	if err != nil {
		_ = conn.Close() // err says more
		return nil, w.explain(ctx, err)
	}
	if !stop() {
		return nil, errors.Join(say(ctx.Err()), inner.Close())
	}
	return ssh.NewClient(inner, channels, requests), nil
}

// explain says why there was no login.
func (w *wire) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errRefused):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("host %s at %s: no login within %s: %w", w.config.Name, w.config.Address, dialTime, ctx.Err())
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return skyport.Errorf(skyport.CodeForbidden, "host %s has no key of type %s, but the configuration says %s: %w",
			w.config.Name, w.key.Type(), ssh.FingerprintSHA256(w.key), errRefused).
			WithHint("compare with ssh-keyscan and mend host_key")
	case strings.Contains(err.Error(), "unable to authenticate"):
		return skyport.Errorf(skyport.CodeForbidden, "host %s at %s does not let user %s in: %w", w.config.Name, w.config.Address, w.config.User, errRefused).
			WithHint("try the same by hand: ssh %s@%s; set user and key", w.config.User, w.config.Address)
	}
	return fmt.Errorf("host %s at %s: %w", w.config.Name, w.config.Address, err)
}

// keep asks for signs of life until the connection ends, or ends it.
func (w *wire) keep(client *ssh.Client) {
	gone := make(chan struct{})
	w.work.Go(func() {
		_ = client.Wait() // how it ended does not matter
		close(gone)
	})
	timer := time.NewTicker(aliveTime)
	defer timer.Stop()
	for alive := true; alive; {
		select {
		case <-gone:
			alive = false
		case <-timer.C:
			late := time.AfterFunc(aliveTime, func() { _ = client.Close() })
			_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
			late.Stop()
			alive = err == nil
		}
	}
	_ = client.Close() // it is over
	<-gone
	w.drop(client)
}

func (w *wire) drop(client *ssh.Client) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.client == client {
		w.client = nil
	}
}

// run lets a script run on the host and returns what it said. It ends with ctx
// at the latest; then the script may have done its work or not.
func (w *wire) run(ctx context.Context, script string) (string, error) {
	for {
		client, fresh, err := w.connect(ctx)
		if err != nil {
			return "", err
		}
		out, err := w.try(ctx, client, script)
		if !errors.Is(err, errStale) {
			return out, err
		}
		_ = client.Close() // it leads nowhere
		w.drop(client)
		if fresh || ctx.Err() != nil {
			return "", err
		}
	}
}

// errStale means that the connection was dead before the script was sent.
var errStale = errors.New("the connection is dead")

func (w *wire) try(ctx context.Context, client *ssh.Client, script string) (string, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	opening := make(chan opened, 1)
	// Opening waits for the host's answer as long as the connection lives.
	w.work.Go(func() {
		session, err := client.NewSession()
		opening <- opened{session, err}
	})
	var session *ssh.Session
	select {
	case o := <-opening:
		if o.err != nil {
			return "", fmt.Errorf("host %s: %w: %w", w.config.Name, errStale, o.err)
		}
		session = o.session
	case <-ctx.Done():
		_ = client.Close() // it does not answer; the next one dials anew
		return "", fmt.Errorf("host %s does not answer: %w", w.config.Name, ctx.Err())
	}
	defer func() { _ = session.Close() }() // it has ended, or is given up
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	stdout, stderr := &bounded{most: maxAnswer}, &bounded{most: 4 << 10}
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(script), stdout, stderr
	err := session.Run("exec /bin/sh -s")
	if ctx.Err() != nil {
		return "", fmt.Errorf("host %s does not answer: %w", w.config.Name, ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("host %s: the script failed: %w: %s", w.config.Name, err, skyport.Abbreviate(strings.TrimSpace(stderr.String()), 300))
	}
	return stdout.String(), nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct {
	mu   sync.Mutex
	most int
	text bytes.Buffer
}

// Write keeps what has room and takes the rest all the same.
func (b *bounded) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p[:min(len(p), b.most-b.text.Len())])
	return len(p), nil
}

// String returns what was kept.
func (b *bounded) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
