package azuretest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"

	azuretest "github.com/openworkload/skyport/test/azure"
)

func details(err error) (all []string) {
	var r *azcore.ResponseError
	if !errors.As(err, &r) || r.RawResponse == nil {
		return []string{fmt.Sprint(err)}
	}
	var body struct {
		Error azuretest.Problem `json:"error"`
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(r.RawResponse.Body); err != nil {
		return []string{err.Error()}
	}
	if err := json.Unmarshal(text.Bytes(), &body); err != nil {
		return []string{err.Error()}
	}
	var walk func(p azuretest.Problem)
	walk = func(p azuretest.Problem) {
		all = append(all, p.Code)
		for _, d := range p.Details {
			walk(d)
		}
	}
	walk(body.Error)
	return all
}

// Each way in which a cloud has no room is told by the documented code, in the
// documented place.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		options azuretest.Options
		more    map[string]any
		want    []string
		made    bool // something is left in the group
	}{
		{"quota", azuretest.Options{Quotas: map[string]int{"cores": 3}}, nil, []string{"InvalidTemplateDeployment", "QuotaExceeded"}, false},
		{"family's quota", azuretest.Options{Quotas: map[string]int{"standardDSv5Family": 3}}, nil, []string{"InvalidTemplateDeployment", "QuotaExceeded"}, false},
		{"spot quota", azuretest.Options{Quotas: map[string]int{"lowPriorityCores": 3}}, map[string]any{"spot": true}, []string{"InvalidTemplateDeployment", "QuotaExceeded"}, false},
		{"restricted", azuretest.Options{}, map[string]any{"size": "Standard_HB176rs_v4"}, []string{"InvalidTemplateDeployment", "SkuNotAvailable"}, false},
		{"unavailable", azuretest.Options{Faults: azuretest.Faults{Unavailable: []string{"standard_d2s_v5"}}}, nil, []string{"InvalidTemplateDeployment", "SkuNotAvailable"}, false},
		{"unknown", azuretest.Options{}, map[string]any{"size": "Standard_Z1"}, []string{"InvalidTemplateDeployment", "InvalidParameter"}, false},
		{"no host", azuretest.Options{Faults: azuretest.Faults{SoldOut: []string{"Standard_D2s_v5"}}}, nil, []string{"DeploymentFailed", "ResourceDeploymentFailure", "AllocationFailed", "ResourceDeploymentFailure", "AllocationFailed"}, true},
		{"no spot", azuretest.Options{Faults: azuretest.Faults{SoldOutSpot: []string{"Standard_D2s_v5"}}}, map[string]any{"spot": true}, []string{"DeploymentFailed", "SkuNotAvailable", "SkuNotAvailable"}, true},
		{"wrong image", azuretest.Options{}, map[string]any{"size": "Standard_D2ps_v5"}, []string{"DeploymentFailed", "BadRequest", "BadRequest"}, true},
		{"role", azuretest.Options{Faults: azuretest.Faults{Deny: []string{"Microsoft.Compute/virtualMachines/*"}}}, nil, []string{"InvalidTemplateDeployment"}, false},
		{"registration", azuretest.Options{Unregistered: []string{"Microsoft.DevTestLab"}}, nil, []string{"DeploymentFailed", "MissingSubscriptionRegistration", "MissingSubscriptionRegistration"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, test.options)
			ctx := t.Context()
			if err := s.group(ctx, "g"); err != nil {
				t.Fatal(err)
			}
			_, err := s.deploy(ctx, "g", clusterTemplate(t), cluster("n", 2, test.more))
			if got := details(err); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%v, not %v: %v", got, test.want, err)
			}
			if left := len(s.e.Resources()) > 1; left != test.made {
				t.Errorf("left: %+v", s.e.Resources())
			}
			if test.made {
				failed := 0
				for pager := s.operations.NewListPager("g", "g", nil); pager.More(); {
					page, err := pager.NextPage(ctx)
					if err != nil {
						t.Fatal(err)
					}
					for _, op := range page.Value {
						if *op.Properties.ProvisioningState == "Failed" && op.Properties.StatusMessage.Error.Code != nil {
							failed++
						}
					}
				}
				if failed != 2 {
					t.Errorf("%d failed operations", failed)
				}
			}
			if err := s.drop(ctx, "g"); err != nil {
				t.Fatal(err)
			}
			if left := s.e.Resources(); len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// once is the SDK without its own tries.
func once() context.Context {
	return policy.WithRetryOptions(context.Background(), policy.RetryOptions{MaxRetries: -1})
}

// What is scripted happens exactly then.
func TestScriptedFaults(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{})
	group := func(name string) error { return s.group(once(), name) }
	there := func(name string) bool {
		for _, r := range s.e.Resources() {
			if r.ID == "/subscriptions/"+s.e.Subscription()+"/resourceGroups/"+name {
				return true
			}
		}
		return false
	}
	for _, test := range []struct {
		do    azuretest.Fault
		want  string
		there bool
	}{
		{azuretest.FaultThrottle, "SubscriptionRequestsThrottled", false},
		{azuretest.FaultError, "InternalServerError", false},
		{azuretest.FaultErrorAfter, "InternalServerError", true},
		{azuretest.FaultCutBefore, "", false},
		{azuretest.FaultCutAfter, "", true},
		{azuretest.FaultDuplicate, "<nil>", true},
		{azuretest.FaultSlow, "<nil>", true},
	} {
		s.e.SetFaults(azuretest.Faults{Rules: []azuretest.Rule{{Method: http.MethodPut, Path: "/resourcegroups/", Skip: 1, Do: test.do, Delay: time.Millisecond}}})
		name := "g-" + string(test.do)
		if err := group(name + "-first"); err != nil {
			t.Fatalf("%s: the first is to be skipped: %v", test.do, err)
		}
		err := group(name)
		if test.want == "" && err == nil || test.want != "" && code(err) != test.want {
			t.Errorf("%s: %v", test.do, err)
		}
		if there(name) != test.there {
			t.Errorf("%s: there is %t", test.do, there(name))
		}
		if test.do == azuretest.FaultThrottle {
			var r *azcore.ResponseError
			if !errors.As(err, &r) || r.RawResponse.Header.Get("Retry-After") != "1" || r.RawResponse.Header.Get("X-Ms-Ratelimit-Remaining-Subscription-Writes") != "0" {
				t.Errorf("429 says %v", err)
			}
		}
		if err := group(name + "-third"); err != nil {
			t.Fatalf("%s: once is enough: %v", test.do, err)
		}
	}
	faulty := 0
	for _, c := range s.e.Calls() {
		if c.Fault != "" {
			faulty++
		}
	}
	if faulty != 7 {
		t.Errorf("%d calls are told to have failed", faulty)
	}
}

// Lists and single answers that lag show the past.
func TestStaleAnswers(t *testing.T) {
	t.Parallel()
	// Longer than this machine may take to ask, however busy it is.
	s := start(t, azuretest.Options{Faults: azuretest.Faults{ListLag: 30 * time.Second, GetLag: 30 * time.Second}})
	ctx := t.Context()
	if err := s.group(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	seen := func() bool {
		page, err := s.groups.NewListPager(&armresources.ResourceGroupsClientListOptions{Filter: to.Ptr("tagName eq 'skyport-owner'")}).NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Value) > 0
	}
	until := func(want bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); seen() != want; {
			if time.Now().After(end) {
				t.Fatal("the list lags for ever")
			}
		}
	}
	if seen() {
		t.Error("a list does not lag")
	}
	s.e.SetFaults(azuretest.Faults{ListLag: 300 * time.Millisecond, GetLag: 300 * time.Millisecond})
	until(true)
	if err := s.drop(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	until(false)
}

// With every fault at once, a caller who insists gets what is asked for, and
// nothing else.
func TestStorm(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{Seed: 7, Faults: azuretest.Faults{
		Throttle: 0.05, Error: 0.05, ErrorAfter: 0.05, CutBefore: 0.05, CutAfter: 0.05, Duplicate: 0.05, Slow: 0.05, Delay: time.Millisecond, RetryAfter: time.Millisecond,
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	insist := func(what string, do func() error, fine ...string) {
		for {
			err := do()
			if err == nil || len(fine) > 0 && code(err) == fine[0] {
				return
			}
			if ctx.Err() != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
		}
	}
	template := clusterTemplate(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprint("swm-", i)
			insist("group", func() error { return s.group(ctx, name) })
			insist("deployment", func() error { _, err := s.deploy(ctx, name, template, cluster(name, 2, nil)); return err })
			insist("removal", func() error { return s.drop(ctx, name) }, "ResourceGroupNotFound")
			insist("end", func() error {
				_, err := s.groups.Get(ctx, name, nil)
				if err == nil {
					return errors.New("it is still there")
				}
				return err
			}, "ResourceGroupNotFound")
		})
	}
	all.Wait()
	s.e.SetFaults(azuretest.Faults{})
	if left := s.e.Resources(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

// A hundred partitions at once, in memory.
func TestHundred(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{Boot: 50 * time.Millisecond})
	ctx := t.Context()
	template := clusterTemplate(t)
	began := time.Now()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			name := fmt.Sprint("swm-", i)
			if err := s.group(ctx, name); err != nil {
				t.Error(err)
				return
			}
			if _, err := s.deploy(ctx, name, template, cluster(name, 2, nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("100 partitions of 2 nodes: %s", time.Since(began))
	if n := len(s.e.Resources()); n != 100*13 {
		t.Errorf("%d resources", n)
	}
	for i := range 100 {
		all.Go(func() {
			if err := s.drop(ctx, fmt.Sprint("swm-", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("and gone: %s", time.Since(began))
	if left := s.e.Resources(); len(left) > 0 {
		t.Errorf("left: %d", len(left))
	}
}
