package worker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

// put copies files into a directory of the run's work directory, get the other way.
func (n *node) put(run, dir string, paths ...string) error {
	n.t.Helper()
	tree, err := transfer.ScanInputs(n.t.Context(), paths)
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = transfer.Push(n.t.Context(), n.client.HTTP(), n.client.FilesURL(run)+protocol.FilesPut(dir), tree, transfer.Options{Attempts: 1})
	return err
}

func (n *node) get(run, path, into string) error {
	n.t.Helper()
	_, err := transfer.Pull(n.t.Context(), n.client.HTTP(), n.client.FilesURL(run)+protocol.FilesGet(path), into, transfer.Options{Attempts: 1})
	return err
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func checkFile(t *testing.T, path, want string) {
	t.Helper()
	if data, err := os.ReadFile(path); err != nil || string(data) != want {
		t.Errorf("%s: %q, %v; want %q", path, data[:min(len(data), 100)], err, want[:min(len(want), 100)])
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script(waits)
	n.runs(spec)
	here, work := t.TempDir(), filepath.Join(n.dir, "runs", spec.Run, "work")
	large := strings.Repeat("0123456789abcdef", 1<<18)
	write(t, here+"/tree/a/b.txt", "b")
	write(t, here+"/tree/large", large)
	one := write(t, here+"/one.txt", "one")
	for _, dir := range []string{".", "new/dir"} {
		if err := n.put(spec.Run, dir, here+"/tree", one); err != nil {
			t.Fatal(err)
		}
		checkFile(t, filepath.Join(work, dir, "tree/a/b.txt"), "b")
		checkFile(t, filepath.Join(work, dir, "tree/large"), large)
		checkFile(t, filepath.Join(work, dir, "one.txt"), "one")
	}
	write(t, one, "changed")
	if err := n.put(spec.Run, ".", one); err != nil {
		t.Fatal(err)
	}
	checkFile(t, work+"/one.txt", "changed")
	if left, err := filepath.Glob(work + "/.skyport*"); err != nil || len(left) > 0 {
		t.Errorf("left in the work directory: %v, %v", left, err)
	}

	back := t.TempDir()
	for path, want := range map[string]string{"new/dir/tree": "tree/a/b.txt", "new/dir/one.txt": "one.txt", "tree/a/b.txt": "b.txt", ".": "new/dir/tree/a/b.txt"} {
		if err := n.get(spec.Run, path, back); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Stat(filepath.Join(back, want)); err != nil {
			t.Error(err)
		}
	}
	checkFile(t, back+"/tree/large", large)
	// What changed is seen: the job goes on writing.
	write(t, work+"/one.txt", "and again")
	if err := n.get(spec.Run, "one.txt", back); err != nil {
		t.Error(err)
	}
	checkFile(t, back+"/one.txt", "and again")

	// After the end, and before the start.
	if err := n.client.Stop(t.Context(), spec.Run); err != nil {
		t.Fatal(err)
	}
	n.ended(spec.Run)
	if err := n.get(spec.Run, "tree/a", back); err != nil {
		t.Error(err)
	}
	checkFile(t, back+"/a/b.txt", "b")
	if err := n.client.Remove(t.Context(), spec.Run); err != nil {
		t.Error(err)
	}
	if err := n.get(spec.Run, ".", back); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("files of a run that is gone: %v", err)
	}
}

// No path and no link of the job's leads out of its work directory.
func TestEvilFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	spec := script(waits)
	n.runs(spec)
	outside, here := t.TempDir(), t.TempDir()
	secret := write(t, outside+"/secret", "secret")
	one := write(t, here+"/one.txt", "one")
	write(t, here+"/up/one.txt", "one")
	work := filepath.Join(n.dir, "runs", spec.Run, "work")
	for link, target := range map[string]string{"out": outside, "file": secret, "up": "../..", "loop": "loop", "inside": "real"} {
		if err := os.Symlink(target, filepath.Join(work, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, work+"/real/a", "a")

	for _, path := range []string{"..", "../x", "/etc", "a/../../x", "out", "out/sub", "up", "up/script", "loop", "file", "", "a\x00b"} {
		if err := n.put(spec.Run, path, one); err == nil {
			t.Errorf("put to %q was taken", path)
		}
	}
	if err := n.put(spec.Run, ".", here+"/up"); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("a directory in the place of a link: %v", err)
	}
	checkFile(t, secret, "secret")
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	// A file in the place of a link replaces the link, not what it leads to.
	write(t, here+"/file", "mine")
	if err := n.put(spec.Run, ".", here+"/file"); err != nil {
		t.Error(err)
	}
	checkFile(t, secret, "secret")
	checkFile(t, work+"/file", "mine")
	if err := n.put(spec.Run, "inside", one); err != nil {
		t.Errorf("a link inside the work directory: %v", err)
	}
	checkFile(t, work+"/real/one.txt", "one")

	back := t.TempDir()
	for _, path := range []string{"..", "../script", "/etc/passwd", "out/secret", "up/script", "up/task", "loop/x", "missing", "", "a\x00b"} {
		if err := n.get(spec.Run, path, back); err == nil {
			t.Errorf("got %q", path)
		}
	}
	if err := n.get(spec.Run, ".", back); err != nil { // the links that lead out are left out
		t.Error(err)
	}
	for _, name := range []string{"out", "up"} {
		if _, err := os.Lstat(filepath.Join(back, name)); err == nil {
			t.Errorf("%s was sent", name)
		}
	}
}
