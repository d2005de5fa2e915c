package transfer

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"golang.org/x/sync/errgroup"
)

// Depot is a store of trees by content: the inputs of one user, kept until no
// job needs them. What two trees have in common is sent and stored once. Each
// user has a depot of their own: sharing chunks between users would tell one
// what another has. It implements [Place].
//
// Every tree has up to three files, named by its hash: .data, the chunks that
// came with it, one after another; .index, where each lies; .manifest, written
// last and durably, which makes the tree complete. Thus a tree of 10,000 files
// costs as many syncs as one of a single file. A kill at any moment leaves what
// had come for the next Open of the same tree.
type Depot struct {
	dir  string
	lock *os.File

	mu       sync.RWMutex
	where    map[[32]byte]location
	packs    map[string]*pack    // by the hash of the tree that they came with
	deposits map[string]*deposit // trees that are coming
}

// pack is a data file with its index.
type pack struct {
	name   string
	synced bool // up to its end
}

type location struct {
	pack   *pack
	offset int64
	size   uint32
}

const (
	dataSuffix     = ".data"
	indexSuffix    = ".index"
	manifestSuffix = ".manifest"
	indexRecord    = 32 + 8 + 4
)

// OpenDepot opens or makes the depot in dir. One process at a time has a depot
// open; for a second one it is CodeConflict.
func OpenDepot(dir string) (*Depot, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, onDisk(err, "making", dir)
	}
	d := &Depot{dir: dir, where: map[[32]byte]location{}, packs: map[string]*pack{}, deposits: map[string]*deposit{}}
	var err error
	if d.lock, err = os.OpenFile(d.path("lock", ""), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, onDisk(err, "opening", dir)
	}
	if err := lockFile(d.lock); err != nil {
		return nil, errors.Join(skyport.Errorf(skyport.CodeConflict, "another process uses the depot %s", dir), d.lock.Close())
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the depot %s: %w", dir, err), d.lock.Close())
	}
	return d, nil
}

func (d *Depot) path(name, suffix string) string { return filepath.Join(d.dir, name+suffix) }

func (d *Depot) load() error {
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return onDisk(err, "listing", d.dir)
	}
	for _, entry := range names {
		name, isIndex := strings.CutSuffix(entry.Name(), indexSuffix)
		if !isIndex {
			continue
		}
		if err := d.loadPack(name); err != nil {
			return err
		}
	}
	return nil
}

// loadPack reads an index. One that was not sealed by a manifest and was
// written before the machine booted is checked against the data.
func (d *Depot) loadPack(name string) error {
	content, err := os.ReadFile(d.path(name, indexSuffix))
	if err != nil {
		return onDisk(err, "reading", d.path(name, indexSuffix))
	}
	p := &pack{name: name, synced: d.Has(name)}
	d.packs[name] = p
	if len(content) < bootIDSize {
		return nil
	}
	data, err := os.Open(d.path(name, dataSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return onDisk(err, "opening", d.path(name, dataSuffix))
	}
	defer func() { _ = data.Close() }() // only read
	info, err := data.Stat()
	if err != nil {
		return onDisk(err, "looking at", data.Name())
	}
	trusted := p.synced || string(content[:bootIDSize]) == bootID()
	buf := make([]byte, MaxChunk)
	for at := bootIDSize; at+indexRecord <= len(content); at += indexRecord {
		hash := [32]byte(content[at:])
		offset, size := int64(binary.BigEndian.Uint64(content[at+32:])), binary.BigEndian.Uint32(content[at+40:])
		if size > MaxChunk || offset < 0 || offset > info.Size()-int64(size) {
			continue
		}
		if !trusted {
			if _, err := data.ReadAt(buf[:size], offset); err != nil || sumOf(buf[:size]) != hash {
				continue
			}
		}
		if _, ok := d.where[hash]; !ok {
			d.where[hash] = location{p, offset, size}
		}
	}
	return nil
}

// Has says whether the tree with that manifest is complete.
func (d *Depot) Has(hash string) bool {
	if !isHash(hash) {
		return false
	}
	_, err := os.Lstat(d.path(hash, manifestSuffix))
	return err == nil
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && strings.ToLower(s) == s
}

// Open implements [Place].
func (d *Depot) Open(_ context.Context, m *Manifest) (Sink, error) {
	if err := m.Validate(Limits{}); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.deposits[m.Hash()]; ok {
		return s, nil
	}
	s := &deposit{depot: d, m: m, x: m.indexed(), used: time.Now()}
	s.arrived = make([]bool, len(s.x.chunks))
	var need int64
	for n, ref := range s.x.chunks {
		if l, ok := d.where[ref.Hash]; ok && l.size == ref.Size {
			s.arrived[n] = true
			continue
		}
		s.left++
		need += int64(ref.Size)
	}
	if err := enoughSpace(d.dir, need); err != nil {
		return nil, err
	}
	d.deposits[m.Hash()] = s
	return s, nil
}

// Resume implements [Place].
func (d *Depot) Resume(_ context.Context, hash string) (Sink, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if s, ok := d.deposits[hash]; ok {
		return s, nil
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "no transfer of tree %s is open", skyport.Abbreviate(hash, 64))
}

// Source opens a complete tree; CodeNotFound when there is none of that hash.
func (d *Depot) Source(hash string) (Source, error) {
	if !isHash(hash) {
		return nil, skyport.Errorf(skyport.CodeInvalid, "%q is not the hash of a tree", skyport.Abbreviate(hash, 80))
	}
	m, err := d.manifest(hash)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, skyport.Errorf(skyport.CodeNotFound, "tree %s is not in the depot", hash).
			WithHint("stage the inputs again")
	}
	if err != nil {
		return nil, err
	}
	return &stored{d, m}, nil
}

func (d *Depot) manifest(hash string) (*Manifest, error) {
	f, err := os.Open(d.path(hash, manifestSuffix))
	if err != nil {
		return nil, fmt.Errorf("opening the manifest of a tree: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	m, err := ReadManifest(f, Limits{})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	return m, nil
}

// stored is a complete tree of a depot.
type stored struct {
	depot *Depot
	m     *Manifest
}

func (s *stored) Manifest() *Manifest { return s.m }

func (s *stored) ReadChunk(_ context.Context, c ChunkRef, p []byte) error {
	s.depot.mu.RLock()
	l, ok := s.depot.where[c.Hash]
	s.depot.mu.RUnlock()
	path := s.m.Entries[c.Entry].Path
	if !ok || int(l.size) != len(p) {
		return skyport.Errorf(skyport.CodeNotFound, "a part of %q is not in the depot any more", path).WithHint("stage the inputs again")
	}
	f, err := os.Open(s.depot.path(l.pack.name, dataSuffix))
	if err != nil {
		return onDisk(err, "reading", string(path))
	}
	defer func() { _ = f.Close() }() // only read
	if _, err := f.ReadAt(p, l.offset); err != nil {
		return onDisk(err, "reading", string(path))
	}
	return nil
}

// Sweep removes the trees that keep does not want, and what came of trees that
// were never completed, when they were last used longer than olderThan ago.
// Chunks go with the tree that they came with, once no other needs them. It
// returns how much was freed.
func (d *Depot) Sweep(ctx context.Context, keep func(hash string) bool, olderThan time.Duration) (skyport.Bytes, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := time.Now().Add(-olderThan)
	for hash, s := range d.deposits {
		if s.dropIfIdle(before) {
			delete(d.deposits, hash)
		}
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return 0, onDisk(err, "listing", d.dir)
	}
	var freed skyport.Bytes
	remove := func(path string) error {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			return onDisk(err, "removing", path)
		}
		freed += skyport.Bytes(info.Size())
		return nil
	}
	young := func(entry fs.DirEntry) bool {
		info, err := entry.Info()
		return err != nil || info.ModTime().After(before)
	}

	needed := map[*pack]bool{}
	need := func(m *Manifest) {
		for _, ref := range m.indexed().chunks {
			if l, ok := d.where[ref.Hash]; ok {
				needed[l.pack] = true
			}
		}
	}
	for _, s := range d.deposits {
		need(s.m)
		if p := d.packs[s.m.Hash()]; p != nil {
			needed[p] = true
		}
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return freed, fmt.Errorf("sweeping the depot: %w", err)
		}
		path := filepath.Join(d.dir, entry.Name())
		name, isData := strings.CutSuffix(entry.Name(), dataSuffix)
		if orphan := isData && d.packs[name] == nil || strings.HasSuffix(entry.Name(), ".new"); orphan && !young(entry) {
			if err := remove(path); err != nil {
				return freed, err
			}
		}
		if hash, ok := strings.CutSuffix(entry.Name(), manifestSuffix); ok {
			if !young(entry) && d.deposits[hash] == nil && !keep(hash) {
				if err := remove(path); err != nil {
					return freed, err
				}
				continue
			}
			m, err := d.manifest(hash)
			if err != nil {
				return freed, err
			}
			need(m)
		}
		if hash, ok := strings.CutSuffix(entry.Name(), indexSuffix); ok && !d.Has(hash) && young(entry) {
			needed[d.packs[hash]] = true
		}
	}
	gone := map[*pack]bool{}
	for name, p := range d.packs {
		if needed[p] {
			continue
		}
		gone[p] = true
		// The index first: without it data means nothing, with it alone it lies.
		if err := errors.Join(remove(d.path(name, indexSuffix)), remove(d.path(name, dataSuffix))); err != nil {
			return freed, err
		}
		delete(d.packs, name)
	}
	for hash, l := range d.where {
		if gone[l.pack] {
			delete(d.where, hash)
		}
	}
	return freed, nil
}

// Close lets go of the depot. What is coming can go on after the next OpenDepot.
func (d *Depot) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.lock.Close()}
	for _, s := range d.deposits {
		errs = append(errs, s.close())
	}
	clear(d.deposits)
	return errors.Join(errs...)
}

// deposit is one tree on its way into a depot. It is a [Sink].
type deposit struct {
	depot *Depot
	m     *Manifest
	x     *index

	mu        sync.Mutex // taken before depot.mu; who holds that only tries
	arrived   []bool
	left      int
	used      time.Time
	pack      *pack
	data      *os.File // nil until a chunk comes that the depot lacks
	index     *os.File
	dataEnd   int64
	indexEnd  int64
	closed    bool
	committed bool
}

// Manifest implements [Sink].
func (s *deposit) Manifest() *Manifest { return s.m }

// Missing implements [Sink].
func (s *deposit) Missing() []Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		return nil
	}
	return s.x.spans(func(n uint32) bool { return !s.arrived[n] })
}

// Put implements [Sink].
func (s *deposit) Put(_ context.Context, span Span, data []byte) error {
	if size, ok := s.x.size(span); !ok || size != len(data) {
		return skyport.Errorf(skyport.CodeInvalid, "%d bytes do not belong to %d chunks from %d on", len(data), span.Count, span.First)
	}
	offset, file, err := s.reserve(span, int64(len(data)))
	if err != nil || file == nil {
		return err
	}
	if _, err := file.WriteAt(data, offset); err != nil {
		return onDisk(err, "storing", string(s.m.Entries[s.x.chunks[span.First].Entry].Path))
	}
	return s.record(span, offset)
}

// reserve makes room in the data file, so that several streams can write at
// once. Without a file: the chunks are there.
func (s *deposit) reserve(span Span, size int64) (int64, *os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.arrived[span.First:span.First+span.Count], false) {
		return 0, nil, nil
	}
	if s.closed || s.committed {
		return 0, nil, skyport.Errorf(skyport.CodeUnavailable, "the transfer of tree %s is over", s.m.Hash())
	}
	if s.data == nil {
		if err := s.openFiles(); err != nil {
			return 0, nil, err
		}
	}
	offset := s.dataEnd
	s.dataEnd += size
	s.used = time.Now()
	return offset, s.data, nil
}

func (s *deposit) openFiles() error {
	name := s.m.Hash()
	for _, f := range []struct {
		file   **os.File
		end    *int64
		suffix string
	}{{&s.data, &s.dataEnd, dataSuffix}, {&s.index, &s.indexEnd, indexSuffix}} {
		path := s.depot.path(name, f.suffix)
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return onDisk(err, "opening", path)
		}
		*f.file = file
		info, err := file.Stat()
		if err != nil {
			return onDisk(err, "looking at", path)
		}
		*f.end = info.Size()
	}
	// After a boot only what was found to be whole may stay under this boot's id.
	head := make([]byte, bootIDSize)
	if _, err := s.index.ReadAt(head, 0); err != nil || string(head) != bootID() {
		if err := s.rewriteIndex(); err != nil {
			return err
		}
	}
	s.indexEnd -= (s.indexEnd - bootIDSize) % indexRecord
	s.depot.mu.Lock()
	defer s.depot.mu.Unlock()
	if s.pack = s.depot.packs[name]; s.pack == nil {
		s.pack = &pack{name: name}
		s.depot.packs[name] = s.pack
	}
	s.pack.synced = false
	return nil
}

func (s *deposit) rewriteIndex() error {
	content := []byte(bootID())
	s.depot.mu.RLock()
	for hash, l := range s.depot.where {
		if l.pack.name == s.m.Hash() {
			content = appendLocation(content, hash, l.offset, l.size)
		}
	}
	s.depot.mu.RUnlock()
	if err := s.index.Truncate(0); err != nil {
		return onDisk(err, "emptying", s.index.Name())
	}
	if _, err := s.index.WriteAt(content, 0); err != nil {
		return onDisk(err, "writing", s.index.Name())
	}
	s.indexEnd = int64(len(content))
	return nil
}

func appendLocation(b []byte, hash [32]byte, offset int64, size uint32) []byte {
	b = append(b, hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	return binary.BigEndian.AppendUint32(b, size)
}

// record notes where the chunks of a span lie, in the index first.
func (s *deposit) record(span Span, offset int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return skyport.Errorf(skyport.CodeUnavailable, "the transfer of tree %s is over", s.m.Hash())
	}
	var records []byte
	at := offset
	for _, ref := range s.x.chunks[span.First : span.First+span.Count] {
		records = appendLocation(records, ref.Hash, at, ref.Size)
		at += int64(ref.Size)
	}
	if _, err := s.index.WriteAt(records, s.indexEnd); err != nil {
		return onDisk(err, "writing", s.index.Name())
	}
	s.indexEnd += int64(len(records))
	s.depot.mu.Lock()
	defer s.depot.mu.Unlock()
	for n := span.First; n < span.First+span.Count; n++ {
		ref := s.x.chunks[n]
		if _, ok := s.depot.where[ref.Hash]; !ok {
			s.depot.where[ref.Hash] = location{s.pack, offset, ref.Size}
		}
		offset += int64(ref.Size)
		if !s.arrived[n] {
			s.arrived[n] = true
			s.left--
		}
	}
	return nil
}

// Commit implements [Sink]: it syncs the data, then writes the manifest. Called
// for a tree that is complete, it makes it young again for Sweep.
func (s *deposit) Commit(_ context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.committed {
		return nil
	}
	if s.left > 0 {
		return skyport.Errorf(skyport.CodeConflict, "the tree is not complete: %d of %d chunks are missing", s.left, len(s.x.chunks))
	}
	if s.closed {
		return skyport.Errorf(skyport.CodeUnavailable, "the transfer of tree %s is over", s.m.Hash())
	}
	if err := s.seal(); err != nil {
		return err
	}
	s.committed = true
	err := s.closeFiles()
	s.depot.mu.Lock()
	delete(s.depot.deposits, s.m.Hash())
	s.depot.mu.Unlock()
	return err
}

func (s *deposit) seal() error {
	hash := s.m.Hash()
	path := s.depot.path(hash, manifestSuffix)
	if s.data == nil && s.depot.Has(hash) {
		now := time.Now()
		if err := os.Chtimes(path, now, now); err != nil {
			return onDisk(err, "touching", path)
		}
		return nil
	}
	// Chunks may lie in packs of trees that are still coming.
	unsynced := map[*pack]bool{}
	s.depot.mu.RLock()
	for _, ref := range s.x.chunks {
		if l, ok := s.depot.where[ref.Hash]; ok && !l.pack.synced {
			unsynced[l.pack] = true
		}
	}
	s.depot.mu.RUnlock()
	var g errgroup.Group
	for p := range unsynced {
		g.Go(func() error { return syncFile(s.depot.path(p.name, dataSuffix)) })
		g.Go(func() error { return syncFile(s.depot.path(p.name, indexSuffix)) })
	}
	g.Go(func() error {
		f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return onDisk(err, "making", path)
		}
		_, err = s.m.WriteTo(f)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return onDisk(err, "writing", path)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return onDisk(err, "placing", path)
	}
	if err := syncDir(s.depot.dir); err != nil {
		return err
	}
	s.depot.mu.Lock()
	defer s.depot.mu.Unlock()
	if s.pack != nil {
		s.pack.synced = true
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return onDisk(err, "syncing", path)
	}
	return nil
}

// dropIfIdle closes a deposit that nobody has used since before.
func (s *deposit) dropIfIdle(before time.Time) bool {
	if !s.mu.TryLock() {
		return false // it is being used right now
	}
	defer s.mu.Unlock()
	if s.used.After(before) {
		return false
	}
	s.closed = true
	_ = s.closeFiles() // what it held is about to be removed
	return true
}

func (s *deposit) close() error {
	if !s.mu.TryLock() {
		return nil // a commit is under way and closes by itself
	}
	defer s.mu.Unlock()
	s.closed = true
	return s.closeFiles()
}

func (s *deposit) closeFiles() error {
	var errs []error
	for _, f := range []**os.File{&s.data, &s.index} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}
