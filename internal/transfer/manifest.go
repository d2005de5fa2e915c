package transfer

import (
	"bytes"
	"math"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

// Manifest describes a tree: what there is, in the order of [Sort], and which
// chunks the files are made of. It must not change once it was hashed or sent.
type Manifest struct {
	Entries  []Entry  `json:"entries"`
	Missing  []string `json:"missing,omitempty"`  // names that were asked for and are not there
	Warnings []string `json:"warnings,omitempty"` // what was left out, and why

	once  sync.Once
	index *index
}

// Kind says what an entry is.
type Kind uint8

// The kinds of entries. Everything else on a disk is left out with a warning.
const (
	File Kind = iota + 1
	Dir
	Symlink
)

// Entry is one file, directory or symbolic link.
type Entry struct {
	Path    []byte    `json:"path"` // relative, slash separated, any bytes but NUL
	Kind    Kind      `json:"kind"`
	Mode    uint32    `json:"mode"`             // permission bits, 0 to 0777
	Size    int64     `json:"size,omitempty"`   // of a file, in bytes
	ModTime time.Time `json:"mod_time"`         // to the nanosecond
	Link    []byte    `json:"link,omitempty"`   // target of a symbolic link
	Chunks  []Chunk   `json:"chunks,omitempty"` // of a file, in order; none when it is empty
}

// Chunk is a stretch of a file, named by its BLAKE3 hash.
type Chunk struct {
	Hash [32]byte `json:"hash"`
	Size uint32   `json:"size"`
}

// ChunkRef is a chunk and one place where it lies in its tree.
type ChunkRef struct {
	Chunk
	Entry  int   // index in Entries
	Offset int64 // in the file
}

// Span is a run of a manifest's distinct chunks, which are numbered in the
// order of their first appearance.
type Span struct {
	First uint32 `json:"first"`
	Count uint32 `json:"count"`
}

// MaxChunk is the size of the largest chunk, and so of the largest frame.
const MaxChunk = 2 << 20

// Limits bound what a manifest from a peer may ask for. Zero means the default.
type Limits struct {
	Entries int           // most entries; default 1,000,000
	Bytes   skyport.Bytes // largest sum of sizes; default 64 TiB
}

func (l Limits) withDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 64 << 40
	}
	return l
}

// Hash names the manifest, and with it the whole tree: BLAKE3 of its canonical
// encoding, in hex.
func (m *Manifest) Hash() string { return m.indexed().hash }

// Bytes is the sum of the sizes of all files.
func (m *Manifest) Bytes() skyport.Bytes { return m.indexed().bytes }

// Files is the number of files.
func (m *Manifest) Files() int { return m.indexed().files }

// Validate cleans nothing and refuses, with CodeInvalid or CodeTooLarge, what
// would write outside of a tree or cannot be one: paths that are absolute,
// empty, not clean, too long or out of order (which is how a duplicate shows),
// entries without their directory or below a file or a link, links that lead
// out of the tree, modes beyond permissions, sizes that do not add up.
func (m *Manifest) Validate(limits Limits) error {
	limits = limits.withDefaults()
	if len(m.Entries) > limits.Entries {
		return skyport.Errorf(skyport.CodeTooLarge, "the tree has %d entries, more than the limit of %d", len(m.Entries), limits.Entries)
	}
	if err := validateNotes(m.Missing); err != nil {
		return err
	}
	if err := validateNotes(m.Warnings); err != nil {
		return err
	}
	var total int64
	var dirs []int // entries of the directories that the current path is below
	for i := range m.Entries {
		e := &m.Entries[i]
		if err := validatePath(e.Path); err != nil {
			return err
		}
		if i > 0 && comparePaths(m.Entries[i-1].Path, e.Path) >= 0 {
			return refuse(e.Path, "is out of order or there twice")
		}
		for len(dirs) > 0 && !below(e.Path, m.Entries[dirs[len(dirs)-1]].Path) {
			dirs = dirs[:len(dirs)-1]
		}
		if parent := parentOf(e.Path); len(parent) > 0 &&
			(len(dirs) == 0 || !bytes.Equal(parent, m.Entries[dirs[len(dirs)-1]].Path)) {
			return refuse(e.Path, "is not in a directory of the tree")
		}
		if e.Kind == Dir {
			dirs = append(dirs, i)
		}
		if err := e.validate(); err != nil {
			return err
		}
		if e.Size > int64(limits.Bytes)-total {
			return skyport.Errorf(skyport.CodeTooLarge, "the tree has more than %s, the limit", limits.Bytes)
		}
		total += e.Size
	}
	if bad := m.indexed().clash; bad >= 0 {
		return refuse(m.Entries[bad].Path, "gives one hash to chunks of different sizes")
	}
	return nil
}

const (
	longestPath = 4000 // PATH_MAX less the room for where it lands
	longestName = 255
	mostNotes   = 1000
	longestNote = 8192
)

func validateNotes(notes []string) error {
	if len(notes) > mostNotes {
		return skyport.Errorf(skyport.CodeTooLarge, "the tree has %d notes, more than the limit of %d", len(notes), mostNotes)
	}
	for _, n := range notes {
		if len(n) > longestNote {
			return skyport.Errorf(skyport.CodeTooLarge, "a note of the tree has %d bytes", len(n))
		}
	}
	return nil
}

func validatePath(path []byte) error {
	if len(path) == 0 {
		return skyport.Errorf(skyport.CodeInvalid, "a path of the tree is empty")
	}
	if len(path) > longestPath {
		return refuse(path, "is too long")
	}
	if bytes.IndexByte(path, 0) >= 0 {
		return refuse(path, "has a NUL")
	}
	for name := range bytes.SplitSeq(path, []byte{'/'}) {
		switch {
		case len(name) == 0:
			return refuse(path, "is absolute or has an empty part")
		case string(name) == "." || string(name) == "..":
			return refuse(path, "has a part . or ..")
		case len(name) > longestName:
			return refuse(path, "has a part that is too long")
		}
	}
	if bytes.HasPrefix(path, []byte(stagePrefix)) {
		return refuse(path, "has a name that transfers keep for themselves")
	}
	return nil
}

func (e *Entry) validate() error {
	if e.Mode&^0o777 != 0 {
		return refuse(e.Path, "has mode bits beyond permissions")
	}
	if !sane(e.ModTime) {
		return refuse(e.Path, "has an impossible modification time")
	}
	if e.Kind != Symlink && len(e.Link) != 0 || e.Kind != File && (len(e.Chunks) != 0 || e.Size != 0) {
		return refuse(e.Path, "is of one kind and has parts of another")
	}
	switch e.Kind {
	case Dir:
		return nil
	case Symlink:
		if !staysInside(e.Path, e.Link) {
			return refuse(e.Path, "is a symbolic link that leads out of the tree")
		}
		return nil
	case File:
		if e.Size < 0 {
			return refuse(e.Path, "has a negative size")
		}
		rest := e.Size
		for _, c := range e.Chunks {
			if c.Size == 0 || c.Size > MaxChunk || int64(c.Size) > rest {
				return refuse(e.Path, "has chunks that do not add up to its size")
			}
			rest -= int64(c.Size)
		}
		if rest != 0 {
			return refuse(e.Path, "has chunks that do not add up to its size")
		}
		return nil
	}
	return refuse(e.Path, "is of an unknown kind")
}

func refuse(path []byte, why string) error {
	return skyport.Errorf(skyport.CodeInvalid, "%q in the tree %s", skyport.Abbreviate(string(path), 200), why)
}

// sane keeps times within what every file system can hold and UnixNano can say.
func sane(t time.Time) bool {
	return t.Unix() >= -1<<31 && t.Unix() < 1<<33
}

// staysInside says whether a link at path with this target can only lead to
// places within the tree. Going up is allowed at the beginning of the target
// only: there it leaves real directories, since nothing lies below a link in a
// valid tree; further on it might leave one that another link led to.
func staysInside(path, target []byte) bool {
	if len(target) == 0 || len(target) > longestPath || target[0] == '/' || bytes.IndexByte(target, 0) >= 0 {
		return false
	}
	depth, leading := bytes.Count(path, []byte{'/'}), true
	for name := range bytes.SplitSeq(target, []byte{'/'}) {
		switch string(name) {
		case "", ".":
		case "..":
			depth--
			if !leading || depth < 0 {
				return false
			}
		default:
			leading = false
		}
	}
	return true
}

// comparePaths orders paths by their parts, so that what is below a directory
// follows it directly.
func comparePaths(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' || (b[i] != '/' && a[i] < b[i]) {
			return -1
		}
		return 1
	}
	return len(a) - len(b)
}

func below(path, dir []byte) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && bytes.HasPrefix(path, dir)
}

func parentOf(path []byte) []byte {
	if i := bytes.LastIndexByte(path, '/'); i >= 0 {
		return path[:i]
	}
	return nil
}

// index is what is computed from the entries once: the distinct chunks in the
// order of their first appearance, by number and by hash.
type index struct {
	hash  string
	bytes skyport.Bytes
	files int

	chunks  []ChunkRef            // by number, at their first place
	numbers map[[32]byte]uint32   // number of a hash
	again   map[uint32][]ChunkRef // further places of a chunk
	clash   int                   // entry with a chunk whose hash has two sizes, or -1
}

func (m *Manifest) indexed() *index {
	m.once.Do(func() {
		x := &index{hash: m.sum(), clash: -1, numbers: map[[32]byte]uint32{}, again: map[uint32][]ChunkRef{}}
		for i := range m.Entries {
			e := &m.Entries[i]
			if e.Kind != File {
				continue
			}
			x.files++
			x.bytes += skyport.Bytes(e.Size)
			var offset int64
			for _, c := range e.Chunks {
				ref := ChunkRef{Chunk: c, Entry: i, Offset: offset}
				offset += int64(c.Size)
				n, known := x.numbers[c.Hash]
				switch {
				case !known && len(x.chunks) < math.MaxUint32:
					x.numbers[c.Hash] = uint32(len(x.chunks))
					x.chunks = append(x.chunks, ref)
				case known && x.chunks[n].Size == c.Size:
					x.again[n] = append(x.again[n], ref)
				default:
					x.clash = i
				}
			}
		}
		m.index = x
	})
	return m.index
}

// places calls do for every place of chunk n.
func (x *index) places(n uint32, do func(ChunkRef) error) error {
	if err := do(x.chunks[n]); err != nil {
		return err
	}
	for _, ref := range x.again[n] {
		if err := do(ref); err != nil {
			return err
		}
	}
	return nil
}

// size is the number of bytes of the chunks of a span; ok is false when the
// manifest has no such chunks or they are more than a frame may hold.
func (x *index) size(s Span) (size int, ok bool) {
	if s.Count == 0 || uint64(s.First)+uint64(s.Count) > uint64(len(x.chunks)) {
		return 0, false
	}
	for n := s.First; n < s.First+s.Count; n++ {
		size += int(x.chunks[n].Size)
		if size > MaxChunk {
			return 0, false
		}
	}
	return size, true
}

// spans turns the chunks for which want holds into spans.
func (x *index) spans(want func(n uint32) bool) []Span {
	var spans []Span
	for n := range uint32(len(x.chunks)) {
		if !want(n) {
			continue
		}
		if k := len(spans) - 1; k >= 0 && spans[k].First+spans[k].Count == n {
			spans[k].Count++
			continue
		}
		spans = append(spans, Span{First: n, Count: 1})
	}
	return spans
}

func (x *index) bytesOf(spans []Span) (total skyport.Bytes) {
	for _, s := range spans {
		for n := s.First; n < s.First+s.Count; n++ {
			total += skyport.Bytes(x.chunks[n].Size)
		}
	}
	return total
}
