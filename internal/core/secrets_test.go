package core

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/seal"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func newSecrets(t *testing.T, dir string) *secrets {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	sealer, err := seal.Open(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	return &secrets{store: db, sealer: sealer}
}

func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

const password = "correct horse battery staple"

func TestLoginsReachTheirImagesOnly(t *testing.T) {
	t.Parallel()
	s := newSecrets(t, t.TempDir())
	ca, _ := selfSigned(t)
	put := func(owner skyport.UserID, name string, value api.SecretValue) {
		t.Helper()
		if _, err := s.put(t.Context(), owner, skyport.SecretRegistry, name, value); err != nil {
			t.Fatal(err)
		}
	}
	put("ann", "Registry.Example.org:5000", api.SecretValue{Username: "ann", Password: password, CA: ca})
	put("ann", "index.docker.io", api.SecretValue{Username: "hub", Password: "h"})
	put("ann", "localhost:5000", api.SecretValue{CA: ca})
	put("bob", "registry.example.org", api.SecretValue{Username: "bob", Password: "b"})
	for _, test := range []struct {
		owner skyport.UserID
		image string
		want  []protocol.Registry
	}{
		{"ann", "registry.example.org:5000/a/b:tag", []protocol.Registry{{Host: "registry.example.org:5000", Username: "ann", Password: password, CA: ca}}},
		{"ann", "REGISTRY.example.org:5000/a@sha256:" + strings.Repeat("0", 64), []protocol.Registry{{Host: "registry.example.org:5000", Username: "ann", Password: password, CA: ca}}},
		{"ann", "registry.example.org/a", nil},
		{"ann", "alpine", []protocol.Registry{{Host: "docker.io", Username: "hub", Password: "h"}}},
		{"ann", "docker.io/library/alpine:3", []protocol.Registry{{Host: "docker.io", Username: "hub", Password: "h"}}},
		{"ann", "localhost:5000/x", []protocol.Registry{{Host: "localhost:5000", CA: ca}}},
		{"bob", "alpine", nil},
		{"bob", "registry.example.org/a", []protocol.Registry{{Host: "registry.example.org", Username: "bob", Password: "b"}}},
	} {
		got, err := s.registriesFor(t.Context(), test.owner, test.image)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s of %s (-want +got):\n%s", test.image, test.owner, diff)
		}
	}
	if _, err := s.registriesFor(t.Context(), "ann", "Not An Image"); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Errorf("no image: %v", err)
	}
	list, err := s.list(t.Context(), "ann")
	if err != nil || len(list) != 3 || list[0].Name != "docker.io" || list[2].Username != "ann" || !list[2].CA || list[2].Problem != "" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := s.delete(t.Context(), "bob", skyport.SecretRegistry, "docker.io"); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("delete of another's: %v", err)
	}
	if err := s.delete(t.Context(), "ann", skyport.SecretRegistry, "docker.io"); err != nil {
		t.Error(err)
	}
	if got, err := s.registriesFor(t.Context(), "ann", "alpine"); err != nil || got != nil {
		t.Errorf("a deleted login: %v, %v", got, err)
	}
}

func TestWrongSecretsAreRefusedWithoutBeingTold(t *testing.T) {
	t.Parallel()
	s := newSecrets(t, t.TempDir())
	ca, key := selfSigned(t)
	good := api.SecretValue{Username: "u", Password: password}
	for name, test := range map[string]struct {
		kind, name string
		value      api.SecretValue
	}{
		"a kind that there is not": {"token", "x.org", good},
		"an empty host":            {"registry", "", good},
		"a URL":                    {"registry", "https://x.org", good},
		"a path":                   {"registry", "x.org/team", good},
		"a login in the host":      {"registry", "u@x.org", good},
		"no host":                  {"registry", "library", good},
		"a blank":                  {"registry", "x .org", good},
		"a long host":              {"registry", strings.Repeat("x.", 200) + "org", good},
		"nothing":                  {"registry", "x.org", api.SecretValue{}},
		"no username":              {"registry", "x.org", api.SecretValue{Password: password}},
		"no password":              {"registry", "x.org", api.SecretValue{Username: "u"}},
		"a colon":                  {"registry", "x.org", api.SecretValue{Username: "u:v", Password: password}},
		"a line break":             {"registry", "x.org", api.SecretValue{Username: "u", Password: password + "\n"}},
		"a long password":          {"registry", "x.org", api.SecretValue{Username: "u", Password: strings.Repeat(password, 1000)}},
		"no PEM":                   {"registry", "x.org", api.SecretValue{Username: "u", Password: password, CA: password}},
		"a key":                    {"registry", "x.org", api.SecretValue{CA: ca + key}},
		"a broken certificate":     {"registry", "x.org", api.SecretValue{CA: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}},
	} {
		_, err := s.put(t.Context(), "ann", test.kind, test.name, test.value)
		if code := skyport.CodeOf(err); err == nil || code != skyport.CodeInvalid && code != skyport.CodeTooLarge {
			t.Errorf("%s: %v", name, err)
		} else if text := err.Error() + skyport.HintOf(err); strings.Contains(text, password) || strings.Contains(text, "PRIVATE KEY-----") {
			t.Errorf("%s: the error tells it: %s", name, text)
		}
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", good, good, good, good); strings.Contains(shown, password) {
		t.Errorf("a value shows when it is printed: %s", shown)
	}
}

// A copy of the database tells no secret, and one user's does not serve another.
func TestTheDatabaseHasNoSecretInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSecrets(t, dir)
	if _, err := s.put(t.Context(), "ann", skyport.SecretRegistry, "x.org", api.SecretValue{Username: "the-username", Password: password}); err != nil {
		t.Fatal(err)
	}
	row, err := s.store.Secret(t.Context(), "ann", skyport.SecretRegistry, "x.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutSecret(&store.Secret{Owner: "bob", Kind: row.Kind, Name: row.Name, Sealed: row.Sealed})
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.registriesFor(t.Context(), "bob", "x.org/a"); skyport.CodeOf(err) != skyport.CodeConflict || got != nil {
		t.Errorf("a box of another user opened: %v", err)
	} else if !strings.Contains(skyport.HintOf(err), "skyport secret set") {
		t.Errorf("no hint: %v (%s)", err, skyport.HintOf(err))
	}
	list, err := s.list(t.Context(), "bob")
	if err != nil || len(list) != 1 || list[0].Problem == "" || list[0].Username != "" {
		t.Errorf("list: %+v, %v", list, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "db*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(password)) || bytes.Contains(content, []byte("the-username")) {
			t.Errorf("%s has the login in the clear", filepath.Base(file))
		}
	}
}
