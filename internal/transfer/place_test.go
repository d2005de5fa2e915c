package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"pgregory.net/rapid"
)

func write(t testing.TB, content string, path ...string) string {
	t.Helper()
	full := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return full
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Error(err)
	}
	return string(content)
}

// carry takes a tree into a place without a wire.
func carry(ctx context.Context, source Source, place Place) error {
	sink, err := place.Open(ctx, source.Manifest())
	if err != nil {
		return err
	}
	x := source.Manifest().indexed()
	for s := range func(yield func(Span) bool) { x.batches(sink.Missing(), yield) } {
		for n := s.First; n < s.First+s.Count; n++ {
			p := make([]byte, x.chunks[n].Size)
			if err := source.ReadChunk(ctx, x.chunks[n], p); err != nil {
				return err
			}
			if err := sink.Put(ctx, Span{n, 1}, p); err != nil {
				return err
			}
		}
	}
	return sink.Commit(ctx)
}

func TestScan(t *testing.T) {
	t.Parallel()
	dir, outside := t.TempDir(), t.TempDir()
	write(t, "1", dir, "out/one")
	write(t, "2", dir, "out/sub/two")
	write(t, "3", dir, "three")
	write(t, "no", dir, "out/skip/me")
	write(t, "secret", outside, "secret")
	for _, err := range []error{
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "out/absolute")),
		os.Symlink("../../x", filepath.Join(dir, "out/up")),
		os.Symlink("sub/two", filepath.Join(dir, "out/good")),
		os.Symlink(outside, filepath.Join(dir, "outside")),
		syscall.Mkfifo(filepath.Join(dir, "out/pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	paths := func(o ScanOptions) (paths []string, m *Manifest) {
		o.Root = dir
		tree, err := Scan(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range tree.Manifest().Entries {
			paths = append(paths, string(e.Path))
		}
		return paths, tree.Manifest()
	}
	got, m := paths(ScanOptions{
		Names:   []string{"three", "out/", "out/one", "out/never", "none", "three/below", "outside/secret", "three"},
		Exclude: func(path string) bool { return path == "out/skip" },
	})
	if want := []string{"out", "out/good", "out/one", "out/sub", "out/sub/two", "three"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if want := []string{"none", "outside/secret", "out/never", "three/below"}; !slices.Equal(m.Missing, want) {
		t.Errorf("missing %q", m.Missing)
	}
	if warnings := strings.Join(m.Warnings, "\n"); len(m.Warnings) != 3 || !strings.Contains(warnings, "absolute") ||
		!strings.Contains(warnings, "pipe") || !strings.Contains(warnings, "out/up") {
		t.Errorf("warnings %q", m.Warnings)
	}
	if got, _ = paths(ScanOptions{Names: []string{"out/sub/two"}}); !slices.Equal(got, []string{"out", "out/sub", "out/sub/two"}) {
		t.Errorf("one name gives %q", got)
	}
	for _, name := range []string{"/etc", "..", "a/../../b", ""} {
		if _, err := Scan(t.Context(), ScanOptions{Root: dir, Names: []string{name}}); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, ScanOptions{Root: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestScanInputs(t *testing.T) {
	t.Parallel()
	a, b, to := t.TempDir(), t.TempDir(), t.TempDir()
	file, dir := write(t, "file", a, "file"), filepath.Dir(write(t, "deep", b, "data/x/deep"))
	link := filepath.Join(a, "alias")
	if err := os.Symlink(filepath.Dir(dir), link); err != nil {
		t.Fatal(err)
	}
	tree, err := ScanInputs(t.Context(), []string{file, dir + "/", link})
	if err != nil {
		t.Fatal(err)
	}
	if err := carry(t.Context(), tree, NewReceiver(to, ReceiverOptions{})); err != nil {
		t.Fatal(err)
	}
	if read(t, to, "file") != "file" || read(t, to, "x/deep") != "deep" || read(t, to, "alias/x/deep") != "deep" {
		t.Error("the inputs did not land under their base names")
	}
	for _, paths := range [][]string{{file, write(t, "other", b, "file")}, {"/"}} {
		if _, err := ScanInputs(t.Context(), paths); skyport.CodeOf(err) != skyport.CodeInvalid {
			t.Errorf("%q: %v", paths, err)
		}
	}
	for _, paths := range [][]string{{filepath.Join(a, "none")}, {"/dev/null"}} {
		if _, err := ScanInputs(t.Context(), paths); skyport.CodeOf(err) != skyport.CodeInputUnreadable {
			t.Errorf("%q: %v", paths, err)
		}
	}
}

// TestPlacing says what becomes of what is in the place already.
func TestPlacing(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	write(t, "new", from, "d/replaced")
	write(t, "new", from, "d/added/deep")
	write(t, "same", from, "d/same")
	write(t, "new", from, "top")
	write(t, "old", to, "d/replaced")
	write(t, "mine", to, "d/mine")
	write(t, "same", to, "d/same")
	outside := write(t, "outside", t.TempDir(), "target")
	if err := os.Symlink(outside, filepath.Join(to, "top")); err != nil {
		t.Fatal(err)
	}
	r := NewReceiver(to, ReceiverOptions{Durable: true})
	if err := carry(t.Context(), scanned(t, from), r); err != nil {
		t.Fatal(err)
	}
	if read(t, to, "d/replaced") != "new" || read(t, to, "d/added/deep") != "new" || read(t, to, "d/mine") != "mine" ||
		read(t, to, "d/same") != "same" || read(t, to, "top") != "new" || read(t, outside) != "outside" {
		t.Error("the tree was not merged with what was there")
	}
	if err := os.Remove(filepath.Join(to, "d/mine")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(to, "d"), time.Time{}, scanned(t, from).Manifest().Entries[0].ModTime); err != nil {
		t.Fatal(err)
	}
	same(t, from, to)

	for _, way := range []func(to string){
		func(to string) { write(t, "mine", to, "d") },
		func(to string) { write(t, "mine", to, "top/mine") },
	} {
		to := t.TempDir()
		way(to)
		if _, err := NewReceiver(to, ReceiverOptions{}).Open(t.Context(), scanned(t, from).Manifest()); skyport.CodeOf(err) != skyport.CodeConflict {
			t.Errorf("in the way: %v", err)
		}
	}
}

// TestCommitGoesOn stops a commit in the middle, as a kill would.
func TestCommitGoesOn(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	plant(t, from)
	tree := scanned(t, from)
	r := NewReceiver(to, ReceiverOptions{})
	sink, err := r.Open(t.Context(), tree.Manifest())
	if err != nil {
		t.Fatal(err)
	}
	x := tree.Manifest().indexed()
	for n := range x.chunks {
		p := make([]byte, x.chunks[n].Size)
		if err := tree.ReadChunk(t.Context(), x.chunks[n], p); err != nil {
			t.Fatal(err)
		}
		if err := sink.Put(t.Context(), Span{uint32(n), 1}, p); err != nil {
			t.Fatal(err)
		}
	}
	a := sink.(*assembly)
	if err := errors.Join(a.complete(t.Context()), a.noteDurably(a.journal)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"big", "a"} { // some are placed
		if err := os.Rename(filepath.Join(a.stage, "tree", name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	counted := &countingPlace{Place: NewReceiver(to, ReceiverOptions{})}
	if err := carry(t.Context(), tree, counted); err != nil {
		t.Fatal(err)
	}
	if n := counted.put.Load(); n != 0 {
		t.Errorf("%d bytes came again", n)
	}
	same(t, from, to)
	mustNotExist(t, to, stagePrefix+"*")
}

// TestReuse sends a tree to where an older one is: what both have is not sent.
func TestReuse(t *testing.T) {
	t.Parallel()
	from, _ := forest(t)
	to := t.TempDir()
	if err := carry(t.Context(), scanned(t, from), NewReceiver(to, ReceiverOptions{})); err != nil {
		t.Fatal(err)
	}
	large := read(t, from, "large")
	write(t, large[:5<<20]+"something in between"+large[5<<20:], from, "large")
	write(t, "changed", from, "d0/f0")
	counted := &countingPlace{Place: NewReceiver(to, ReceiverOptions{})}
	moved, err := Push(t.Context(), serve(t, receiving(counted)), base, scanned(t, from), Options{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, from, to)
	if moved.Wire > 8<<20 {
		t.Errorf("%s were sent for an insertion", moved.Wire)
	}
	depot, err := OpenDepot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = depot.Close() }()
	if err := carry(t.Context(), scanned(t, from), depot); err != nil {
		t.Fatal(err)
	}
	write(t, "changed again", from, "d0/f0")
	counted = &countingPlace{Place: depot}
	if err := carry(t.Context(), scanned(t, from), counted); err != nil {
		t.Fatal(err)
	}
	if n := counted.put.Load(); n != int64(len("changed again")) {
		t.Errorf("%d bytes were put into a depot for one small file", n)
	}
}

func TestOneAtATime(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	depot, err := OpenDepot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDepot(dir); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("a second depot: %v", err)
	}
	if err := depot.Close(); err != nil {
		t.Fatal(err)
	}
	to, m := t.TempDir(), manifestOf("a")
	r := NewReceiver(to, ReceiverOptions{})
	if _, err := r.Open(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := NewReceiver(to, ReceiverOptions{}).Open(t.Context(), m); skyport.CodeOf(err) != skyport.CodeConflict {
		t.Errorf("a second receiver: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSweepKeepsWhatIsShared removes a tree whose chunks another needs.
func TestSweepKeepsWhatIsShared(t *testing.T) {
	t.Parallel()
	dir, a, b := t.TempDir(), t.TempDir(), t.TempDir()
	depot, err := OpenDepot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = depot.Close() }()
	write(t, "shared", a, "x")
	write(t, "shared", b, "y")
	write(t, "own", b, "z")
	first, second := scanned(t, a), scanned(t, b)
	for _, tree := range []*Tree{first, second} {
		if err := carry(t.Context(), tree, depot); err != nil {
			t.Fatal(err)
		}
	}
	half := manifestOf("coming", "missing")
	half.Entries[1].Chunks[0].Hash = sumOf([]byte{8})
	coming, err := depot.Open(t.Context(), half)
	if err != nil {
		t.Fatal(err)
	}
	if err := coming.Put(t.Context(), Span{0, 1}, []byte{7}); err != nil {
		t.Fatal(err)
	}
	onlySecond := func(hash string) bool { return hash == second.Manifest().Hash() }
	if freed, err := depot.Sweep(t.Context(), onlySecond, time.Hour); freed != 0 || err != nil {
		t.Errorf("what is young was freed: %s, %v", freed, err)
	}
	// An hour later.
	past := time.Now().Add(-time.Hour)
	names, err := fs.Glob(os.DirFS(dir), "*.manifest")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Chtimes(filepath.Join(dir, name), past, past); err != nil {
			t.Fatal(err)
		}
	}
	if freed, err := depot.Sweep(t.Context(), onlySecond, 30*time.Minute); freed == 0 || err != nil {
		t.Errorf("freed %s, %v", freed, err)
	}
	if depot.Has(first.Manifest().Hash()) {
		t.Error("the first tree is still there")
	}
	check(t, depot, second)
	if err := coming.Put(t.Context(), Span{1, 1}, []byte{8}); err != nil {
		t.Fatal(err)
	}
	if err := coming.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// used is how much of a file system is in use, in bytes.
func used(t *testing.T, dir string) uint64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Error(err)
	}
	return (s.Blocks - s.Bfree) * uint64(s.Bsize)
}

// TestNoSpace fills the disk when some of a transfer is on it, then frees it.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	from, tree := forest(t)
	for _, kind := range []string{"directory", "depot"} {
		t.Run(kind, func(t *testing.T) {
			small := t.TempDir()
			if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=32m"); err != nil {
				t.Skipf("mounting a small file system: %v", err)
			}
			t.Cleanup(func() {
				if err := syscall.Unmount(small, 0); err != nil {
					t.Error(err)
				}
			})
			to, filler := filepath.Join(small, "to"), filepath.Join(small, "filler")
			var place Place
			var early skyport.Code
			if kind == "depot" {
				depot, err := OpenDepot(to)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = depot.Close() }()
				place = depot
			} else {
				r := NewReceiver(to, ReceiverOptions{})
				defer func() { _ = r.Close() }()
				place = r
			}
			kept := t.TempDir()
			write(t, "kept", kept, "kept")
			if err := carry(t.Context(), scanned(t, kept), place); err != nil {
				t.Fatal(err)
			}
			client := serve(t, receiving(place))
			var once sync.Once
			source := &hookedSource{Source: tree, each: func(read int64) {
				if read > 150 && used(t, small) > 4<<20 {
					once.Do(func() {
						_ = os.WriteFile(filler, make([]byte, 58<<20), 0o600) // until it is full
					})
				}
			}}
			_, err := Push(t.Context(), client, base, source, Options{Attempts: 3, Backoff: time.Millisecond})
			if skyport.CodeOf(err) != skyport.CodeNoSpace {
				t.Fatalf("with a full disk: %v", err)
			}
			if _, err = Push(t.Context(), client, base, tree, Options{Attempts: 3}); err != nil {
				early = skyport.CodeOf(err)
			}
			if early != skyport.CodeNoSpace {
				t.Errorf("with a disk that is still full: %v", err)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			moved, err := Push(t.Context(), client, base, tree, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if moved.Wire >= tree.Manifest().Bytes() {
				t.Errorf("all of it was sent again: %s", moved.Wire)
			}
			if kind == "depot" {
				check(t, place.(*Depot), tree)
				check(t, place.(*Depot), scanned(t, kept))
				return
			}
			if read(t, to, "kept") != "kept" || read(t, to, "large") != read(t, from, "large") {
				t.Error("the files are not what they should be")
			}
		})
	}
}

// inMemory is a directory on a file system in memory where there is one: for
// tests of many files, lest they measure the disk.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "transfer-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestManyFiles moves a hundred thousand.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	files := 100_000
	if raceDetector {
		files = 10_000 // each costs ten times as much
	}
	source := &invented{m: &Manifest{}}
	for i := range files {
		if i%1000 == 0 {
			source.m.Entries = append(source.m.Entries, entry(fmt.Sprintf("d%03d/", i/1000)))
		}
		e := entry(fmt.Sprintf("d%03d/f%06d", i/1000, i))
		content := fmt.Appendf(nil, "%09d", i)
		e.Size, e.Chunks = 9, []Chunk{{Hash: sumOf(content), Size: 9}}
		source.m.Entries = append(source.m.Entries, e)
	}
	depot, err := OpenDepot(inMemory(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = depot.Close() }()
	var told atomic.Int64
	moved, err := Push(t.Context(), serve(t, receiving(depot)), base, source, Options{Progress: func(skyport.Transfer) { told.Add(1) }})
	if err != nil || moved.Files != files || moved.Done != skyport.Bytes(files*9) {
		t.Fatalf("%+v, %v", moved, err)
	}
	if told.Load() == 0 {
		t.Error("no progress was told")
	}
	again, err := depot.Source(source.m.Hash())
	if err != nil {
		t.Fatal(err)
	}
	to := inMemory(t)
	if _, err := Push(t.Context(), serve(t, receiving(NewReceiver(to, ReceiverOptions{}))), base, again, Options{}); err != nil {
		t.Fatal(err)
	}
	if got := scanned(t, to).Manifest(); got.Files() != files || read(t, to, "d007/f007777") != "000007777" {
		t.Errorf("%d files arrived", got.Files())
	}
}

// invented is a source of files whose content is their number.
type invented struct{ m *Manifest }

func (s *invented) Manifest() *Manifest { return s.m }

func (s *invented) ReadChunk(_ context.Context, c ChunkRef, p []byte) error {
	path := string(s.m.Entries[c.Entry].Path)
	copy(p, "000"+path[len(path)-6:])
	return nil
}

// TestRandomTrees sends and fetches trees of any shape.
func TestRandomTrees(t *testing.T) {
	t.Parallel()
	scratch := inMemory(t)
	var count int
	rapid.Check(t, func(rt *rapid.T) {
		count++
		from, to, back := filepath.Join(scratch, fmt.Sprint(count), "from"), filepath.Join(scratch, fmt.Sprint(count), "to"), filepath.Join(scratch, fmt.Sprint(count), "back")
		defer func() { _ = os.RemoveAll(filepath.Join(scratch, fmt.Sprint(count))) }()
		if err := os.MkdirAll(from, 0o755); err != nil {
			t.Fatal(err)
		}
		dirs := []string{""}
		name := rapid.SliceOfN(rapid.ByteRange(1, 255), 1, 12)
		for range rapid.IntRange(0, 12).Draw(rt, "entries") {
			path := filepath.Join(rapid.SampledFrom(dirs).Draw(rt, "dir"), strings.ReplaceAll(string(name.Draw(rt, "name")), "/", "_"))
			full := filepath.Join(from, path)
			if _, err := os.Lstat(full); err == nil {
				continue
			}
			var err error
			switch rapid.IntRange(0, 3).Draw(rt, "kind") {
			case 0:
				err = os.Mkdir(full, 0o755)
				dirs = append(dirs, path)
			case 1:
				err = os.Symlink(rapid.SampledFrom([]string{"x", "a/b", "../x", "../../../x", "/x", "a/../b", "."}).Draw(rt, "target"), full)
			default:
				size := rapid.SampledFrom([]int{0, 1, 100, minChunk, minChunk + 1}).Draw(rt, "size")
				content := make([]byte, size)
				for i := range content {
					content[i] = byte(i * i >> 7)
				}
				err = os.WriteFile(full, content, fs.FileMode(rapid.Uint32Range(0, 0o777).Draw(rt, "mode")))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		tree := scanned(t, from)
		if err := carry(t.Context(), tree, NewReceiver(to, ReceiverOptions{})); err != nil {
			rt.Fatal(err)
		}
		client := serve(t, sending(OpenTree(to, tree.Manifest())))
		if _, err := Pull(t.Context(), client, base, back, Options{}); err != nil {
			rt.Fatal(err)
		}
		got := scanned(t, back).Manifest()
		if len(got.Entries) != len(tree.Manifest().Entries) {
			rt.Fatalf("%d entries came of %d", len(got.Entries), len(tree.Manifest().Entries))
		}
		for i, e := range got.Entries {
			if fmt.Sprint(e) != fmt.Sprint(tree.Manifest().Entries[i]) {
				rt.Fatalf("%q differs", e.Path)
			}
		}
	})
}
