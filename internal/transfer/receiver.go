package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/openworkload/skyport"
)

// stagePrefix begins the names of the directories in which trees are assembled.
// No tree may have such a name at its top.
const stagePrefix = ".skyport-stage-"

// ReceiverOptions say how a directory receives; the zero value is good.
type ReceiverOptions struct {
	// Stage is the directory for trees that are not complete, on the same file
	// system as the target. Default: the target itself, where a hidden
	// directory (.skyport-stage-…) lives until the tree is placed.
	Stage string
	// Durable makes Commit return only when the tree survives a power loss.
	Durable bool
	// Limits bound what is taken.
	Limits Limits
}

// Receiver assembles trees in a directory. It implements [Place].
//
// A tree is assembled in a stage beside its place: each chunk is written once,
// at its offset in its file. A journal keeps what came, so nothing is asked for
// twice after a cut or a kill; after a reboot what the journal says is checked
// first. What the directory already has, under the names of the tree, is not
// asked for either.
//
// Commit places the tree by renaming. What is not in the way moves as a whole:
// a new directory appears with all its content at once. A directory that is
// there is merged with that of the tree: files of the same name are replaced,
// each atomically, other files stay. A directory in the place of a file, or the
// other way round, is CodeConflict, told by Open.
type Receiver struct {
	dir     string
	options ReceiverOptions

	mu         sync.Mutex
	assemblies map[string]*assembly
}

// NewReceiver returns the place dir; it is made when the first tree arrives.
func NewReceiver(dir string, o ReceiverOptions) *Receiver {
	if o.Stage == "" {
		o.Stage = dir
	}
	return &Receiver{dir: dir, options: o, assemblies: map[string]*assembly{}}
}

// Open implements [Place]. CodeConflict also says that another process is
// receiving the same tree there.
func (r *Receiver) Open(ctx context.Context, m *Manifest) (Sink, error) {
	if err := m.Validate(r.options.Limits); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.assemblies[m.Hash()]; ok && !a.isCommitted() {
		return a, nil
	}
	a, err := openAssembly(ctx, r.dir, r.options, m)
	if err != nil {
		return nil, fmt.Errorf("receiving into %s: %w", r.dir, err)
	}
	r.assemblies[m.Hash()] = a
	return a, nil
}

// Resume implements [Place].
func (r *Receiver) Resume(_ context.Context, hash string) (Sink, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.assemblies[hash]; ok {
		return a, nil
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "no transfer of tree %s is open", skyport.Abbreviate(hash, 64))
}

// Close lets go of what is open. What arrived stays in the stage for the next
// Open, by this or another process.
func (r *Receiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, a := range r.assemblies {
		errs = append(errs, a.close())
	}
	clear(r.assemblies)
	return errors.Join(errs...)
}

// assembly is one tree on its way into a directory. It is a [Sink].
type assembly struct {
	dir     string // the place
	stage   string // where the tree is assembled, below tree; beside it the journal
	durable bool
	m       *Manifest
	x       *index
	inPlace map[int]stamp // files that the place already has

	// writing is held for reading by every Put and for writing by Commit: what
	// is placed is not written to any more.
	writing sync.RWMutex

	mu        sync.Mutex // below writing
	arrived   []bool
	left      int
	journal   *os.File
	placing   bool // a commit has begun: files may already be in their place
	committed bool
}

func openAssembly(ctx context.Context, dir string, o ReceiverOptions, m *Manifest) (*assembly, error) {
	x := m.indexed()
	a := &assembly{
		dir: dir, stage: filepath.Join(o.Stage, stagePrefix+x.hash[:32]), durable: o.Durable, m: m, x: x,
		inPlace: map[int]stamp{}, arrived: make([]bool, len(x.chunks)), left: len(x.chunks),
	}
	for _, d := range []string{dir, o.Stage} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, onDisk(err, "making", d)
		}
	}
	for _, d := range []string{a.stage, a.staged(nil)} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, onDisk(err, "making", d)
		}
	}
	err := a.begin(ctx)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// begin finds out what is there: in the stage, then in the place.
func (a *assembly) begin(ctx context.Context) error {
	if err := a.readJournal(ctx); err != nil {
		return err
	}
	if a.placing {
		return nil
	}
	for i := range a.m.Entries {
		if e := &a.m.Entries[i]; e.Kind == Dir {
			if err := os.Mkdir(a.staged(e.Path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return onDisk(err, "making", a.staged(e.Path))
			}
		}
	}
	if err := a.reuse(ctx); err != nil {
		return err
	}
	return enoughSpace(a.stage, int64(a.x.bytesOf(a.Missing())))
}

func (a *assembly) staged(path []byte) string {
	return filepath.Join(a.stage, "tree", string(path))
}

func (a *assembly) placed(path []byte) string { return filepath.Join(a.dir, string(path)) }

// The journal begins with the boot id of the machine that wrote it, followed by
// spans of chunks that came, each written after the data. A span of no chunks
// says that a commit has begun. It is never synced: a kill loses nothing of
// what was written, and after a reboot its word is checked.
const (
	bootIDSize = 36
	recordSize = 8
)

func (a *assembly) readJournal(ctx context.Context) error {
	path := filepath.Join(a.stage, "journal")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return onDisk(err, "opening", path)
	}
	a.journal = f
	if err := lockFile(f); err != nil {
		return skyport.Errorf(skyport.CodeConflict, "another process is receiving the same tree: %s is locked", path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return onDisk(err, "reading", path)
	}
	boot := bootID()
	if len(content) < bootIDSize {
		content = nil
	}
	sameBoot := len(content) > 0 && string(content[:bootIDSize]) == boot
	var spans []Span
	for at := bootIDSize; at+recordSize <= len(content); at += recordSize {
		s := Span{binary.BigEndian.Uint32(content[at:]), binary.BigEndian.Uint32(content[at+4:])}
		if s.Count == 0 {
			a.placing = true
			continue
		}
		if _, ok := a.x.size(s); ok {
			spans = append(spans, s)
		}
	}
	if a.placing && !sameBoot && !a.durable {
		// The machine went down between placing and the disk's having it all:
		// what is in the place is compared, the rest comes again.
		a.placing, spans = false, nil
		if err := os.RemoveAll(a.staged(nil)); err != nil {
			return onDisk(err, "clearing", a.stage)
		}
		if err := os.Mkdir(a.staged(nil), 0o700); err != nil {
			return onDisk(err, "making", a.stage)
		}
	}
	if !sameBoot {
		kept := spans[:0]
		for _, s := range spans {
			if a.placing || a.verifyStaged(ctx, s) {
				kept = append(kept, s)
			}
		}
		spans = kept
		if err := f.Truncate(0); err != nil {
			return onDisk(err, "emptying", path)
		}
		record := []byte(boot)
		for _, s := range spans {
			record = appendSpan(record, s)
		}
		if a.placing {
			record = appendSpan(record, Span{})
		}
		if _, err := f.Write(record); err != nil {
			return onDisk(err, "writing", path)
		}
	} else if torn := (len(content) - bootIDSize) % recordSize; torn != 0 {
		if err := f.Truncate(int64(len(content) - torn)); err != nil {
			return onDisk(err, "mending", path)
		}
	}
	for _, s := range spans {
		a.mark(s)
	}
	return nil
}

func appendSpan(b []byte, s Span) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, s.First), s.Count)
}

// verifyStaged says whether the chunks of a span are in the stage, everywhere.
func (a *assembly) verifyStaged(ctx context.Context, s Span) bool {
	staged := &Tree{root: withoutLinks(a.staged(nil)), manifest: a.m}
	for n := s.First; n < s.First+s.Count; n++ {
		err := a.x.places(n, func(ref ChunkRef) error {
			p := make([]byte, ref.Size)
			if err := staged.readUnchecked(ref, p); err != nil {
				return err
			}
			return Verify(a.m, Span{n, 1}, p)
		})
		if err != nil || ctx.Err() != nil {
			return false
		}
	}
	return true
}

// mark notes chunks as written.
func (a *assembly) mark(s Span) {
	for n := s.First; n < s.First+s.Count; n++ {
		if !a.arrived[n] {
			a.arrived[n] = true
			a.left--
		}
	}
}

// reuse looks for what the tree has in its place: files that are whole already
// stay, chunks of others are copied. It also tells what is in the way.
func (a *assembly) reuse(ctx context.Context) error {
	var candidates []*candidate
	var absent []byte // a directory that is not there
	for i := range a.m.Entries {
		e := &a.m.Entries[i]
		if absent != nil && below(e.Path, absent) {
			continue
		}
		info, err := os.Lstat(a.placed(e.Path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if e.Kind == Dir {
				absent = e.Path
			}
		case err != nil:
			return onDisk(err, "looking at", a.placed(e.Path))
		case info.IsDir() != (e.Kind == Dir):
			return skyport.Errorf(skyport.CodeConflict, "%s is in the way: one of it and the tree's is a directory", a.placed(e.Path)).
				WithHint("move it away, or choose another directory")
		case e.Kind == File && e.Size > 0 && info.Mode().IsRegular() && info.Size() > 0:
			candidates = append(candidates, newCandidate(e, i, info))
		}
	}
	return a.compare(ctx, candidates)
}

// Manifest implements [Sink].
func (a *assembly) Manifest() *Manifest { return a.m }

// Missing implements [Sink].
func (a *assembly) Missing() []Span {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == 0 {
		return nil
	}
	return a.x.spans(func(n uint32) bool { return !a.arrived[n] })
}

// Put implements [Sink].
func (a *assembly) Put(_ context.Context, s Span, data []byte) error {
	if size, ok := a.x.size(s); !ok || size != len(data) {
		return skyport.Errorf(skyport.CodeInvalid, "%d bytes do not belong to %d chunks from %d on", len(data), s.Count, s.First)
	}
	a.writing.RLock()
	defer a.writing.RUnlock()
	if a.placing || a.isCommitted() {
		return nil // it is complete: this came twice
	}
	if a.isClosed() {
		return errClosed
	}
	for n := s.First; n < s.First+s.Count; n++ {
		size := a.x.chunks[n].Size
		if err := a.x.places(n, func(ref ChunkRef) error { return a.write(ref, data[:size]) }); err != nil {
			return err
		}
		data = data[size:]
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := a.journal.Write(appendSpan(nil, s)); err != nil {
		return onDisk(err, "writing", a.journal.Name())
	}
	a.mark(s)
	return nil
}

// write puts the bytes of a chunk in one of its places in the stage. No link is
// there before the commit and nobody but us writes there, so plain paths do.
func (a *assembly) write(ref ChunkRef, p []byte) error {
	e := &a.m.Entries[ref.Entry]
	if _, ok := a.inPlace[ref.Entry]; ok {
		return nil
	}
	path := a.staged(e.Path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		// It was finished before a cut and has its own mode.
		if err = os.Chmod(path, 0o600); err == nil {
			f, err = os.OpenFile(path, os.O_WRONLY, 0o600)
		}
	}
	if err != nil {
		return onDisk(err, "writing", path)
	}
	_, err = f.WriteAt(p, ref.Offset)
	if err == nil && len(e.Chunks) == 1 {
		err = finish(f, e) // while it is open: small files are many
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return onDisk(err, "writing", path)
	}
	return nil
}

func (a *assembly) isCommitted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.committed
}

func (a *assembly) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.journal == nil
}

var errClosed = skyport.Errorf(skyport.CodeUnavailable, "the receiver is closed")

// close waits for who writes and ends the transfer, for this process.
func (a *assembly) close() error {
	a.writing.Lock()
	defer a.writing.Unlock()
	return a.closeJournal()
}

func (a *assembly) closeJournal() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.journal == nil {
		return nil
	}
	err := a.journal.Close()
	a.journal = nil
	if err != nil {
		return fmt.Errorf("closing the journal of a transfer: %w", err)
	}
	return nil
}
