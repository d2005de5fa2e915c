package workerbin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/openworkload/skyport"
)

func TestInstall(t *testing.T) {
	t.Parallel()
	if _, err := Hash("amd64"); err != nil {
		t.Skip("built without worker binaries: ", err)
	}
	dir := t.TempDir()
	// Many at once, as nodes of one machine do.
	paths := make([]string, 4)
	var all sync.WaitGroup
	for i := range paths {
		all.Go(func() {
			path, err := Install(dir, "amd64")
			if err != nil {
				t.Error(err)
			}
			paths[i] = path
		})
	}
	all.Wait()
	for _, path := range paths {
		if path != paths[0] {
			t.Fatalf("installed at %s and %s", paths[0], path)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v, %v; want the one binary", entries, err)
	}

	// What was damaged on disk is mended by the next process.
	if err := os.WriteFile(paths[0], []byte("damaged"), 0o700); err != nil {
		t.Fatal(err)
	}
	installed.Delete(paths[0])
	if _, err := Install(dir, "amd64"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(paths[0], "version").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		t.Fatalf("the installed worker says %q, %v", out, err)
	}
}

func TestUnknownArchitecture(t *testing.T) {
	t.Parallel()
	_, err := Install(filepath.Join(t.TempDir(), "none"), "vax")
	if skyport.CodeOf(err) != skyport.CodeUnsupported || !strings.Contains(skyport.HintOf(err), "make build") {
		t.Fatalf("got %v (%s)", err, skyport.HintOf(err))
	}
}

func TestGzip(t *testing.T) {
	t.Parallel()
	hash, err := Hash("arm64")
	if err != nil {
		t.Skip("built without worker binaries: ", err)
	}
	for range 2 {
		packed, err := Gzip("arm64")
		if err != nil {
			t.Fatal(err)
		}
		content, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, content); err != nil || hex.EncodeToString(sum.Sum(nil)) != hash {
			t.Fatalf("unpacked, it is another: %v", err)
		}
	}
	if _, err := Gzip("vax"); skyport.CodeOf(err) != skyport.CodeUnsupported {
		t.Errorf("for vax: %v", err)
	}
}
