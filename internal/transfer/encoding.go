package transfer

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/openworkload/skyport"
	"github.com/zeebo/blake3"
)

// The canonical encoding of a manifest:
//
//	magic, number of entries, entries, number of missing, missing, number of warnings, warnings
//	entry:  bytes shared with the path before, rest of the path, kind, mode, seconds, nanoseconds,
//	        file: size, number of chunks, (size, hash) of each      link: target
//
// Numbers are varints, strings have their length before them. On the wire and
// on disk it is compressed with zstd.
const manifestMagic = "skyport tree 1\n"

// largestManifest bounds the memory that a manifest from a peer may take.
const largestManifest = 256 << 20

// WriteTo writes the encoding, compressed.
func (m *Manifest) WriteTo(w io.Writer) (int64, error) {
	counted := &countingWriter{w: w}
	z, err := zstd.NewWriter(counted, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return 0, fmt.Errorf("compressing a manifest: %w", err)
	}
	if err := errors.Join(m.encode(z), z.Close()); err != nil {
		return counted.n, fmt.Errorf("writing a manifest: %w", err)
	}
	return counted.n, nil
}

// ReadManifest reads what WriteTo wrote and validates it; nothing else may follow.
func ReadManifest(r io.Reader, limits Limits) (*Manifest, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	defer z.Close()
	return decodeManifest(io.LimitReader(z, largestManifest), limits)
}

func (m *Manifest) sum() string {
	h := blake3.New()
	if err := m.encode(h); err != nil {
		panic(err) // a hash takes everything
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (m *Manifest) encode(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	var buf [binary.MaxVarintLen64]byte
	// Errors of a bufio.Writer stick: Flush tells them.
	number := func(n uint64) { _, _ = w.Write(buf[:binary.PutUvarint(buf[:], n)]) }
	text := func(b []byte) { number(uint64(len(b))); _, _ = w.Write(b) }

	_, _ = w.WriteString(manifestMagic)
	number(uint64(len(m.Entries)))
	var before []byte
	for i := range m.Entries {
		e := &m.Entries[i]
		shared := 0
		for shared < min(len(before), len(e.Path)) && before[shared] == e.Path[shared] {
			shared++
		}
		before = e.Path
		number(uint64(shared))
		text(e.Path[shared:])
		number(uint64(e.Kind))
		number(uint64(e.Mode))
		_, _ = w.Write(buf[:binary.PutVarint(buf[:], e.ModTime.Unix())])
		number(uint64(e.ModTime.Nanosecond()))
		switch e.Kind {
		case File:
			number(uint64(e.Size))
			number(uint64(len(e.Chunks)))
			for j := range e.Chunks {
				number(uint64(e.Chunks[j].Size))
				_, _ = w.Write(e.Chunks[j].Hash[:])
			}
		case Symlink:
			text(e.Link)
		case Dir:
		}
	}
	for _, notes := range [][]string{m.Missing, m.Warnings} {
		number(uint64(len(notes)))
		for _, n := range notes {
			text([]byte(n))
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("encoding a manifest: %w", err)
	}
	return nil
}

// decodeManifest reads an encoding that is not compressed, and validates.
func decodeManifest(from io.Reader, limits Limits) (*Manifest, error) {
	limits = limits.withDefaults()
	r := bufio.NewReaderSize(from, 64<<10)
	d := &decoder{r: r}
	if string(d.bytes(len(manifestMagic))) != manifestMagic && d.err == nil {
		return nil, skyport.Errorf(skyport.CodeInvalid, "this is not a manifest, or one of another version")
	}
	count := d.number(uint64(limits.Entries), "entries")
	m := &Manifest{}
	var before []byte
	for range count {
		if d.err != nil {
			break
		}
		shared := d.number(uint64(len(before)), "shared bytes")
		rest := d.text(longestPath)
		e := Entry{Path: slices.Concat(before[:shared], rest)}
		before = e.Path
		e.Kind = Kind(d.number(uint64(Symlink), "kind"))
		e.Mode = uint32(d.number(0o777, "mode"))
		seconds, nanos := d.signed(), d.number(999_999_999, "nanoseconds")
		e.ModTime = time.Unix(seconds, int64(nanos)).UTC()
		switch e.Kind {
		case File:
			e.Size = int64(d.number(uint64(limits.Bytes), "size"))
			// Every chunk but an empty file's none has a byte at least.
			chunks := d.number(uint64(e.Size), "chunks")
			for range chunks {
				if d.err != nil {
					break
				}
				c := Chunk{Size: uint32(d.number(MaxChunk, "chunk size"))}
				d.read(c.Hash[:])
				e.Chunks = append(e.Chunks, c)
			}
		case Symlink:
			e.Link = d.text(longestPath)
		case Dir:
		}
		m.Entries = append(m.Entries, e)
	}
	for _, notes := range []*[]string{&m.Missing, &m.Warnings} {
		n := d.number(mostNotes, "notes")
		for range n {
			*notes = append(*notes, string(d.text(longestNote)))
		}
	}
	if _, err := r.ReadByte(); d.err == nil && !errors.Is(err, io.EOF) {
		d.err = skyport.Errorf(skyport.CodeInvalid, "something follows it")
	}
	if d.err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", d.err)
	}
	if err := m.Validate(limits); err != nil {
		return nil, err
	}
	return m, nil
}

// decoder reads the parts of an encoding; its first error sticks and every
// part after it is zero.
type decoder struct {
	r   *bufio.Reader
	err error
}

func (d *decoder) number(limit uint64, what string) uint64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadUvarint(d.r)
	if err == nil && n > limit {
		err = skyport.Errorf(skyport.CodeTooLarge, "%d is too much for %s, the limit is %d", n, what, limit)
	}
	if err != nil {
		d.fail(err)
		return 0
	}
	return n
}

func (d *decoder) signed() int64 {
	if d.err != nil {
		return 0
	}
	n, err := binary.ReadVarint(d.r)
	if err != nil {
		d.fail(err)
	}
	return n
}

func (d *decoder) text(limit int) []byte {
	return d.bytes(int(d.number(uint64(limit), "length")))
}

func (d *decoder) bytes(n int) []byte {
	if d.err != nil || n == 0 {
		return nil
	}
	b := make([]byte, n)
	d.read(b)
	return b
}

func (d *decoder) read(b []byte) {
	if d.err != nil {
		return
	}
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.fail(err)
	}
}

func (d *decoder) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err //nolint:wrapcheck // passes through
}
