package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers the algorithm
)

// ScanOptions say what of a directory is scanned.
type ScanOptions struct {
	// Root is the directory that paths are relative to.
	Root string
	// Names are paths relative to Root, files or directories; empty: everything.
	Names []string
	// Exclude leaves out a path, and what is below it. May be nil.
	Exclude func(path string) bool
	// Strict makes files that cannot be read, change while they are read or
	// vanish an error (CodeInputUnreadable) in place of a warning.
	Strict bool
	// Workers is how many goroutines read and hash; 0: one per cpu.
	Workers int
}

// Scan reads a tree and returns it with its manifest. Names that are not there
// are listed in Missing of the manifest, what was left out in Warnings:
// sockets, devices, pipes, links that lead out of the tree (they are never
// followed) and, unless Strict, what could not be read or kept changing. Only
// links that go up at their beginning alone (../../a, not a/../b) are known not
// to lead out. The directories above a name are part of the tree.
func Scan(ctx context.Context, o ScanOptions) (*Tree, error) {
	return scan(ctx, o, "")
}

// ScanInputs scans files and directories anywhere, strictly. They land under
// their base names, which must differ (CodeInvalid). A path that is itself a
// link stands for what it leads to, under the link's name.
func ScanInputs(ctx context.Context, paths []string) (*Tree, error) {
	sources := make([]Source, 0, len(paths))
	for _, path := range paths {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, skyport.Errorf(skyport.CodeInputUnreadable, "finding input %s: %w", path, err)
		}
		resolved, err := filepath.EvalSymlinks(absolute)
		if err != nil {
			return nil, skyport.Errorf(skyport.CodeInputUnreadable, "finding input %s: %w", path, err)
		}
		if filepath.Dir(resolved) == resolved {
			return nil, skyport.Errorf(skyport.CodeInvalid, "input %s is the root directory and has no name of its own", path)
		}
		tree, err := scan(ctx, ScanOptions{Root: filepath.Dir(resolved), Names: []string{filepath.Base(resolved)}, Strict: true}, filepath.Base(absolute))
		if err != nil {
			return nil, err
		}
		if len(tree.manifest.Entries) == 0 {
			return nil, skyport.Errorf(skyport.CodeInputUnreadable, "input %s is neither a file nor a directory", path)
		}
		sources = append(sources, tree)
	}
	if len(sources) == 1 {
		return sources[0].(*Tree), nil
	}
	parts, err := Join(sources...)
	if err != nil {
		return nil, err
	}
	return &Tree{parts: parts, manifest: parts.Manifest()}, nil
}

// scan is Scan; with rename the one name of the options lands under that name.
func scan(ctx context.Context, o ScanOptions, rename string) (*Tree, error) {
	root, err := filepath.Abs(o.Root)
	if err == nil {
		// From here on no part of a path may be a link, see openFile.
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return nil, skyport.Errorf(skyport.CodeInputUnreadable, "scanning %s: %w", o.Root, err)
	}
	names, covered, err := cleanNames(o.Names)
	if err != nil {
		return nil, err
	}
	s := &scanner{options: o, root: root, rename: rename, seen: map[string]bool{}}
	if err := s.walk(ctx, names); err != nil {
		return nil, err
	}
	for _, name := range covered {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			s.missing = append(s.missing, name)
		}
	}
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	return s.tree()
}

// cleanNames returns the names to walk, nil for everything, and those that are
// below others and so are covered by them.
func cleanNames(names []string) (kept, covered []string, err error) {
	var clean []string
	for _, name := range names {
		if !filepath.IsLocal(name) {
			return nil, nil, skyport.Errorf(skyport.CodeInvalid, "%q is not a path within the directory", name)
		}
		clean = append(clean, filepath.Clean(name))
	}
	slices.SortFunc(clean, func(a, b string) int { return comparePaths([]byte(a), []byte(b)) })
	clean = slices.Compact(clean)
	if i := slices.Index(clean, "."); i >= 0 {
		return nil, slices.Delete(clean, i, i+1), nil
	}
	for _, name := range clean {
		if k := len(kept) - 1; k >= 0 && below([]byte(name), []byte(kept[k])) {
			covered = append(covered, name)
			continue
		}
		kept = append(kept, name)
	}
	return kept, covered, nil
}

// scanner collects entries, then reads the files among them.
type scanner struct {
	options ScanOptions
	root    string
	rename  string
	seen    map[string]bool // directories above names
	found   []*found
	missing []string

	mu       sync.Mutex
	warnings []string
}

// found is an entry on its way to the manifest.
type found struct {
	Entry
	stamp    stamp
	segments [][]Chunk // of a file
	reason   error     // why it is left out
}

func (s *scanner) walk(ctx context.Context, names []string) error {
	if names == nil {
		return s.directory(ctx, "")
	}
	for _, name := range names {
		if s.options.Exclude != nil && s.options.Exclude(name) {
			continue
		}
		ok, err := s.parents(name)
		if err != nil {
			return err
		}
		if !ok {
			s.missing = append(s.missing, name)
			continue
		}
		info, err := os.Lstat(filepath.Join(s.root, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.missing = append(s.missing, name)
		case err != nil:
			s.missing = append(s.missing, name)
			if err := s.leaveOut(name, err); err != nil {
				return err
			}
		default:
			if err := s.entry(ctx, name, info); err != nil {
				return err
			}
		}
	}
	return nil
}

// parents adds the directories above a name, unless one is not there or is
// something else than a directory.
func (s *scanner) parents(name string) (bool, error) {
	var above []*found
	for i, c := range name {
		if c != '/' || s.seen[name[:i]] {
			continue
		}
		info, err := os.Lstat(filepath.Join(s.root, name[:i]))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, s.leaveOut(name, err)
		}
		if err != nil || !info.IsDir() {
			return false, nil //nolint:nilerr // what is not there any more is left out
		}
		above = append(above, newFound(name[:i], Dir, info))
	}
	for _, f := range above {
		s.seen[string(f.Path)] = true
		s.found = append(s.found, f)
	}
	return true, nil
}

func (s *scanner) entry(ctx context.Context, path string, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		f := newFound(path, File, info)
		f.segments = make([][]Chunk, (info.Size()+segmentSize-1)/segmentSize)
		s.found = append(s.found, f)
	case mode.IsDir():
		s.found = append(s.found, newFound(path, Dir, info))
		return s.directory(ctx, path)
	case mode&fs.ModeSymlink != 0:
		target, err := os.Readlink(filepath.Join(s.root, path))
		if err != nil {
			return s.leaveOut(path, err)
		}
		if !staysInside([]byte(path), []byte(target)) {
			s.warn("%s is left out: it is a link that leads, or may lead, out of the tree, to %s", path, target)
			return nil
		}
		f := newFound(path, Symlink, info)
		f.Link = []byte(target)
		s.found = append(s.found, f)
	default:
		s.warn("%s is left out: it is neither a file nor a directory nor a link", path)
	}
	return nil
}

func (s *scanner) directory(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("scanning %s: %w", s.root, err)
	}
	if len(s.found) > 10*(Limits{}).withDefaults().Entries {
		return skyport.Errorf(skyport.CodeTooLarge, "%s has too many files", s.root)
	}
	dir, err := openFile(s.root, path, os.O_RDONLY|openDirectory)
	if err != nil {
		return s.leaveOut(path, err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close() // only read
	if err != nil {
		return s.leaveOut(path, err)
	}
	for _, name := range names {
		inside := filepath.Join(path, name)
		if path == "" && strings.HasPrefix(name, stagePrefix) || s.options.Exclude != nil && s.options.Exclude(inside) {
			continue
		}
		info, err := os.Lstat(filepath.Join(s.root, inside))
		if err != nil {
			if err := s.leaveOut(inside, err); err != nil {
				return err
			}
			continue
		}
		if err := s.entry(ctx, inside, info); err != nil {
			return err
		}
	}
	return nil
}

func newFound(path string, kind Kind, info fs.FileInfo) *found {
	f := &found{stamp: stampOf(info)}
	f.Path, f.Kind, f.Mode = []byte(path), kind, uint32(info.Mode().Perm())
	f.ModTime = info.ModTime().UTC()
	if !sane(f.ModTime) {
		f.ModTime = time.Unix(0, 0).UTC()
	}
	if kind == Symlink {
		f.Mode = 0o777 // links have no mode of their own
	}
	if kind == File {
		f.Size = info.Size()
	}
	return f
}

// leaveOut is what happens to a path that cannot be read.
func (s *scanner) leaveOut(path string, why error) error {
	if s.options.Strict {
		return skyport.Errorf(skyport.CodeInputUnreadable, "reading %s: %w", filepath.Join(s.root, path), why)
	}
	s.warn("%s is left out: %v", path, why)
	return nil
}

func (s *scanner) warn(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch text := skyport.Abbreviate(fmt.Sprintf(format, args...), longestNote-8); {
	case len(s.warnings) < mostNotes-1:
		s.warnings = append(s.warnings, text)
	case len(s.warnings) == mostNotes-1:
		s.warnings = append(s.warnings, "and more")
	}
}

// segmentSize is how much of a file one goroutine reads. The chunker begins
// anew at each segment: chunks depend on the content only, and several
// processors can work on one file. After an insertion the cuts fall into step
// again within a few chunks, in every segment.
const segmentSize = 64 << 20

// read chunks and hashes the files, all processors at once. A file that changed
// meanwhile is read again, up to three times in all.
func (s *scanner) read(ctx context.Context) error {
	var files []*found
	for _, f := range s.found {
		if f.Kind == File {
			files = append(files, f)
		}
	}
	for try := 0; len(files) > 0; try++ {
		if err := s.readFiles(ctx, files); err != nil {
			return err
		}
		files = slices.DeleteFunc(files, func(f *found) bool { return f.reason == nil || !errors.Is(f.reason, errChanged) })
		if try == 2 {
			break
		}
		for i, f := range files {
			info, err := os.Lstat(filepath.Join(s.root, string(f.Path)))
			if err != nil {
				f.reason = err
				continue
			}
			fresh := newFound(string(f.Path), File, info)
			fresh.segments = make([][]Chunk, (info.Size()+segmentSize-1)/segmentSize)
			*f = *fresh
			files[i] = f
		}
	}
	for _, f := range s.found {
		if f.reason != nil {
			if err := s.leaveOut(string(f.Path), f.reason); err != nil {
				return err
			}
		}
	}
	return nil
}

// errChanged marks a file that is not what it was.
var errChanged = errors.New("the file changed while it was read")

type segment struct {
	file *found
	n    int
}

func (s *scanner) readFiles(ctx context.Context, files []*found) error {
	workers := s.options.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	work := make(chan []segment, workers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		send := func(batch []segment) error {
			select {
			case work <- batch:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("scanning %s: %w", s.root, ctx.Err())
			}
		}
		// Small files go in batches: a channel costs more than a small read.
		var batch []segment
		var bytes int64
		for i, f := range files {
			if len(f.segments) == 1 {
				batch, bytes = append(batch, segment{f, 0}), bytes+f.Size
			}
			if full := bytes >= minChunk || len(batch) == 64; len(batch) > 0 && (full || i == len(files)-1) {
				if err := send(batch); err != nil {
					return err
				}
				batch, bytes = nil, 0
			}
			if len(f.segments) > 1 {
				for n := range f.segments {
					if err := send([]segment{{f, n}}); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			c := newCutter()
			for batch := range work {
				for _, seg := range batch {
					if err := ctx.Err(); err != nil {
						return fmt.Errorf("scanning %s: %w", s.root, err)
					}
					chunks, err := s.readSegment(c, seg)
					s.mu.Lock()
					seg.file.segments[seg.n] = chunks
					if err != nil {
						seg.file.reason = err
					}
					s.mu.Unlock()
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *scanner) readSegment(c *cutter, seg segment) ([]Chunk, error) {
	f, err := openFile(s.root, string(seg.file.Path), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if err := seg.file.stamp.check(f); err != nil {
		return nil, err
	}
	offset := int64(seg.n) * segmentSize
	length := min(seg.file.Size-offset, segmentSize)
	chunks, err := c.cut(f, offset, length, nil)
	if err != nil {
		return nil, err
	}
	return chunks, seg.file.stamp.check(f)
}

const (
	minChunk    = 512 << 10
	normalChunk = 1 << 20
)

// cutter cuts stretches of files into chunks. It belongs to one goroutine.
type cutter struct {
	buf     []byte
	chunker *chunkers.Chunker
}

func newCutter() *cutter { return &cutter{buf: make([]byte, minChunk)} }

// cut returns the chunks of a stretch; each is told when it is not nil.
func (c *cutter) cut(f io.ReaderAt, offset, length int64, each func(offset int64, chunk Chunk, p []byte)) ([]Chunk, error) {
	if length <= int64(len(c.buf)) {
		p := c.buf[:length]
		if n, err := f.ReadAt(p, offset); n < len(p) {
			return nil, shortRead(err)
		}
		chunk := Chunk{Hash: blake3.Sum256(p), Size: uint32(length)}
		if each != nil {
			each(offset, chunk, p)
		}
		return []Chunk{chunk}, nil
	}
	section := io.NewSectionReader(f, offset, length)
	if c.chunker == nil {
		var err error
		c.chunker, err = chunkers.NewChunker("fastcdc-v1.0.0", section,
			&chunkers.ChunkerOpts{MinSize: minChunk, NormalSize: normalChunk, MaxSize: MaxChunk})
		if err != nil {
			return nil, fmt.Errorf("setting up the chunker: %w", err)
		}
	} else {
		c.chunker.Reset(section)
	}
	chunks := make([]Chunk, 0, length/normalChunk+1)
	for length > 0 {
		p, err := c.chunker.Next()
		if len(p) == 0 {
			return nil, shortRead(err)
		}
		chunk := Chunk{Hash: blake3.Sum256(p), Size: uint32(len(p))}
		if each != nil {
			each(offset, chunk, p)
		}
		chunks = append(chunks, chunk)
		offset += int64(len(p))
		length -= int64(len(p))
	}
	return chunks, nil
}

func shortRead(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return errChanged
	}
	return err
}

// tree makes the manifest.
func (s *scanner) tree() (*Tree, error) {
	kept := slices.DeleteFunc(s.found, func(f *found) bool { return f.reason != nil })
	slices.SortFunc(kept, func(a, b *found) int { return comparePaths(a.Path, b.Path) })
	t := &Tree{root: s.root, manifest: &Manifest{Missing: s.missing, Warnings: s.warnings}, stamps: make([]stamp, len(kept))}
	t.manifest.Entries = make([]Entry, len(kept))
	for i, f := range kept {
		if len(f.segments) == 1 {
			f.Chunks = f.segments[0]
		} else {
			f.Chunks = slices.Concat(f.segments...)
		}
		t.manifest.Entries[i], t.stamps[i] = f.Entry, f.stamp
	}
	if s.rename != "" {
		t.under = s.options.Names[0]
		t.rename = s.rename
		for i := range t.manifest.Entries {
			e := &t.manifest.Entries[i]
			e.Path = append([]byte(s.rename), e.Path[len(t.under):]...)
		}
	}
	if err := t.manifest.Validate(Limits{Entries: 10_000_000}); err != nil {
		return nil, fmt.Errorf("scanning %s: %w", s.root, err)
	}
	return t, nil
}
