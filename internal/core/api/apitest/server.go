package apitest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// Server is the API over mutual TLS on a port of this machine, with a
// certificate authority of its own in files.
type Server struct {
	t       testing.TB
	handler http.Handler
	dir     string
	address string
	caCert  *x509.Certificate
	caKey   *ecdsa.PrivateKey
	node    tls.Certificate

	mu      sync.Mutex
	running *running
}

type running struct {
	server *http.Server
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// Serve starts a server that ends with the test.
func Serve(t testing.TB, backend api.Backend, change ...func(*api.Options)) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	s.caKey = newKey(t)
	s.caCert = s.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, s.caKey, "ca")
	nodeKey := newKey(t)
	node := s.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "core"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, nodeKey, "node")
	s.node = tls.Certificate{Certificate: [][]byte{node.Raw}, PrivateKey: nodeKey}

	options := api.Options{Backend: backend, Authenticate: authenticate, Logger: slog.New(slog.DiscardHandler), Version: "test"}
	for _, c := range change {
		c(&options)
	}
	s.handler = api.New(options)
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// authenticate finds the user's id in the subject's serial number.
func authenticate(r *http.Request) (api.User, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return api.User{}, errors.New("no certificate")
	}
	subject := r.TLS.PeerCertificates[0].Subject
	return api.User{ID: skyport.UserID(subject.SerialNumber), Name: subject.CommonName}, nil
}

// URL of the server; it stays the same over restarts.
func (s *Server) URL() string { return "https://" + s.address }

// CAFile is the certificate of the authority.
func (s *Server) CAFile() string { return filepath.Join(s.dir, "ca.pem") }

// User makes a certificate and returns its files.
func (s *Server) User(u skyport.User) (certFile, keyFile string) {
	s.t.Helper()
	name := "user-" + u.Name
	s.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: u.Name, SerialNumber: string(u.ID)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, newKey(s.t), name)
	return filepath.Join(s.dir, name+".pem"), filepath.Join(s.dir, name+".key")
}

// Start listens again after a Stop.
func (s *Server) Start() {
	s.t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = listener.Addr().String()
	pool := x509.NewCertPool()
	pool.AddCert(s.caCert)
	ctx, stop := context.WithCancel(context.Background())
	run := &running{stop: stop, done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	run.server = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{s.node},
			ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
		},
		ConnState: func(c net.Conn, state http.ConnState) {
			run.mu.Lock()
			defer run.mu.Unlock()
			switch state {
			case http.StateNew:
				run.conns[c] = struct{}{}
			case http.StateClosed, http.StateHijacked:
				delete(run.conns, c)
			}
		},
	}
	go func() {
		defer close(run.done)
		if err := run.server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.t.Errorf("serve: %v", err)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = run
}

// Stop ends the server as a killed process would: every connection breaks.
func (s *Server) Stop() {
	s.mu.Lock()
	run := s.running
	s.running = nil
	s.mu.Unlock()
	if run == nil {
		return
	}
	run.stop()
	_ = run.server.Close() // connections break: that is what is asked for
	<-run.done
}

// Cut breaks every connection; the server goes on.
func (s *Server) Cut() {
	s.mu.Lock()
	run := s.running
	s.mu.Unlock()
	run.mu.Lock()
	defer run.mu.Unlock()
	for c := range run.conns {
		_ = c.Close() // breaks on purpose
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign issues a certificate and writes it and its key to files.
func (s *Server) sign(template *x509.Certificate, key *ecdsa.PrivateKey, file string) *x509.Certificate {
	s.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		s.t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := s.caCert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, s.caKey)
	if err != nil {
		s.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		file + ".pem": {Type: "CERTIFICATE", Bytes: der},
		file + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return certificate
}
