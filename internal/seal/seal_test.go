package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/seal"
)

func open(t testing.TB, path string) *seal.Sealer {
	t.Helper()
	s, err := seal.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *seal.Sealer, context, plain string) []byte {
	t.Helper()
	box, err := s.Seal(context, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func TestSealedOpensAfterReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	for _, plain := range []string{"", "x", strings.Repeat("long ", 10000)} {
		box := put(t, open(t, path), "context", plain)
		if plain != "" && len(plain) > 8 && bytes.Contains(box, []byte(plain)) {
			t.Error("the box shows what is in it")
		}
		got, err := open(t, path).Open("context", box)
		if err != nil || string(got) != plain {
			t.Errorf("%d bytes came back as %d: %v", len(plain), len(got), err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Size() != 32 {
		t.Errorf("the key file is %v, %v", info, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the key there is something: %v, %v", left, err)
	}
}

func TestNoTwoBoxesAreAlike(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "key"))
	if bytes.Equal(put(t, s, "c", "same"), put(t, s, "c", "same")) {
		t.Error("the same bytes sealed twice are the same box")
	}
}

func TestWhatIsNotSealedSoDoesNotOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, other := open(t, filepath.Join(dir, "a")), open(t, filepath.Join(dir, "b"))
	const secret = "the secret itself"
	box := put(t, s, "secret/a/registry/host", secret)
	refused := func(what string, s *seal.Sealer, context string, box []byte) {
		t.Helper()
		plain, err := s.Open(context, box)
		if skyport.CodeOf(err) != skyport.CodeConflict || plain != nil {
			t.Errorf("%s: %q, %v", what, plain, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the secret: %v", what, err)
		}
	}
	refused("another context", s, "secret/b/registry/host", box)
	refused("no context", s, "", box)
	refused("another key", other, "secret/a/registry/host", box)
	refused("nothing", s, "secret/a/registry/host", nil)
	for i := range box {
		changed := bytes.Clone(box)
		changed[i] ^= 0x40
		refused("a changed byte", s, "secret/a/registry/host", changed)
		refused("a part", s, "secret/a/registry/host", box[:i])
	}
	refused("more bytes", s, "secret/a/registry/host", append(bytes.Clone(box), 0))
	if _, err := s.Seal("c", make([]byte, 17<<20)); skyport.CodeOf(err) != skyport.CodeTooLarge {
		t.Errorf("17 MiB: %v", err)
	}
}

func TestOneKeyHoweverManyMakeIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	boxes := make([][]byte, 16)
	var all sync.WaitGroup
	for i := range boxes {
		all.Go(func() {
			if s, err := seal.Open(path); err != nil {
				t.Error(err)
			} else if boxes[i], err = s.Seal("c", []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s := open(t, path)
	for _, box := range boxes {
		if _, err := s.Open("c", box); err != nil {
			t.Error(err)
		}
	}
}

func TestOddKeyFilesAreRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		make func(path string) error
		says string
	}{
		{"readable by others", func(p string) error { return os.WriteFile(p, make([]byte, 32), 0o644) }, "chmod 600"},
		{"short", func(p string) error { return os.WriteFile(p, make([]byte, 31), 0o600) }, "backup"},
		{"long", func(p string) error { return os.WriteFile(p, make([]byte, 33), 0o600) }, "backup"},
		{"empty", func(p string) error { return os.WriteFile(p, nil, 0o600) }, "backup"},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o700) }, "regular file"},
		{"a link", func(p string) error { return os.Symlink("elsewhere", p) }, "symbolic link"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "key")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = seal.Open(path)
			if skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error()+skyport.HintOf(err), test.says) {
				t.Errorf("%v (%s)", err, skyport.HintOf(err))
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || before.Mode() != after.Mode() {
				t.Errorf("it was changed: %v, %v", after, err)
			}
		})
	}
	t.Run("of another user", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("needs root: it gives a file away")
		}
		path := filepath.Join(t.TempDir(), "key")
		open(t, path)
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.Open(path); skyport.CodeOf(err) != skyport.CodeConflict || !strings.Contains(err.Error(), "12345") {
			t.Errorf("%v", err)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		t.Parallel()
		if _, err := seal.Open(filepath.Join(t.TempDir(), "no", "key")); err == nil {
			t.Error("a key was made in a directory that is not there")
		}
	})
}

// FuzzOpen feeds the opener with boxes from elsewhere: it refuses all but its own.
func FuzzOpen(f *testing.F) {
	s, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	own := put(f, s, "c", "plain")
	f.Add("c", own)
	f.Add("d", own)
	f.Add("", []byte{1})
	f.Fuzz(func(t *testing.T, context string, box []byte) {
		plain, err := s.Open(context, box)
		if err != nil {
			if plain != nil {
				t.Error("an error and bytes")
			}
			return
		}
		// The box differs from one process of the fuzzer to the next: its nonce is random.
		if context != "c" || string(plain) != "plain" {
			t.Errorf("what nobody sealed opened as %q to %q", context, plain)
		}
	})
}
