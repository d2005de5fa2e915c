package crash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ledgerServer writes the ledgers of scripts whose nodes may vanish with all that
// is on them. A script goes on when it has heard that its line is written.
type ledgerServer struct {
	dir      string
	listener net.Listener
	all      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	wrong error // the first that went wrong
}

// serveLedgers listens on an address of this machine that nodes reach.
func serveLedgers(dir string) (*ledgerServer, error) {
	address, err := ownAddress()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	s := &ledgerServer{dir: dir, listener: l, conns: map[net.Conn]bool{}}
	s.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			s.all.Go(func() { s.serve(conn) })
		}
	})
	return s, nil
}

// mark is a shell command, of bash, that sends a line and waits for the answer.
// Who cannot write to the ledger must not run.
func (s *ledgerServer) mark(number int) string {
	host, port, _ := net.SplitHostPort(s.listener.Addr().String())
	return fmt.Sprintf(`{ echo "%d $1 $SWM_RUN $$" >&3 && read -r said <&3 && [ "$said" = written ]; } 3<>/dev/tcp/%s/%s || exit 75`,
		number, host, port)
}

func (s *ledgerServer) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close() // its script may be gone
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // never fails on what is open
	line, err := bufio.NewReader(io.LimitReader(conn, 200)).ReadString('\n')
	if err != nil {
		return // killed before it said so, and before it did anything
	}
	if err := s.write(line); err != nil {
		s.mu.Lock()
		s.wrong = errors.Join(s.wrong, err)
		s.mu.Unlock()
		return
	}
	_, _ = io.WriteString(conn, "written\n") // it may have been killed
}

func (s *ledgerServer) write(line string) error {
	number, rest, _ := strings.Cut(line, " ")
	if _, err := strconv.Atoi(number); err != nil {
		return fmt.Errorf("a line for no ledger: %q", line)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, number), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(rest)
	return errors.Join(err, f.Close())
}

// close ends the server and says what went wrong.
func (s *ledgerServer) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close() // ends its reader
	}
	s.mu.Unlock()
	s.all.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, s.wrong)
}

// ownAddress is an address of this machine that nodes can reach: any but loopback.
// Those of bridges come and go.
func ownAddress() (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || strings.HasPrefix(i.Name, "br-") || strings.HasPrefix(i.Name, "veth") {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addresses {
			if at, ok := a.(*net.IPNet); ok && at.IP.To4() != nil {
				return at.IP.String(), nil
			}
		}
	}
	return "", errors.New("this machine has no address that nodes could reach")
}
