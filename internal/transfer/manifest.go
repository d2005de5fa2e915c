package transfer

import (
	"io"
	"time"

	"github.com/openworkload/skyport"
)

// Kind says what an entry is.
type Kind uint8

const (
	File Kind = iota + 1
	Dir
	Symlink
)

// Manifest describes a tree.
type Manifest struct {
	Entries  []Entry  `json:"entries"`
	Missing  []string `json:"missing,omitempty"`  // names that were asked for and are not there
	Warnings []string `json:"warnings,omitempty"` // what was left out, and why
}

// Entry is one file, directory or symbolic link.
type Entry struct {
	Path    []byte    `json:"path"`
	Kind    Kind      `json:"kind"`
	Mode    uint32    `json:"mode"` // permission bits
	Size    int64     `json:"size,omitempty"`
	ModTime time.Time `json:"mod_time"`
	Link    []byte    `json:"link,omitempty"`
	Chunks  []Chunk   `json:"chunks,omitempty"`
}

// Chunk is a stretch of a file, named by its BLAKE3 hash.
type Chunk struct {
	Hash [32]byte `json:"hash"`
	Size uint32   `json:"size"`
}

// ChunkRef is a chunk and one place where it lies in the tree.
type ChunkRef struct {
	Chunk
	Entry  int   // index of the entry
	Offset int64 // in the file
}

// Span is a run of distinct chunks, numbered in the order of their first appearance.
type Span struct{ First, Count uint32 }

// Limits bound what a manifest from a peer may ask for; zero fields mean the defaults.
type Limits struct {
	Entries int           // default 1,000,000
	Bytes   skyport.Bytes // sum of all sizes; default 64 TiB
}

// Hash names the manifest: BLAKE3 of its encoding, in hex.
func (m *Manifest) Hash() string { return "" }

// Bytes is the sum of all sizes.
func (m *Manifest) Bytes() skyport.Bytes { return 0 }

// Files is the number of files.
func (m *Manifest) Files() int { return 0 }

// Validate refuses what must not come from a peer.
func (m *Manifest) Validate(limits Limits) error { return nil }

// WriteTo writes the encoding, compressed.
func (m *Manifest) WriteTo(w io.Writer) (int64, error) { return 0, nil }

// ReadManifest reads what WriteTo wrote and validates it.
func ReadManifest(r io.Reader, limits Limits) (*Manifest, error) { return nil, nil }
