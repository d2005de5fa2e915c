package transfer

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/openworkload/skyport"
)

// Source is a tree that can be sent: its manifest and the bytes behind it.
// All methods may be called from many goroutines.
type Source interface {
	Manifest() *Manifest
	// ReadChunk fills p, which is exactly c.Size long. It need not check the
	// hash: the receiver does.
	ReadChunk(ctx context.Context, c ChunkRef, p []byte) error
}

// Tree is a tree of files on disk. It implements [Source] and holds no file open.
type Tree struct {
	parts    Source // of inputs from several directories; the fields below are zero then, but for the manifest
	root     string
	under    string // with rename: what is called rename in the manifest is called under on disk
	rename   string
	manifest *Manifest
	stamps   []stamp
}

// OpenTree is the tree of a manifest that was placed in dir before. It reads
// nothing: a file that is not as the manifest says shows when it is sent.
func OpenTree(dir string, m *Manifest) *Tree {
	t := &Tree{root: withoutLinks(dir), manifest: m, stamps: make([]stamp, len(m.Entries))}
	for i, e := range m.Entries {
		t.stamps[i] = stamp{size: e.Size, nanos: e.ModTime.UnixNano()}
	}
	return t
}

// withoutLinks is the path that [openFile] wants for a directory. One that is
// not there shows when something in it is opened.
func withoutLinks(dir string) string {
	if absolute, err := filepath.Abs(dir); err == nil {
		dir = absolute
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	return dir
}

// Manifest implements [Source].
func (t *Tree) Manifest() *Manifest { return t.manifest }

// ReadChunk implements [Source]. A file that is not what it was when it was
// scanned is CodeConflict.
func (t *Tree) ReadChunk(ctx context.Context, c ChunkRef, p []byte) error {
	if t.parts != nil {
		return t.parts.ReadChunk(ctx, c, p)
	}
	path := string(t.manifest.Entries[c.Entry].Path)
	if t.rename != "" {
		path = t.under + path[len(t.rename):]
	}
	f, err := openFile(t.root, path, os.O_RDONLY)
	if err != nil {
		return skyport.Errorf(skyport.CodeConflict, "reading %s: %w", filepath.Join(t.root, path), err)
	}
	defer func() { _ = f.Close() }() // only read
	// Looked at after the read: that covers a change before and during it.
	_, err = f.ReadAt(p, c.Offset)
	if changed := t.stamps[c.Entry].check(f); changed != nil {
		err = changed
	}
	if err != nil {
		return skyport.Errorf(skyport.CodeConflict, "reading %s: %w", filepath.Join(t.root, path), err)
	}
	return nil
}

// readUnchecked is ReadChunk for a tree without stamps: the caller verifies.
func (t *Tree) readUnchecked(c ChunkRef, p []byte) error {
	f, err := openFile(t.root, string(t.manifest.Entries[c.Entry].Path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if _, err := f.ReadAt(p, c.Offset); err != nil {
		return fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return nil
}

// stamp tells cheaply whether a file is still what it was.
type stamp struct {
	size, nanos int64
	inode       uint64 // 0: not known
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), nanos: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

func (s stamp) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at it: %w", err)
	}
	now := stampOf(info)
	if !info.Mode().IsRegular() || now.size != s.size || now.nanos != s.nanos || s.inode != 0 && now.inode != s.inode {
		return errChanged
	}
	return nil
}

// Join makes one source of several. Names at the top of the trees must differ
// (CodeInvalid).
func Join(sources ...Source) (Source, error) {
	if len(sources) == 1 {
		return sources[0], nil
	}
	type origin struct {
		entry  Entry
		source Source
		index  int
	}
	var all []origin
	j := &joined{manifest: &Manifest{}}
	for _, source := range sources {
		m := source.Manifest()
		for i, e := range m.Entries {
			all = append(all, origin{e, source, i})
		}
		j.manifest.Missing = append(j.manifest.Missing, m.Missing...)
		j.manifest.Warnings = append(j.manifest.Warnings, m.Warnings...)
	}
	slices.SortStableFunc(all, func(a, b origin) int {
		return cmp.Or(comparePaths(a.entry.Path, b.entry.Path), 0)
	})
	for i, o := range all {
		if i > 0 && o.source != all[i-1].source && comparePaths(all[i-1].entry.Path, o.entry.Path) == 0 {
			return nil, skyport.Errorf(skyport.CodeInvalid, "two inputs are both named %q", o.entry.Path).
				WithHint("inputs land under their base names: rename one, or put both into directories")
		}
		j.manifest.Entries = append(j.manifest.Entries, o.entry)
		j.sources = append(j.sources, o.source)
		j.indexes = append(j.indexes, o.index)
	}
	if err := j.manifest.Validate(Limits{Entries: 10_000_000}); err != nil {
		return nil, fmt.Errorf("joining trees: %w", err)
	}
	return j, nil
}

type joined struct {
	manifest *Manifest
	sources  []Source
	indexes  []int // of the entry in its own source
}

func (j *joined) Manifest() *Manifest { return j.manifest }

func (j *joined) ReadChunk(ctx context.Context, c ChunkRef, p []byte) error {
	source := j.sources[c.Entry]
	c.Entry = j.indexes[c.Entry]
	return source.ReadChunk(ctx, c, p)
}
