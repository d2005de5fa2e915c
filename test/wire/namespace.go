package wire

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// prefix begins the names of our namespaces; the process id follows.
	prefix       = "skywire-"
	namespaceDir = "/run/netns" // where ip netns has them
)

// Namespace is a side of a link.
type Namespace struct {
	Name   string     // for ip netns exec; empty: the machine's own
	Addr   netip.Addr // of this side of the link
	Device string     // of this side of the link

	file *os.File // nil: the machine's own
}

// namespaces makes those of a link.
func (l *Link) namespaces(ctx context.Context, s Settings) error {
	var err error
	if l.A, err = l.namespace(ctx, "a"); err != nil {
		return err
	}
	if s.Join {
		l.B = &Namespace{}
		return nil
	}
	l.B, err = l.namespace(ctx, "b")
	return err
}

func (l *Link) namespace(ctx context.Context, side string) (*Namespace, error) {
	ns := &Namespace{Name: l.name + "-" + side}
	if err := ip(ctx, "netns", "add", ns.Name); err != nil {
		return nil, err
	}
	l.undo = append(l.undo, func() error { return ip(context.Background(), "netns", "del", ns.Name) })
	var err error
	if ns.file, err = os.Open(filepath.Join(namespaceDir, ns.Name)); err != nil {
		return nil, fmt.Errorf("open a namespace: %w", err)
	}
	l.undo = append(l.undo, ns.file.Close)
	return ns, ns.ip(ctx, "link", "set", "lo", "up")
}

// configure brings the device up.
func (n *Namespace) configure(ctx context.Context, mtu int) error {
	if err := n.ip(ctx, "addr", "add", n.Addr.String()+"/30", "dev", n.Device); err != nil {
		return err
	}
	return n.ip(ctx, "link", "set", n.Device, "up", "mtu", strconv.Itoa(mtu), "txqueuelen", "10000")
}

// Do calls f on a thread that is in the namespace. Sockets that f opens belong
// to it wherever they are used later; goroutines that f starts do not.
func (n *Namespace) Do(f func() error) error {
	if n.file == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other
		// goroutine can find itself in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the namespace %s: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Start starts a command in the namespace.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Exec runs a command in the namespace to its end.
func (n *Namespace) Exec(cmd *exec.Cmd) error {
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Dial connects from within the namespace. The address needs an IP: names are
// not looked up there.
func (n *Namespace) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens within the namespace.
func (n *Namespace) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	err = n.Do(func() error {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// ListenPacket listens within the namespace for packets.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (conn net.PacketConn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// ip runs ip in the namespace.
func (n *Namespace) ip(ctx context.Context, args ...string) error {
	if n.file == nil {
		return ip(ctx, args...)
	}
	return ip(ctx, append([]string{"-n", n.Name}, args...)...)
}

func ip(ctx context.Context, args ...string) error { return run(ctx, "ip", args...) }

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
