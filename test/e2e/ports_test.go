package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// In a job this test binary plays a server or a client: see TestMain.
const (
	serveVariable = "E2E_SERVE" // listen at this address; answer each connection
	callVariable  = "E2E_CALL"  // call this address with what stands on standard input
)

// play is what the binary does inside of jobs. It returns false when it is not in one.
func play() bool {
	var err error
	switch serve, call, evil := os.Getenv(serveVariable), os.Getenv(callVariable), os.Getenv(evilEnv); {
	case evil != "":
		err = beEvil(evil)
	case serve != "":
		err = serveSums(serve)
	case call != "":
		var answer []byte
		if answer, err = exchange(call, []byte("from the job")); err == nil {
			_, err = os.Stdout.Write(answer)
		}
	default:
		return false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// serveSums answers each connection, after its end was seen, with how many
// bytes came and then with them. It goes on until it is killed.
func serveSums(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() { _ = answerSum(conn) }() // the caller sees what is wrong
	}
}

func answerSum(conn net.Conn) error {
	text, err := io.ReadAll(io.LimitReader(conn, 64<<20))
	if err == nil {
		_, err = fmt.Fprintf(conn, "%d ", len(text))
	}
	if err == nil {
		_, err = conn.Write(text)
	}
	return errors.Join(err, conn.Close())
}

// exchange sends the text, ends its direction, and reads to the end.
func exchange(address string, text []byte) ([]byte, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // everything was read, or it failed anyway
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(text); err != nil {
		return nil, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(conn, 64<<20))
}

// freePort is a port on which nobody listens, most likely for a while.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInPorts: however the job listens, its port answers under its own number
// at node_ips[0], with half-close, back-pressure and many connections; and when
// the job is over, nothing listens there any more.
func TestInPorts(t *testing.T) {
	t.Parallel()
	for name, host := range map[string]string{
		"everywhere": "0.0.0.0", "loopback": "127.0.0.1", "own address": "$SWM_JOB_ADDRESS", "everywhere on IPv6": "[::]", "localhost": "localhost",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			port := freePort(t)
			id := h.submit(fmt.Sprintf("#SWM ports %d/tcp/in\n%s=%s:%d exec %s", port, serveVariable, host, port, self(t)))
			h.reach(id, skyport.JobRunning)
			address := net.JoinHostPort(h.nodeIP(id), strconv.Itoa(port))
			h.until(address+" answers", func() bool {
				answer, err := exchange(address, []byte("hello"))
				return err == nil && string(answer) == "5 hello"
			})
			large := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
			if answer, err := exchange(address, large); err != nil || len(answer) != len(large)+len("4194304 ") {
				t.Errorf("%d bytes came back, %v", len(answer), err)
			}
			var many sync.WaitGroup
			for i := range 100 {
				many.Go(func() {
					text := fmt.Appendf(nil, "connection %d", i)
					if answer, err := exchange(address, text); err != nil || !bytes.HasSuffix(answer, text) {
						t.Errorf("connection %d: %q, %v", i, answer, err)
					}
				})
			}
			many.Wait()
			// Where the job answers itself, core learns of it a moment later.
			h.until("the port is told to be open", func() bool {
				ports := read[[]skyport.JobPort](h, "ports", string(id))
				return len(ports) == 1 && ports[0].Address == address && ports[0].Open
			})
			h.ok("cancel", string(id))
			h.until("nobody listens any more", func() bool {
				_, err := net.DialTimeout("tcp", address, time.Second)
				return err != nil
			})
		})
	}
}

// nodeIP is node_ips[0] of the job, as existing terminals read it.
func (h *house) nodeIP(id skyport.JobID) string {
	h.t.Helper()
	status, body := h.call(filepath.Join(h.home, ".swm"), "GET", "/user/job/"+string(id), nil)
	var job struct {
		NodeIPs []string `json:"node_ips"`
	}
	if err := json.Unmarshal([]byte(body), &job); err != nil || status != 200 || len(job.NodeIPs) == 0 {
		h.t.Fatalf("%d %s: %v", status, body, err)
	}
	return job.NodeIPs[0]
}

// TestSamePort: two jobs at once have the same port, each at an address of its
// own; and both survive a restart of core.
func TestSamePort(t *testing.T) {
	t.Parallel()
	h := open(t)
	port := freePort(t)
	var addresses []string
	for range 2 {
		id := h.submit(fmt.Sprintf("#SWM ports %d\n%s=$SWM_JOB_ADDRESS:%d exec %s", port, serveVariable, port, self(t)))
		h.reach(id, skyport.JobRunning)
		addresses = append(addresses, net.JoinHostPort(h.nodeIP(id), strconv.Itoa(port)))
	}
	if addresses[0] == addresses[1] {
		t.Fatalf("both are at %s", addresses[0])
	}
	check := func() {
		t.Helper()
		for i, address := range addresses {
			h.until(address+" answers", func() bool {
				answer, err := exchange(address, fmt.Append(nil, i))
				return err == nil && string(answer) == fmt.Sprint("1 ", i)
			})
		}
	}
	check()
	h.stop()
	h.start("up")
	h.ready()
	check()
}

// TestOutPorts: a job reaches a server of the person who submitted it.
func TestOutPorts(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() { _ = answerSum(conn) }() // the job sees what is wrong
		}
	}()
	h := open(t)
	port := l.Addr().(*net.TCPAddr).Port
	id := h.submit(fmt.Sprintf("#SWM ports %d/tcp/out\n%s=localhost:%d exec %s", port, callVariable, port, self(t)))
	h.finish(id, 0)
	if out := h.log(id, skyport.Stdout); out != "12 from the job" {
		t.Errorf("the job got %q", out)
	}
}
