package worker_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func TestPorts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	n := newNode(t)
	in, out := freePort(t), freePort(t)
	spec := script(fmt.Sprintf(`#!/usr/bin/env python3
import socket
c = socket.create_connection(("127.0.0.1", %d))
c.sendall(b"from the job\n"); c.shutdown(socket.SHUT_WR)
print(c.makefile().read(), flush=True)
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("0.0.0.0", %d)); l.listen()
while True:
    s, _ = l.accept()
    data = s.makefile("rb").read()
    s.sendall(data.upper()); s.close()
`, out, in))
	spec.Request.Ports = []skyport.Port{{Number: in, Direction: skyport.In}, {Number: out, Direction: skyport.Out}}
	n.prepare(spec)

	if _, err := n.client.Connect(t.Context(), spec.Run, in); skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("connect before the job listens: %v", err)
	}
	if _, err := n.client.Connect(t.Context(), spec.Run, 22); skyport.CodeOf(err) != skyport.CodeForbidden {
		t.Errorf("connect to a port that is not the job's: %v", err)
	}
	var conn net.Conn
	n.await("the job connects out", func() bool {
		var err error
		conn, err = n.client.Accept(t.Context(), spec.Run, out)
		return err == nil
	})
	talk(t, conn, "from the user", "from the job\n")
	n.await("the job listens", func() bool {
		s := n.status(spec.Run)
		return len(s.Ports) == 1 && s.Ports[0] == protocol.PortStatus{Port: in, Address: "0.0.0.0"}
	})
	conn, err := n.client.Connect(t.Context(), spec.Run, in)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, conn, "shout", "SHOUT")

	// The next worker opens the same ports for the same job.
	n.kill()
	n.start()
	n.await("the port is found again", func() bool { return len(n.status(spec.Run).Ports) == 1 })
	if conn, err = n.client.Connect(t.Context(), spec.Run, in); err != nil {
		t.Fatal(err)
	}
	talk(t, conn, "again", "AGAIN")
}

func TestOutPortTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	spec := script("echo ran >> ran")
	port := l.Addr().(*net.TCPAddr).Port
	spec.Request.Ports = []skyport.Port{{Number: port, Direction: skyport.Out}}
	n.prepare(spec)
	if s := n.ended(spec.Run); s.State != protocol.RunRefused || !strings.Contains(s.Details, fmt.Sprint(port)) {
		t.Errorf("%+v", s)
	}
	n.wantRuns(spec.Run, 0)
}

func talk(t *testing.T, conn net.Conn, say, want string) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil || string(got) != want {
		t.Errorf("heard %q, %v; want %q", got, err, want)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
