package api_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
)

func TestSecretsAreTheCallersAndNeverReturned(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := &apitest.Backend{}
	h := newAPI(b, func(o *api.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	const path, secret = "/v1/secrets/registry/registry.example.org:5000", "p4ssw0rd-of-ann"
	put := call(t, h, "ann", http.MethodPut, path, `{"username":"ann","password":"`+secret+`"}`)
	if put.status != http.StatusOK || !strings.Contains(put.body, `"username":"ann"`) {
		t.Fatalf("put: %+v", put)
	}
	if got := b.SecretValue(ann.ID, "registry", "registry.example.org:5000"); got.Password != secret {
		t.Error("the password did not arrive")
	}
	said := put.body
	for user, want := range map[string]string{"ann": "registry.example.org:5000", "bob": `{"secrets":[]}`} {
		r := call(t, h, user, http.MethodGet, "/v1/secrets", "")
		if r.status != http.StatusOK || !strings.Contains(r.body, want) {
			t.Errorf("list of %s: %+v", user, r)
		}
		said += r.body
	}
	for _, wrong := range []string{
		`{"username":"ann","password":{"is":"` + secret + `"}}`, `{"password":"` + secret + `","pass":"` + secret + `"}`,
		`{"username":["` + secret + `"]}`, `{"password":"` + secret, `"` + secret + `"`,
	} {
		r := call(t, h, "ann", http.MethodPut, path, wrong, "Content-Type", "application/json")
		if r.status != http.StatusBadRequest && r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %+v", wrong, r)
		}
		said += r.body
	}
	b.Fail = func(string) error { return skyport.Errorf(skyport.CodeInternal, "broken") }
	said += call(t, h, "ann", http.MethodPut, path, `{"username":"ann","password":"`+secret+`"}`).body
	b.Fail = nil
	if r := call(t, h, "bob", http.MethodGet, path, ""); problemOf(t, r).Code != skyport.CodeNotFound {
		t.Errorf("another's: %+v", r)
	}
	if r := call(t, h, "bob", http.MethodDelete, path, ""); problemOf(t, r).Code != skyport.CodeNotFound {
		t.Errorf("delete of another's: %+v", r)
	}
	if r := call(t, h, "ann", http.MethodDelete, path, ""); r.status != http.StatusNoContent {
		t.Errorf("delete: %+v", r)
	}
	if strings.Contains(said+log.String(), secret) {
		t.Errorf("the password was told: %s\nlog: %s", said, log.String())
	}
}
