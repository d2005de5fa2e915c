package openstack_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
	"github.com/openworkload/skyport/gate/openstack"
)

// TestRefusals classifies what the services answer. The bodies are theirs: see
// https://docs.openstack.org/api-guide/compute/faults.html, nova/exception.py,
// neutron_lib/exceptions, and what clouds were seen to answer.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const servers, groups, login = "POST /compute/v2.1/servers", "POST /network/v2.0/security-groups", "POST /identity/v3/auth/tokens"
	for name, c := range map[string]struct {
		call      string
		status    int
		body      string
		header    map[string]string
		code      skyport.Code
		permanent bool
		says      string
		after     time.Duration
	}{
		"instances used up": {
			call: servers, status: 403, body: `{"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}`,
			code: skyport.CodeQuota, permanent: true, says: "already used 10 of 10 instances",
		},
		"floating IPs used up": {
			call: "POST /network/v2.0/floatingips", status: 409,
			body: `{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['floatingip'].", "detail": ""}}`,
			code: skyport.CodeQuota, permanent: true, says: "['floatingip']",
		},
		"no floating IP left": {
			call: "POST /network/v2.0/floatingips", status: 409,
			body: `{"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network ext.", "detail": ""}}`,
			code: skyport.CodeNoCapacity, permanent: true,
		},
		"not allowed": {
			call: servers, status: 403, body: `{"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create to be performed."}}`,
			code: skyport.CodeCredentials, permanent: true, says: "Policy doesn't allow",
		},
		"not allowed by the network": {
			call: groups, status: 403, body: `{"NeutronError": {"type": "PolicyNotAuthorized", "message": "rule:create_security_group is disallowed by policy", "detail": ""}}`,
			code: skyport.CodeCredentials, permanent: true,
		},
		"wrong password": {
			call: login, status: 401, body: `{"error":{"code":401,"message":"The request you have made requires authentication.","title":"Unauthorized"}}`,
			code: skyport.CodeCredentials, permanent: true,
		},
		"no such Keystone": {call: login, status: 404, body: "<html><title>404</title>Not Found</html>", code: skyport.CodeCredentials, permanent: true},
		"image gone": {
			call: servers, status: 400, body: `{"badRequest": {"code": 400, "message": "Can not find requested image"}}`,
			code: skyport.CodeUnknownImage, permanent: true,
		},
		"image turned off": {
			call: servers, status: 400, body: `{"badRequest": {"code": 400, "message": "Image 70a599e0 is not active."}}`,
			code: skyport.CodeUnknownImage, permanent: true,
		},
		"flavor gone": {
			call: servers, status: 400, body: `{"badRequest": {"code": 400, "message": "Flavor 1 could not be found."}}`,
			code: skyport.CodeUnknownFlavor, permanent: true,
		},
		"disk too small": {
			call: servers, status: 400, body: `{"badRequest": {"code": 400, "message": "Flavor's disk is too small for requested image. Flavor disk is 1 bytes, image is 2 bytes."}}`,
			code: skyport.CodeInvalid, permanent: true,
		},
		"no such zone": {
			call: servers, status: 400, body: `{"badRequest": {"code": 400, "message": "The requested availability zone is not available"}}`,
			code: skyport.CodeInvalid, permanent: true,
		},
		"too many calls": {
			call: servers, status: 429, body: `{"overLimit": {"code": 429, "message": "This request was rate-limited."}}`, header: map[string]string{"Retry-After": "7"},
			code: skyport.CodeThrottled, after: 7 * time.Second,
		},
		"too many calls, the old way": {
			call: servers, status: 413, body: `{"overLimit": {"code": 413, "message": "OverLimit Retry...", "retryAfter": "12"}}`,
			code: skyport.CodeThrottled, after: 12 * time.Second,
		},
		"too many calls at the proxy": {call: groups, status: 429, body: "slow down", code: skyport.CodeThrottled},
		"quota, the old way": {
			call: servers, status: 413, body: `{"overLimit": {"code": 413, "message": "Quota exceeded for cores: Requested 4, but already used 20 of 20 cores"}}`,
			code: skyport.CodeQuota, permanent: true,
		},
		"broken": {
			call: servers, status: 500, body: `{"computeFault": {"code": 500, "message": "Unexpected API Error. Please report this."}}`, code: skyport.CodeUnavailable, says: "Unexpected API Error",
		},
		"down behind its proxy": {call: groups, status: 503, body: "<html><body><h1>503 Service Unavailable</h1>No server is available.</body></html>", code: skyport.CodeUnavailable},
		"down for a while":      {call: groups, status: 503, header: map[string]string{"Retry-After": "30"}, code: skyport.CodeThrottled, after: 30 * time.Second},
		"identity down":         {call: login, status: 502, body: "Bad Gateway", code: skyport.CodeUnavailable},
		"the port is used": {
			call: servers, status: 409, body: `{"conflictingRequest": {"code": 409, "message": "Port 1 is still in use."}}`, code: skyport.CodeUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.refuse = func(call string, after bool) (int, string, map[string]string) {
				if call == c.call && !after {
					return c.status, c.body, c.header
				}
				return 0, "", nil
			}
			site, p := f.site(t), plan(1)
			err := site.Make(t.Context(), p, quietly)
			if skyport.CodeOf(err) != c.code || errors.Is(err, gate.ErrPermanent) != c.permanent {
				t.Fatalf("code %s, permanent %t, want %s, %t: %v", skyport.CodeOf(err), errors.Is(err, gate.ErrPermanent), c.code, c.permanent, err)
			}
			var throttled *cloud.Throttled
			if errors.As(err, &throttled) != (c.code == skyport.CodeThrottled) || throttled != nil && throttled.After != c.after {
				t.Errorf("throttled: %+v, want %s", throttled, c.after)
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "<h") || strings.ContainsRune(err.Error(), '\n') {
				t.Errorf("says %q", err)
			}
			if c.permanent && skyport.HintOf(err) == "" && c.code != skyport.CodeInvalid {
				t.Errorf("says not what to do: %v", err)
			}
			f.mu.Lock()
			f.refuse = nil
			f.mu.Unlock()
			if err := site.Clear(t.Context(), p.ID, quietly); err != nil {
				t.Fatal(err)
			}
			if left := f.left(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestNoServer hears nothing at all.
func TestNoServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	site := f.site(t)
	f.Close()
	if err := site.Make(t.Context(), plan(1), quietly); skyport.CodeOf(err) != skyport.CodeUnavailable || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("got %v", err)
	}
}

// TestFaults classifies why servers do not start, while they are made and when
// they are found. Texts: nova/exception.py, nova/compute/manager.py.
func TestFaults(t *testing.T) {
	t.Parallel()
	for fault, code := range map[string]skyport.Code{
		"No valid host was found. There are not enough hosts available.":                                                  skyport.CodeNoCapacity,
		"Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance 1.":   skyport.CodeNoCapacity,
		"Build of instance 1 aborted: Failed to allocate the network(s), not rescheduling.":                               skyport.CodeUnavailable,
		"Image 70a599e0 could not be found.":                                                                              skyport.CodeUnknownImage,
		"Build of instance 1 aborted: VolumeSizeExceedsAvailableQuota: Requested volume exceeds allowed gigabytes quota.": skyport.CodeQuota,
	} {
		f := newFake(t)
		f.fault = fault
		site, p := f.site(t), plan(2)
		err := site.Make(t.Context(), p, quietly)
		if skyport.CodeOf(err) != code || !errors.Is(err, gate.ErrPermanent) || !strings.Contains(err.Error(), strings.TrimSuffix(fault, ".")) {
			t.Errorf("%s: made: %v", fault, err)
		}
		found, err := site.Find(t.Context(), p.ID)
		if err != nil || len(found) != 1 || skyport.CodeOf(found[0].Failure) != code || found[0].Made {
			t.Errorf("%s: found: %+v, %v", fault, found, err)
		}
		if err := site.Clear(t.Context(), p.ID, quietly); err != nil || len(f.left()) > 0 {
			t.Errorf("%s: left %v, %v", fault, f.left(), err)
		}
	}
}

// TestTakenBack sees nodes that stopped or vanished.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(f *fake, server object){
		"stopped": func(_ *fake, s object) { s["status"] = "SHUTOFF" },
		"gone":    func(f *fake, s object) { delete(f.objects, "servers/"+s["id"].(string)) },
		"address": func(f *fake, _ object) { f.all("floatingips", nil)[0]["port_id"] = nil },
	} {
		f := newFake(t)
		site, p := f.site(t), plan(2)
		if err := site.Make(t.Context(), p, quietly); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		harm(f, f.all("servers", func(s object) bool { return strings.HasSuffix(s["name"].(string), "-main") })[0])
		f.mu.Unlock()
		found, err := site.Find(t.Context(), p.ID)
		if err != nil || len(found) != 1 || found[0].Made || skyport.CodeOf(found[0].Failure) != skyport.CodeInterrupted {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		if err := site.Clear(t.Context(), p.ID, quietly); err != nil || len(f.left()) > 0 {
			t.Errorf("%s: left %v, %v", name, f.left(), err)
		}
	}
}

// TestLostAnswers loses the answer to each call that makes something, once; what
// it has made is there. The next try takes it, and nothing is left at the end.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	lost := map[string]bool{}
	f.refuse = func(call string, after bool) (int, string, map[string]string) {
		method, _, _ := strings.Cut(call, " ")
		if !after || lost[call] || (method != http.MethodPost && method != http.MethodPut && method != http.MethodDelete) {
			return 0, "", nil
		}
		lost[call] = true
		return 504, "<html>Gateway Timeout</html>", nil
	}
	site, p := f.site(t, func(o *openstack.Options) { o.BootVolume = true }), plan(3)
	insist := func(what string, step func() error) {
		for range 60 {
			err := step()
			if err == nil {
				return
			}
			if errors.Is(err, gate.ErrPermanent) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Fatalf("%s: no end", what)
	}
	insist("make", func() error { return site.Make(t.Context(), p, quietly) })
	if n := len(f.all("servers", nil)); n != 3 {
		t.Errorf("%d servers", n)
	}
	found, err := site.Find(t.Context(), p.ID)
	if err != nil || len(found) != 1 || !found[0].Made {
		t.Errorf("found %+v, %v", found, err)
	}
	later := p.Lease.Add(time.Hour)
	insist("extend", func() error { return site.Extend(t.Context(), p.ID, later) })
	if found, err = site.Find(t.Context(), p.ID); err != nil || !found[0].Tags.Lease.Equal(later) {
		t.Errorf("lease %v, want %v: %v", found, later, err)
	}
	insist("condemn", func() error { return site.Condemn(t.Context(), p.ID) })
	insist("clear", func() error { return site.Clear(t.Context(), p.ID, quietly) })
	if left := f.left(); len(left) > 0 || len(lost) < 10 {
		t.Errorf("left %v after %d lost answers", left, len(lost))
	}
}

// TestCutOff ends a creation at each of its calls: what it left is found, marked
// and removed.
func TestCutOff(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		f := newFake(t)
		ctx, cancel := context.WithCancel(t.Context())
		made := 0
		f.refuse = func(call string, after bool) (int, string, map[string]string) {
			if after && (strings.HasPrefix(call, "POST /network") || strings.HasPrefix(call, "POST /compute") || strings.HasPrefix(call, "PUT")) {
				if made++; made == at {
					cancel()
				}
			}
			return 0, "", nil
		}
		site, p := f.site(t), plan(2)
		err := site.Make(ctx, p, quietly)
		cancel()
		if errors.Is(err, gate.ErrPermanent) {
			t.Fatalf("cut off at %d: %v", at, err)
		}
		if found, lookErr := site.Find(t.Context(), ""); lookErr != nil || len(found) != 1 || found[0].Tags.Owner != p.Owner || found[0].Tags.Lease.IsZero() {
			t.Fatalf("cut off at %d: found %+v, %v", at, found, lookErr)
		}
		if clearErr := site.Clear(t.Context(), p.ID, quietly); clearErr != nil || len(f.left()) > 0 {
			t.Fatalf("cut off at %d: left %v, %v", at, f.left(), clearErr)
		}
		if err == nil {
			if at < 8 {
				t.Errorf("only %d calls were cut", at)
			}
			return
		}
	}
}

// TestTells reports what goes on.
func TestTells(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	site, p := f.site(t), plan(2)
	var said []string
	if err := site.Make(t.Context(), p, func(text string) { said = append(said, text) }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"makes the network", "makes the floating IP", "makes server " + p.Nodes[1]} {
		if !slices.Contains(said, want) {
			t.Errorf("did not say %q: %q", want, said)
		}
	}
	if err := site.Clear(t.Context(), p.ID, quietly); err != nil {
		t.Fatal(err)
	}
}

// TestRevoked tells refused credentials from a cloud that renews tokens and
// then refuses something else.
func TestRevoked(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	site := f.site(t)
	if _, err := site.Flavors(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers := map[string]int{"GET /compute/v2.1/flavors/detail": 500}
	f.mu.Lock()
	f.token = "ended"
	f.refuse = func(call string, after bool) (int, string, map[string]string) {
		if after {
			return 0, "", nil
		}
		if call == "GET /compute/v2.1/flavors/detail" && f.token == "ended" {
			return 401, `{"error": {"code": 401, "message": "The request you have made requires authentication."}}`, nil
		}
		return answers[call], "{}", nil
	}
	f.mu.Unlock()
	if _, err := site.Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeUnavailable || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("renewed, then broken: %v", err)
	}
	f.mu.Lock()
	f.token, answers["POST /identity/v3/auth/tokens"] = "ended", 401
	f.mu.Unlock()
	if _, err := site.Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeCredentials || !errors.Is(err, gate.ErrPermanent) {
		t.Errorf("revoked: %v", err)
	}
	f.mu.Lock()
	f.token, answers["POST /identity/v3/auth/tokens"] = "ended", 503
	f.mu.Unlock()
	if _, err := site.Flavors(t.Context()); skyport.CodeOf(err) != skyport.CodeUnavailable || errors.Is(err, gate.ErrPermanent) {
		t.Errorf("identity is down: %v", err)
	}
}
