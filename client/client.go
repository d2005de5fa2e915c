package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/openworkload/skyport"
)

// Options say where core is and who calls.
type Options struct {
	// URL of core, such as https://localhost:8443 (the default).
	URL string
	// CAFile holds the certificates that core's must chain to, in PEM.
	CAFile string
	// CertFile and KeyFile are the caller's certificate and key, in PEM. They
	// are read again for each new connection, so they may be renewed.
	CertFile, KeyFile string
	// HTTPClient replaces the transport made from the files above.
	HTTPClient *http.Client
	// UserAgent of the calls; default skyport-client.
	UserAgent string
	// Patience is how long a call that may be repeated is tried again while
	// core cannot be reached; default 30 s, negative: tried once. Streams
	// that were connected once go on until their context ends.
	Patience time.Duration
	// Logger hears of calls that are tried again; nil: silent.
	Logger *slog.Logger
}

// Client speaks to one core as one user.
type Client struct {
	base     string
	http     *http.Client
	patience time.Duration
	log      *slog.Logger
}

// New checks the options and reads the certificates; it does not connect.
func New(opts Options) (*Client, error) {
	if opts.URL == "" {
		opts.URL = "https://localhost:8443"
	}
	base, err := url.Parse(opts.URL)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" {
		return nil, skyport.Errorf(skyport.CodeInvalid, "%q is not the URL of a core", opts.URL).
			WithHint("it looks like https://localhost:8443")
	}
	if opts.UserAgent == "" {
		opts.UserAgent = "skyport-client"
	}
	switch {
	case opts.Patience == 0:
		opts.Patience = 30 * time.Second
	case opts.Patience < 0:
		opts.Patience = 0
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	inner := opts.HTTPClient
	if inner == nil {
		transport, err := newTransport(opts)
		if err != nil {
			return nil, err
		}
		inner = &http.Client{Transport: transport}
	}
	outer := *inner
	outer.Transport = &named{next: inner.Transport, userAgent: opts.UserAgent}
	return &Client{
		base:     strings.TrimSuffix(base.String(), "/"),
		http:     &outer,
		patience: opts.Patience,
		log:      opts.Logger,
	}, nil
}

// Close drops idle connections. Streams end with their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// newTransport makes a transport of the certificate files. It speaks HTTP/1.1:
// streams get connections of their own, so a busy one holds up no other.
func newTransport(opts Options) (*http.Transport, error) {
	pem, err := os.ReadFile(opts.CAFile)
	if err != nil {
		return nil, errCertificate("read the certificates that core's must chain to: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errCertificate("%s holds no certificate", opts.CAFile)
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(opts.CertFile, opts.KeyFile)
		if err != nil {
			return nil, errCertificate("read the certificate and key of the caller: %w", err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: dialer.DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion:           tls.VersionTLS12,
			RootCAs:              roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() },
			VerifyConnection:     onlyCore,
		},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // transfers compress what is worth it themselves
	}, nil
}

// onlyCore refuses a server of our CA that is not core: the gate must not pass for
// it. A certificate of other tools that names no role is taken by its host alone.
func onlyCore(state tls.ConnectionState) error {
	for _, uri := range state.PeerCertificates[0].URIs {
		if uri.Scheme == "skyport" && uri.String() != "skyport:role/core" {
			return fmt.Errorf("the server's certificate is not core's: it says %s", uri)
		}
	}
	return nil
}

func errCertificate(format string, args ...any) *skyport.Error {
	return skyport.Errorf(skyport.CodeUnauthorized, format, args...).
		WithHint("make certificates with: skyport setup")
}

// named says in each request what program calls.
type named struct {
	next      http.RoundTripper
	userAgent string
}

// RoundTrip implements [http.RoundTripper].
func (n *named) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("User-Agent") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("User-Agent", n.userAgent)
	}
	return n.transport().RoundTrip(r) //nolint:wrapcheck // http.Client wraps it
}

// CloseIdleConnections is found by [http.Client.CloseIdleConnections].
func (n *named) CloseIdleConnections() {
	if c, ok := n.transport().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (n *named) transport() http.RoundTripper {
	if n.next == nil {
		return http.DefaultTransport
	}
	return n.next
}
