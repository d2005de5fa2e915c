package transfer

import (
	"context"
	"net/http"
	"time"

	"github.com/openworkload/skyport"
)

// Source is a tree that can be sent: its manifest and the bytes behind it.
// All methods may be called from many goroutines.
type Source interface {
	Manifest() *Manifest
	// ReadChunk fills p, which is exactly c.Size long, with the chunk's bytes.
	ReadChunk(ctx context.Context, c ChunkRef, p []byte) error
}

// Place is where trees land: a [Depot] or a directory ([Receiver]).
type Place interface {
	// Open begins, or goes on with, taking the tree of m.
	Open(ctx context.Context, m *Manifest) (Sink, error)
	// Resume finds what Open began in this process; CodeNotFound otherwise.
	Resume(ctx context.Context, hash string) (Sink, error)
}

// Sink takes the chunks of one tree.
type Sink interface {
	Manifest() *Manifest
	// Missing tells which chunks are still to come.
	Missing() []Span
	// Put takes the verified bytes of the chunks of span, one after another.
	Put(ctx context.Context, span Span, data []byte) error
	// Commit makes the tree appear. It can be called again.
	Commit(ctx context.Context) error
}

// ScanOptions say what of a directory is scanned.
type ScanOptions struct {
	Root    string   // directory
	Names   []string // paths relative to Root; empty: everything
	Exclude func(path string) bool
	Strict  bool // unreadable, changing and vanishing files are errors, not warnings
	Workers int  // goroutines that read and hash; 0: one per cpu
}

// Tree is a scanned tree of files on disk. It implements [Source].
type Tree struct{}

// Scan reads a tree. What Names asks for and is not there is in Missing of the manifest.
func Scan(ctx context.Context, o ScanOptions) (*Tree, error) { return nil, nil }

// ScanInputs scans files and directories that land under their base names.
func ScanInputs(ctx context.Context, paths []string) (*Tree, error) { return nil, nil }

// OpenTree is the tree of a manifest that was placed at dir before; it reads nothing.
func OpenTree(dir string, m *Manifest) *Tree { return nil }

// Manifest implements [Source].
func (t *Tree) Manifest() *Manifest { return nil }

// ReadChunk implements [Source].
func (t *Tree) ReadChunk(ctx context.Context, c ChunkRef, p []byte) error { return nil }

// Join makes one source of several whose top-level names differ.
func Join(sources ...Source) (Source, error) { return nil, nil }

// ReceiverOptions say how a directory receives.
type ReceiverOptions struct {
	Stage   string // directory on the same file system for what is not complete; default: a hidden one in the directory
	Durable bool   // Commit returns when the disk has it
}

// Receiver assembles trees in a directory. It implements [Place].
type Receiver struct{}

// NewReceiver returns the place dir; it is made when the first tree arrives.
func NewReceiver(dir string, o ReceiverOptions) *Receiver { return nil }

// Open implements [Place].
func (r *Receiver) Open(ctx context.Context, m *Manifest) (Sink, error) { return nil, nil }

// Resume implements [Place].
func (r *Receiver) Resume(ctx context.Context, hash string) (Sink, error) { return nil, nil }

// Close lets go of what is open; what arrived stays for the next Open.
func (r *Receiver) Close() error { return nil }

// Depot is a store of trees by content, of one user. It implements [Place].
type Depot struct{}

// OpenDepot opens or makes the depot in dir. One process at a time.
func OpenDepot(dir string) (*Depot, error) { return nil, nil }

// Open implements [Place].
func (d *Depot) Open(ctx context.Context, m *Manifest) (Sink, error) { return nil, nil }

// Resume implements [Place].
func (d *Depot) Resume(ctx context.Context, hash string) (Sink, error) { return nil, nil }

// Has says whether the tree of that manifest hash is complete.
func (d *Depot) Has(hash string) bool { return false }

// Source opens a complete tree; CodeNotFound when it is not there.
func (d *Depot) Source(hash string) (Source, error) { return nil, nil }

// Sweep frees the trees that keep does not want and that are older than olderThan.
func (d *Depot) Sweep(ctx context.Context, keep func(hash string) bool, olderThan time.Duration) (skyport.Bytes, error) {
	return 0, nil
}

// Close closes the depot.
func (d *Depot) Close() error { return nil }

// NewReceiveHandler takes trees over HTTP. It may be mounted under any prefix
// without stripping it; it serves POST …/manifest and POST …/chunks/{hash}.
// place is called for every request and must return the same place for the same route.
func NewReceiveHandler(place func(*http.Request) (Place, error), limits Limits) http.Handler { return nil }

// NewSendHandler gives a tree over HTTP: GET …/manifest and POST …/read/{hash}.
// source is called for every request and should return a source it keeps.
func NewSendHandler(source func(*http.Request) (Source, error)) http.Handler { return nil }

// Compression says when chunks are compressed on the wire.
type Compression int

const (
	CompressAuto   Compression = iota // when the data compresses and the wire is slower than compressing
	CompressNever
	CompressAlways // when the data compresses
)

// Options of Push and Pull; the zero value is good.
type Options struct {
	Name        string // of the transfer, in progress
	Streams     int    // connections at once; 0: 4
	Compression Compression
	Attempts    int           // consecutive attempts without any progress before giving up; 0: until ctx ends
	Backoff     time.Duration // first wait after a broken connection; 0: 100 ms; doubles up to 5 s
	Progress    func(skyport.Transfer) // at most ten times a second, and at the end
	Limits      Limits                 // Pull: what is accepted from the peer
	Receiver    ReceiverOptions        // Pull
	Manifest    func(*Manifest)        // Pull: told when the peer's manifest is known
}

// Push sends a tree to the receive handler at baseURL; when it returns nil the peer has committed it.
func Push(ctx context.Context, client *http.Client, baseURL string, src Source, o Options) (skyport.Transfer, error) {
	return skyport.Transfer{}, nil
}

// Pull fetches the tree of the send handler at baseURL into dir.
func Pull(ctx context.Context, client *http.Client, baseURL, dir string, o Options) (skyport.Transfer, error) {
	return skyport.Transfer{}, nil
}
