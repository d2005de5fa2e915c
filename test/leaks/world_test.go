package leaks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/cloud"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// stage is how far a job's resources have come in the cloud.
type stage int

const (
	stageAsked    stage = iota // core has the job; there is nothing in the cloud
	stageGroup                 // the resource group is there
	stageMachines              // so is a virtual machine
	stageMade                  // the gate has seen that all is there, and core goes to use it
	stageRemoval               // the group is condemned, or being deleted
)

func (s stage) String() string {
	return []string{"asked", "group", "machines", "made", "removal"}[s]
}

var stages = []stage{stageAsked, stageGroup, stageMachines, stageMade, stageRemoval}

// world is the emulated cloud, with what the test has seen in it.
type world struct {
	t       *testing.T
	e       *azuretest.Emulator
	client  *http.Client
	foreign []string // ids of what others have put there, sorted

	stop     context.CancelFunc
	watching sync.WaitGroup

	mu     sync.Mutex
	stages map[skyport.JobID]stage                          // how far each has come
	groups map[skyport.JobID]map[skyport.PartitionID]string // with names, of all that were seen
}

func newWorld(t *testing.T, machines azuretest.Machines) *world {
	t.Helper()
	e, err := azuretest.New(azuretest.Options{
		Machines: machines, Seed: *seed,
		Latency: 30 * time.Millisecond, Boot: 100 * time.Millisecond, RetryAfter: 100 * time.Millisecond,
		// Longer than it takes to look after core has said that all is gone: who only asks for a removal is found out.
		Removal: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, e: e, client: e.Client(), stages: map[skyport.JobID]stage{}, groups: map[skyport.JobID]map[skyport.PartitionID]string{}}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.watching.Go(func() { w.watch(ctx) })
	return w
}

func (w *world) close() {
	w.stop()
	w.watching.Wait()
	if err := w.e.Close(); err != nil {
		w.t.Error(err)
	}
}

// gateFile is the gate.yaml that a person would write for this cloud.
func (w *world) gateFile() []byte {
	e := w.e
	return fmt.Appendf(nil, `sites:
  - kind: azure
    name: %s
    region: %s
    subscription: %s
    credentials: {tenant: %s, client_id: %s, client_secret: %q}
    endpoint: %s
    authority: %s
    prices_url: %s
    ca_file: %s
    ssh_from: [192.0.2.0/24]
    flavors: [Standard_D*s_v5]
    poll: %s
`, siteName, e.Location(), e.Subscription(), e.Tenant(), e.ClientID(), e.ClientSecret(), e.URL(), e.Authority(), e.PricesURL(), e.CAFile(), poll)
}

// watch notes how far jobs have come.
func (w *world) watch(ctx context.Context) {
	for rest(ctx, 8*time.Millisecond) {
		all := w.e.Resources()
		w.mu.Lock()
		for _, r := range all {
			job := skyport.JobID(r.Tags[cloud.TagJob])
			if job == "" {
				continue
			}
			at := stageGroup
			switch {
			case r.Tags[cloud.TagCondemned] != "" || r.State == "Deleting":
				at = stageRemoval
			case r.Tags["skyport-made"] != "":
				at = stageMade
			case strings.HasSuffix(r.Kind, "/virtualMachines"):
				at = stageMachines
			}
			w.stages[job] = max(w.stages[job], at)
			if w.groups[job] == nil {
				w.groups[job] = map[skyport.PartitionID]string{}
			}
			w.groups[job][skyport.PartitionID(r.Tags[cloud.TagPartition])] = groupOf(r.ID)
		}
		w.mu.Unlock()
	}
}

// reached says whether a job has come so far.
func (w *world) reached(job skyport.JobID, at stage) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stages[job] >= at
}

// seen are all partitions that were there for a job.
func (w *world) seen(job skyport.JobID) (all []skyport.PartitionID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.groups[job] {
		all = append(all, id)
	}
	return all
}

// of is what there is of a job and its partitions at this moment.
func (w *world) of(job skyport.JobID, partitions []skyport.PartitionID) (left []string) {
	for _, r := range w.e.Resources() {
		mine := r.Tags[cloud.TagJob] == string(job)
		for _, id := range partitions {
			mine = mine || r.Tags[cloud.TagPartition] == string(id) || strings.EqualFold(groupOf(r.ID), "swm-"+string(id))
		}
		if mine {
			left = append(left, describe(r))
		}
	}
	return left
}

// strangers are resources beside the foreign ones, and missing are foreign ones
// that are not there any more.
func (w *world) strangers() (strangers, missing []string) {
	there := map[string]bool{}
	for _, r := range w.e.Resources() {
		there[r.ID] = true
		if _, ok := slices.BinarySearch(w.foreign, r.ID); !ok {
			strangers = append(strangers, describe(r))
		}
	}
	for _, id := range w.foreign {
		if !there[id] {
			missing = append(missing, id)
		}
	}
	return strangers, missing
}

func describe(r azuretest.Resource) string {
	return fmt.Sprintf("%s %s %s %v", r.ID, r.State, r.Power, r.Tags)
}

func groupOf(id string) string {
	s := strings.Split(id, "/")
	if len(s) < 5 {
		return ""
	}
	return s[4]
}

// plantForeign puts there what is not ours: a group of somebody's, one that is
// named as ours are, and one of another core.
func (w *world) plantForeign() {
	another, nobodys := skyport.NewPartitionID(), skyport.NewPartitionID()
	w.plant("customers-own", nil)
	w.plant("swm-"+string(nobodys), nil)
	w.plant("swm-"+string(another), map[string]string{
		cloud.TagOwner: "another-core", cloud.TagPartition: string(another), cloud.TagDeleteAt: time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339),
	})
	for _, r := range w.e.Resources() {
		w.foreign = append(w.foreign, r.ID)
	}
	slices.Sort(w.foreign)
}

// plant makes a group with a public address in it.
func (w *world) plant(name string, tags map[string]string) {
	w.t.Helper()
	at := "/subscriptions/" + w.e.Subscription() + "/resourceGroups/" + name
	w.call(http.MethodPut, at+"?api-version=2021-04-01", map[string]any{"location": w.e.Location(), "tags": tags})
	w.call(http.MethodPut, at+"/providers/Microsoft.Network/publicIPAddresses/"+name+"-ip?api-version=2025-01-01", map[string]any{
		"location": w.e.Location(), "tags": tags, "sku": map[string]any{"name": "Standard"},
		"properties": map[string]any{"publicIPAllocationMethod": "Static"},
	})
}

// retag changes tags of a group.
// https://learn.microsoft.com/rest/api/resources/tags/update-at-scope
func (w *world) retag(name string, tags map[string]string) {
	w.t.Helper()
	w.call(http.MethodPatch, "/subscriptions/"+w.e.Subscription()+"/resourceGroups/"+name+"/providers/Microsoft.Resources/tags/default?api-version=2021-04-01",
		map[string]any{"operation": "Merge", "properties": map[string]any{"tags": tags}})
}

// call makes a call as somebody else with the same rights.
func (w *world) call(method, path string, body any) {
	w.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.e.URL()+path, bytes.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+w.token())
	request.Header.Set("Content-Type", "application/json")
	answer, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	if said, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode >= http.StatusBadRequest {
		w.t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
}

// token logs in. https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
func (w *world) token() string {
	w.t.Helper()
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {w.e.ClientID()}, "client_secret": {w.e.ClientSecret()}, "scope": {w.e.URL() + "/.default"},
	}
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.e.Authority()+"/"+w.e.Tenant()+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }() // only read
	var said struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil || said.Token == "" {
		w.t.Fatalf("log in: %s %v", answer.Status, err)
	}
	return said.Token
}

// forgetCalls lets the emulator forget the calls, which it has been asked about.
func (w *world) forgetCalls() {
	request, err := http.NewRequestWithContext(w.t.Context(), http.MethodDelete, w.e.URL()+"/emulator/calls", http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	answer, err := w.client.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = answer.Body.Close() // nothing to read
}
