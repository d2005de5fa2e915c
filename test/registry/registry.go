// Package registry is a real container registry for tests and demonstrations: one
// that speaks TLS with a certificate of its own authority, asks for a login, and
// serves images made of root file systems. It counts what is asked for and can be
// told to fail.
package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Options of a registry.
type Options struct {
	// Listen is an address; the registry is known by its IP.
	Listen string
	// Dir keeps the layers.
	Dir string
	// Username and Password are asked for; without them everybody may read.
	Username, Password string
}

// Registry is one that runs. Close it.
type Registry struct {
	// Host is what image names begin with.
	Host string
	// CA is the PEM of the authority that signed its certificate.
	CA []byte

	opts   Options
	inner  http.Handler // without login
	server *http.Server
	served sync.WaitGroup

	mu    sync.Mutex
	asked map[string]int
	fail  func(*http.Request) int
}

// Start starts a registry.
func Start(ctx context.Context, opts Options) (*Registry, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("start a registry: %w", err)
	}
	r := &Registry{Host: listener.Addr().String(), opts: opts, asked: map[string]int{}}
	certificate, ca, err := certify(listener.Addr().(*net.TCPAddr).IP)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a registry: %w", err), listener.Close())
	}
	r.CA = ca
	r.inner = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(opts.Dir)))
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	r.served.Go(func() { _ = r.server.ServeTLS(listener, "", "") }) // until Close
	return r, nil
}

// Close ends the registry.
func (r *Registry) Close() error {
	err := r.server.Close()
	r.served.Wait()
	if err != nil {
		return fmt.Errorf("stop the registry: %w", err)
	}
	return nil
}

// Asked counts the GET requests for manifests of an image, "" for those of all.
func (r *Registry) Asked(image string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for path, count := range r.asked {
		if image == "" || strings.HasPrefix(path, "/v2/"+image+"/") {
			n += count
		}
	}
	return n
}

// Fail has requests answered with a status when decide returns one that is not 0;
// nil ends that.
func (r *Registry) Fail(decide func(*http.Request) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = decide
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	fail := r.fail
	if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/manifests/") {
		r.asked[req.URL.Path]++
	}
	r.mu.Unlock()
	if fail != nil {
		if status := fail(req); status != 0 {
			http.Error(w, http.StatusText(status), status)
			return
		}
	}
	if r.opts.Username != "" {
		user, password, ok := req.BasicAuth()
		right := subtle.ConstantTimeCompare([]byte(user), []byte(r.opts.Username)) & subtle.ConstantTimeCompare([]byte(password), []byte(r.opts.Password))
		if !ok || right != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
	}
	r.inner.ServeHTTP(w, req)
}

// Add puts an image in the registry, made of a root file system in a tar file, and
// returns its name. The architecture is in Go's spelling.
func (r *Registry) Add(ctx context.Context, image, rootfs, arch string) (string, error) {
	layer, err := tarball.LayerFromFile(rootfs)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	made, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	return r.Put(ctx, image, made, arch)
}

// Put puts an image in the registry under a name such as mpi:1, and returns its
// whole name.
func (r *Registry) Put(ctx context.Context, image string, made v1.Image, arch string) (string, error) {
	full := r.Host + "/" + image
	config, err := made.ConfigFile()
	if err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	if made, err = mutate.ConfigFile(made, config); err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	ref, err := name.ParseReference(full)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	// Straight into the handler: who makes images needs no login.
	err = remote.Write(ref, made, remote.WithContext(ctx), remote.WithTransport(direct{r.inner}))
	if err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	return full, nil
}

// direct is a way to a handler without a network.
type direct struct{ to http.Handler }

func (d direct) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		req.Body = http.NoBody
	}
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	d.to.ServeHTTP(answer, req)
	return &http.Response{
		StatusCode: answer.status, Status: http.StatusText(answer.status), Header: answer.header, Request: req,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(&answer.body), ContentLength: int64(answer.body.Len()),
	}, nil
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) } //nolint:wrapcheck // of a buffer

// certify makes an authority and a certificate of it for an address.
func certify(ip net.IP) (tls.Certificate, []byte, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry for tests"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: ip.String()}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{ip}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
