package cloud_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/cloud/cloudtest"
)

type round func(*http.Request) (*http.Response, error)

func (r round) RoundTrip(q *http.Request) (*http.Response, error) { return r(q) }

// answering is a service that tells addresses, without a network.
func answering(text *atomic.Value) *http.Client {
	return &http.Client{Transport: round(func(q *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Request: q, Body: io.NopCloser(strings.NewReader(text.Load().(string)))}, nil
	})}
}

// Only an address is taken for one, and only from who was asked.
func TestSources(t *testing.T) {
	t.Parallel()
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "192.0.2.66") }))
	defer secret.Close()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string // "": none
	}{
		"v4":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "192.0.2.7\n") }, "192.0.2.7/32"},
		"v6":         {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "2001:db8::7") }, "2001:db8::7/128"},
		"mapped":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "::ffff:192.0.2.7") }, "192.0.2.7/32"},
		"everywhere": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0.0.0.0") }, ""},
		"network":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0.0.0.0/0") }, ""},
		"group":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "224.0.0.1") }, ""},
		"page":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>192.0.2.7</html>") }, ""},
		"empty":      {func(http.ResponseWriter, *http.Request) {}, ""},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 1<<20)+"192.0.2.7")
		}, ""},
		"error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "192.0.2.7")
		}, ""},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secret.URL, http.StatusFound) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewTLSServer(test.answer)
			defer service.Close()
			defer service.Client().CloseIdleConnections()
			p := open(t, cloudtest.NewWorld(cloudtest.Options{}).Open(), func(o *cloud.Options) {
				o.Sources = cloud.Sources{Service: service.URL, Client: service.Client()}
			})
			told(t, p, test.want)
		})
	}
	t.Run("route", func(t *testing.T) {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer packets.Close()
		p := open(t, cloudtest.NewWorld(cloudtest.Options{}).Open(), func(o *cloud.Options) {
			o.Sources = cloud.Sources{Route: packets.LocalAddr().String()}
		})
		told(t, p, "127.0.0.1/32")
	})
	t.Run("none", func(t *testing.T) {
		told(t, open(t, cloudtest.NewWorld(cloudtest.Options{}).Open(), func(o *cloud.Options) { o.Sources = cloud.Sources{} }), "")
	})
}

// told holds what the provider says of core's address against what it should.
func told(t *testing.T, p *cloud.Provider, want string) {
	t.Helper()
	found, err := p.Check(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	last := found[len(found)-1]
	if want == "" && (last.Level != gate.LevelFailure || !strings.Contains(last.Fix, "ssh_from")) {
		t.Errorf("found %+v, want a failure and what to do", last)
	}
	if want != "" && (last.Level != gate.LevelOK || !strings.HasSuffix(last.Text, " "+want)) {
		t.Errorf("found %+v, want %s", last, want)
	}
	if err := p.Create(t.Context(), spec("test", 1)); (err == nil) != (want != "") || (err != nil && skyport.CodeOf(err) != skyport.CodeUnavailable) {
		t.Errorf("create: %v", err)
	}
}

// Live partitions are opened to core's new address when it has moved.
func TestAdmit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := cloudtest.NewWorld(cloudtest.Options{})
		var at atomic.Value
		at.Store("203.0.113.7")
		service := cloud.Sources{Service: "https://address.test/", Client: answering(&at)}
		from := func(o *cloud.Options) { calm(o); o.Sources = service }
		p := open(t, w.Open(), from)
		s := spec("test", 1)
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		await(t, p, s.ID, gate.StateUp)
		if got := w.Admitted(s.ID); got != "203.0.113.7/32" {
			t.Errorf("open to %s", got)
		}
		at.Store("203.0.113.8\n")
		time.Sleep(3 * time.Minute)
		if got := w.Admitted(s.ID); got != "203.0.113.8/32" {
			t.Errorf("after the move open to %s", got)
		}
		if n := w.Calls("Admit"); n != 1 {
			t.Errorf("opened %d times", n)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		at.Store("203.0.113.9") // the laptop has travelled while the gate was off
		p = open(t, w.Open(), from)
		time.Sleep(10 * time.Second)
		if got := w.Admitted(s.ID); got != "203.0.113.9/32" {
			t.Errorf("after a restart open to %s", got)
		}
		at.Store("<html>log in to the hotel's network</html>")
		time.Sleep(30 * time.Minute)
		if got := w.Admitted(s.ID); got != "203.0.113.9/32" {
			t.Errorf("without an address open to %s", got)
		}
		err := p.Create(t.Context(), spec("test", 1))
		if err == nil || errors.Is(err, gate.ErrPermanent) || !strings.Contains(skyport.HintOf(err), "ssh_from") {
			t.Errorf("create without an address: %v", err)
		}
		found, err := p.Check(t.Context(), "test")
		if err != nil || !slices.ContainsFunc(found, func(f gate.Finding) bool {
			return f.Subject == "sources" && f.Level == gate.LevelFailure && f.Fix != ""
		}) {
			t.Errorf("check: %v, %v", found, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
