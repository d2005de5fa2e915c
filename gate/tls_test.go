package gate_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/pki"
)

// TestOnlyCoreComesIn wires the gate as the product does, and lets everybody
// else knock: at a listener that ends their handshake, and at one that lets
// them through to Authorize.
func TestOnlyCoreComesIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) pki.Pair {
		return pki.Pair{Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
	}
	grid, cluster, chain := at("grid"), at("cluster"), filepath.Join(dir, "chain.pem")
	hosts := []string{"127.0.0.1"}
	for _, step := range []func() ([]string, error){
		func() ([]string, error) { return pki.EnsureGrid(grid) },
		func() ([]string, error) { return pki.EnsureCluster(cluster, grid) },
		func() ([]string, error) { return pki.EnsureChain(chain, cluster, grid) },
		func() ([]string, error) {
			return pki.EnsureLeaf(at("core"), cluster, pki.Request{Role: pki.RoleCore, Name: "core", Hosts: hosts})
		},
		func() ([]string, error) {
			return pki.EnsureLeaf(at("gate"), cluster, pki.Request{Role: pki.RoleGate, Name: "gate", Hosts: hosts})
		},
		func() ([]string, error) {
			return pki.EnsureLeaf(at("user"), cluster, pki.Request{Role: pki.RoleUser, Name: "alice", ID: skyport.NewUserID()})
		},
	} {
		if _, err := step(); err != nil {
			t.Fatal(err)
		}
	}
	as := func(name string) *pki.Reloader {
		r, err := pki.NewReloader(pki.Files{Pair: at(name), CA: chain}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	house := as("gate")
	s := newServer(t, gate.Options{Authorize: func(r *http.Request) error {
		_, err := house.Verify(*r.TLS, pki.RoleCore)
		return err
	}}, gatetest.NewProvider(gatetest.Script{}))

	serve := func(config *tls.Config) (url string) {
		// Not StartTLS: it would bring a certificate of its own.
		front := httptest.NewUnstartedServer(s.Handler())
		front.Listener = tls.NewListener(front.Listener, config)
		front.Config.ErrorLog = log.New(io.Discard, "", 0)
		front.Start()
		t.Cleanup(front.Close)
		return "https://" + front.Listener.Addr().String()
	}
	strict, lax := serve(house.StrictServerTLS(pki.RoleCore)), serve(house.ServerTLS())
	for _, c := range []struct {
		name  string
		who   string // empty: no certificate
		front string
		want  skyport.Code // empty: comes in
	}{
		{"core", "core", strict, ""},
		{"core, lax", "core", lax, ""},
		{"user", "user", strict, skyport.CodeUnavailable}, // no handshake
		{"user, lax", "user", lax, skyport.CodeUnauthorized},
		{"nobody", "", strict, skyport.CodeUnavailable},
		{"nobody, lax", "", lax, skyport.CodeUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := as("core").ClientTLS(pki.RoleGate)
			config.GetClientCertificate = nil
			if c.who != "" {
				config = as(c.who).ClientTLS(pki.RoleGate)
			}
			transport := &http.Transport{TLSClientConfig: config}
			defer transport.CloseIdleConnections()
			sites, err := gate.NewClient(c.front, &http.Client{Transport: transport}).Sites(t.Context())
			switch {
			case c.want == "" && (err != nil || len(sites) != 1):
				t.Errorf("core does not come in: %v, %v", sites, err)
			case c.want != "" && (err == nil || skyport.CodeOf(err) != c.want):
				t.Errorf("got %v, %v; want %s", sites, err, c.want)
			}
		})
	}
	t.Run("zero value", func(t *testing.T) {
		shut := gate.NewServer(gate.Options{Providers: []gate.Provider{gatetest.NewProvider(gatetest.Script{})}})
		if w := ask(shut, "GET", "/v1/sites", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("without TLS and without Authorize: %d %s", w.Code, w.Body)
		}
		if w := ask(shut, "GET", "/metrics", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("metrics without TLS and without Authorize: %d", w.Code)
		}
		if w := ask(shut, "GET", "/healthz", ""); w.Code != http.StatusOK {
			t.Errorf("health: %d", w.Code)
		}
	})
}
