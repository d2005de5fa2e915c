package azuretest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Emulator is one that runs. Close it.
type Emulator struct {
	o       Options
	log     *slog.Logger
	host    string // address that it listens at
	ca      []byte
	caFile  string
	dir     string
	key     []byte // signs tokens
	server  *http.Server
	ctx     context.Context
	stop    context.CancelFunc
	jobs    sync.WaitGroup // served connections and work under way
	clients []*http.Client
	calls   sync.WaitGroup // being answered; none begins when closing is set
	closing bool
	sizes   []size
	bySize  map[string]size // by name in lower case

	mu         sync.Mutex
	entries    map[string]*entry // by id in lower case
	operations map[string]*operation
	running    map[string]*run // deployments under way, by id in lower case
	registered map[string]bool // name spaces
	serial     int
	offset     time.Duration // of the emulator's clock
	ticked     chan struct{} // closed and replaced when the clock was moved
	dirty      bool

	chance struct { // of faults
		sync.Mutex
		rng    *rand.Rand
		faults Faults
		used   []int // how often each rule was met
		calls  []Call
		bucket bucket
	}
}

// New starts an emulator.
func New(o Options) (*Emulator, error) {
	o = o.withDefaults()
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the Azure emulator: %w", err)
	}
	e := &Emulator{
		o: o, log: o.Logger, host: listener.Addr().String(),
		entries: map[string]*entry{}, operations: map[string]*operation{}, running: map[string]*run{}, registered: map[string]bool{},
		ticked: make(chan struct{}), sizes: makeSizes(o.Sizes), bySize: map[string]size{},
	}
	for _, s := range e.sizes {
		e.bySize[strings.ToLower(s.name)] = s
	}
	e.chance.rng = rand.New(rand.NewPCG(o.Seed, 0))
	e.chance.faults = o.Faults
	e.chance.used = make([]int, len(o.Faults.Rules))
	e.ctx, e.stop = context.WithCancel(context.Background())
	certificate, err := e.prepare(listener.Addr().(*net.TCPAddr).IP)
	if err != nil {
		e.stop()
		e.jobs.Wait()
		return nil, errors.Join(fmt.Errorf("start the Azure emulator: %w", err), listener.Close(), os.RemoveAll(e.dir))
	}
	e.server = &http.Server{
		Handler: http.HandlerFunc(e.serve), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		// Without HTTP/2 a cut answer is a cut connection.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	e.jobs.Go(func() { _ = e.server.ServeTLS(listener, "", "") }) // until Close
	e.jobs.Go(e.alarms)
	if o.State != "" {
		e.jobs.Go(e.keepState)
	}
	return e, nil
}

// prepare makes certificate and files, and reads the state.
func (e *Emulator) prepare(ip net.IP) (tls.Certificate, error) {
	certificate, ca, err := certify(ip)
	if err != nil {
		return certificate, err
	}
	e.ca = ca
	if e.dir, err = os.MkdirTemp("", "azure-emulator-"); err != nil {
		return certificate, fmt.Errorf("make a directory: %w", err)
	}
	e.caFile = filepath.Join(e.dir, "ca.pem")
	if err := os.WriteFile(e.caFile, ca, 0o600); err != nil {
		return certificate, fmt.Errorf("write the authority's certificate: %w", err)
	}
	e.key = []byte(fmt.Sprintf("tokens of the emulator with seed %d, which protect nothing", e.o.Seed))
	return certificate, e.loadState()
}

// Close ends the emulator, its machines too.
func (e *Emulator) Close() error {
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	e.stop()
	err := e.server.Close()
	e.calls.Wait()
	e.jobs.Wait()
	for _, c := range e.clients {
		c.CloseIdleConnections()
	}
	if e.o.State != "" {
		err = errors.Join(err, e.saveState())
	}
	err = errors.Join(err, e.o.Machines.Close(), os.RemoveAll(e.dir))
	if err != nil {
		return fmt.Errorf("stop the Azure emulator: %w", err)
	}
	return nil
}

// URL is the endpoint of Resource Manager.
func (e *Emulator) URL() string { return "https://" + e.host }

// Authority is the endpoint of the token service.
func (e *Emulator) Authority() string { return e.URL() }

// PricesURL is the base of the retail prices API.
func (e *Emulator) PricesURL() string { return e.URL() }

// Subscription is the one that there is.
func (e *Emulator) Subscription() string { return e.o.Subscription }

// Tenant is the directory of the client.
func (e *Emulator) Tenant() string { return e.o.Tenant }

// ClientID is the client that has a role.
func (e *Emulator) ClientID() string { return e.o.ClientID }

// ClientSecret is its secret.
func (e *Emulator) ClientSecret() string { return e.o.ClientSecret }

// Location is the region that is meant where nothing is said.
func (e *Emulator) Location() string { return e.o.Location }

// CAFile is a file with the certificate of the emulator's authority; it goes
// with Close.
func (e *Emulator) CAFile() string { return e.caFile }

// CA is that certificate as PEM.
func (e *Emulator) CA() []byte { return e.ca }

// Client makes a client that trusts the emulator. Close ends its idle connections.
func (e *Emulator) Client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca)
	c := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
	}}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients = append(e.clients, c)
	return c
}

// now is the emulator's time.
func (e *Emulator) now() time.Time { return time.Now().Add(e.offset).UTC() }

// Advance moves the emulator's clock: tokens age, schedules are due.
func (e *Emulator) Advance(by time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.offset += by
	close(e.ticked)
	e.ticked = make(chan struct{})
}

// rest waits, or says that the context has ended.
func rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
