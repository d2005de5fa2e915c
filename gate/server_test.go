package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/gatetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer makes a server that admits everybody, with the test's log.
func newServer(t *testing.T, o gate.Options, providers ...gate.Provider) *gate.Server {
	t.Helper()
	o.Providers = providers
	if o.Authorize == nil {
		o.Authorize = func(*http.Request) error { return nil }
	}
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	return gate.NewServer(o)
}

// run runs the server's sweeper until the test ends.
func run(t *testing.T, s *gate.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// remote is a client as a provider, so that the suite can be run on it.
type remote struct {
	*gate.Client
	kind string
}

func (r remote) Kind() string { return r.kind }

// TestConformanceOverHTTP: through server and client a provider is still all
// that a provider promises.
func TestConformanceOverHTTP(t *testing.T) {
	t.Parallel()
	gatetest.Exercise(t, func(t *testing.T) gatetest.Fixture {
		t.Parallel()
		p := gatetest.NewProvider(gatetest.Script{CreateDelay: time.Millisecond, BootDelay: time.Millisecond, DeleteDelay: time.Millisecond})
		serve := func(t *testing.T) gate.Provider {
			front := httptest.NewServer(newServer(t, gate.Options{}, p).Handler())
			t.Cleanup(front.Close)
			return remote{Client: gate.NewClient(front.URL, front.Client()), kind: p.Kind()}
		}
		return gatetest.Fixture{Provider: serve(t), Remake: serve, Patience: 5 * time.Second}
	})
}

// ask makes one request without a network, so that it works in a bubble.
func ask(s *gate.Server, method, target, body string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	return w
}

type told struct {
	gate.PartitionStatus
	Version string `json:"version"`
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

func specOf(lease time.Duration) gate.PartitionSpec {
	id := skyport.NewPartitionID()
	return gate.PartitionSpec{
		ID: id, Owner: "core-1", Site: "test", Flavor: "small", Nodes: skyport.NodeNames(id, 1), Lease: time.Now().Add(lease).UTC(),
	}
}

// unwatched hides that a provider can tell of changes.
type unwatched struct{ gate.Provider }

// TestLongPoll: the answer comes with the change, not before, not much later;
// or when the wait is over.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hide bool
		slow time.Duration // how late the answer may be
	}{
		"told of changes": {hide: false, slow: 0},
		"asking":          {hide: true, slow: 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := gatetest.NewProvider(gatetest.Script{CreateDelay: time.Second, BootDelay: 20 * time.Second})
				var provider gate.Provider = p
				if c.hide {
					provider = unwatched{p}
				}
				s := newServer(t, gate.Options{Grace: -1}, provider)
				spec := specOf(time.Hour)
				if err := p.Create(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				target := fmt.Sprintf("/v1/partitions/%s?site=test", spec.ID)
				start := time.Now()
				was := decode[told](t, ask(s, "GET", target, ""))
				if was.State != gate.StateCreating || was.Version == "" || time.Since(start) != 0 {
					t.Fatalf("first answer after %s: %+v", time.Since(start), was)
				}
				for _, step := range []struct {
					state gate.State
					at    time.Duration
				}{{gate.StateBooting, time.Second}, {gate.StateUp, 21 * time.Second}} {
					now := decode[told](t, ask(s, "GET", target+"&wait=60&after="+was.Version, ""))
					late := time.Since(start) - step.at
					if now.State != step.state || late < 0 || late > c.slow {
						t.Fatalf("state %s %s after the change to %s", now.State, late, step.state)
					}
					was = now
				}
				start = time.Now()
				same := decode[told](t, ask(s, "GET", target+"&wait=7&after="+was.Version, ""))
				if same.Version != was.Version || time.Since(start) != 7*time.Second {
					t.Errorf("without a change: version %s after %s, want %s after 7s", same.Version, time.Since(start), was.Version)
				}
				if p.Calls("Status") > 100 {
					t.Errorf("the provider was asked %d times", p.Calls("Status"))
				}
			})
		})
	}
}

// TestLongPollEnds: a partition that goes, an error of the provider, and the
// end of the server all end the wait.
func TestLongPollEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(p *gatetest.Provider, id skyport.PartitionID, stop func())
		code int
	}{
		"vanished": {func(p *gatetest.Provider, id skyport.PartitionID, _ func()) { p.Vanish(id) }, 404},
		"failed":   {func(p *gatetest.Provider, id skyport.PartitionID, _ func()) { p.Break(id, "no such luck") }, 200},
		"error": {func(p *gatetest.Provider, id skyport.PartitionID, _ func()) {
			p.Fail("Status", errors.New("the cloud is down"))
			p.Break(id, "") // wakes the poll
		}, 503},
		"server stops": {func(_ *gatetest.Provider, _ skyport.PartitionID, stop func()) { stop() }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := gatetest.NewProvider(gatetest.Script{})
				s := newServer(t, gate.Options{}, p)
				stop := run(t, s)
				spec := specOf(time.Hour)
				if err := p.Create(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				target := fmt.Sprintf("/v1/partitions/%s?site=test", spec.ID)
				was := decode[told](t, ask(s, "GET", target, ""))
				start := time.Now()
				answer := make(chan *httptest.ResponseRecorder)
				go func() { answer <- ask(s, "GET", target+"&wait=60&after="+was.Version, "") }()
				synctest.Wait()
				c.do(p, spec.ID, stop)
				if w := <-answer; w.Code != c.code || time.Since(start) != 0 {
					t.Errorf("%d after %s, want %d at once: %s", w.Code, time.Since(start), c.code, w.Body)
				}
				if name != "server stops" {
					stop()
				}
			})
		})
	}
}

// TestClientWait follows a partition over a real connection.
func TestClientWait(t *testing.T) {
	t.Parallel()
	p := gatetest.NewProvider(gatetest.Script{})
	front := httptest.NewServer(newServer(t, gate.Options{}, p).Handler())
	defer front.Close()
	c := gate.NewClient(front.URL, front.Client())
	p.Stall(true)
	spec := specOf(time.Hour)
	if err := c.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	status, version, err := c.Wait(t.Context(), "test", spec.ID, "")
	if err != nil || status.State != gate.StateCreating {
		t.Fatalf("%+v, %v", status, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := c.Wait(ctx, "test", spec.ID, version); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing changed: got %v, want the end of the context", err)
	}
	go p.Stall(false)
	for status.State != gate.StateUp {
		if status, version, err = c.Wait(t.Context(), "test", spec.ID, version); err != nil {
			t.Fatal(err)
		}
	}
	p.Vanish(spec.ID)
	if _, _, err := c.Wait(t.Context(), "test", spec.ID, version); !errors.Is(err, gate.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

// TestErrorsKeepTheirMeaning: what a provider says is what the client's caller
// finds out.
func TestErrorsKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	coded := skyport.Errorf(skyport.CodeUnknownFlavor, "no flavor of that name").WithHint("see skyport flavors")
	coded.Cause = gate.ErrPermanent
	for name, c := range map[string]struct {
		err  error
		is   []error
		not  []error
		code skyport.Code
		hint string
	}{
		"passing":        {errors.New("try later"), nil, []error{gate.ErrPermanent, gate.ErrNotFound}, skyport.CodeUnavailable, ""},
		"passing, coded": {skyport.Errorf(skyport.CodeNoSpace, "full"), nil, []error{gate.ErrPermanent}, skyport.CodeNoSpace, ""},
		"permanent":      {fmt.Errorf("no quota: %w", gate.ErrPermanent), []error{gate.ErrPermanent}, []error{gate.ErrNotFound}, skyport.CodeUnsupported, ""},
		"coded":          {coded, []error{gate.ErrPermanent}, []error{gate.ErrConflict}, skyport.CodeUnknownFlavor, "see skyport flavors"},
		"conflict":       {fmt.Errorf("x: %w", gate.ErrConflict), []error{gate.ErrConflict, gate.ErrPermanent}, nil, skyport.CodeConflict, ""},
		"not found":      {fmt.Errorf("x: %w", gate.ErrNotFound), []error{gate.ErrNotFound}, []error{gate.ErrPermanent}, skyport.CodeNotFound, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := gatetest.NewProvider(gatetest.Script{})
			front := httptest.NewServer(newServer(t, gate.Options{}, p).Handler())
			defer front.Close()
			p.Fail("Create", c.err)
			err := gate.NewClient(front.URL, front.Client()).Create(t.Context(), specOf(time.Hour))
			if err == nil || skyport.CodeOf(err) != c.code || skyport.HintOf(err) != c.hint || !strings.Contains(err.Error(), c.err.Error()) {
				t.Errorf("got %v (%s, hint %q), want %v (%s, hint %q)", err, skyport.CodeOf(err), skyport.HintOf(err), c.err, c.code, c.hint)
			}
			for _, is := range c.is {
				if !errors.Is(err, is) {
					t.Errorf("%v is not %v", err, is)
				}
			}
			for _, not := range c.not {
				if errors.Is(err, not) {
					t.Errorf("%v is %v", err, not)
				}
			}
		})
	}
}

// TestRefusals: what is wrong with a request is said as a problem with a code,
// before any provider is asked.
func TestRefusals(t *testing.T) {
	t.Parallel()
	spec := specOf(time.Hour)
	with := func(change func(map[string]any)) string {
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		if text, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	one := "/v1/partitions/" + string(spec.ID)
	for name, c := range map[string]struct {
		method, target, body string
		status               int
		code                 skyport.Code
	}{
		"no JSON":             {"PUT", one, "{", 400, skyport.CodeInvalid},
		"no body":             {"PUT", one, "", 400, skyport.CodeInvalid},
		"unknown field":       {"PUT", one, with(func(m map[string]any) { m["color"] = "red" }), 422, skyport.CodeInvalid},
		"field missing":       {"PUT", one, with(func(m map[string]any) { delete(m, "flavor") }), 422, skyport.CodeInvalid},
		"no nodes":            {"PUT", one, with(func(m map[string]any) { m["nodes"] = []string{} }), 422, skyport.CodeInvalid},
		"same node twice":     {"PUT", one, with(func(m map[string]any) { m["nodes"] = []string{"a", "a"} }), 400, skyport.CodeInvalid},
		"node with a slash":   {"PUT", one, with(func(m map[string]any) { m["nodes"] = []string{"../../etc"} }), 400, skyport.CodeInvalid},
		"node like an option": {"PUT", one, with(func(m map[string]any) { m["nodes"] = []string{"-rf"} }), 400, skyport.CodeInvalid},
		"owner empty":         {"PUT", one, with(func(m map[string]any) { m["owner"] = "" }), 400, skyport.CodeInvalid},
		"no lease":            {"PUT", one, with(func(m map[string]any) { m["lease"] = time.Time{} }), 400, skyport.CodeInvalid},
		"another id in body":  {"PUT", one, with(func(m map[string]any) { m["id"] = skyport.NewPartitionID() }), 400, skyport.CodeInvalid},
		"id is none":          {"PUT", "/v1/partitions/x", with(func(map[string]any) {}), 422, skyport.CodeInvalid},
		"too large":           {"PUT", one, `{"id":"` + strings.Repeat("x", 300<<10) + `"}`, 413, skyport.CodeTooLarge},
		"unknown site":        {"PUT", one, with(func(m map[string]any) { m["site"] = "moon" }), 422, skyport.CodeUnknownSite},
		"no site":             {"GET", one, "", 422, skyport.CodeInvalid},
		"unknown parameter":   {"GET", one + "?site=test&sight=test", "", 422, skyport.CodeInvalid},
		"wait too long":       {"GET", one + "?site=test&after=x&wait=61", "", 422, skyport.CodeInvalid},
		"flavors of nowhere":  {"GET", "/v1/sites/moon/flavors", "", 422, skyport.CodeUnknownSite},
		"lease without body":  {"PUT", one + "/lease?site=test", "", 400, skyport.CodeInvalid},
		"lease is no time":    {"PUT", one + "/lease?site=test", `{"until":"tomorrow"}`, 422, skyport.CodeInvalid},
		"absent":              {"GET", one + "?site=test", "", 404, skyport.CodeNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := gatetest.NewProvider(gatetest.Script{})
			w := ask(newServer(t, gate.Options{}, p), c.method, c.target, c.body)
			problem := decode[gate.Problem](t, w)
			if w.Code != c.status || problem.Status != c.status || problem.Code != c.code || problem.Detail == "" {
				t.Errorf("got %d: %s; want %d, %s", w.Code, w.Body, c.status, c.code)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("content type %q", ct)
			}
			if p.Calls("Create") > 0 {
				t.Error("the provider was asked")
			}
		})
	}
}

// hung is a provider that ignores its deadlines.
type hung struct {
	gate.Provider
	free chan struct{}
}

func (h hung) Kind() string { return "hung" }
func (h hung) Sites(context.Context) ([]skyport.Site, error) {
	<-h.free
	return nil, errors.New("at last")
}

// broken is a provider with a bug.
type broken struct{ gate.Provider }

func (broken) Flavors(context.Context, string) ([]skyport.Flavor, error) { panic("a bug") }

// TestBadProviders: one that hangs and one that panics harm only themselves.
func TestBadProviders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		good := gatetest.NewProvider(gatetest.Script{})
		stuck := hung{free: make(chan struct{})}
		defer close(stuck.free)
		s := newServer(t, gate.Options{}, good, stuck)
		start := time.Now()
		w := ask(s, "GET", "/v1/sites", "")
		var sites struct {
			Sites    []skyport.Site
			Problems []gate.SiteProblem
		}
		if err := json.Unmarshal(w.Body.Bytes(), &sites); err != nil || w.Code != 200 {
			t.Fatal(w.Code, w.Body, err)
		}
		if len(sites.Sites) != 1 || len(sites.Problems) != 1 || time.Since(start) > 6*time.Second {
			t.Errorf("after %s: %+v", time.Since(start), sites)
		}
		start = time.Now()
		if w := ask(s, "GET", "/v1/sites/test/flavors", ""); w.Code != 200 || time.Since(start) != 0 {
			t.Errorf("the good site answers %d after %s", w.Code, time.Since(start))
		}
		// Nobody knows whether the site is one of the silent provider's.
		if w := ask(s, "GET", "/v1/sites/other/flavors", ""); w.Code != 503 {
			t.Errorf("a site that may exist: %d %s", w.Code, w.Body)
		}
		if w := ask(s, "GET", "/readyz", ""); w.Code != 503 {
			t.Errorf("ready although a provider is silent: %d", w.Code)
		}
	})
	if w := ask(newServer(t, gate.Options{}, broken{gatetest.NewProvider(gatetest.Script{})}), "GET", "/v1/sites/test/flavors", ""); w.Code != 500 {
		t.Errorf("a panic is answered with %d", w.Code)
	}
}

// TestLeases: the gate removes what is past its lease, when it passes, whatever
// goes wrong on the way, and nothing else.
func TestLeases(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T, p *gatetest.Provider, id skyport.PartitionID) bool {
		t.Helper()
		_, err := p.Status(t.Context(), "test", id)
		if err != nil && !errors.Is(err, gate.ErrNotFound) {
			t.Fatal(err)
		}
		return err != nil
	}
	put := func(t *testing.T, s *gate.Server, target string, body any) {
		t.Helper()
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		if w := ask(s, "PUT", target, string(text)); w.Code >= 300 {
			t.Fatal(w.Code, w.Body)
		}
	}
	in := func(f func(t *testing.T, p *gatetest.Provider)) func(*testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { f(t, gatetest.NewProvider(gatetest.Script{DeleteDelay: time.Second})) })
		}
	}

	t.Run("removed when it passes", in(func(t *testing.T, p *gatetest.Provider) {
		s := newServer(t, gate.Options{Grace: -1}, p)
		defer run(t, s)()
		short, long := specOf(10*time.Minute), specOf(time.Hour)
		put(t, s, "/v1/partitions/"+string(long.ID), long)
		put(t, s, "/v1/partitions/"+string(short.ID), short)
		time.Sleep(10*time.Minute - time.Second)
		if gone(t, p, short.ID) {
			t.Error("removed before its lease passed")
		}
		time.Sleep(3 * time.Second)
		if !gone(t, p, short.ID) || gone(t, p, long.ID) {
			t.Error("want the short one gone and the long one there")
		}
	}))
	t.Run("extended in time", in(func(t *testing.T, p *gatetest.Provider) {
		s := newServer(t, gate.Options{Grace: -1}, p)
		defer run(t, s)()
		spec := specOf(time.Minute)
		put(t, s, "/v1/partitions/"+string(spec.ID), spec)
		for range 20 {
			time.Sleep(30 * time.Second)
			put(t, s, "/v1/partitions/"+string(spec.ID)+"/lease?site=test", map[string]any{"until": time.Now().Add(time.Minute)})
		}
		if gone(t, p, spec.ID) {
			t.Error("removed although it was extended")
		}
		time.Sleep(time.Minute + 3*time.Second)
		if !gone(t, p, spec.ID) {
			t.Error("still there after the last extension passed")
		}
	}))
	t.Run("errors are outlasted", in(func(t *testing.T, p *gatetest.Provider) {
		s := newServer(t, gate.Options{Grace: -1}, p)
		defer run(t, s)()
		spec := specOf(time.Minute)
		put(t, s, "/v1/partitions/"+string(spec.ID), spec)
		down := errors.New("the cloud is down")
		p.Fail("List", down, down)
		p.Fail("Delete", down, down, down)
		time.Sleep(2 * time.Minute)
		if !gone(t, p, spec.ID) {
			t.Errorf("still there; List was called %d times, Delete %d times", p.Calls("List"), p.Calls("Delete"))
		}
		if n := p.Calls("Delete"); n > 10 {
			t.Errorf("Delete was called %d times", n)
		}
	}))
	t.Run("found after a restart, with time to renew", in(func(t *testing.T, p *gatetest.Provider) {
		wanted, abandoned := specOf(time.Minute), specOf(time.Minute)
		for _, spec := range []gate.PartitionSpec{wanted, abandoned} {
			if err := p.Create(t.Context(), spec); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour) // no gate runs
		s := newServer(t, gate.Options{Grace: time.Minute}, p)
		defer run(t, s)()
		time.Sleep(50 * time.Second)
		if gone(t, p, wanted.ID) || gone(t, p, abandoned.ID) {
			t.Fatal("core had no time to renew")
		}
		put(t, s, "/v1/partitions/"+string(wanted.ID)+"/lease?site=test", map[string]any{"until": time.Now().Add(time.Hour)})
		time.Sleep(15 * time.Second)
		if gone(t, p, wanted.ID) || !gone(t, p, abandoned.ID) {
			t.Error("want the renewed one there and the abandoned one gone")
		}
	}))
	t.Run("unnoticed partitions are found in time", in(func(t *testing.T, p *gatetest.Provider) {
		s := newServer(t, gate.Options{Grace: -1, Resync: 5 * time.Minute}, p)
		defer run(t, s)()
		synctest.Wait()
		spec := specOf(time.Minute) // a list lagged: the server has not seen it
		if err := p.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		if !gone(t, p, spec.ID) {
			t.Error("still there")
		}
	}))
	t.Run("idle without leases", in(func(t *testing.T, p *gatetest.Provider) {
		s := newServer(t, gate.Options{Grace: -1, Resync: time.Hour}, p)
		defer run(t, s)()
		time.Sleep(3*time.Hour + time.Minute)
		if n := p.Calls("List"); n > 5 {
			t.Errorf("an idle gate asked its site %d times in 3 hours", n)
		}
	}))
}

// TestPlainRoutes: health, metrics and the description of the API.
func TestPlainRoutes(t *testing.T) {
	t.Parallel()
	o := gate.Options{Registry: prometheus.NewRegistry(), Version: "1.2.3"}
	s := newServer(t, o, gatetest.NewProvider(gatetest.Script{}))
	for target, want := range map[string]string{
		"/healthz":      "ok",
		"/readyz":       "ready",
		"/openapi.json": `"openapi":"3.1`,
		"/v1/sites":     `"sites":[{`,
	} {
		if w := ask(s, "GET", target, ""); w.Code != 200 || !bytes.Contains(w.Body.Bytes(), []byte(want)) {
			t.Errorf("%s: %d %s", target, w.Code, skyport.Abbreviate(w.Body.String(), 200))
		}
	}
	if w := ask(s, "GET", "/v1/partitions?site=test", ""); !strings.Contains(w.Body.String(), `"partitions":[]`) {
		t.Errorf("an empty list: %s", w.Body)
	}
	text := ask(s, "GET", "/metrics", "").Body.String()
	for _, name := range []string{
		"skyport_gate_requests_total", "skyport_gate_request_seconds", "skyport_gate_waiting_requests",
		"skyport_gate_provider_calls_total", "skyport_gate_provider_call_seconds",
	} {
		if !strings.Contains(text, name) {
			t.Errorf("metric %s is missing", name)
		}
	}
}

// TestClientMeetsStrangers: answers that are no gate's are passing errors, and
// never mistaken for a confirmed removal.
func TestClientMeetsStrangers(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"404 of a proxy": http.NotFound,
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("<html>"))
		},
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			front := httptest.NewServer(handler)
			defer front.Close()
			_, err := gate.NewClient(front.URL, front.Client()).Status(t.Context(), "test", skyport.NewPartitionID())
			if skyport.CodeOf(err) != skyport.CodeUnavailable || errors.Is(err, gate.ErrNotFound) || errors.Is(err, gate.ErrPermanent) {
				t.Errorf("got %v", err)
			}
		})
	}
	_, err := gate.NewClient("http://127.0.0.1:1", &http.Client{}).Sites(t.Context())
	if skyport.CodeOf(err) != skyport.CodeUnavailable {
		t.Errorf("nobody listens: %v", err)
	}
}
