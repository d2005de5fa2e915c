package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// serve accepts connections with the configuration until the test ends. To each
// client it writes one line: what answer says about the connection.
func serve(t *testing.T, config *tls.Config, answer func(tls.ConnectionState) string) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }() // the client has seen all or failed
				secure, ok := conn.(*tls.Conn)
				if !ok || secure.HandshakeContext(t.Context()) != nil {
					return
				}
				_, _ = fmt.Fprintln(conn, answer(secure.ConnectionState())) // the client looks
			})
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		conns.Wait()
	})
	return listener.Addr().String()
}

// dial connects and returns the server's line.
func dial(address string, config *tls.Config) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // all was read
	line, err := io.ReadAll(io.LimitReader(conn, 4096))
	if err == nil && len(line) == 0 {
		err = errors.New("closed without an answer")
	}
	return strings.TrimSpace(string(line)), err
}

func reloader(t *testing.T, files Files) *Reloader {
	t.Helper()
	r, err := NewReloader(files, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expired makes a user's certificate that ended an hour ago.
func (h house) expired(t *testing.T) Files {
	t.Helper()
	authority, err := loadAuthority(h.cluster)
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := ensureKey(h.other.Key)
	if err != nil {
		t.Fatal(err)
	}
	template, err := leafTemplate(key.Public(), Request{Role: RoleUser, Name: "late"})
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	cert, err := sign(template, authority.cert, key.Public(), authority.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(h.other.Cert, authority.withChain(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	return h.files(h.other)
}

func TestWhoIsAdmitted(t *testing.T) {
	t.Parallel()
	h, foreign := newHouse(t), newHouse(t)
	core, gate := reloader(t, h.files(h.core)), reloader(t, h.files(h.gate))
	coreAddress := serve(t, core.ServerTLS(), func(state tls.ConnectionState) string {
		id, name, err := core.User(state)
		if err != nil {
			return fmt.Sprintf("%s: %v", skyport.CodeOf(err), err)
		}
		return fmt.Sprintf("user %s %s", id, name)
	})
	gateAddress := serve(t, gate.StrictServerTLS(RoleCore), func(tls.ConnectionState) string { return "core" })

	late := h.expired(t)
	clients := []struct {
		name   string
		files  Files
		atCore string // what core's answer begins with
		atGate bool
	}{
		{"user", h.files(h.user), "user " + string(h.userID) + " alice", false},
		{"core", h.files(h.core), `unauthorized: certificate "core" is of role core: want user`, true},
		{"gate", h.files(h.gate), `unauthorized: certificate "gate" is not accepted`, false},
		{"expired", late, `unauthorized: certificate "late" expired on`, false},
		// Foreigners trust our server here: that they are strangers must show anyway.
		{"foreign user", Files{foreign.user, h.chain}, `unauthorized: certificate "alice" is of another CA`, false},
		{"foreign core", Files{foreign.core, h.chain}, `unauthorized: certificate "core" is of another CA`, false},
		{"nobody", Files{}, "unauthorized: no client certificate", false},
	}
	for _, c := range clients {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(c.name+" "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				config := func(server Role) *tls.Config {
					if c.files == (Files{}) {
						anonymous := reloader(t, h.files(h.user)).ClientTLS(server)
						anonymous.GetClientCertificate = nil
						anonymous.MaxVersion = version
						return anonymous
					}
					config := reloader(t, c.files).ClientTLS(server)
					config.MaxVersion = version
					return config
				}
				got, err := dial(coreAddress, config(RoleCore))
				if err != nil || !strings.HasPrefix(got, c.atCore) {
					t.Errorf("core answers %q, %v: want %q", got, err, c.atCore)
				}
				got, err = dial(gateAddress, config(RoleGate))
				if (err == nil) != c.atGate {
					t.Errorf("gate answers %q, %v: want admitted %v", got, err, c.atGate)
				}
			})
		}
	}
}

func TestClientRefusesWrongServers(t *testing.T) {
	t.Parallel()
	h, foreign := newHouse(t), newHouse(t)
	h.leaf(t, h.other, Request{Role: RoleCore, Name: "elsewhere", Hosts: []string{"elsewhere.example.org"}})
	hello := func(tls.ConnectionState) string { return "hello" }
	client := reloader(t, h.files(h.user))
	for name, c := range map[string]struct {
		files Files
		ok    bool
	}{
		"core":              {h.files(h.core), true},
		"gate as core":      {h.files(h.gate), false},
		"user as core":      {h.files(h.user), false},
		"foreign core":      {foreign.files(foreign.core), false},
		"core of elsewhere": {h.files(h.other), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serve(t, reloader(t, c.files).ServerTLS(), hello)
			if got, err := dial(address, client.ClientTLS(RoleCore)); (err == nil) != c.ok {
				t.Errorf("answer %q, %v: want accepted %v", got, err, c.ok)
			}
		})
	}
	t.Run("TLS 1.1", func(t *testing.T) {
		t.Parallel()
		address := serve(t, reloader(t, h.files(h.core)).ServerTLS(), hello)
		config := client.ClientTLS(RoleCore)
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		if got, err := dial(address, config); err == nil {
			t.Errorf("TLS 1.1 was accepted: %q", got)
		}
	})
}

// A resumed session must not keep alive what a full handshake would refuse.
func TestResumedSessionsAreVerified(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			h, foreign := newHouse(t), newHouse(t)
			gate := reloader(t, h.files(h.gate))
			address := serve(t, gate.StrictServerTLS(RoleCore), func(state tls.ConnectionState) string {
				return fmt.Sprintf("resumed %v", state.DidResume)
			})
			config := reloader(t, h.files(h.core)).ClientTLS(RoleGate)
			config.MaxVersion = version
			config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
			for i, want := range []string{"resumed false", "resumed true"} {
				if got, err := dial(address, config); err != nil || got != want {
					t.Fatalf("connection %d: %q, %v: want %q", i+1, got, err, want)
				}
			}
			// The gate now trusts another CA only.
			if err := Replace(h.chain, mustRead(t, foreign.chain), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := gate.Reload(); err != nil {
				t.Fatal(err)
			}
			if got, err := dial(address, config); err == nil {
				t.Errorf("after the change of the CA the gate answers %q", got)
			}
		})
	}
}

func TestVerdictsEndWithTheCertificate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	core := reloader(t, h.files(h.core))
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{readLeaf(t, h.user.Cert)}}
	for range 2 {
		if _, err := core.Verify(state, RoleUser); err != nil {
			t.Fatal(err)
		}
	}
	verified, leaf := &core.current.Load().verified, state.PeerCertificates[0]
	for _, c := range []struct {
		when time.Time
		want bool
	}{
		{time.Now(), true},
		{leaf.NotBefore.Add(-time.Second), false},
		{leaf.NotAfter.Add(time.Second), false},
	} {
		if got := verified.holds(leaf, c.when); got != c.want {
			t.Errorf("at %s the verdict holds: %v, want %v", c.when, got, c.want)
		}
	}
}

// The listener stays, connections come all the time, and the certificate
// changes under them: none fails, and soon all see the new one.
func TestReloadWithoutDroppingAConnection(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	core := reloader(t, h.files(h.core))
	address := serve(t, core.ServerTLS(), func(tls.ConnectionState) string { return "hello" })
	config := reloader(t, h.files(h.user)).ClientTLS(RoleCore)
	var serial string
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		serial = state.PeerCertificates[0].SerialNumber.String()
		return verify(state)
	}
	if _, err := dial(address, config); err != nil {
		t.Fatal(err)
	}
	old := serial
	renewed, err := Reissue(h.core, h.cluster, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for serial == old {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served after 10 s")
		}
		if _, err := dial(address, config); err != nil {
			t.Fatal(err)
		}
	}
	if want := renewed.SerialNumber.String(); serial != want {
		t.Errorf("serves certificate %s, want %s", serial, want)
	}
}

// Files that cannot be used do not harm a running server, and are told of once.
func TestUnusableFilesAreNotTakenUp(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var log bytes.Buffer
	core, err := NewReloader(h.files(h.core), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	before := core.Leaf()
	if err := os.WriteFile(h.core.Cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		core.next.Store(0) // a second later
		if core.fresh().cert.Leaf != before {
			t.Fatal("the certificate was exchanged")
		}
	}
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("the log tells %d times, want once:\n%s", n, log.String())
	}
	if err := core.Reload(); err == nil || !strings.Contains(err.Error(), h.core.Cert) {
		t.Errorf("Reload: %v, want an error that names the file", err)
	}
}

func TestRenewKeepsTheCertificateAlive(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.leaf(t, h.other, Request{Role: RoleCore, Name: "brief", Hosts: []string{"localhost"}, Life: 2 * time.Second})
	core := reloader(t, h.files(h.other))
	address := serve(t, core.ServerTLS(), func(tls.ConnectionState) string { return "hello" })
	first := core.Leaf().SerialNumber
	ctx, stop := context.WithCancel(t.Context())
	var renewing sync.WaitGroup
	renewing.Go(func() { core.Renew(ctx, Renewal{Issuer: h.cluster}) })
	defer renewing.Wait()
	defer stop()

	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	config := reloader(t, h.files(h.user)).ClientTLS(RoleCore)
	config.ServerName = "localhost"
	deadline := time.Now().Add(15 * time.Second)
	for core.Leaf().SerialNumber.Cmp(first) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("not renewed after 15 s")
		}
		// Never is there a moment without a valid certificate.
		if _, err := dial("127.0.0.1:"+port, config); err != nil {
			t.Fatal(err)
		}
	}
	if left := time.Until(core.Expires()); left < LeafLife/2 {
		t.Errorf("renewed for %s only", left)
	}
	if left := time.Until(Due(core.Leaf())); left <= 0 {
		t.Error("due again already")
	}
}

func TestRenewWithoutTheCAKeyWarns(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if err := os.Remove(h.cluster.Key); err != nil {
		t.Fatal(err)
	}
	log := &lockedLog{wrote: make(chan struct{}, 16)}
	core, err := NewReloader(h.files(h.user), slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	// The certificate is past two thirds of its life.
	leaf := *core.Leaf()
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-90*24*time.Hour), time.Now().Add(10*24*time.Hour+time.Hour)
	core.current.Load().cert.Leaf = &leaf
	ctx, stop := context.WithCancel(t.Context())
	var renewing sync.WaitGroup
	renewing.Go(func() { core.Renew(ctx, Renewal{Issuer: h.cluster}) })
	<-log.wrote
	stop()
	renewing.Wait()
	if text := log.String(); !strings.Contains(text, "not on this machine") || !strings.Contains(text, "days_left=10") {
		t.Errorf("the log says %q, want the reason and the days left", text)
	}
}

type lockedLog struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.text.Write(p)
	l.wrote <- struct{}{}
	return n, err
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
