package azuretest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"

	azuretest "github.com/openworkload/skyport/test/azure"
)

func (s *sdk) power(t *testing.T, group, vm string) string {
	t.Helper()
	v, err := s.vms.InstanceView(t.Context(), group, vm, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range v.Statuses {
		if (*status.Code)[:5] == "Power" {
			return *status.Code
		}
	}
	return ""
}

// A schedule deallocates its machine when it is due, and not before.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{TokenLife: 100 * time.Hour})
	ctx := t.Context()
	if err := s.group(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	due := time.Now().UTC().Add(2 * time.Hour)
	if _, err := s.deploy(ctx, "g", clusterTemplate(t), cluster("n", 1, map[string]any{"shutdown": due.Format("1504")})); err != nil {
		t.Fatal(err)
	}
	s.e.Advance(time.Hour)
	if got := s.power(t, "g", "n-0"); got != "PowerState/running" {
		t.Fatalf("before it is due it is %s", got)
	}
	s.e.Advance(2 * time.Hour)
	for end := time.Now().Add(10 * time.Second); s.power(t, "g", "n-0") != "PowerState/deallocated"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody shuts it down")
		}
	}
	again, err := s.vms.BeginStart(ctx, "g", "n-0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.power(t, "g", "n-0"); got != "PowerState/running" {
		t.Errorf("started again it is %s", got)
	}
}

// call steers the emulator as another process does.
func (s *sdk) call(t *testing.T, method, path string, body, into any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.e.URL()+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := s.options.Transport.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", method, path, answer.Status)
	}
	if into != nil {
		if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
}

// Spot machines are taken back, by a call of another process.
func TestEviction(t *testing.T) {
	t.Parallel()
	s := start(t, azuretest.Options{})
	ctx := t.Context()
	if err := s.group(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.deploy(ctx, "g", clusterTemplate(t), cluster("n", 1, map[string]any{"spot": true})); err != nil {
		t.Fatal(err)
	}
	vm, err := s.vms.Get(ctx, "g", "n-0", nil)
	if err != nil || *vm.Properties.Priority != armcompute.VirtualMachinePriorityTypesSpot {
		t.Fatalf("%+v: %v", vm.Properties, err)
	}
	s.call(t, http.MethodPost, "/emulator/evict?id="+url.QueryEscape(*vm.ID), nil, nil)
	if _, err := s.vms.Get(ctx, "g", "n-0", nil); code(err) != "ResourceNotFound" {
		t.Errorf("the machine: %v", err)
	}
	var left []azuretest.Resource
	s.call(t, http.MethodGet, "/emulator/resources", nil, &left)
	for _, r := range left {
		if r.Kind == "Microsoft.Compute/disks" || r.Kind == "Microsoft.Network/networkInterfaces" {
			t.Errorf("%s is to go with it", r.ID)
		}
	}
	s.call(t, http.MethodPut, "/emulator/faults", azuretest.Faults{Down: true}, nil)
	if err := s.group(once(), "h"); code(err) != "ServerUnavailable" {
		t.Errorf("down: %v", err)
	}
	s.call(t, http.MethodPut, "/emulator/faults", azuretest.Faults{}, nil)
	var calls []azuretest.Call
	s.call(t, http.MethodGet, "/emulator/calls", nil, &calls)
	if len(calls) < 5 || calls[len(calls)-1].Status != http.StatusServiceUnavailable {
		t.Errorf("calls %+v", calls)
	}
}

// What exists outlives the emulator, when it has a file.
func TestState(t *testing.T) {
	t.Parallel()
	o := azuretest.Options{State: filepath.Join(t.TempDir(), "state.json"), RetryAfter: 10 * time.Millisecond}
	e, err := azuretest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	first := connect(t, e)
	ctx := t.Context()
	if err := first.group(ctx, "g"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.deploy(ctx, "g", clusterTemplate(t), cluster("n", 2, nil)); err != nil {
		t.Fatal(err)
	}
	was := e.Resources()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, o)
	if is := second.e.Resources(); len(is) != len(was) || len(is) != 13 {
		t.Fatalf("%d resources, of %d", len(is), len(was))
	}
	vm, err := second.vms.Get(ctx, "g", "n-1", &armcompute.VirtualMachinesClientGetOptions{Expand: to.Ptr(armcompute.InstanceViewTypesInstanceView)})
	if err != nil || *vm.Properties.InstanceView.Statuses[1].Code != "PowerState/running" {
		t.Errorf("%+v: %v", vm.Properties, err)
	}
	if err := second.drop(ctx, "g"); err != nil {
		t.Fatal(err)
	}
}
