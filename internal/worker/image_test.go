package worker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// engine returns a client of the machine's container engine.
func engine(t *testing.T) *client.Client {
	t.Helper()
	api, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	if _, err := api.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		t.Skipf("no container engine answers: %v", err)
	}
	return api
}

// busybox is a statically linked one, which images are made of.
func busybox(t *testing.T) []byte {
	t.Helper()
	for _, path := range []string{"/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static"} {
		f, err := elf.Open(path)
		if err != nil {
			continue
		}
		libraries, _ := f.ImportedLibraries()
		_ = f.Close()
		if len(libraries) > 0 {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	t.Skip("no static busybox on this machine (Debian: busybox-static)")
	return nil
}

// file is one of an image. A link has no data.
type file struct {
	name, link string
	data       []byte
}

// rootfs makes a tar file of a root file system.
func rootfs(t *testing.T, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		if f.link != "" {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, f.link, 0
		}
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// shellFiles make an image with a shell and a few programs, and nothing else: no
// bash, no /etc/passwd.
func shellFiles(t *testing.T) []file {
	files := []file{{name: "bin/busybox", data: busybox(t)}}
	for _, name := range []string{"sh", "cat", "echo", "env", "id", "ls", "ps", "sleep", "stty", "touch", "true", "kill", "head", "dd", "mount"} {
		files = append(files, file{name: "bin/" + name, link: "busybox"})
	}
	return files
}

// image makes an image of a root file system, with instructions of a Dockerfile.
func image(t *testing.T, api *client.Client, root string, changes ...string) string {
	t.Helper()
	name := "skyport-test/" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")) + ":" + string(skyport.NewJobID())[:8]
	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := api.ImageImport(t.Context(), client.ImageImportSource{Source: f, SourceName: "-"}, name,
		client.ImageImportOptions{Changes: append(changes, "LABEL "+imageLabel())})
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(got)
	if err != nil || bytes.Contains(said, []byte(`"error"`)) {
		t.Fatalf("%s, %v", said, err)
	}
	removeImage(t, api, name)
	return name
}

// imageLabel marks the images that this process makes.
func imageLabel() string { return fmt.Sprintf("skyport.test.worker=%d", os.Getpid()) }

// pruneImages removes what lost its name while containers still were made of it.
func pruneImages() {
	prune := exec.Command("docker", "image", "prune", "--force", "--filter", "label="+imageLabel())
	_ = prune.Run() // there may be no engine, and then nothing to remove
}

// removeImage has an image removed at the end of the test.
func removeImage(t *testing.T, api *client.Client, name string) {
	t.Cleanup(func() {
		_, _ = api.ImageRemove(context.Background(), name, client.ImageRemoveOptions{Force: true, PruneChildren: true}) // may not have come
	})
}

// containers lists the names of those of a node.
func (n *node) containers(api *client.Client) []string {
	n.t.Helper()
	list, err := api.ContainerList(context.Background(), client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", "skyport.dir="+n.dir),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	var names []string
	for _, item := range list.Items {
		names = append(names, item.Names...)
	}
	return names
}

// containerNode is a node that must have no containers in the end.
func containerNode(t *testing.T) (*node, *client.Client) {
	t.Helper()
	api := engine(t)
	var n *node
	t.Cleanup(func() {
		if n == nil {
			return
		}
		if left := n.containers(api); len(left) > 0 {
			t.Errorf("left: %v", left)
			for _, name := range left {
				_, _ = api.ContainerRemove(context.Background(), name, client.ContainerRemoveOptions{Force: true})
			}
		}
	})
	n = newNode(t)
	return n, api
}

// contained is a run in a container.
func contained(image, text string) protocol.RunSpec {
	spec := script(text)
	spec.Request.ContainerImage = image
	return spec
}
