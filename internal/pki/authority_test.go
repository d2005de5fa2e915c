package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// house is a complete set of certificates in a directory of the test.
type house struct {
	dir                     string
	grid, cluster           Pair
	chain                   string
	core, gate, user, other Pair
	userID                  skyport.UserID
}

func pairAt(dir, name string) Pair {
	return Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
}

func newHouse(t *testing.T) house {
	t.Helper()
	dir := t.TempDir()
	h := house{
		dir: dir, grid: pairAt(dir, "grid"), cluster: pairAt(dir, "cluster"), chain: filepath.Join(dir, "chain.pem"),
		core: pairAt(dir, "core"), gate: pairAt(dir, "gate"), user: pairAt(dir, "user"), other: pairAt(dir, "other"),
		userID: skyport.NewUserID(),
	}
	steps := []func() ([]string, error){
		func() ([]string, error) { return EnsureGrid(h.grid) },
		func() ([]string, error) { return EnsureCluster(h.cluster, h.grid) },
		func() ([]string, error) { return EnsureChain(h.chain, h.cluster, h.grid) },
	}
	for _, step := range steps {
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
	}
	h.leaf(t, h.core, Request{Role: RoleCore, Name: "core", Hosts: []string{"localhost", "127.0.0.1", "::1"}})
	h.leaf(t, h.gate, Request{Role: RoleGate, Name: "gate", Hosts: []string{"localhost", "127.0.0.1"}})
	h.leaf(t, h.user, Request{Role: RoleUser, Name: "alice", ID: h.userID})
	return h
}

func (h house) leaf(t *testing.T, pair Pair, req Request) {
	t.Helper()
	if _, err := EnsureLeaf(pair, h.cluster, req); err != nil {
		t.Fatal(err)
	}
}

func (h house) files(pair Pair) Files { return Files{Pair: pair, CA: h.chain} }

func readLeaf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	certs, err := ReadCertificates(path)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func TestEveryRoleHasItsOwnMark(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for path, want := range map[string]struct {
		role     Role
		usage    []x509.ExtKeyUsage
		from, to time.Duration // bounds of the whole life
	}{
		h.grid.Cert:    {RoleGrid, nil, CALife, CALife + 2*time.Hour},
		h.cluster.Cert: {RoleCluster, nil, CALife - time.Hour, CALife + 2*time.Hour},
		h.core.Cert:    {RoleCore, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, LeafLife, LeafLife + 2*time.Hour},
		h.gate.Cert:    {RoleGate, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, LeafLife, LeafLife + 2*time.Hour},
		h.user.Cert:    {RoleUser, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, LeafLife, LeafLife + 2*time.Hour},
	} {
		cert := readLeaf(t, path)
		role, err := RoleOf(cert)
		if err != nil || role != want.role {
			t.Errorf("%s: role %q, %v: want %q", path, role, err, want.role)
		}
		if len(cert.ExtKeyUsage) != len(want.usage) {
			t.Errorf("%s: usages %v, want %v", path, cert.ExtKeyUsage, want.usage)
		}
		for i := range min(len(cert.ExtKeyUsage), len(want.usage)) {
			if cert.ExtKeyUsage[i] != want.usage[i] {
				t.Errorf("%s: usages %v, want %v", path, cert.ExtKeyUsage, want.usage)
			}
		}
		if life := cert.NotAfter.Sub(cert.NotBefore); life < want.from || life > want.to {
			t.Errorf("%s: lives %s, want %s to %s", path, life, want.from, want.to)
		}
	}
	id, name, err := UserOf(readLeaf(t, h.user.Cert))
	if err != nil || id != h.userID || name != "alice" {
		t.Errorf("user is %s %q, %v: want %s alice", id, name, err, h.userID)
	}
}

func TestKeysAreForTheOwnerOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, pair := range []Pair{h.grid, h.cluster, h.core, h.gate, h.user} {
		for _, path := range []string{pair.Cert, pair.Key} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("%s has mode %v, want 0600", path, info.Mode())
			}
		}
	}
	for _, path := range []string{h.chain, h.core.Cert, h.user.Cert} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("PRIVATE")) {
			t.Errorf("%s, which is given away, holds a private key", path)
		}
	}
}

func TestWriteNewNeverReplaces(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := WriteNew(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := WriteNew(path, []byte("second"), 0o600)
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("second WriteNew: %v, want one that matches fs.ErrExist and names the file", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "first" {
		t.Errorf("file holds %q, %v: want first", content, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), TempPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A lost file is made anew so that everything made before still verifies.
func TestLostFilesAreMadeAnewAndFit(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"grid.pem", "cluster.pem", "cluster-key.pem", "grid-key.pem", "user.pem", "user-key.pem"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			if err := os.Remove(filepath.Join(h.dir, lost)); err != nil {
				t.Fatal(err)
			}
			if _, err := EnsureGrid(h.grid); err != nil {
				t.Fatal(err)
			}
			if _, err := EnsureCluster(h.cluster, h.grid); err != nil {
				t.Fatal(err)
			}
			if _, err := EnsureLeaf(h.user, h.cluster, Request{Role: RoleUser, Name: "alice", ID: h.userID}); err != nil {
				t.Fatal(err)
			}
			// The chain is the one from before the loss, as clients have it.
			server, err := NewReloader(h.files(h.core), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range []Pair{h.user} {
				certs, err := ReadCertificates(pair.Cert)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := server.current.Load().verify(certs, time.Now()); err != nil {
					t.Errorf("%s does not verify with the old chain: %v", pair.Cert, err)
				}
				if id, _, err := UserOf(certs[0]); err != nil || id != h.userID {
					t.Errorf("the user is now %s, %v: want %s", id, err, h.userID)
				}
			}
		})
	}
}

func TestWithoutTheCAKeyNothingIsSigned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if err := os.Remove(h.cluster.Key); err != nil {
		t.Fatal(err)
	}
	_, err := EnsureLeaf(h.other, h.cluster, Request{Role: RoleUser, Name: "bob"})
	if skyport.CodeOf(err) != skyport.CodeNotFound || !strings.Contains(skyport.HintOf(err), h.cluster.Key) {
		t.Errorf("EnsureLeaf: %v (%s), want not_found with a hint that names the key", err, skyport.CodeOf(err))
	}
	before, err := os.ReadFile(h.user.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Reissue(h.user, h.cluster, 0, nil); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("Reissue: %v, want not_found", err)
	}
	if after, err := os.ReadFile(h.user.Cert); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the certificate was changed: %v", err)
	}
}

func TestForeignPairIsLeftAlone(t *testing.T) {
	t.Parallel()
	h, stranger := newHouse(t), newHouse(t)
	content, err := os.ReadFile(stranger.user.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.user.Key, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureLeaf(h.user, h.cluster, Request{Role: RoleUser, Name: "alice"}); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("EnsureLeaf on a mixed pair: %v, want a conflict", err)
	}
}

func TestLeafLimits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for name, req := range map[string]Request{
		"no name":        {Role: RoleUser},
		"long name":      {Role: RoleUser, Name: strings.Repeat("x", 65)},
		"no role":        {Name: "x"},
		"a CA's role":    {Role: RoleCluster, Name: "x"},
		"wrong id":       {Role: RoleUser, Name: "x", ID: "1"},
		"wrong host":     {Role: RoleCore, Name: "x", Hosts: []string{"a b"}},
		"empty host":     {Role: RoleCore, Name: "x", Hosts: []string{""}},
		"dot dot":        {Role: RoleCore, Name: "x", Hosts: []string{"a..b"}},
		"not ASCII host": {Role: RoleCore, Name: "x", Hosts: []string{"bücher.example"}},
	} {
		if _, err := EnsureLeaf(h.other, h.cluster, req); err == nil {
			t.Errorf("%s: a certificate was made", name)
		}
	}
	// The refused requests left a key; the next one uses it.
	h.leaf(t, h.other, Request{Role: RoleUser, Name: "bob", Life: 20 * CALife})
	if got, most := readLeaf(t, h.other.Cert).NotAfter, readLeaf(t, h.cluster.Cert).NotAfter; got.After(most) {
		t.Errorf("the leaf ends on %s, after its CA on %s", got, most)
	}
}

func TestReissueKeepsAllButTheLife(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	key, err := os.ReadFile(h.core.Key)
	if err != nil {
		t.Fatal(err)
	}
	old := readLeaf(t, h.core.Cert)
	if _, err := Reissue(h.core, h.cluster, 48*time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	renewed := readLeaf(t, h.core.Cert)
	if renewed.SerialNumber.Cmp(old.SerialNumber) == 0 || !renewed.NotAfter.Before(time.Now().Add(49*time.Hour)) {
		t.Errorf("not renewed for two days: ends %s", renewed.NotAfter)
	}
	if got, want := strings.Join(HostsOf(renewed), " "), strings.Join(HostsOf(old), " "); got != want {
		t.Errorf("hosts are %s, want %s", got, want)
	}
	if after, err := os.ReadFile(h.core.Key); err != nil || !bytes.Equal(key, after) {
		t.Errorf("the key was changed: %v", err)
	}
	if _, err := Reissue(h.core, h.cluster, 0, []string{"new.example.org"}); err != nil {
		t.Fatal(err)
	}
	if got := HostsOf(readLeaf(t, h.core.Cert)); len(got) != 1 || got[0] != "new.example.org" {
		t.Errorf("hosts are %s, want new.example.org", got)
	}
}

func TestUserOf(t *testing.T) {
	t.Parallel()
	const one, two = "6f1c0a54-7a0e-4a3c-9c3e-0d6b6a3a8f10", "0b7e2f7e-54a3-4b5c-8a0e-3d1c9c1f6a11"
	attribute := func(values ...any) (names []pkix.AttributeTypeAndValue) {
		for _, v := range values {
			names = append(names, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: v})
		}
		return names
	}
	uris := func(texts ...string) (out []*url.URL) {
		for _, text := range texts {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, u)
		}
		return out
	}
	for name, c := range map[string]struct {
		names []pkix.AttributeTypeAndValue
		uris  []*url.URL
		want  string // empty: refused
	}{
		"both":              {attribute(one), uris("urn:uuid:" + one), one},
		"subject only":      {attribute(one), nil, one},
		"URI only":          {nil, uris("urn:uuid:" + one), one},
		"capitals":          {attribute(strings.ToUpper(one)), uris("URN:UUID:" + strings.ToUpper(one)), one},
		"same twice":        {attribute(one, one), nil, one},
		"neither":           {nil, uris("https://example.org/" + one), ""},
		"disagree":          {attribute(one), uris("urn:uuid:" + two), ""},
		"two URIs":          {nil, uris("urn:uuid:"+one, "urn:uuid:"+two), ""},
		"two in subject":    {attribute(one, two), nil, ""},
		"no UUID":           {attribute("alice"), nil, ""},
		"one good one not":  {attribute("alice"), uris("urn:uuid:" + one), ""},
		"not even a string": {attribute(7), nil, ""},
		"braces":            {attribute("{" + one + "}"), nil, ""},
	} {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: "n", Names: c.names}, URIs: c.uris}
		id, _, err := UserOf(cert)
		if string(id) != c.want && err == nil || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v: want %q", name, id, err, c.want)
		}
	}
}

func TestRoleOfRefusesDoubt(t *testing.T) {
	t.Parallel()
	for name, uris := range map[string][]string{
		"none":        nil,
		"unknown":     {"skyport:role/king"},
		"a CA's":      {"skyport:role/cluster"},
		"two":         {"skyport:role/user", "skyport:role/core"},
		"not exactly": {"skyport:role/core/x"},
	} {
		cert := &x509.Certificate{}
		for _, text := range uris {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, u)
		}
		if role, err := RoleOf(cert); err == nil {
			t.Errorf("%s: taken for %s", name, role)
		}
	}
}

func TestReadKeyTakesOtherToolsForms(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	key, err := readKey(h.user.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !samePublic(readLeaf(t, h.user.Cert), key.Public()) {
		t.Error("the key read is not the certificate's")
	}
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	ecForm := filepath.Join(h.dir, "ec.pem")
	content := append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})...)
	if err := os.WriteFile(ecForm, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckPair(Pair{Cert: h.user.Cert, Key: ecForm}); err != nil {
		t.Errorf("a key in EC form: %v", err)
	}
	for name, content := range map[string]string{"empty": "", "no PEM": "hello", "a certificate": string(mustRead(t, h.user.Cert))} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKey(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names the file", name, err)
		}
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
