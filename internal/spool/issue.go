package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Names of the certificates that are not users'.
var certificateNames = []string{"grid", "cluster", "node", "gate"}

// AddUser makes a certificate and key for a user, with the id or, when it is
// empty, a fresh one, and returns the certificate and the files that were made.
// For a user who is there already it makes what is missing; another id is a
// conflict.
func (s *Spool) AddUser(name string, id skyport.UserID) (Certificate, []string, error) {
	if err := CheckUserName(name); err != nil {
		return Certificate{}, nil, err
	}
	pair := s.User(name)
	if certs, err := pki.ReadCertificates(pair.Cert); err == nil {
		if is, _, err := pki.UserOf(certs[0]); err == nil && id != "" && is != id {
			return Certificate{}, nil, skyport.Errorf(skyport.CodeConflict, "user %s is there with the id %s", name, is).
				WithHint("use another name, or move %s away", filepath.Dir(pair.Cert))
		}
	}
	if err := os.Mkdir(filepath.Dir(pair.Cert), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return Certificate{}, nil, fmt.Errorf("add user %s: %w", name, err)
	}
	made, err := pki.EnsureLeaf(pair, s.ClusterCA(), pki.Request{
		Role: pki.RoleUser, Name: name, ID: id, Life: s.Config.CertificateLife,
	})
	if err != nil {
		return Certificate{}, made, fmt.Errorf("add user %s: %w", name, err)
	}
	return s.certificate(pki.RoleUser, name, pair), made, nil
}

// Renew signs a certificate anew, for the same key and with a fresh life. The
// name is node, gate, or a user's. A running daemon takes its own up within a
// second of the next connection. When home holds the certificate of the same
// key, as it does for the user of the setup, it is renewed there too.
func (s *Spool) Renew(name, home string) (Certificate, error) {
	role, pair := pki.RoleUser, s.User(name)
	switch {
	case name == "node":
		role, pair = pki.RoleCore, s.Node()
	case name == "gate":
		role, pair = pki.RoleGate, s.Gate()
	case slices.Contains(certificateNames, name):
		return Certificate{}, skyport.Errorf(skyport.CodeUnsupported, "the certificate of the %s CA cannot be renewed", name).
			WithHint("it is valid for ten years; what it signed can be renewed: node, gate and the users")
	case CheckUserName(name) != nil || !exists(pair.Cert):
		return Certificate{}, skyport.Errorf(skyport.CodeNotFound, "there is no certificate of the name %q", skyport.Abbreviate(name, 70)).
			WithHint("skyport cert list shows them; skyport cert user makes one for a user")
	}
	cert, err := pki.Reissue(pair, s.ClusterCA(), s.Config.CertificateLife, nil)
	if err != nil {
		return Certificate{}, err
	}
	if role == pki.RoleUser && home != "" {
		if err := followHome(pair, HomePair(home), cert.NotBefore); err != nil {
			return Certificate{}, err
		}
	}
	return s.certificate(role, name, pair), nil
}

// followHome copies a renewed certificate to where terminals look for it, if
// there is the older certificate of the same key.
func followHome(own, home pki.Pair, since time.Time) error {
	if pki.CheckPair(home) != nil || pki.CheckPair(pki.Pair{Cert: own.Cert, Key: home.Key}) != nil {
		return nil //nolint:nilerr // nothing there to be renewed
	}
	certs, err := pki.ReadCertificates(home.Cert)
	if err != nil || certs[0].NotBefore.After(since) {
		return nil //nolint:nilerr // not what Setup has put there
	}
	content, err := os.ReadFile(own.Cert)
	if err != nil {
		return fmt.Errorf("renew %s: %w", home.Cert, err)
	}
	return pki.Replace(home.Cert, content, 0o600)
}

// RenewDue renews every certificate of a user that has lived two thirds of its
// life, and returns their names. The daemons' own are renewed by themselves,
// see [pki.Reloader.Renew].
func (s *Spool) RenewDue(ctx context.Context, home string) (renewed []string, err error) {
	certificates, err := s.Certificates()
	if err != nil {
		return nil, err
	}
	for _, c := range certificates {
		if err := ctx.Err(); err != nil {
			return renewed, fmt.Errorf("renew certificates: %w", err)
		}
		if c.Role != pki.RoleUser || !c.Key || c.Expires.IsZero() || time.Now().Before(c.Due) {
			continue
		}
		if _, err := s.Renew(c.Name, home); err != nil {
			return renewed, err
		}
		renewed = append(renewed, c.Name)
	}
	return renewed, nil
}

// RenewServer signs the certificate of core or of the gate anew, good for what
// it was good for, for the names of this machine and for the further ones. It
// makes the certificate and the key if they are missing.
func (s *Spool) RenewServer(ctx context.Context, role pki.Role, further []string) (Certificate, error) {
	name, pair := "node", s.Node()
	if role == pki.RoleGate {
		name, pair = "gate", s.Gate()
	}
	hosts := Hosts(ctx, further)
	made, err := pki.EnsureLeaf(pair, s.ClusterCA(), pki.Request{
		Role: role, Name: commonName(role), Hosts: hosts, Life: s.Config.CertificateLife,
	})
	if err != nil {
		return Certificate{}, err
	}
	if !slices.Contains(made, pair.Cert) {
		certs, err := pki.ReadCertificates(pair.Cert)
		if err != nil {
			return Certificate{}, err
		}
		for _, host := range pki.HostsOf(certs[0]) {
			if !slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
				hosts = append(hosts, host)
			}
		}
		if _, err := pki.Reissue(pair, s.ClusterCA(), s.Config.CertificateLife, hosts); err != nil {
			return Certificate{}, err
		}
	}
	return s.certificate(role, name, pair), nil
}

// commonName is the name in a server's certificate.
func commonName(role pki.Role) string { return string(role) + "." + shortHost() }

// CheckHosts says what is wrong with names and addresses for a certificate.
func CheckHosts(names []string) error {
	for _, name := range names {
		if err := pki.CheckHost(name); err != nil && !isIP(name) {
			return skyport.Errorf(skyport.CodeInvalid, "%w", err)
		}
	}
	return nil
}
