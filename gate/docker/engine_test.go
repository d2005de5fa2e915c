package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
)

const (
	patience = time.Minute
	mark     = "io.openworkload.skyport.test" // label of all that tests make
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := removeLight(); err != nil {
			slog.Error("the test's image stays", "error", err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

// connect is a client of the engine; without an engine the test is skipped.
func connect(t *testing.T) *client.Client {
	t.Helper()
	engine, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() }) // idle connections
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := engine.Ping(ctx, client.PingOptions{}); err != nil {
		t.Skipf("needs a Docker engine: %v", err)
	}
	return engine
}

// light is an image that boots at once: busybox, greeting like an SSH server.
var light struct {
	sync.Mutex
	name string
}

func lightImage(t *testing.T) string {
	t.Helper()
	engine := connect(t)
	light.Lock()
	defer light.Unlock()
	if light.name != "" {
		return light.name
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (Debian: busybox-static)")
	}
	binary, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(h *tar.Header, content []byte) {
		h.Mode, h.Size = 0o755, int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg}, binary)
	for _, name := range []string{"sh", "cat", "grep", "rm", "sleep", "nc", "echo", "head", "tail"} {
		add(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(&tar.Header{Name: "init", Typeflag: tar.TypeReg}, []byte("#!/bin/sh\n"+
		"[ -z \"$SKYPORT_BOOT_DELAY\" ] || sleep $SKYPORT_BOOT_DELAY\n"+
		"trap 'exit 0' TERM\nnc -ll -p 22 -e /bin/echo SSH-2.0-light &\nwait\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("skyport-test-light:%d", os.Getpid())
	answer, err := engine.ImageImport(t.Context(), client.ImageImportSource{Source: &archive, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: []string{`CMD ["/init"]`, "LABEL " + mark + "=light"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, answer)
	if err = cmpErr(err, answer.Close()); err != nil {
		t.Fatal(err)
	}
	light.name = name
	return name
}

func removeLight() error {
	light.Lock()
	defer light.Unlock()
	if light.name == "" {
		return nil
	}
	engine, err := client.New(client.FromEnv)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }() // idle connections
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = engine.ImageRemove(ctx, light.name, client.ImageRemoveOptions{Force: true})
	return err
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// options are for a site of the test's own, of which nothing is left.
func options(t *testing.T) docker.Options {
	t.Helper()
	image := lightImage(t)
	site := "test-" + string(skyport.NewPartitionID())[:13]
	t.Cleanup(func() { sweep(t, site) })
	return docker.Options{
		Site: site, Image: image, NoEngine: true,
		Labels:  map[string]string{mark: t.Name()},
		Flavors: []skyport.Flavor{{Name: "tiny", CPUs: 1, Memory: 64 << 20}},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// sweep removes what is left of a site, and complains when the provider should
// have done it.
func sweep(t *testing.T, site string) {
	t.Helper()
	engine := connect2(t)
	defer func() { _ = engine.Close() }() // idle connections
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	complain := func(what, name string, err error) {
		if t.Errorf("%s %s was left", what, name); err != nil {
			t.Error(err)
		}
	}
	filter := client.Filters{}.Add("label", "io.openworkload.skyport.site="+site)
	containers, err := engine.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filter})
	if err != nil {
		t.Error(err)
	}
	for _, c := range containers.Items {
		_, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
		complain("container", fmt.Sprint(c.Names), err)
	}
	networks, err := engine.NetworkList(ctx, client.NetworkListOptions{Filters: filter})
	if err != nil {
		t.Error(err)
	}
	for _, n := range networks.Items {
		_, err := engine.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		complain("network", n.Name, err)
	}
	volumes, err := engine.VolumeList(ctx, client.VolumeListOptions{Filters: filter})
	if err != nil {
		t.Error(err)
	}
	for _, v := range volumes.Items {
		_, err := engine.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true})
		complain("volume", v.Name, err)
	}
}

func connect2(t *testing.T) *client.Client {
	t.Helper()
	engine, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

func open(t *testing.T, o docker.Options) *docker.Provider {
	t.Helper()
	p, err := docker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

var _ gate.Provider = (*docker.Provider)(nil)
