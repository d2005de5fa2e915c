package azure

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
)

// grants is a registry and a storage account that let in who has a token.
func grants(t *testing.T, status int) (*site, string) {
	t.Helper()
	login := &canned{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth2/exchange", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("access_token") != "t" || r.PostForm.Get("service") != "mine1.azurecr.io" || r.PostForm.Get("tenant") != "tenant" {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		reply(w, `{"refresh_token":"refresh"}`)
	})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer t" || r.URL.RawQuery != "restype=service&comp=userdelegationkey" {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		reply(w, `<?xml version="1.0"?><UserDelegationKey><SignedOid>oid</SignedOid><SignedTid>tid</SignedTid><SignedStart>2030-01-01T00:00:00Z</SignedStart>`+
			`<SignedExpiry>2030-01-02T00:00:00Z</SignedExpiry><SignedService>b</SignedService><SignedVersion>2020-12-06</SignedVersion><Value>%s</Value></UserDelegationKey>`,
			base64.StdEncoding.EncodeToString([]byte("key")))
	})
	mux.Handle("/", login)
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	return testSite(t, func(o *Options) { o.Endpoint, o.Authority, o.HTTP = server.URL, server.URL, server.Client() }), server.URL
}

func TestRegistryLogin(t *testing.T) {
	t.Parallel()
	s, base := grants(t, http.StatusOK)
	user, token, err := s.registryLogin(t.Context(), "mine1.azurecr.io", base)
	if err != nil || user != registryUser || token != "refresh" {
		t.Errorf("the login is %q, %q, %v", user, token, err)
	}
	s, base = grants(t, http.StatusUnauthorized)
	if _, _, err = s.registryLogin(t.Context(), "mine1.azurecr.io", base); skyport.CodeOf(err) != skyport.CodeCredentials || !strings.Contains(skyport.HintOf(err), "AcrPull") {
		t.Errorf("a refusal is %v (%s)", err, skyport.HintOf(err))
	}
	for _, host := range []string{"docker.io", "a.azurecr.io", "evil.test/x.azurecr.io", "mine1.azurecr.io.evil.test", "mine1.azurecr.io:99"} {
		if _, _, err := s.RegistryLogin(t.Context(), host); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("our token goes to %s: %v", host, err)
		}
	}
}

func TestStorageGrant(t *testing.T) {
	t.Parallel()
	s, base := grants(t, http.StatusOK)
	got, err := s.storageGrant(t.Context(), base, "data", "in", time.Date(2030, 1, 1, 0, 5, 0, 0, time.UTC), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(got)
	if err != nil || u.Path != "/in" {
		t.Fatal(got, err)
	}
	// The text to be signed, line by line, as the reference has it for this version.
	lines := []string{
		"rl", "2030-01-01T00:00:00Z", "2030-01-01T01:05:00Z", "/blob/data/in", "oid", "tid", "2030-01-01T00:00:00Z", "2030-01-02T00:00:00Z", "b", "2020-12-06",
		"", "", "", "", "https", "2020-12-06", "c", "", "", "", "", "", "", "",
	}
	mac := hmac.New(sha256.New, []byte("key"))
	mac.Write([]byte(strings.Join(lines, "\n")))
	q := u.Query()
	if want := base64.StdEncoding.EncodeToString(mac.Sum(nil)); q.Get("sig") != want || q.Get("sp") != "rl" || q.Get("sr") != "c" || q.Get("spr") != "https" {
		t.Errorf("the grant is %v, its signature not %s", q, want)
	}
	s, base = grants(t, http.StatusForbidden)
	if _, err = s.storageGrant(t.Context(), base, "data", "in", time.Now(), time.Hour); skyport.CodeOf(err) != skyport.CodeCredentials {
		t.Errorf("a refusal is %v", err)
	}
	for _, c := range [][2]string{{"da/ta", "in"}, {"data", "../in"}, {"data", "a--b"}, {"data", "in?x"}} {
		if _, err := s.StorageGrant(t.Context(), c[0], c[1], time.Hour); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, err := s.StorageGrant(t.Context(), "data", "inn", 30*24*time.Hour); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Errorf("a month: %v", err)
	}
}
