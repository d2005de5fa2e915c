package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/system"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

func TestCDIDevices(t *testing.T) {
	t.Parallel()
	one, two := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one, "nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"1\"\n  containerEdits: {}\n- name: \"0\"\n- name: all\n- name: GPU-8f2b\n")
	write(two, "more.json", `{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"0"},{"name":"2"}]}`)
	write(two, "other.json", `{"kind":"example.com/nic","devices":[{"name":"7"}]}`)
	write(two, "broken.yaml", "kind: [")
	write(two, "note.txt", "kind: nvidia.com/gpu")
	if got := cdiDevices([]string{one, two, filepath.Join(one, "none")}); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("found %v", got)
	}
}

func TestGPURequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		node  gpuNode
		count int
		taken []int
		want  string // the request in JSON, or what the error contains
		fails bool
	}{
		{
			name: "cdi", node: gpuNode{version: "1.44", cdi: []int{0, 1, 2}}, count: 2, taken: []int{0},
			want: `{"Driver":"cdi","Count":0,"DeviceIDs":["nvidia.com/gpu=1","nvidia.com/gpu=2"],"Capabilities":null,"Options":null}`,
		},
		{
			name: "podman", node: gpuNode{version: "1.41", podman: true, cdi: []int{0}}, count: 1,
			want: `{"Driver":"cdi","Count":0,"DeviceIDs":["nvidia.com/gpu=0"],"Capabilities":null,"Options":null}`,
		},
		{
			name: "nvidia's own runtime", node: gpuNode{version: "1.41", cdi: []int{0, 1}, nvidia: true, devices: []int{0, 1}}, count: 1, taken: []int{0},
			want: `{"Driver":"nvidia","Count":0,"DeviceIDs":["1"],"Capabilities":[["gpu"]],"Options":null}`,
		},
		{name: "none", node: gpuNode{version: "1.48"}, count: 1, fails: true, want: "asks for 1 GPU, and the node's container engine can give none: no device nvidia.com/gpu in /etc/cdi and /var/run/cdi, no nvidia runtime, 0 devices /dev/nvidia…"},
		{name: "too few", node: gpuNode{version: "1.48", cdi: []int{0}}, count: 2, fails: true, want: "1 device by CDI"},
		{name: "too old", node: gpuNode{version: "1.41", cdi: []int{0, 1}}, count: 2, fails: true, want: "2 devices by CDI, which its API 1.41 does not know (1.44 does)"},
		{name: "in use", node: gpuNode{version: "1.48", cdi: []int{0, 1}}, count: 2, taken: []int{1}, fails: true, want: "of the node's 2 only 1 are free"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request, numbers, err := tt.node.request(tt.count, tt.taken)
			if tt.fails {
				if skyport.CodeOf(err) != skyport.CodeUnsatisfiable || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v", err)
				}
				return
			}
			got, _ := json.Marshal(request)
			if err != nil || string(got) != tt.want || len(numbers) != tt.count {
				t.Errorf("%s, %v, %v", got, numbers, err)
			}
		})
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	run := Run{Spec: protocol.RunSpec{CPUs: 2, Memory: 1 << 30}}
	e := &engine{info: system.Info{CPUCfsQuota: true, MemoryLimit: true, NCPU: 4}}
	var r container.Resources
	if said := limit(&r, e, run); said != "cpu limit 2 by docker, memory limit 1024 MiB by docker" || r.NanoCPUs != 2e9 || r.Memory != 1<<30 || r.MemorySwap != 1<<30 {
		t.Errorf("%q, %+v", said, r)
	}
	r = container.Resources{}
	e = &engine{podman: true, rootless: true}
	if said := limit(&r, e, run); !strings.Contains(said, "memory limit not enforced: podman cannot on this node") || r.Memory != 0 || r.NanoCPUs != 0 {
		t.Errorf("%q, %+v", said, r)
	}
	if got := sharedMemory(1<<30, 0); got != 512<<20 {
		t.Errorf("shm %d", got)
	}
	if got := sharedMemory(1<<20, 0); got != 64<<20 {
		t.Errorf("shm %d", got)
	}
}

// What a node's kernel can is asked of it where Podman says less.
func TestControlled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if controlled(dir, "cpu") {
		t.Error("a node without cgroups v2 has a controller of them")
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !controlled(dir, "cpu") || controlled(dir, "cp") || controlled(dir, "rdma") {
		t.Error("the controllers are not those that the kernel names")
	}
}

func TestLayers(t *testing.T) {
	t.Parallel()
	ls := newLayers()
	say := func(id, status string, current, total int64) string {
		ls.add(jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: current, Total: total}})
		return ls.details("i:1")
	}
	steps := []struct {
		id, status     string
		current, total int64
		want           string
	}{
		{"1", "Pulling from library/i", 0, 0, ""},
		{"a", "Pulling fs layer", 0, 0, ""},
		{"b", "Already exists", 0, 0, ""},
		{"a", "Downloading", 1 << 20, 10 << 20, "Pulling i:1: 1.0 MiB of 10.0 MiB"},
		{"c", "Downloading", 5 << 20, 20 << 20, "Pulling i:1: 6.0 MiB of 30.0 MiB"},
		{"a", "Download complete", 0, 0, "Pulling i:1: 15.0 MiB of 30.0 MiB"},
		{"a", "Extracting", 4 << 20, 10 << 20, "Pulling i:1: 15.0 MiB of 30.0 MiB"},
		{"c", "Download complete", 0, 0, "Unpacking i:1: 4.0 MiB of 30.0 MiB"},
		{"a", "Pull complete", 0, 0, "Unpacking i:1: 10.0 MiB of 30.0 MiB"},
	}
	for _, s := range steps {
		if got := say(s.id, s.status, s.current, s.total); got != s.want {
			t.Errorf("%s %s: %q, want %q", s.id, s.status, got, s.want)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	named, err := reference.ParseNormalizedNamed("reg.example.org/a:1")
	if err != nil {
		t.Fatal(err)
	}
	p := &pull{image: "reg.example.org/a:1", named: named, login: protocol.Registry{Host: "reg.example.org"}}
	tests := []struct {
		said  string
		code  skyport.Code // of a final error; empty: try again
		limit time.Duration
		asked time.Duration
	}{
		{said: "toomanyrequests: retry-after: 1500ms, allowed: 44000/minute", limit: patience, asked: 1500 * time.Millisecond},
		{said: "toomanyrequests: You have reached your pull rate limit", limit: patience},
		{said: "received unexpected HTTP status: 503 Service Unavailable", limit: patience},
		{said: "net/http: TLS handshake timeout", limit: patience},
		{said: "dial tcp: lookup reg.example.org: no such host", limit: shortPatience},
		{said: "manifest for reg.example.org/a:1 not found: manifest unknown", code: skyport.CodeUnknownImage},
		{said: "pull access denied for a, repository does not exist or may require 'docker login': denied", code: skyport.CodeUnknownImage},
		{said: "unauthorized: authentication required", code: skyport.CodeForbidden},
		{said: "no matching manifest for linux/amd64 in the manifest list entries", code: skyport.CodeUnsupported},
		{said: "x509: certificate signed by unknown authority", code: skyport.CodeUnavailable},
		{said: "write /var/lib/docker/tmp/x: no space left on device", code: skyport.CodeNoSpace},
	}
	for _, tt := range tests {
		limit, asked, final := p.judge(errors.New("Error response from daemon: " + tt.said))
		if tt.code != "" {
			if final == nil || skyport.CodeOf(final) != tt.code {
				t.Errorf("%s: %v", tt.said, final)
			}
			continue
		}
		if final != nil || limit != tt.limit || asked != tt.asked {
			t.Errorf("%s: %v, %s, %s", tt.said, final, limit, asked)
		}
	}
}

// When the run that pulls goes away, another of those who wait takes over.
func TestPullsTakeOver(t *testing.T) {
	t.Parallel()
	var p pulls
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_ = p.do(ctx, "a", func(string) {}, func(ctx context.Context, _ func(string)) error { // its end is not looked at
			close(began)
			<-ctx.Done()
			return ctx.Err()
		})
	})
	<-began
	heard := make(chan string, 1)
	var pulled bool
	all.Go(func() {
		err := p.do(t.Context(), "a", func(s string) { heard <- s }, func(_ context.Context, tell func(string)) error {
			pulled = true
			tell("mine")
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	cancel()
	all.Wait()
	if !pulled || <-heard != "mine" {
		t.Error("nobody took over")
	}
}

func TestRegistryHost(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "..", "../etc", "a/b", "-x", "a:", "a:123456", "a b", "a\x00"} {
		if registryHost.MatchString(bad) {
			t.Errorf("%q is taken for a host", bad)
		}
	}
	for _, good := range []string{"docker.io", "10.0.0.1:5000", "registry.example.org", "localhost:80"} {
		if !registryHost.MatchString(good) {
			t.Errorf("%q is not taken for a host", good)
		}
	}
}
