package api_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/api/apitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	return api.User{}, errors.New("no certificate")
}

func newAPI(backend api.Backend, change ...func(*api.Options)) http.Handler {
	o := api.Options{Backend: backend, Authenticate: asUser, Version: "v1.2.3", Logger: slog.New(slog.DiscardHandler)}
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

// call makes a request without a network. Header is names and values in turn.
func call(t testing.TB, h http.Handler, user, method, target, body string, header ...string) reply {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	r.Header.Set("X-Test-User", user)
	if strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/json")
	}
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

func problemOf(t testing.TB, r reply) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("no problem: %v: %q", err, r.body)
	}
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q", got)
	}
	if p.Status != r.status || p.Title == "" || p.Type != "urn:skyport:error:"+string(p.Code) {
		t.Errorf("problem %+v with status %d", p, r.status)
	}
	return p
}

func submit(t testing.TB, h http.Handler, user string) skyport.JobID {
	t.Helper()
	r := call(t, h, user, http.MethodPost, "/user/job", "#!/bin/sh\n#SWM name x\n")
	if r.status != http.StatusOK {
		t.Fatalf("submit: %+v", r)
	}
	return skyport.JobID(r.body)
}

// TestOwnership walks every route there is: with a job in its path a stranger
// hears 403 and nobody's job is 404, without a certificate all is 401.
func TestOwnership(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	mine := submit(t, h, "ann")
	routes := api.Routes(h)
	jobRoutes := 0
	for _, route := range routes {
		method, path, ok := strings.Cut(route, " ")
		if !ok {
			t.Errorf("route %q takes every method", route)
			continue
		}
		fill := func(id string) string {
			return strings.NewReplacer("{id}", id, "{stream}", "stdout", "{path...}", "a/b", "{path}", "YS9i", "{rest...}", "manifest",
				"{kind}", "registry", "{name}", "x.org", "{partition}", string(skyport.NewPartitionID())).Replace(path)
		}
		if strings.ContainsAny(fill("x"), "{}") {
			t.Errorf("route %q: the test does not know its parameters", route)
		}
		if path == "/healthz" || path == "/readyz" {
			if r := call(t, h, "", method, path, ""); r.status != http.StatusOK {
				t.Errorf("%s without a certificate: %d", route, r.status)
			}
			continue
		}
		if r := call(t, h, "", method, fill(string(mine)), ""); r.status != http.StatusUnauthorized {
			t.Errorf("%s without a certificate: %d, want 401", route, r.status)
		}
		if !strings.Contains(path, "{id}") {
			continue
		}
		jobRoutes++
		r := call(t, h, "bob", method, fill(string(mine)), "")
		if r.status != http.StatusForbidden {
			t.Errorf("%s of a stranger: %d, want 403", route, r.status)
		}
		if strings.HasPrefix(path, "/user") && r.body != `{"error":"forbidden"}` {
			t.Errorf("%s of a stranger: %q", route, r.body)
		}
		for _, id := range []string{string(skyport.NewJobID()), "no-id", strings.Repeat("x", 36)} {
			r := call(t, h, "ann", method, fill(id), "")
			if r.status != http.StatusNotFound {
				t.Errorf("%s of job %s: %d, want 404", route, id, r.status)
			}
			if strings.HasPrefix(path, "/user") && r.body != `{"error":"job not found"}` {
				t.Errorf("%s of no job: %q", route, r.body)
			}
		}
	}
	if jobRoutes < 18 {
		t.Errorf("only %d job routes among %d: does the walk still see them?", jobRoutes, len(routes))
	}
	if job, err := b.Job(t.Context(), mine); err != nil || job.State != skyport.JobQueued {
		t.Errorf("a stranger changed the job: %+v, %v", job, err)
	}
}

func TestListsShowTheCallersOwn(t *testing.T) {
	t.Parallel()
	h := newAPI(&apitest.Backend{})
	mine, theirs := submit(t, h, "ann"), submit(t, h, "bob")
	for _, target := range []string{"/user/job", "/v1/jobs", "/v1/events?follow=false"} {
		r := call(t, h, "ann", http.MethodGet, target, "")
		if !strings.Contains(r.body, string(mine)) || strings.Contains(r.body, string(theirs)) {
			t.Errorf("%s: %s", target, r.body)
		}
	}
	if r := call(t, h, "ann", http.MethodDelete, "/user/job", ""); r.body != "Purged 1 job(s): "+string(mine) {
		t.Errorf("purge: %q", r.body)
	}
	if r := call(t, h, "bob", http.MethodGet, "/v1/jobs/"+string(theirs), ""); r.status != http.StatusOK {
		t.Errorf("the other's job after a purge: %+v", r)
	}
}

// TestEveryCodeHasItsStatus sends each code of the catalogue through the API.
func TestEveryCodeHasItsStatus(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	var failure error
	b.Fail = func(string) error { return failure }
	h := newAPI(b)
	for _, code := range codes(t) {
		err := skyport.Errorf(code, "it failed").WithHint("do this")
		err.Line, err.Column = 2, 7
		failure = err
		r := call(t, h, "ann", http.MethodPost, "/v1/jobs", `{"script":"x"}`)
		p := problemOf(t, r)
		if p.Code != code || r.status != code.Status() {
			t.Errorf("%s: code %s, status %d, want %d", code, p.Code, r.status, code.Status())
		}
		u := call(t, h, "ann", http.MethodPost, "/user/job", "x")
		if u.status != code.Status() {
			t.Errorf("/user: %s: status %d, want %d", code, u.status, code.Status())
		}
		if code == skyport.CodeInternal {
			if strings.Contains(r.body+u.body, "it failed") || p.RequestID == "" {
				t.Errorf("an internal error leaks or has no request id: %s", r.body)
			}
			continue
		}
		if p.Detail != "it failed" || p.Hint != "do this" || p.Line != 2 || p.Column != 7 {
			t.Errorf("%s: %+v", code, p)
		}
		if code != skyport.CodeUnauthorized && code != skyport.CodeForbidden && !strings.Contains(u.body, `"line":2,"column":7,"hint":"do this"`) {
			t.Errorf("/user: %s: %s", code, u.body)
		}
	}
}

func TestMistakesOfOursEndOneRequest(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	b.Fail = func(method string) error {
		switch method {
		case "Sites":
			panic("secret")
		case "Flavors":
			return errors.New("secret: the disk is on fire")
		}
		return nil
	}
	var log strings.Builder
	h := newAPI(b, func(o *api.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, target := range []string{"/v1/sites", "/v1/flavors", "/user/flavor"} {
		r := call(t, h, "ann", http.MethodGet, target, "")
		if r.status != http.StatusInternalServerError || strings.Contains(r.body, "secret") {
			t.Errorf("%s: %+v", target, r)
		}
		if strings.HasPrefix(target, "/v1") {
			if id := problemOf(t, r).RequestID; id == "" || !strings.Contains(log.String(), id) {
				t.Errorf("%s: request id %q is not in the log", target, id)
			}
		}
	}
	if r := call(t, h, "ann", http.MethodGet, "/v1/whoami", ""); r.status != http.StatusOK {
		t.Errorf("after a panic: %+v", r)
	}
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	h := newAPI(&apitest.Backend{}, func(o *api.Options) { o.MaxScript = 1000 })
	id := submit(t, h, "ann")
	for name, test := range map[string]struct {
		method, target, body string
		status               int
		code                 skyport.Code
		says                 string
	}{
		"unknown route":       {"GET", "/v1/nothing", "", 404, skyport.CodeNotFound, "/v1/nothing"},
		"wrong method":        {"PUT", "/v1/jobs", "", 405, skyport.CodeInvalid, "PUT"},
		"no JSON":             {"POST", "/v1/jobs", `{"script":`, 400, skyport.CodeInvalid, "body"},
		"unknown member":      {"POST", "/v1/jobs", `{"scirpt":"x"}`, 400, skyport.CodeInvalid, "body.scirpt"},
		"no script":           {"POST", "/v1/jobs", `{}`, 400, skyport.CodeInvalid, "empty"},
		"two scripts":         {"POST", "/v1/jobs", `{"script":"x","script_base64":"eA=="}`, 400, skyport.CodeInvalid, "both"},
		"wrong base64":        {"POST", "/v1/jobs", `{"script_base64":"%"}`, 400, skyport.CodeInvalid, "script_base64"},
		"large script":        {"POST", "/v1/jobs", `{"script":"` + strings.Repeat("x", 1001) + `"}`, 413, skyport.CodeTooLarge, "larger"},
		"empty batch":         {"POST", "/v1/jobs/batch", `{"jobs":[]}`, 400, skyport.CodeInvalid, "body.jobs"},
		"batch of 1001":       {"POST", "/v1/jobs/batch", `{"jobs":[` + strings.Repeat(`{"script":"x"},`, 1000) + `{"script":"x"}]}`, 400, skyport.CodeInvalid, "body.jobs"},
		"wrong one of batch":  {"POST", "/v1/jobs/batch", `{"jobs":[{"script":"x"},{"script":""}]}`, 400, skyport.CodeInvalid, "job 2 of 2"},
		"wrong state":         {"GET", "/v1/jobs?state=Q,X", "", 400, skyport.CodeInvalid, "query.state"},
		"wrong limit":         {"GET", "/v1/jobs?limit=0", "", 400, skyport.CodeInvalid, "query.limit"},
		"wrong sort":          {"GET", "/v1/jobs?sort=name", "", 400, skyport.CodeInvalid, "query.sort"},
		"unknown filter":      {"GET", "/v1/jobs?nmae=x", "", 400, skyport.CodeInvalid, "query.nmae"},
		"unknown purge":       {"DELETE", "/v1/jobs?staet=Q", "", 400, skyport.CodeInvalid, "query.staet"},
		"wrong log":           {"GET", "/v1/jobs/" + string(id) + "/logs/stdall", "", 400, skyport.CodeInvalid, "path.stream"},
		"no log yet":          {"GET", "/v1/jobs/" + string(id) + "/logs/stdout", "", 404, skyport.CodeNotFound, "stdout"},
		"no results yet":      {"GET", "/v1/jobs/" + string(id) + "/results", "", 404, skyport.CodeNotFound, "results"},
		"no results to fetch": {"GET", "/v1/jobs/" + string(id) + "/results/files/a", "", 404, skyport.CodeNotFound, "results"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := call(t, h, "ann", test.method, test.target, test.body)
			p := problemOf(t, r)
			if r.status != test.status || p.Code != test.code || !strings.Contains(p.Detail, test.says) {
				t.Errorf("%d %+v", r.status, p)
			}
		})
	}
	t.Run("key", func(t *testing.T) {
		r := call(t, h, "ann", http.MethodPost, "/v1/jobs", `{"script":"x"}`, "Idempotency-Key", "a\x01b")
		if problemOf(t, r).Code != skyport.CodeInvalid {
			t.Errorf("%+v", r)
		}
	})
}

func TestReady(t *testing.T) {
	t.Parallel()
	b := &apitest.Backend{}
	h := newAPI(b)
	if r := call(t, h, "", http.MethodGet, "/readyz", ""); r.status != http.StatusOK {
		t.Errorf("ready: %+v", r)
	}
	b.Fail = func(string) error { return errors.New("the gate is away") }
	if r := call(t, h, "", http.MethodGet, "/readyz", ""); r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "the gate is away") {
		t.Errorf("not ready: %+v", r)
	}
	if r := call(t, h, "", http.MethodGet, "/healthz", ""); r.status != http.StatusOK {
		t.Errorf("healthy: %+v", r)
	}
}

func TestMetricsCountByRoute(t *testing.T) {
	t.Parallel()
	h := newAPI(&apitest.Backend{})
	id := submit(t, h, "ann")
	call(t, h, "ann", http.MethodGet, "/v1/jobs/"+string(id), "")
	call(t, h, "ann", http.MethodGet, "/no/such/route", "")
	r := call(t, h, "ann", http.MethodGet, "/metrics", "")
	for _, line := range []string{
		`skyport_api_requests_total{route="GET /v1/jobs/{id}",status="200"} 1`,
		`skyport_api_requests_total{route="none",status="404"} 1`,
		`skyport_api_request_seconds_count{route="POST /user/job"} 1`,
		`skyport_api_streams 0`,
	} {
		if !strings.Contains(r.body, line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}

// TestDescription checks that the description is whole: every operation has a
// summary and tells of problems, and nothing points nowhere.
func TestDescription(t *testing.T) {
	t.Parallel()
	h := newAPI(&apitest.Backend{})
	r := call(t, h, "ann", http.MethodGet, "/openapi.json", "")
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			Summary   string         `json:"summary"`
			Responses map[string]any `json:"responses"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal([]byte(r.body), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("version %q", doc.OpenAPI)
	}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			if op.Summary == "" || op.Responses["default"] == nil || len(op.Responses) < 2 {
				t.Errorf("%s %s: %+v", method, path, op)
			}
		}
	}
	for _, route := range api.Routes(h) {
		method, path, _ := strings.Cut(route, " ")
		if strings.HasPrefix(path, "/v1/") && !strings.HasSuffix(path, "{rest...}") {
			if _, ok := doc.Paths[strings.ReplaceAll(path, "...}", "}")][strings.ToLower(method)]; !ok {
				t.Errorf("%s is not described", route)
			}
		}
	}
	for _, ref := range strings.Split(r.body, `"$ref":"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(ref, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("schema %s is nowhere", name)
		}
	}
	if y := call(t, h, "ann", http.MethodGet, "/openapi.yaml", ""); !strings.Contains(y.body, "openapi: 3.1") {
		t.Errorf("yaml: %.200s", y.body)
	}
}
