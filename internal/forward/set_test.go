package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
)

// freePort returns a port that nobody has on any address. Another process may
// take it before the test does; the kernel hands them out in no such order.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func in(port int) []skyport.Port {
	return []skyport.Port{{Number: port, Direction: skyport.In}}
}

func openSet(t testing.TB, cfg Config) *Set {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// speaks says whose server answers at an address.
func speaks(t testing.TB, address, want string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mustReadAll(t, conn, want)
}

func says(text string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) { _, _ = io.WriteString(conn, text) }
}

func refused(t testing.TB, address string) {
	t.Helper()
	if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%s answers: %v %v", address, conn, err)
	}
}

// What the package comment says of Linux.
func TestKernelFacts(t *testing.T) {
	t.Parallel()
	taken := func(network, address string) bool {
		listener, err := net.Listen(network, address)
		if err == nil {
			listener.Close()
			return false
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
		return true
	}
	for _, c := range []struct {
		name             string
		network, first   string
		network2, second string
		taken            bool
	}{
		{"a specific address keeps the wildcard away", "tcp4", "127.9.9.9", "tcp4", "0.0.0.0", true},
		{"and the dual-stack wildcard", "tcp4", "127.9.9.9", "tcp", "::", true},
		{"but not the one for IPv6 only", "tcp4", "127.9.9.9", "tcp6", "::", false},
		{"the wildcard keeps a specific address away", "tcp4", "0.0.0.0", "tcp4", "127.9.9.9", true},
		{"the dual-stack wildcard too", "tcp", "::", "tcp4", "127.9.9.9", true},
		{"the one for IPv6 only does not", "tcp6", "::", "tcp4", "127.9.9.9", false},
		{"specific addresses go together", "tcp4", "127.0.0.1", "tcp4", "127.9.9.9", false},
	} {
		port := freePort(t)
		first, err := net.Listen(c.network, at(c.first, port))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := taken(c.network2, at(c.second, port)); got != c.taken {
			t.Errorf("%s: taken %v", c.name, got)
		}
		first.Close()
	}
}

func TestSharedNetworkFollowsTheJob(t *testing.T) {
	t.Parallel()
	const own, further = "127.66.1.2", "127.66.1.3"
	for _, c := range []struct {
		name, listen, news string
		itself             bool
	}{
		{"wildcard", "0.0.0.0", "0.0.0.0", true},
		{"dual-stack wildcard", "::", "::", true},
		{"IPv6-only wildcard", "v6only", "::", false},
		{"loopback", "127.0.0.1", "127.0.0.1", false},
		{"mapped loopback", "127.0.0.1", "::ffff:127.0.0.1", false},
		{"IPv6 loopback", "::1", "::1", false},
		{"own address", own, own, true},
		{"further address", further, further, false},
		{"another address", "127.0.0.5", "127.0.0.5", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Not parallel: wildcards of one test would keep away the others'.
			port := freePort(t)
			s := openSet(t, Config{Address: own, Further: []string{further}, Ports: in(port), SharedNetwork: true})
			if st := s.Status()[0]; st.Open || st.Job != "" || st.Address != at(own, port) {
				t.Fatalf("at first: %+v", st)
			}
			refused(t, at(own, port)) // so that the job can take any address
			stop := jobListens(t, c.listen, port)
			if err := s.Listening(port, c.news); err != nil {
				t.Fatal(err)
			}
			if st := s.Status()[0]; !st.Open || st.Job != c.news || st.Error != "" {
				t.Fatalf("listening: %+v", st)
			}
			if got := len(s.ports[0].listeners) == 0; got != c.itself {
				t.Fatalf("the job answers itself: %v", got)
			}
			speaks(t, at(own, port), "job")
			if c.listen != own {
				speaks(t, at(further, port), "job")
			}
			stop()
			if err := s.Listening(port, ""); err != nil {
				t.Fatal(err)
			}
			if st := s.Status()[0]; st.Open || st.Job != "" {
				t.Fatalf("at the end: %+v", st)
			}
			refused(t, at(own, port))
			refused(t, at(further, port))
			// The job comes back elsewhere.
			defer jobListens(t, "0.0.0.0", port)()
			if err := s.Listening(port, "0.0.0.0"); err != nil {
				t.Fatal(err)
			}
			speaks(t, at(own, port), "job")
		})
	}
}

// jobListens starts a job's server that says "job" and returns how to stop it.
func jobListens(t *testing.T, host string, port int) (stop func()) {
	t.Helper()
	network := "tcp"
	if host == "v6only" {
		network, host = "tcp6", "::"
	}
	listener, err := net.Listen(network, at(host, port))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "job")
			conn.Close()
		}
	})
	return func() { listener.Close(); all.Wait() }
}

func TestSharedNetworkTakenPort(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	holder, err := net.Listen("tcp", at("127.66.2.2", port))
	if err != nil {
		t.Fatal(err)
	}
	job := serveTCP(t, at("127.0.0.1", port), says("job"))
	s := openSet(t, Config{Address: "127.66.2.2", Ports: in(job.Port), SharedNetwork: true})
	err = s.Listening(port, "127.0.0.1")
	if skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(skyport.HintOf(err), "ss -ltnp") {
		t.Fatal(err, skyport.HintOf(err))
	}
	if st := s.Status()[0]; st.Open || st.Error == "" {
		t.Fatalf("%+v", st)
	}
	holder.Close()
	if err := s.Listening(port, "127.0.0.1"); err != nil { // the same news again: try again
		t.Fatal(err)
	}
	speaks(t, at("127.66.2.2", port), "job")
}

func TestListeningAt(t *testing.T) {
	t.Parallel()
	one := serveTCP(t, "127.0.0.1:0", says("one")).Port
	two := serveTCP(t, "127.0.0.1:0", says("two")).Port
	s := openSet(t, Config{Address: "127.66.11.2", Ports: append(in(one), in(two)...), SharedNetwork: true})
	if err := s.ListeningAt(map[int]string{one: "127.0.0.1", two: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	speaks(t, at("127.66.11.2", one), "one")
	speaks(t, at("127.66.11.2", two), "two")
	if err := s.ListeningAt(map[int]string{two: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	refused(t, at("127.66.11.2", one))
	speaks(t, at("127.66.11.2", two), "two")
	if err := s.ListeningAt(map[int]string{one: "nonsense"}); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Fatal(err)
	}
	refused(t, at("127.66.11.2", two))
}

func TestNonsenseNews(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := openSet(t, Config{Address: "127.66.3.2", Ports: in(port), SharedNetwork: true})
	for _, news := range []string{"localhost", "127.0.0.1:80", strings.Repeat("x", 1000)} {
		if err := s.Listening(port, news); skyport.CodeOf(err) != skyport.CodeInvalid || len(err.Error()) > 300 {
			t.Error(news, err)
		}
	}
	if err := s.Listening(port+1, "127.0.0.1"); err != nil {
		t.Error("news of another port:", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Listening(port, "127.0.0.1"); err != nil {
		t.Error("news after the end:", err)
	}
	refused(t, at("127.66.3.2", port))
}

func TestRemoteTakenPortLeavesNothing(t *testing.T) {
	t.Parallel()
	free, taken := freePort(t), freePort(t)
	holder, err := net.Listen("tcp", at("0.0.0.0", taken))
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	_, err = Open(t.Context(), Config{Address: "127.66.4.2", Ports: append(in(free), in(taken)...)})
	if skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error(), strconv.Itoa(taken)) {
		t.Fatal(err)
	}
	refused(t, at("127.66.4.2", free))
	_, err = Open(t.Context(), Config{Address: "192.0.2.254", Ports: in(free)})
	if skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error(), "no such address") {
		t.Fatal(err)
	}
}

// A user who is earlier than the job's server is served when it comes.
func TestRemoteConnectionWaitsForTheJob(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := startWorker(t, "127.0.0.1")
	var tries atomic.Int32
	s := openSet(t, Config{Address: "127.66.5.2", Ports: in(port), Connect: func(ctx context.Context, port int) (net.Conn, error) {
		tries.Add(1)
		return w.connect(ctx, port)
	}})
	early := dialPort(t, "127.66.5.2", port)
	mustWrite(t, early, "early")
	mustCloseWrite(t, early)
	until(t, "a few tries", func() bool { return tries.Load() > 2 })
	serveTCP(t, at("127.0.0.1", port), echo)
	if err := s.Listening(port, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	mustReadAll(t, early, "early")
	until(t, "the count of the connection", func() bool {
		st := s.Status()[0]
		return st.Open && st.Job == "127.0.0.1" && st.Total == 1 && st.Connections == 0 && st.In == 5 && st.Out == 5
	})
}

// Where the job listens is dialled without the worker; when that fails, the worker
// is asked.
func TestRemoteConnectionsGoTheShortWay(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	w := startWorker(t, "127.0.0.1")
	var short, asked atomic.Int32
	var closed atomic.Bool
	s := openSet(t, Config{
		Address: "127.66.15.2", Ports: in(port),
		Connect: func(ctx context.Context, port int) (net.Conn, error) {
			asked.Add(1)
			return w.connect(ctx, port)
		},
		Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
			if closed.Load() {
				return nil, errors.New("administratively prohibited")
			}
			short.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", at(host, port))
		},
	})
	serveTCP(t, at("127.0.0.1", port), echo)
	if err := s.Listening(port, "0.0.0.0"); err != nil {
		t.Fatal(err)
	}
	for _, prohibited := range []bool{false, true} {
		closed.Store(prohibited)
		conn := dialPort(t, "127.66.15.2", port)
		mustWrite(t, conn, "hello")
		mustCloseWrite(t, conn)
		mustReadAll(t, conn, "hello")
	}
	if short.Load() != 1 || asked.Load() != 1 {
		t.Errorf("%d connections went the short way, %d by the worker", short.Load(), asked.Load())
	}
}

// On a node without IPv6 a server for all addresses still says that it listens at ::.
func TestShortWayWithoutIPv6(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	s := openSet(t, Config{
		Address: "127.66.16.2", Ports: in(port),
		Connect: func(context.Context, int) (net.Conn, error) { return nil, errors.New("not the short way") },
		Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
			if host == "::1" {
				return nil, errors.New("cannot assign requested address")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", at(host, port))
		},
	})
	serveTCP(t, at("127.0.0.1", port), echo)
	if err := s.Listening(port, "::"); err != nil {
		t.Fatal(err)
	}
	conn := dialPort(t, "127.66.16.2", port)
	mustWrite(t, conn, "hello")
	mustCloseWrite(t, conn)
	mustReadAll(t, conn, "hello")
}

func TestRemoteConnectionGivesUp(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	notYet := func(context.Context, int) (net.Conn, error) { return nil, errors.New("not yet") }
	t.Run("patience ends", func(t *testing.T) {
		t.Parallel()
		openSet(t, Config{Address: "127.66.6.2", Ports: in(port), Connect: notYet, Patience: 50 * time.Millisecond})
		conn := dialPort(t, "127.66.6.2", port)
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("the user sees %v", err)
		}
	})
	for name, leave := range map[string]func(*net.TCPConn) error{
		"user closes": (*net.TCPConn).Close,
		"user resets": func(c *net.TCPConn) error {
			_, _ = c.Write([]byte("x"))
			return errors.Join(c.SetLinger(0), c.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := map[string]string{"user closes": "127.66.6.3", "user resets": "127.66.6.4"}[name]
			s := openSet(t, Config{Address: address, Ports: in(port), Connect: notYet, Patience: time.Hour})
			conn := dialPort(t, address, port)
			until(t, "the connection", func() bool { return s.Status()[0].Connections == 1 })
			if err := leave(conn.(*net.TCPConn)); err != nil {
				t.Fatal(err)
			}
			until(t, "the end of the connection", func() bool { return s.Status()[0].Connections == 0 })
		})
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	job := serveTCP(t, "127.0.0.1:0", echo)
	user := serveTCP(t, "127.0.0.1:0", echo)
	p, _ := newPark(t, ParkOptions{})
	_ = p
	w := startWorker(t, "127.0.0.1")
	waiting := freePort(t)
	s := openSet(t, Config{
		Address: "127.66.7.2", SubmissionAddress: "127.0.0.1", Patience: time.Hour,
		Ports:   append(append(in(job.Port), in(waiting)...), skyport.Port{Number: user.Port, Direction: skyport.Out}),
		Connect: w.connect,
		Accept: func(ctx context.Context, _ int) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	busy, idle := dialPort(t, "127.66.7.2", job.Port), dialPort(t, "127.66.7.2", waiting)
	mustWrite(t, busy, "x")
	if _, err := io.ReadFull(busy, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	until(t, "the waiting connection", func() bool { return s.Status()[1].Connections == 1 })
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range []net.Conn{busy, idle} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("still open")
		}
	}
	for _, st := range s.Status() {
		if st.Open || st.Connections != 0 {
			t.Errorf("%+v", st)
		}
	}
	refused(t, at("127.66.7.2", job.Port))
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	hold := make(chan struct{})
	job := serveTCP(t, "127.0.0.1:0", func(conn *net.TCPConn) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			continue // somebody else was faster
		}
		<-hold
		now.Add(-1)
		_, _ = io.WriteString(conn, "served")
	})
	s := openSet(t, Config{Address: "127.66.8.2", Ports: in(job.Port), SharedNetwork: true, MaxConns: 3})
	if err := s.Listening(job.Port, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	var users []net.Conn
	for range 10 {
		users = append(users, dialPort(t, "127.66.8.2", job.Port))
	}
	until(t, "three connections", func() bool { return now.Load() == 3 })
	close(hold)
	for _, user := range users {
		mustReadAll(t, user, "served")
		user.Close()
	}
	if most.Load() > 3 {
		t.Fatalf("%d connections at once", most.Load())
	}
}

func TestOutPorts(t *testing.T) {
	t.Parallel()
	// The job's side and the user's are two addresses of this machine with the same port.
	user := serveTCP(t, "127.66.9.1:0", says("user"))
	p, err := NewPark(user.Port, ParkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w := startWorker(t, "127.0.0.1", p)
	out := []skyport.Port{{Number: user.Port, Direction: skyport.Out}}
	s := openSet(t, Config{Address: "127.66.9.2", Ports: out, Accept: w.accept, SubmissionAddress: "127.66.9.1"})
	for range 20 {
		speaks(t, at("127.0.0.1", user.Port), "user")
	}
	until(t, "the counts", func() bool {
		st := s.Status()[0]
		return st.Open && st.Total == 20 && st.In == 80 && st.Connections == 0 && st.Address == user.String()
	})
}

func TestForwarded(t *testing.T) {
	t.Parallel()
	ports := []skyport.Port{{Number: 1, Direction: skyport.In}, {Number: 2, Direction: skyport.Out}}
	for _, c := range []struct {
		shared  bool
		address string
		want    int
	}{
		{false, "127.0.0.1", 2},
		{false, "", 2},
		{true, "203.0.113.9", 2},
		{true, "example.org", 2},
		{true, "2001:db8::1", 2},
		{true, "", 1},
		{true, "localhost", 1},
		{true, "127.0.0.1", 1},
		{true, "127.3.4.5", 1},
		{true, "::1", 1},
		{true, "::ffff:127.0.0.1", 1},
	} {
		if got := Forwarded(ports, c.shared, c.address); len(got) != c.want || len(ports) != 2 {
			t.Errorf("%+v: %v", c, got)
		}
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		if got := Forwarded(ports, true, a.(*net.IPNet).IP.String()); len(got) != 1 {
			t.Errorf("%s is this machine: %v", a, got)
		}
	}
	// What is not forwarded is reported open, and nothing asks the worker for it.
	s := openSet(t, Config{Address: "127.66.10.2", Ports: ports[1:], SharedNetwork: true})
	if st := s.Status()[0]; !st.Open || st.Address != "127.0.0.1:2" {
		t.Errorf("%+v", st)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start, pause := time.Now(), newBackoff(20*time.Millisecond, 50*time.Millisecond)
		for _, want := range []int64{20, 60, 110, 160} {
			if !pause.wait(t.Context(), nil) || time.Since(start).Milliseconds() != want {
				t.Fatalf("%v, want %d ms", time.Since(start), want)
			}
		}
		news := make(chan struct{})
		close(news)
		before := time.Now()
		if !pause.wait(t.Context(), news) || time.Since(before) != 0 || pause.next != 20*time.Millisecond {
			t.Fatal("news does not cut the waiting short")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if pause.wait(ctx, nil) {
			t.Fatal("goes on after the end")
		}
	})
}

// fewDescriptors is a listener whose first accepts find no free descriptor.
type fewDescriptors struct {
	net.Listener
	left int
}

func (l *fewDescriptors) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	return nil, net.ErrClosed
}

func (l *fewDescriptors) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptSurvivesWantOfDescriptors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		listener := &fewDescriptors{left: 5}
		start := time.Now()
		if _, err := acceptNext(t.Context(), listener, discard); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if waited := time.Since(start); listener.left >= 0 || waited != 155*time.Millisecond {
			t.Fatalf("%d left after %v", listener.left, waited)
		}
	})
}
