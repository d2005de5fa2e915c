package archive_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/archive"
	"github.com/openworkload/skyport/internal/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = skyport.JobID("0190c2f0-6f5e-7c3a-9b1d-2f6f0b8f5a11")

func add(t *testing.T, a *archive.Archive, attempt int, text string) {
	t.Helper()
	if err := a.AppendLog(job, attempt, skyport.Stdout, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func openLog(t *testing.T, a *archive.Archive, attempt int) *archive.Log {
	t.Helper()
	log, err := a.OpenLog(job, attempt, skyport.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() }) // was only read
	return log
}

// A follower reads everything, and ends when the log does.
func TestFollowersSeeGrowthAndEnd(t *testing.T) {
	t.Parallel()
	a := archive.New(t.TempDir())
	a.Begin(job, 1)
	log := openLog(t, a, 1) // nothing was written yet: it waits for the first byte
	read := make(chan string, 1)
	go func() {
		var got []byte
		for {
			size, more, changed := log.Size()
			for int64(len(got)) < size {
				part := make([]byte, size-int64(len(got)))
				n, err := log.ReadAt(part, int64(len(got)))
				got = append(got, part[:n]...)
				if err != nil && !errors.Is(err, io.EOF) {
					break
				}
			}
			if !more {
				read <- string(got)
				return
			}
			<-changed
		}
	}()
	var want strings.Builder
	for range 200 {
		add(t, a, 1, "one line\n")
		want.WriteString("one line\n")
	}
	a.End(job, 1)
	select {
	case got := <-read:
		if got != want.String() {
			t.Errorf("the follower read %d bytes of %d", len(got), want.Len())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the follower never came to the end")
	}
}

func TestGrowing(t *testing.T) {
	t.Parallel()
	a := archive.New(t.TempDir())
	if more, _ := a.Growing(job, 1); more {
		t.Error("it grows before it begins")
	}
	a.Begin(job, 1)
	more, changed := a.Growing(job, 1)
	if !more {
		t.Error("it does not grow")
	}
	a.Begin(job, 1) // again, after a lost answer: nothing is lost
	select {
	case <-changed:
		t.Error("a second begin looks like a change")
	default:
	}
	if more, _ := a.Growing(job, 2); more {
		t.Error("another attempt grows")
	}
	a.End(job, 1)
	<-changed
	a.End(job, 1)
	if more, _ := a.Growing(job, 1); more {
		t.Error("it grows after its end")
	}
}

// The size is where to go on, also after a crash and after a broken fill.
func TestAppendGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := archive.New(dir)
	if size, err := a.LogSize(job, 1, skyport.Stdout); size != 0 || err != nil {
		t.Errorf("before the first byte: %d, %v", size, err)
	}
	add(t, a, 1, "abc")
	broken := errors.New("the node went away")
	err := a.AppendLog(job, 1, skyport.Stdout, func(w io.Writer) error {
		if _, err := io.WriteString(w, "de"); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("a broken fill says %v", err)
	}
	again := archive.New(dir)
	if size, err := again.LogSize(job, 1, skyport.Stdout); size != 5 || err != nil {
		t.Errorf("the size is %d, %v", size, err)
	}
	add(t, again, 1, "f")
	if err := again.SyncLogs(job, 1); err != nil { // the other stream has no file until now
		t.Error(err)
	}
	log := openLog(t, again, 1)
	text, err := io.ReadAll(log)
	if err != nil || string(text) != "abcdef" {
		t.Errorf("the log is %q, %v", text, err)
	}
	if info, err := log.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the log has mode %v, %v", info.Mode(), err)
	}
	empty, err := again.OpenLog(job, 1, skyport.Stderr)
	if err != nil {
		t.Fatalf("the log of a stream that was not used says %v", err)
	}
	if size, more, _ := empty.Size(); size != 0 || more {
		t.Errorf("it has %d bytes, more %v", size, more)
	}
	if err := empty.Close(); err != nil {
		t.Error(err)
	}
	if _, err := again.OpenLog(job, 2, skyport.Stdout); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("an attempt that there is not says %v", err)
	}
}

func TestOutputsComeWithTheirManifest(t *testing.T) {
	t.Parallel()
	a := archive.New(t.TempDir())
	if _, err := a.Outputs(job, 1); skyport.CodeOf(err) != skyport.CodeNotFound || skyport.HintOf(err) == "" {
		t.Errorf("before there are results: %v", err)
	}
	dir, err := a.OutputsDir(job, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "out.txt"), []byte("result"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := transfer.Scan(t.Context(), transfer.ScanOptions{Root: dir, Names: []string{"out.txt", "absent"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // saving again replaces
		if err := a.SaveManifest(job, 1, tree.Manifest()); err != nil {
			t.Fatal(err)
		}
	}
	outputs, err := a.Outputs(job, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := outputs.Manifest()
	if m.Hash() != tree.Manifest().Hash() || m.Bytes() != 6 || !slices.Equal(outputs.Missing(), []string{"absent"}) {
		t.Errorf("the manifest comes back as %+v", m)
	}
	if _, err := a.Outputs(job, 2); skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("another attempt has results: %v", err)
	}
}

// Outputs of which some are missing are nobody's: they go when nothing more
// will come. Those that arrived stay.
func TestDropPartial(t *testing.T) {
	t.Parallel()
	a, job := archive.New(t.TempDir()), skyport.NewJobID()
	dir, err := a.OutputsDir(job, 1)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, ".skyport-stage-1"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.DropPartial(job, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("half of the outputs is there: %v", err)
		}
	}
	if _, err := a.OutputsDir(job, 1); err != nil {
		t.Fatal(err)
	}
	tree, err := transfer.Scan(t.Context(), transfer.ScanOptions{Root: dir})
	if err == nil {
		err = errors.Join(a.SaveManifest(job, 1, tree.Manifest()), a.DropPartial(job, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Outputs(job, 1); err != nil {
		t.Errorf("outputs that had arrived: %v", err)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := archive.New(dir)
	add(t, a, 1, "x")
	add(t, a, 2, "y")
	if _, err := a.OutputsDir(job, 2); err != nil {
		t.Fatal(err)
	}
	for range 2 { // forgetting what is not there is no error
		if err := a.Forget(job); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
