package transfer

import (
	"context"
	"errors"
	"syscall"

	"github.com/openworkload/skyport"
	"github.com/zeebo/blake3"
)

// Place is where trees land: a directory ([Receiver]) or a [Depot].
// All methods may be called from many goroutines.
type Place interface {
	// Open begins taking the tree of m, or goes on where a cut or a kill left
	// it. While a tree is open, Open returns the same sink.
	Open(ctx context.Context, m *Manifest) (Sink, error)
	// Resume returns the sink that Open returned for the manifest of that hash,
	// or CodeNotFound: then Open has to be called (again).
	Resume(ctx context.Context, hash string) (Sink, error)
}

// Sink takes the chunks of one tree. All methods may be called from many
// goroutines.
type Sink interface {
	Manifest() *Manifest
	// Missing tells which chunks are still to come.
	Missing() []Span
	// Put takes the bytes of the chunks of a span, one after another; the
	// caller has verified them, see [Verify]. Taking a chunk again is harmless.
	// What Put took survives a kill of the process.
	Put(ctx context.Context, s Span, data []byte) error
	// Commit makes the whole tree appear in its place, or tells with
	// CodeConflict that chunks are missing. It may be called again, also by a
	// later process.
	Commit(ctx context.Context) error
}

// Verify checks that data is what the manifest says of the chunks of a span.
// CodeInvalid names the file that has another content.
func Verify(m *Manifest, s Span, data []byte) error {
	x := m.indexed()
	size, ok := x.size(s)
	if !ok || size != len(data) {
		return skyport.Errorf(skyport.CodeInvalid, "%d bytes came for chunks %d to %d, which is not what the manifest says", len(data), s.First, uint64(s.First)+uint64(s.Count))
	}
	for n := s.First; n < s.First+s.Count; n++ {
		ref := &x.chunks[n]
		if blake3.Sum256(data[:ref.Size]) != ref.Hash {
			return skyport.Errorf(skyport.CodeInvalid, "%q came with another content than its manifest says: it changed, or was damaged on the way",
				skyport.Abbreviate(string(m.Entries[ref.Entry].Path), 200))
		}
		data = data[ref.Size:]
	}
	return nil
}

// onDisk gives errors of writing their code.
func onDisk(err error, doing, path string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return skyport.Errorf(skyport.CodeNoSpace, "%s %s: %w", doing, path, err).
			WithHint("free space there; the transfer goes on where it stopped")
	}
	return skyport.Errorf(skyport.CodeInternal, "%s %s: %w", doing, path, err)
}

func sumOf(p []byte) [32]byte { return blake3.Sum256(p) }

// enoughSpace tells early that a disk is too full.
func enoughSpace(dir string, need int64) error {
	if free, ok := freeSpace(dir); ok && need > free {
		return skyport.Errorf(skyport.CodeNoSpace, "%s has room for %s, the tree needs %s more", dir, skyport.Bytes(free), skyport.Bytes(need)).
			WithHint("free space there; the transfer goes on where it stopped")
	}
	return nil
}
