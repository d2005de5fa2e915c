package core

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/distribution/reference"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/seal"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// secrets keeps what users leave with core, sealed: in the clear it is in
// memory only, for as long as a call lasts.
type secrets struct {
	store  *store.Store
	sealer *seal.Sealer
}

// Bounds of a secret. Tokens that registries of clouds take as passwords are a
// few kilobytes long.
const (
	maxUsername = 255
	maxPassword = 16 << 10
	maxCA       = 64 << 10
	maxSecrets  = 1000 // of one user
)

// sealed is how the value of a secret lies in its box.
type sealed struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	CA       string `json:"ca,omitempty"`
}

// sealedFor is the context of a secret's box: one user's does not open as
// another's, nor for another registry.
func sealedFor(owner skyport.UserID, kind, name string) string {
	return "secret/" + string(owner) + "/" + kind + "/" + name
}

func (s *secrets) list(ctx context.Context, owner skyport.UserID) ([]skyport.Secret, error) {
	rows, err := s.store.Secrets(ctx, owner, "")
	if err != nil {
		return nil, err
	}
	told := make([]skyport.Secret, 0, len(rows))
	for _, row := range rows {
		told = append(told, s.tell(row))
	}
	return told, nil
}

func (s *secrets) get(ctx context.Context, owner skyport.UserID, kind, name string) (skyport.Secret, error) {
	name, err := secretName(kind, name)
	if err != nil {
		return skyport.Secret{}, err
	}
	row, err := s.store.Secret(ctx, owner, kind, name)
	if err != nil {
		return skyport.Secret{}, err
	}
	return s.tell(row), nil
}

func (s *secrets) put(ctx context.Context, owner skyport.UserID, kind, name string, value api.SecretValue) (skyport.Secret, error) {
	name, err := secretName(kind, name)
	if err != nil {
		return skyport.Secret{}, err
	}
	if err := checkLogin(value); err != nil {
		return skyport.Secret{}, err
	}
	plain, err := json.Marshal(sealed(value)) //nolint:gosec // to be sealed in the next step
	if err != nil {
		return skyport.Secret{}, fmt.Errorf("seal secret %s %s: %w", kind, name, err)
	}
	box, err := s.sealer.Seal(sealedFor(owner, kind, name), plain)
	if err != nil {
		return skyport.Secret{}, err
	}
	all, err := s.store.Secrets(ctx, owner, "")
	if err != nil {
		return skyport.Secret{}, err
	}
	known := slices.ContainsFunc(all, func(s store.Secret) bool { return s.Kind == kind && s.Name == name })
	if len(all) >= maxSecrets && !known {
		return skyport.Secret{}, skyport.Errorf(skyport.CodeTooLarge, "there are %d secrets already", len(all)).
			WithHint("delete those that are not used any more")
	}
	row := store.Secret{Owner: owner, Kind: kind, Name: name, Sealed: box}
	if err := s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutSecret(&row) }); err != nil {
		return skyport.Secret{}, err
	}
	return s.tell(row), nil
}

func (s *secrets) delete(ctx context.Context, owner skyport.UserID, kind, name string) error {
	name, err := secretName(kind, name)
	if err != nil {
		return err
	}
	return s.store.Update(ctx, func(tx *store.Tx) error { return tx.DeleteSecret(owner, kind, name) })
}

// tell says of a secret what may be said.
func (s *secrets) tell(row store.Secret) skyport.Secret {
	told := skyport.Secret{Kind: row.Kind, Name: row.Name, Created: row.Created, Updated: row.Updated}
	value, err := s.open(row)
	if err != nil {
		told.Problem = err.Error()
		return told
	}
	told.Username, told.CA = value.Username, value.CA != ""
	return told
}

func (s *secrets) open(row store.Secret) (value sealed, err error) {
	plain, err := s.sealer.Open(sealedFor(row.Owner, row.Kind, row.Name), row.Sealed)
	if err != nil {
		return value, err
	}
	if json.Unmarshal(plain, &value) != nil { // its error could quote the secret
		return sealed{}, skyport.Errorf(skyport.CodeConflict, "open secret %s %s: there is something else in it", row.Kind, row.Name)
	}
	return value, nil
}

// registriesFor returns the logins that a user has for the registry of a
// container image: one, or none.
func (s *secrets) registriesFor(ctx context.Context, owner skyport.UserID, image string) ([]protocol.Registry, error) {
	host, err := registryOf(image)
	if err != nil {
		return nil, err
	}
	row, err := s.store.Secret(ctx, owner, skyport.SecretRegistry, host)
	if err != nil {
		if skyport.CodeOf(err) == skyport.CodeNotFound {
			return nil, nil
		}
		return nil, err
	}
	value, err := s.open(row)
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeConflict, "the login of registry %s cannot be used: %w", host, err).
			WithHint("set it again with: skyport secret set registry %s", host)
	}
	return []protocol.Registry{{Host: host, Username: value.Username, Password: value.Password, CA: value.CA}}, nil
}

// registryOf is the host of an image's registry, as secrets name it.
func registryOf(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", skyport.Errorf(skyport.CodeInvalid, "container image %q: %w", skyport.Abbreviate(image, 200), err)
	}
	return strings.ToLower(reference.Domain(named)), nil
}

// secretName is a secret's name in the one form in which it is kept.
func secretName(kind, name string) (string, error) {
	if kind != skyport.SecretRegistry {
		return "", skyport.Errorf(skyport.CodeInvalid, "there are no secrets of kind %q", skyport.Abbreviate(kind, 40)).
			WithHint("there is one kind: %s", skyport.SecretRegistry)
	}
	wrong := skyport.Errorf(skyport.CodeInvalid, "%q is not the host of a registry", skyport.Abbreviate(name, 100)).
		WithHint("it is what stands before the first slash of an image, such as registry.example.org:5000, or docker.io for an image without a host")
	if name == "" || len(name) > 255 || strings.ContainsAny(name, "/@") {
		return "", wrong
	}
	name = strings.ToLower(name)
	// What an image's name does not take for a host never matches one.
	host, err := registryOf(name + "/some/image")
	if err != nil || host != name && name != "index.docker.io" {
		return "", wrong
	}
	return host, nil
}

// checkLogin says what is wrong with a login of a registry. It never quotes it.
func checkLogin(value api.SecretValue) error {
	odd := func(r rune) bool { return unicode.IsControl(r) }
	switch {
	case value.Username == "" && value.Password == "" && value.CA == "":
		return skyport.Errorf(skyport.CodeInvalid, "the secret is empty").WithHint("give a username and a password, or certificates, or all")
	case (value.Username == "") != (value.Password == ""):
		return skyport.Errorf(skyport.CodeInvalid, "a username and a password go together: one is empty")
	case len(value.Username) > maxUsername, strings.ContainsFunc(value.Username, odd), strings.Contains(value.Username, ":"):
		return skyport.Errorf(skyport.CodeInvalid, "the username is longer than %d bytes, or has a colon or a control character", maxUsername)
	case len(value.Password) > maxPassword:
		return skyport.Errorf(skyport.CodeTooLarge, "the password is longer than %d bytes", maxPassword)
	case strings.ContainsFunc(value.Password, odd):
		return skyport.Errorf(skyport.CodeInvalid, "the password has a line break or another control character")
	case len(value.CA) > maxCA:
		return skyport.Errorf(skyport.CodeTooLarge, "the certificates are longer than %d bytes", maxCA)
	case value.CA != "":
		return checkCertificates([]byte(value.CA))
	}
	return nil
}

// checkCertificates takes PEM with certificates and nothing else: a key that
// went along by mistake must not travel to nodes.
func checkCertificates(rest []byte) error {
	wrong := func(why error) error {
		return skyport.Errorf(skyport.CodeInvalid, "the certificates of the registry: %w", why).
			WithHint("give PEM with blocks CERTIFICATE only, those that the server's certificate must chain to")
	}
	n := 0
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return wrong(fmt.Errorf("there is a block %q", skyport.Abbreviate(block.Type, 40)))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return wrong(err)
		}
		rest = more
		n++
	}
	if n == 0 {
		return wrong(errors.New("there is none"))
	}
	return nil
}
