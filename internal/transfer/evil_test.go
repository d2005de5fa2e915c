package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/openworkload/skyport"
)

// entry makes a plain entry; a path with a slash at its end is a directory, one
// with an arrow a link, anything else a file of one byte.
func entry(path string) Entry {
	e := Entry{Path: []byte(path), Kind: File, Mode: 0o644, ModTime: time.Unix(1e9, 0).UTC(), Size: 1, Chunks: []Chunk{{Hash: sumOf([]byte{7}), Size: 1}}}
	if dir, ok := strings.CutSuffix(path, "/"); ok {
		e.Path, e.Kind, e.Size, e.Chunks = []byte(dir), Dir, 0, nil
	}
	if from, to, ok := strings.Cut(path, " -> "); ok {
		e.Path, e.Link, e.Kind, e.Size, e.Chunks = []byte(from), []byte(to), Symlink, 0, nil
	}
	return e
}

func manifestOf(paths ...string) *Manifest {
	m := &Manifest{}
	for _, p := range paths {
		m.Entries = append(m.Entries, entry(p))
	}
	return m
}

func with(m *Manifest, change func(*Entry)) *Manifest {
	change(&m.Entries[len(m.Entries)-1])
	return m
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := map[string]*Manifest{
		"nothing":             {},
		"a file":              manifestOf("a"),
		"odd names":           manifestOf("\x01", " ", "\xff"),
		"dots in names":       manifestOf("...", "..a", "a.."),
		"a tree":              manifestOf("a/", "a/b/", "a/b/c", "a/c", "a!"),
		"links":               manifestOf("a/", "a/b -> c", "a/c -> ../d", "d -> a/b", "e -> ."),
		"a link to nothing":   manifestOf("a -> b/c/d"),
		"the root as target":  manifestOf("a/", "a/b -> .."),
		"the longest name":    manifestOf(strings.Repeat("n", 255)),
		"one chunk two files": manifestOf("a", "b"),
		"an empty file":       with(manifestOf("a"), func(e *Entry) { e.Size, e.Chunks = 0, nil }),
	}
	for name, m := range good {
		if err := m.Validate(Limits{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := map[string]*Manifest{
		"absolute":               manifestOf("/etc/passwd"),
		"dot dot":                manifestOf(".."),
		"dot dot below":          manifestOf("a/", "a/../../b"),
		"dot":                    manifestOf("."),
		"empty":                  manifestOf(""),
		"empty part":             manifestOf("a/", "a//b"),
		"slash at the end":       with(manifestOf("a/"), func(e *Entry) { e.Path = []byte("a/") }),
		"NUL":                    manifestOf("a\x00b"),
		"twice":                  manifestOf("a", "a"),
		"file and directory":     manifestOf("a", "a/"),
		"out of order":           manifestOf("b", "a"),
		"below a file":           manifestOf("a", "a/b"),
		"below a link":           manifestOf("a -> b", "a/b"),
		"no parent":              manifestOf("a/b"),
		"parent elsewhere":       manifestOf("a/", "a/b/c"),
		"too long a name":        manifestOf(strings.Repeat("n", 256)),
		"too long a path":        manifestOf(strings.Repeat("n/", 2001)),
		"our own name":           manifestOf(stagePrefix + "x/"),
		"absolute link":          manifestOf("a -> /etc"),
		"link out":               manifestOf("a -> ../b"),
		"link out below":         manifestOf("a/", "a/b -> ../../c"),
		"link up in the middle":  manifestOf("a -> b/../../c"),
		"link up through a link": manifestOf("a/", "a/r -> ..", "l -> a/r/.."),
		"empty link":             with(manifestOf("a -> b"), func(e *Entry) { e.Link = nil }),
		"link with NUL":          manifestOf("a -> b\x00"),
		"setuid":                 with(manifestOf("a"), func(e *Entry) { e.Mode = 0o4755 }),
		"unknown kind":           with(manifestOf("a/"), func(e *Entry) { e.Kind = 9 }),
		"kind zero":              with(manifestOf("a/"), func(e *Entry) { e.Kind = 0 }),
		"directory with size":    with(manifestOf("a/"), func(e *Entry) { e.Size = 1 }),
		"file with target":       with(manifestOf("a"), func(e *Entry) { e.Link = []byte("b") }),
		"size without chunks":    with(manifestOf("a"), func(e *Entry) { e.Chunks = nil }),
		"more chunks than size":  with(manifestOf("a"), func(e *Entry) { e.Size = 0 }),
		"fewer chunks than size": with(manifestOf("a"), func(e *Entry) { e.Size = 2 }),
		"negative size":          with(manifestOf("a"), func(e *Entry) { e.Size, e.Chunks = -1, nil }),
		"a huge chunk":           with(manifestOf("a"), func(e *Entry) { e.Size, e.Chunks[0].Size = MaxChunk+1, MaxChunk+1 }),
		"an empty chunk":         with(manifestOf("a"), func(e *Entry) { e.Chunks = append(e.Chunks, Chunk{}) }),
		"one hash two sizes":     with(manifestOf("a", "b"), func(e *Entry) { e.Size, e.Chunks[0].Size = 2, 2 }),
		"impossible time":        with(manifestOf("a"), func(e *Entry) { e.ModTime = time.Unix(1<<60, 0) }),
		"too many notes":         {Warnings: make([]string, mostNotes+1)},
		"too long a note":        {Missing: []string{strings.Repeat("x", longestNote+1)}},
	}
	for name, m := range bad {
		if err := m.Validate(Limits{}); skyport.CodeOf(err) != skyport.CodeInvalid && skyport.CodeOf(err) != skyport.CodeTooLarge {
			t.Errorf("%s: %v", name, err)
		}
		// The same over the wire, where nobody has looked at it.
		var encoded bytes.Buffer
		if _, err := m.WriteTo(&encoded); err != nil {
			t.Fatal(err)
		}
		// (Where the encoding has room for it.)
		unsayable := name == "directory with size" || name == "file with target"
		if _, err := ReadManifest(&encoded, Limits{}); err == nil && !unsayable {
			t.Errorf("%s was read", name)
		}
	}
	if err := manifestOf("a", "b").Validate(Limits{Entries: 1}); skyport.CodeOf(err) != skyport.CodeTooLarge {
		t.Errorf("too many entries: %v", err)
	}
	if err := manifestOf("a", "b").Validate(Limits{Bytes: 1}); skyport.CodeOf(err) != skyport.CodeTooLarge {
		t.Errorf("too many bytes: %v", err)
	}
}

func frameOf(s Span, length uint32, data ...byte) []byte {
	b := make([]byte, headerSize, headerSize+len(data))
	putHeader(b, s, length)
	return append(b, data...)
}

// TestEvilStreams sends a receiver what no honest sender would.
func TestEvilStreams(t *testing.T) {
	t.Parallel()
	m := manifestOf("a", "b")
	m.Entries[1].Chunks[0].Hash = sumOf([]byte{8})
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	bomb := encoder.EncodeAll(make([]byte, 64<<20), nil)
	endless := bytes.Repeat(frameOf(Span{0, 1}, 1, 7), 1000)
	cases := map[string][]byte{
		"another content":   frameOf(Span{0, 1}, 1, 8),
		"an unknown chunk":  frameOf(Span{2, 1}, 1, 7),
		"numbers that wrap": frameOf(Span{1, 0xffffffff}, 1, 7),
		"too many chunks":   frameOf(Span{0, 3}, 3, 7, 8, 9),
		"too long":          frameOf(Span{0, 1}, 2, 7, 7),
		"too short":         frameOf(Span{0, 2}, 1, 7),
		"a huge length":     frameOf(Span{0, 1}, 1<<30, 7),
		"not compressed":    frameOf(Span{0, 2}, 2|compressedBit, 7, 8),
		"a bomb":            frameOf(Span{0, 2}, uint32(len(bomb))|compressedBit, bomb...),
		"endless":           endless,
		"a huge problem":    frameOf(Span{}, 1<<31-1),
		"no problem":        frameOf(Span{}, 2, 'n', 'o'),
	}
	for name, stream := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := t.TempDir()
			r := NewReceiver(to, ReceiverOptions{})
			defer func() { _ = r.Close() }()
			client := serve(t, receiving(r))
			head, err := manifestBytes(m)
			if err != nil {
				t.Fatal(err)
			}
			body := slicesConcat(head, stream, endFrame(nil))
			reply, err := client.Post(base+"/manifest", contentType, bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = reply.Body.Close() }()
			if reply.StatusCode != http.StatusBadRequest {
				t.Errorf("answered %s", reply.Status)
			}
			for _, name := range []string{"a", "b"} {
				if _, err := os.Lstat(filepath.Join(to, name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s appeared: %v", name, err)
				}
			}
		})
	}
}

func slicesConcat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestEvilSender pulls from a peer that answers with anything.
func TestEvilSender(t *testing.T) {
	t.Parallel()
	head, err := manifestBytes(manifestOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	evil, err := manifestBytes(manifestOf("a -> /etc"))
	if err != nil {
		t.Fatal(err)
	}
	huge := binary.BigEndian.AppendUint64(nil, 1<<60)
	for name, answer := range map[string]func(w http.ResponseWriter){
		"garbage":       func(w http.ResponseWriter) { _, _ = w.Write([]byte(strings.Repeat("garbage!", 100))) },
		"evil manifest": func(w http.ResponseWriter) { _, _ = w.Write(evil) },
		"huge manifest": func(w http.ResponseWriter) { _, _ = w.Write(huge) },
		"wrong chunk":   func(w http.ResponseWriter) { _, _ = w.Write(slicesConcat(head, frameOf(Span{0, 1}, 1, 8))) },
		"nonsense":      func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
		"endless": func(w http.ResponseWriter) {
			_, err := w.Write(head)
			for err == nil {
				_, err = w.Write(frameOf(Span{0, 1}, 1, 7))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := t.TempDir()
			client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			if _, err := Pull(t.Context(), client, base, to, Options{Attempts: 2, Backoff: time.Millisecond}); err == nil {
				t.Error("it was taken")
			}
			if _, err := os.Lstat(filepath.Join(to, "a")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a appeared: %v", err)
			}
		})
	}
}

// TestEvilReceiver pushes to a peer that asks for what is not there.
func TestEvilReceiver(t *testing.T) {
	t.Parallel()
	_, tree := forest(t)
	client := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte(`{"missing":[{"first":4294967295,"count":4294967295}]}`))
	}))
	if _, err := Push(t.Context(), client, base, tree, Options{Attempts: 2, Backoff: time.Millisecond}); skyport.CodeOf(err) != skyport.CodeInvalid {
		t.Errorf("Push: %v", err)
	}
}

// TestChangedSource changes a file between its scan and its being sent.
func TestChangedSource(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(path string) error{
		"other size":    func(p string) error { return os.WriteFile(p, make([]byte, 77), 0o600) },
		"gone":          os.Remove,
		"became a link": func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) },
		"same size, old time": func(p string) error {
			info, err := os.Stat(p)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("changed"), 5<<20)
			return errors.Join(err, f.Close(), os.Chtimes(p, time.Time{}, info.ModTime()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, tree := forest(t)
			if err := change(filepath.Join(from, "large")); err != nil {
				t.Fatal(err)
			}
			options := Options{Attempts: 2, Backoff: time.Millisecond}
			check := func(err error, to string) {
				t.Helper()
				if code := skyport.CodeOf(err); code != skyport.CodeConflict && code != skyport.CodeInvalid || !strings.Contains(err.Error(), "large") {
					t.Errorf("code %s: %v", code, err)
				}
				if _, err := os.Lstat(filepath.Join(to, "large")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("large appeared: %v", err)
				}
			}
			to := t.TempDir()
			r := NewReceiver(to, ReceiverOptions{})
			defer func() { _ = r.Close() }()
			_, err := Push(t.Context(), serve(t, receiving(r)), base, tree, options)
			check(err, to)
			to = t.TempDir()
			_, err = Pull(t.Context(), serve(t, sending(tree)), base, to, options)
			check(err, to)
		})
	}
}

// FuzzManifest reads manifests of any bytes: what is accepted is valid and
// means the same when it is written and read again.
func FuzzManifest(f *testing.F) {
	for _, m := range []*Manifest{{}, manifestOf("a"), manifestOf("a/", "a/b -> c", "b"), {Missing: []string{"x"}, Warnings: []string{"y"}}} {
		var b bytes.Buffer
		if err := m.encode(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeManifest(bytes.NewReader(data), Limits{})
		if err != nil {
			return
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(string(e.Path)) || e.Kind == Symlink && !filepath.IsLocal(filepath.Join(filepath.Dir(string(e.Path)), string(e.Link))) {
				t.Fatalf("%q -> %q was accepted", e.Path, e.Link)
			}
		}
		var b bytes.Buffer
		if _, err := m.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		again, err := ReadManifest(&b, Limits{})
		if err != nil || again.Hash() != m.Hash() {
			t.Fatalf("read again: %v", err)
		}
	})
}

// memory is a sink that keeps nothing.
type memory struct{ m *Manifest }

func (s memory) Manifest() *Manifest          { return s.m }
func (s memory) Missing() []Span              { return nil }
func (s memory) Commit(context.Context) error { return nil }
func (s memory) Put(_ context.Context, p Span, data []byte) error {
	return Verify(s.m, p, data)
}

// FuzzFrames gives streams of any bytes to a receiver.
func FuzzFrames(f *testing.F) {
	m := manifestOf("a", "b")
	m.Entries[1].Chunks[0].Hash = sumOf([]byte{8})
	f.Add(slicesConcat(frameOf(Span{0, 2}, 2, 7, 8), endFrame(nil)))
	f.Add(endFrame(errors.New("stopped")))
	f.Add(frameOf(Span{0, 1}, 1|compressedBit, 7))
	f.Fuzz(func(t *testing.T, data []byte) {
		var taken int
		err := readFrames(t.Context(), bytes.NewReader(data), memory{m}, func(size, _ int) { taken += size })
		if taken > int(m.Bytes()) {
			t.Fatalf("%d bytes were taken, %v", taken, err)
		}
	})
}
