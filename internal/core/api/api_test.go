package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
)

var (
	ann = skyport.User{ID: "11111111-1111-4111-8111-111111111111", Name: "ann"}
	bob = skyport.User{ID: "22222222-2222-4222-8222-222222222222", Name: "bob"}
)

// asUser names the caller in tests that have no certificates.
func asUser(r *http.Request) (api.User, error) {
	switch r.Header.Get("X-Test-User") {
	case "ann":
		return ann, nil
	case "bob":
		return bob, nil
	}
	return api.User{}, skyport.Errorf(skyport.CodeUnauthorized, "no certificate")
}

func newAPI(backend api.Backend, change ...func(*api.Options)) http.Handler {
	o := api.Options{Backend: backend, Authenticate: asUser, Version: "v1.2.3"}
	for _, c := range change {
		c(&o)
	}
	return api.New(o)
}

type reply struct {
	status int
	header http.Header
	body   string
}

func call(t *testing.T, h http.Handler, user, method, target, body string, header ...string) reply {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-Test-User", user)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	text, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{w.Code, w.Header(), string(text)}
}

func TestFirst(t *testing.T) {
	b := &apitest.Backend{}
	h := newAPI(b)
	t.Log(call(t, h, "ann", "POST", "/v1/jobs", `{"script":"#!/bin/sh\n","directives":[{"keyword":"name","value":"x"}]}`, "Content-Type", "application/json"))
	t.Log(call(t, h, "ann", "POST", "/v1/jobs", `{"scipt":"#!/bin/sh\n"}`, "Content-Type", "application/json"))
	t.Log(call(t, h, "ann", "POST", "/v1/jobs", `{"script":"WRONG"}`, "Content-Type", "application/json"))
	t.Log(call(t, h, "ann", "POST", "/user/job", "#!/bin/sh\n"))
	t.Log(call(t, h, "ann", "GET", "/v1/jobs?state=Q,R&limit=1", ""))
	t.Log(call(t, h, "ann", "GET", "/v1/jobs?state=Z", ""))
	t.Log(call(t, h, "ann", "GET", "/v1/nix", ""))
	t.Log(call(t, h, "ann", "PUT", "/v1/jobs", ""))
	t.Log(call(t, h, "", "PUT", "/v1/jobs", ""))
	t.Log(call(t, h, "", "PUT", "/user/job", ""))
	t.Log(call(t, h, "ann", "GET", "/user/job", ""))
	t.Log(call(t, h, "ann", "GET", "/v1/events?follow=false", ""))
	t.Log(call(t, h, "ann", "GET", "/openapi.yaml", "").body[:3000])
}
