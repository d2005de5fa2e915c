package worker_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/client"

	"github.com/openworkload/skyport/internal/worker/protocol"
	"github.com/openworkload/skyport/test/registry"
)

// startRegistry starts one with a login and an authority of its own, on an
// address at which the engine takes nothing on trust.
func startRegistry(t *testing.T) *registry.Registry {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	host := ""
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			host = ip.IP.String()
			break
		}
	}
	if host == "" {
		t.Skip("this machine has no address but the loopback's")
	}
	r, err := registry.Start(t.Context(), registry.Options{Listen: host + ":0", Dir: t.TempDir(), Username: "somebody", Password: "s3cr3t-word"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(filepath.Join("/etc/docker/certs.d", r.Host)) // the worker's, when it is root
	})
	return r
}

func login(r *registry.Registry) []protocol.Registry {
	return []protocol.Registry{
		{Host: "other.example.org", Username: "x", Password: "y"},
		{Host: r.Host, Username: "somebody", Password: "s3cr3t-word", CA: string(r.CA)},
	}
}

func add(t *testing.T, api *client.Client, r *registry.Registry, name, root, arch string) string {
	t.Helper()
	full, err := r.Add(t.Context(), name, root, arch)
	if err != nil {
		t.Fatal(err)
	}
	removeImage(t, api, full)
	return full
}

func TestContainerPull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to give the container engine an authority")
	}
	n, api := containerNode(t)
	r := startRegistry(t)
	root := rootfs(t, shellFiles(t)...)

	t.Run("once for many runs", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		image := add(t, api, r, "once:1", root, goruntime.GOARCH)
		var specs []protocol.RunSpec
		for range 4 {
			spec := contained(image, "echo well")
			spec.Registries = login(r)
			specs = append(specs, spec)
			n.prepare(spec)
		}
		for _, spec := range specs {
			if s := n.ended(spec.Run); s.ExitCode != 0 || n.log(spec.Run, "stdout") != "well\n" {
				t.Errorf("%+v", s)
			}
			if _, err := n.client.Prepare(t.Context(), spec); err != nil { // core may ask again
				t.Error(err)
			}
		}
		// One for the tag, one for the digest at most.
		if asked := r.Asked("once"); asked == 0 || asked > 2 {
			t.Errorf("the registry was asked %d times", asked)
		}
		n.findsNoSecret("s3cr3t-word")
	})
	t.Run("after trouble", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		image := add(t, api, r, "trouble:1", root, goruntime.GOARCH)
		var asked atomic.Int32
		r.Fail(func(req *http.Request) int {
			if !strings.Contains(req.URL.Path, "/trouble/manifests/") {
				return 0
			}
			switch asked.Add(1) {
			case 1:
				return http.StatusServiceUnavailable
			case 2:
				return http.StatusTooManyRequests
			}
			return 0
		})
		defer r.Fail(nil)
		spec := contained(image, "echo well")
		spec.Registries = login(r)
		n.prepare(spec)
		n.await("it is told that it will be tried again", func() bool {
			s := n.status(spec.Run)
			return strings.Contains(s.Details, "trying again in") || s.State != protocol.RunStaging
		})
		if s := n.ended(spec.Run); s.ExitCode != 0 || n.log(spec.Run, "stdout") != "well\n" {
			t.Errorf("%+v", s)
		}
		if asked.Load() < 3 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
	t.Run("stopped while trying", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		r.Fail(func(req *http.Request) int {
			if strings.Contains(req.URL.Path, "/never/") {
				return http.StatusBadGateway
			}
			return 0
		})
		defer r.Fail(nil)
		spec := contained(r.Host+"/never:1", "echo no")
		spec.Registries = login(r)
		n.prepare(spec)
		n.await("it is told that it will be tried again", func() bool { return strings.Contains(n.status(spec.Run).Details, "trying again in") })
		if err := n.client.Stop(t.Context(), spec.Run); err != nil {
			t.Fatal(err)
		}
		if s := n.ended(spec.Run); s.State != protocol.RunEnded || !s.Stopped {
			t.Errorf("%+v", s)
		}
	})

	other := map[string]string{"amd64": "arm64", "arm64": "s390x"}[goruntime.GOARCH]
	wrong := login(r)
	wrong[1].Password = "wrong-word"
	noCA := login(r)
	noCA[1].CA = ""
	refusals := []struct {
		name, image string
		logins      []protocol.Registry
		want        []string
	}{
		{"no such image", r.Host + "/nothing:1", login(r), []string{"does not exist in registry " + r.Host}},
		{"no such tag", r.Host + "/once:2", login(r), []string{"does not exist in registry " + r.Host}},
		{"no login", r.Host + "/closed:1", noLogin(login(r)), []string{"wants a login", "skyport secret set registry " + r.Host}},
		{"wrong login", r.Host + "/closed:1", wrong, []string{"refuses the login of somebody", "skyport secret set registry " + r.Host}},
		{"other architecture", add(t, api, r, "foreign:1", root, other), login(r), []string{"is for " + other, "this node is " + goruntime.GOARCH}},
		{"no name", "Not A Name", nil, []string{"container image \"Not A Name\""}},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{t: t, client: n.client, dir: n.dir}
			spec := contained(tt.image, "echo no")
			spec.Registries = tt.logins
			n.prepare(spec)
			s := n.ended(spec.Run)
			for _, want := range tt.want {
				if s.State != protocol.RunRefused || !strings.Contains(s.Details, want) {
					t.Errorf("%s: %s, want %q", s.State, s.Details, want)
				}
			}
			n.findsNoSecret("s3cr3t-word", "wrong-word")
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		n := &node{t: t, client: n.client, dir: n.dir}
		r := startRegistry(t)
		spec := contained(r.Host+"/any:1", "echo no")
		spec.Registries = noLogin([]protocol.Registry{{Host: r.Host}})
		n.prepare(spec)
		if s := n.ended(spec.Run); s.State != protocol.RunRefused || !strings.Contains(s.Details, "is not trusted") || !strings.Contains(s.Details, "--ca") {
			t.Errorf("%+v", s)
		}
	})
	t.Run("no engine", func(t *testing.T) {
		n := newNodeWith(t, "DOCKER_HOST=unix:///nonexistent/engine.sock")
		spec := contained("busybox", "echo no")
		n.prepare(spec)
		if s := n.ended(spec.Run); s.State != protocol.RunRefused || !strings.Contains(s.Details, "no container engine answers on this node") {
			t.Errorf("%+v", s)
		}
	})
}

func noLogin(list []protocol.Registry) []protocol.Registry {
	for i := range list {
		list[i].Username, list[i].Password = "", ""
	}
	return list
}

// findsNoSecret looks through what the worker keeps.
func (n *node) findsNoSecret(words ...string) {
	n.t.Helper()
	err := filepath.WalkDir(n.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // removed meanwhile
		}
		data, _ := os.ReadFile(path) // as above
		for _, word := range words {
			if strings.Contains(string(data), word) {
				n.t.Errorf("%s is in %s", word, path)
			}
		}
		return nil
	})
	if err != nil {
		n.t.Error(err)
	}
}
