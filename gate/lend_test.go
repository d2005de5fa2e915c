package gate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
)

// lender is a site with a registry and a storage.
type lender struct{ *gatetest.Provider }

const token = "a token that nobody may read"

func (lender) Registry(_ context.Context, _, host string) (gate.Login, error) {
	switch host {
	case "lab.azurecr.io":
		return gate.Login{Username: "us", Password: token}, nil
	case "closed.azurecr.io":
		refusal := skyport.Errorf(skyport.CodeCredentials, "the registry does not let us in").WithHint("give us the role AcrPull")
		refusal.Cause = gate.ErrPermanent
		return gate.Login{}, refusal
	}
	return gate.Login{}, fmt.Errorf("registry %s: %w", host, gate.ErrNotFound)
}

func (lender) Storage(_ context.Context, _, name string, life time.Duration) (gate.Mount, error) {
	if name != "refdata" {
		return gate.Mount{}, gate.ErrNotFound
	}
	return gate.Mount{Account: "lab", Container: "reference", Endpoint: "https://lab.test", SAS: token, Expires: time.Unix(0, 0).Add(life)}, nil
}

func TestLoansTravelOverHTTP(t *testing.T) {
	t.Parallel()
	var last http.Header
	serve := func(p gate.Provider) *gate.Client {
		handler := newServer(t, gate.Options{}, p).Handler()
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r)
			last = w.Header()
		}))
		t.Cleanup(front.Close)
		return gate.NewClient(front.URL, front.Client())
	}
	c := serve(lender{gatetest.NewProvider(gatetest.Script{})})
	login, err := c.Registry(t.Context(), "test", "lab.azurecr.io")
	if err != nil || login.Username != "us" || login.Password != token || last.Get("Cache-Control") != "no-store" {
		t.Errorf("the login is %v, %v, sent with %v", login, err, last)
	}
	mount, err := c.Storage(t.Context(), "test", "refdata", time.Hour)
	if err != nil || mount.SAS != token || mount.Account != "lab" || !mount.Expires.Equal(time.Unix(3600, 0)) || last.Get("Cache-Control") != "no-store" {
		t.Errorf("the mount is %v, %v, sent with %v", mount, err, last)
	}
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", login, login, login), fmt.Sprintf("%v %+v %#v", mount, mount, mount)} {
		if strings.Contains(text, token) {
			t.Errorf("it is printed: %s", text)
		}
	}
	_, err = c.Registry(t.Context(), "test", "closed.azurecr.io")
	if !errors.Is(err, gate.ErrPermanent) || skyport.CodeOf(err) != skyport.CodeCredentials || skyport.HintOf(err) != "give us the role AcrPull" {
		t.Errorf("a refusal is %v", err)
	}
	plain := serve(gatetest.NewProvider(gatetest.Script{}))
	for what, err := range map[string]error{
		"a registry of others":     second(c.Registry(t.Context(), "test", "docker.io")),
		"a storage of nobody":      second(c.Storage(t.Context(), "test", "none", time.Hour)),
		"a registry of no lender":  second(plain.Registry(t.Context(), "test", "lab.azurecr.io")),
		"a storage of no lender":   second(plain.Storage(t.Context(), "test", "refdata", time.Hour)),
		"a name that needs escape": second(c.Storage(t.Context(), "test", "../../x y", time.Hour)),
	} {
		if !errors.Is(err, gate.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Storage(t.Context(), "test", "refdata", 0); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Errorf("no life at all: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
