package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/pki"
)

// Certificate is one certificate of the spool, for people.
type Certificate struct {
	Role    pki.Role       `json:"role"`
	Name    string         `json:"name"`
	ID      skyport.UserID `json:"id,omitempty" doc:"Id of a user"`
	Hosts   []string       `json:"hosts,omitempty" doc:"Names and addresses of a server"`
	Expires time.Time      `json:"expires"`
	Due     time.Time      `json:"due" doc:"When it should be renewed"`
	Path    string         `json:"path"`
	Key     bool           `json:"key" doc:"Its key is here"`
	Problem string         `json:"problem,omitempty" doc:"Why it cannot be used, if so"`
}

// Certificates lists all certificates of the spool: the CAs, core, the gate,
// then the users by name. What cannot be read is listed with its problem.
func (l Layout) Certificates() ([]Certificate, error) {
	list := []Certificate{
		l.certificate(pki.RoleGrid, "grid", l.GridCA()),
		l.certificate(pki.RoleCluster, "cluster", l.ClusterCA()),
		l.certificate(pki.RoleCore, "node", l.Node()),
		l.certificate(pki.RoleGate, "gate", l.Gate()),
	}
	users, err := os.ReadDir(l.Users())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the users' certificates: %w", err)
	}
	for _, user := range users {
		if user.IsDir() {
			list = append(list, l.certificate(pki.RoleUser, user.Name(), l.User(user.Name())))
		}
	}
	return list, nil
}

func (l Layout) certificate(role pki.Role, name string, pair pki.Pair) Certificate {
	c := Certificate{Role: role, Name: name, Path: pair.Cert, Key: exists(pair.Key)}
	certs, err := pki.ReadCertificates(pair.Cert)
	if err != nil {
		c.Problem = err.Error()
		return c
	}
	cert := certs[0]
	c.Hosts, c.Expires, c.Due = pki.HostsOf(cert), cert.NotAfter, pki.Due(cert)
	if c.Problem = l.problemOf(role, pair); c.Problem == "" && time.Now().After(cert.NotAfter) {
		c.Problem = "expired"
	}
	is, err := pki.RoleOf(cert)
	switch {
	case err != nil:
		c.Problem = err.Error()
	case is != role:
		c.Problem = fmt.Sprintf("is a certificate of role %s", is)
	case role == pki.RoleUser:
		if c.ID, _, err = pki.UserOf(cert); err != nil {
			c.Problem = err.Error()
		}
	}
	return c
}

func (l Layout) problemOf(role pki.Role, pair pki.Pair) string {
	err := pki.IssuedBy(pair.Cert, l.CAChain())
	leaf := role != pki.RoleGrid && role != pki.RoleCluster
	// The key of a CA may have been put away, that of a leaf may not.
	if err == nil && (leaf || exists(pair.Key)) {
		err = pki.CheckPair(pair)
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(pair.Key); err == nil && info.Mode().Perm()&0o077 != 0 {
			return fmt.Sprintf("others can read %s (mode %#o)", filepath.Base(pair.Key), info.Mode().Perm())
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
