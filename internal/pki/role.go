package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/openworkload/skyport"
)

// Role says whom a certificate speaks for.
type Role string

const (
	RoleGrid    Role = "grid"    // the root CA
	RoleCluster Role = "cluster" // the CA that signs leaves
	RoleCore    Role = "core"    // core: serves terminals, calls the gate
	RoleGate    Role = "gate"    // the gate: serves core
	RoleUser    Role = "user"    // a user: calls core
)

const (
	rolePrefix = "skyport:role/"
	idPrefix   = "urn:uuid:"
)

// userIDAttribute is where existing terminals look for the user's id: in the
// subject. The number belongs to a certificate extension (subjectAltName), but
// it is the contract.
var userIDAttribute = asn1.ObjectIdentifier{2, 5, 29, 17}

// RoleOf reads the role from a certificate. It does not verify anything. A leaf
// that names no role but carries a user's id is a user's: such certificates
// were made by other tools under the same CA.
func RoleOf(cert *x509.Certificate) (Role, error) {
	if cert.IsCA {
		if bytes.Equal(cert.RawSubject, cert.RawIssuer) {
			return RoleGrid, nil
		}
		return RoleCluster, nil
	}
	var roles []Role
	for _, uri := range cert.URIs {
		if name, ok := strings.CutPrefix(uri.String(), rolePrefix); ok {
			roles = append(roles, Role(name))
		}
	}
	switch {
	case len(roles) == 0:
		if _, _, err := UserOf(cert); err != nil {
			return "", fmt.Errorf("certificate %q names no role and no user", skyport.Abbreviate(cert.Subject.CommonName, 64))
		}
		return RoleUser, nil
	case len(roles) > 1:
		return "", fmt.Errorf("certificate %q names %d roles: want one", skyport.Abbreviate(cert.Subject.CommonName, 64), len(roles))
	case !slices.Contains([]Role{RoleCore, RoleGate, RoleUser}, roles[0]):
		return "", fmt.Errorf("certificate %q names the unknown role %q",
			skyport.Abbreviate(cert.Subject.CommonName, 64), skyport.Abbreviate(string(roles[0]), 40))
	}
	return roles[0], nil
}

// UserOf reads the user's id and name from a certificate. It does not verify
// anything: [Reloader.Verify] does. A certificate without an id, with an id
// that is no UUID, or with two that differ is an error.
func UserOf(cert *x509.Certificate) (id skyport.UserID, name string, err error) {
	name = cert.Subject.CommonName
	var found []string
	for _, attribute := range cert.Subject.Names {
		if attribute.Type.Equal(userIDAttribute) {
			// A value that is no string becomes text that is no UUID.
			found = append(found, fmt.Sprint(attribute.Value))
		}
	}
	for _, uri := range cert.URIs {
		if text, ok := strings.CutPrefix(strings.ToLower(uri.String()), idPrefix); ok {
			found = append(found, text)
		}
	}
	if len(found) == 0 {
		return "", name, fmt.Errorf("certificate %q carries no user id", skyport.Abbreviate(name, 64))
	}
	for _, text := range found {
		one, err := skyport.ParseUserID(text)
		if err != nil {
			return "", name, fmt.Errorf("certificate %q: user %w", skyport.Abbreviate(name, 64), err)
		}
		if id != "" && one != id {
			return "", name, fmt.Errorf("certificate %q carries two user ids, %s and %s", skyport.Abbreviate(name, 64), id, one)
		}
		id = one
	}
	return id, name, nil
}

func roleURI(role Role) *url.URL { return &url.URL{Scheme: "skyport", Opaque: "role/" + string(role)} }

func idURI(id skyport.UserID) *url.URL {
	return &url.URL{Scheme: "urn", Opaque: "uuid:" + string(id)}
}

// usages are the ends of a connection that a role may be.
func usages(role Role) []x509.ExtKeyUsage {
	switch role {
	case RoleCore:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case RoleGate:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case RoleUser:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return nil
}
