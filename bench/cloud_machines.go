package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	azuretest "github.com/openworkload/skyport/test/azure"
)

// watched are containers as virtual machines. They tell when SSH servers answer:
// the machine is up from then on.
type watched struct {
	*azuretest.Docker
	ctx  context.Context
	stop context.CancelFunc
	all  sync.WaitGroup

	mu sync.Mutex
	up map[string]time.Time // by host
}

func newWatched(d *azuretest.Docker) *watched {
	w := &watched{Docker: d, up: map[string]time.Time{}}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Boot starts machines, and waits for their servers beside.
func (w *watched) Boot(ctx context.Context, machines []azuretest.Machine) (map[string]azuretest.Addresses, error) {
	addresses, err := w.Docker.Boot(ctx, machines)
	for _, m := range machines {
		if at := addresses[m.ID].Private; err == nil && at != "" {
			w.all.Go(func() { w.await(m.Host, net.JoinHostPort(at, "22")) })
		}
	}
	return addresses, err //nolint:wrapcheck // the emulator says what
}

// await notes when an SSH server says its first word.
func (w *watched) await(host, address string) {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // never fails on what is open
		_, err = io.ReadFull(conn, make([]byte, len("SSH-2.0-")))
		_ = conn.Close() // it was only to see
		if err == nil {
			w.mu.Lock()
			w.up[host] = time.Now()
			w.mu.Unlock()
			return
		}
	}
}

// since tells when the machines of a partition were up; zero: not yet.
func (w *watched) since(prefix string) (at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for host, t := range w.up {
		if strings.HasPrefix(host, prefix) && t.After(at) {
			at = t
		}
	}
	return at
}

// Close ends the machines.
func (w *watched) Close() error {
	w.stop()
	w.all.Wait()
	return w.Docker.Close() //nolint:wrapcheck // the emulator says what
}

// calls hears from scripts on nodes, by TCP: each word tells a moment.
type calls struct {
	listener net.Listener
	all      sync.WaitGroup
	heard    chan call
}

type call struct {
	word string
	at   time.Time
}

func listenForCalls() (*calls, error) {
	address, err := ownAddress()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for what scripts tell: %w", err)
	}
	c := &calls{listener: l, heard: make(chan call, 64)}
	c.all.Go(func() {
		for {
			conn, err := l.Accept()
			at := time.Now()
			if err != nil {
				return // closed
			}
			_ = conn.SetDeadline(at.Add(10 * time.Second)) // never fails on what is open
			word, err := bufio.NewReader(io.LimitReader(conn, 100)).ReadString('\n')
			_ = conn.Close() // all was heard
			if err == nil {
				c.heard <- call{strings.TrimSpace(word), at}
			}
		}
	})
	return c, nil
}

// tell is the shell command, of bash, that says a word.
func (c *calls) tell(word string) string {
	host, port, _ := net.SplitHostPort(c.listener.Addr().String()) // the kernel's
	return fmt.Sprintf("echo %s >/dev/tcp/%s/%s", word, host, port)
}

// await is the moment at which a word was said.
func (c *calls) await(ctx context.Context, word string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case now := <-c.heard:
			if now.word == word {
				return now.at, nil
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("no script said %q: %w", word, ctx.Err())
		}
	}
}

func (c *calls) close() error {
	err := c.listener.Close()
	c.all.Wait()
	return err //nolint:wrapcheck // says what
}

// ownAddress is an address of this machine that nodes can reach: any but loopback.
// Those of bridges come and go.
func ownAddress() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("find an address: %w", err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, "br-") || strings.HasPrefix(i.Name, "veth") {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return "", fmt.Errorf("find an address: %w", err)
		}
		for _, a := range addresses {
			if at, ok := a.(*net.IPNet); ok && at.IP.To4() != nil {
				return at.IP.String(), nil
			}
		}
	}
	return "", errors.New("this machine has no address that nodes could reach")
}
