package azure

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
const refusedLogin = `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. ` +
	`Ensure the secret being sent in the request is the client secret value.\r\nTrace ID: 255d1aef\r\nCorrelation ID: fb3d2015\r\nTimestamp: 2026-01-09 02:02:12Z","error_codes":[7000215]}`

func TestRefusedLogin(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := &canned{refuse: refusedLogin}
	s := c.open(t, func(o *Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	_, err := s.Find(t.Context(), "")
	if skyport.CodeOf(err) != skyport.CodeCredentials || !errors.Is(err, gate.ErrPermanent) {
		t.Fatalf("a refused login is %v", err)
	}
	findings, cerr := s.Check(t.Context())
	if cerr != nil || len(findings) != 1 || findings[0].Level != gate.LevelFailure || !strings.Contains(findings[0].Fix, "az ad sp credential reset --id client") {
		t.Errorf("the check finds %+v, %v", findings, cerr)
	}
	for _, text := range []string{err.Error(), skyport.HintOf(err), log.String(), findings[0].Text} {
		if strings.Contains(text, "hidden~secret") || strings.Contains(text, "Trace ID") {
			t.Errorf("it tells what nobody may or wants to know: %s", text)
		}
	}
	if !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("it does not say what Azure said: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 || c.tokens[0] != "hidden~secret" {
		t.Errorf("the secret did not reach the token service: %q", c.tokens)
	}
}

// TestSecretFile reads the file when it is first needed, and again when it changes.
func TestSecretFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "secret")
	c := &canned{}
	s := c.open(t, func(o *Options) { o.ClientSecret, o.SecretFile = "", name })
	token := func() error {
		_, err := s.login.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"x/.default"}})
		return err
	}
	if err := token(); skyport.CodeOf(err) != skyport.CodeCredentials {
		t.Fatalf("a missing file is %v", err)
	}
	for i, secret := range []string{"one", "second"} {
		if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := token(); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		if len(c.tokens) != i+1 || c.tokens[i] != secret {
			t.Errorf("with %q in the file the logins were %q", secret, c.tokens)
		}
		c.mu.Unlock()
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := token(); err != nil {
		t.Errorf("what was read once is forgotten: %v", err)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "gate.pem")
	end := time.Now().Add(10 * 24 * time.Hour).Truncate(time.Second)
	writeCertificate(t, name, end)
	c := &canned{paths: map[string]string{}}
	s := c.open(t, func(o *Options) { o.ClientSecret, o.Certificate = "", name })
	findings, err := s.Check(t.Context())
	if err != nil || len(findings) == 0 {
		t.Fatal(findings, err)
	}
	if f := findings[0]; f.Subject != "credentials" || f.Level != gate.LevelWarning || !strings.Contains(f.Text, end.UTC().Format(time.RFC3339)) {
		t.Errorf("a certificate that expires soon is %+v", f)
	}
	writeCertificate(t, name, end.Add(365*24*time.Hour))
	if findings, err = s.Check(t.Context()); err != nil || findings[0].Level != gate.LevelOK {
		t.Errorf("the new certificate is not read: %+v, %v", findings, err)
	}
	if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if findings, err = s.Check(t.Context()); err != nil || findings[0].Level != gate.LevelOK {
		t.Errorf("a file that cannot be used ends a login that can: %+v, %v", findings, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) < 2 || strings.Count(c.tokens[0], ".") != 2 {
		t.Errorf("no assertions: %q", c.tokens)
	}
}

func writeCertificate(t *testing.T, name string, end time.Time) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gate"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWrongOptions(t *testing.T) {
	t.Parallel()
	good := Options{Name: "az", Region: "West Europe", Subscription: "s", CLI: true}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no region":       func(o *Options) { o.Region = "" },
		"no subscription": func(o *Options) { o.Subscription = "" },
		"bad pattern":     func(o *Options) { o.Flavors = []string{"[a"} },
		"bad image":       func(o *Options) { o.Images = map[string]string{"x": "a:b"} },
		"no tenant":       func(o *Options) { o.ClientSecret = "x" },
	} {
		o := good
		change(&o)
		if _, err := New(o); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestExpiryIsAnnounced once, though the login is used often, and only when it
// is near.
func TestExpiryIsAnnounced(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]int{0: 0, time.Hour: 1, soon - time.Hour: 1, soon + time.Hour: 0} {
		var log bytes.Buffer
		c := &canned{}
		s := c.open(t, func(o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			if left > 0 {
				o.SecretExpires = time.Now().Add(left)
			}
		})
		for range 3 {
			if _, err := s.login.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{"x/.default"}}); err != nil {
				t.Fatal(err)
			}
		}
		if told := strings.Count(log.String(), "end soon"); told != want {
			t.Errorf("with %s left it is told %d times, want %d: %s", left, told, want, log.String())
		}
	}
}
