package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// ServerTLS is for core: it asks every client for a certificate and lets
// everybody connect, so that a stranger gets an answer in words (401) and not
// just a broken handshake. Every handler behind it must ask [Reloader.Verify] or
// [Reloader.User], or serve nobody in particular.
//
// Which CAs are known is not announced: a client with a certificate of another
// CA sends it all the same, and the answer can tell what is wrong with it.
func (r *Reloader) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return r.fresh().cert, nil
		},
	}
}

// StrictServerTLS is for the gate: it ends the handshake with whoever does not
// have a valid certificate of the role.
func (r *Reloader) StrictServerTLS(admit Role) *tls.Config {
	config := r.ServerTLS()
	config.ClientAuth = tls.RequireAnyClientCert
	// Not VerifyPeerCertificate: that one is not called for resumed sessions.
	config.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := r.Verify(state, admit)
		return err
	}
	return config
}

// ClientTLS is for calling a server of the role: it presents the own
// certificate, verifies the server's against the CA, its names against the
// address dialled, and its role. The CA is the one of this moment.
func (r *Reloader) ClientTLS(server Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    r.fresh().cas,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return r.fresh().cert, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			return serverIs(state, server)
		},
	}
}

func serverIs(state tls.ConnectionState, want Role) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	role, err := RoleOf(state.PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("verify server: %w", err)
	}
	if role != want {
		return fmt.Errorf("verify server: the certificate is of role %s, want %s", role, want)
	}
	return nil
}

// User verifies the peer and says which user it is. The error has the code
// unauthorized.
func (r *Reloader) User(state tls.ConnectionState) (id skyport.UserID, name string, err error) {
	cert, err := r.Verify(state, RoleUser)
	if err != nil {
		return "", "", err
	}
	id, name, err = UserOf(cert)
	if err != nil {
		return "", "", skyport.Errorf(skyport.CodeUnauthorized, "%w", err)
	}
	return id, name, nil
}

// Verify checks the certificate of a client against the CA, the time and the
// role, and returns it. Ask at every request rather than once per connection:
// it then also holds for connections that outlive the certificate and for
// resumed sessions, and an answer that is known costs about a microsecond. The
// error has the code unauthorized and says which of these is wrong.
func (r *Reloader) Verify(state tls.ConnectionState, role Role) (*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, skyport.Errorf(skyport.CodeUnauthorized, "no client certificate").
			WithHint("connect with the certificate and key that skyport setup or skyport cert user made")
	}
	now := time.Now()
	m, leaf := r.fresh(), state.PeerCertificates[0]
	if !m.verified.holds(leaf, now) {
		until, err := m.verify(state.PeerCertificates, now)
		if err != nil {
			return nil, strange(leaf, now, err)
		}
		m.verified.add(leaf, until)
	}
	is, err := RoleOf(leaf)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeUnauthorized, "%w", err)
	}
	if is != role || !mayCall(leaf) {
		return nil, skyport.Errorf(skyport.CodeUnauthorized, "certificate %q is of role %s: want %s",
			skyport.Abbreviate(leaf.Subject.CommonName, 64), is, role)
	}
	return leaf, nil
}

// verify builds the chain and says until when it holds.
func (m *material) verify(peer []*x509.Certificate, now time.Time) (until time.Time, err error) {
	between := x509.NewCertPool()
	for _, cert := range peer[1:] {
		between.AddCert(cert)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{
		Roots:         m.cas,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("verify certificate: %w", err)
	}
	for _, cert := range chains[0] {
		if until.IsZero() || cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	return until, nil
}

// mayCall says whether the certificate is meant for clients by name: the
// verification lets a certificate without any extended usage pass.
func mayCall(cert *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
}

// strange puts a failed verification into words.
func strange(leaf *x509.Certificate, now time.Time, err error) error {
	name := skyport.Abbreviate(leaf.Subject.CommonName, 64)
	switch {
	case now.After(leaf.NotAfter):
		return skyport.Errorf(skyport.CodeUnauthorized, "certificate %q expired on %s: %w",
			name, leaf.NotAfter.Format(time.DateOnly), err).WithHint("renew it with skyport cert renew")
	case now.Before(leaf.NotBefore):
		return skyport.Errorf(skyport.CodeUnauthorized, "certificate %q is not valid before %s: %w",
			name, leaf.NotBefore.Format(time.RFC3339), err).WithHint("check the clocks of both machines")
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return skyport.Errorf(skyport.CodeUnauthorized, "certificate %q is of another CA: %w", name, err).
			WithHint("use a certificate that the setup of this core made: skyport cert user")
	}
	return skyport.Errorf(skyport.CodeUnauthorized, "certificate %q is not accepted: %w", name, err)
}

// verdicts remembers which certificates were verified, and until when that
// holds. Only good ones are kept, so strangers cannot fill it.
type verdicts struct {
	mu    sync.RWMutex
	until map[[sha256.Size]byte]time.Time
}

// mostVerdicts bounds the memory: one certificate per user.
const mostVerdicts = 4096

func (v *verdicts) holds(cert *x509.Certificate, now time.Time) bool {
	key := sha256.Sum256(cert.Raw)
	v.mu.RLock()
	until, ok := v.until[key]
	v.mu.RUnlock()
	return ok && now.Before(until) && !now.Before(cert.NotBefore)
}

func (v *verdicts) add(cert *x509.Certificate, until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.until == nil {
		v.until = map[[sha256.Size]byte]time.Time{}
	}
	if len(v.until) >= mostVerdicts {
		clear(v.until)
	}
	v.until[sha256.Sum256(cert.Raw)] = until
}
