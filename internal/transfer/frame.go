package transfer

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/openworkload/skyport"
)

// Chunks travel in frames: a header of three big-endian numbers, then data.
//
//	first   number of the first chunk
//	count   how many chunks follow one another; 0: no chunk, but the end
//	length  of the data that follows; with the top bit: compressed with zstd
//
// Small chunks share a frame: one header, one compression for many files. The
// manifest tells both ends which file a chunk belongs to and how long it is. A
// stream ends with a frame of no chunks whose data is empty, or is a problem
// that made the sender stop, as JSON; a stream without an end was cut.
const (
	headerSize    = 12
	compressedBit = 1 << 31
	frameTarget   = 1 << 20 // chunks share a frame up to this size
	maxProblem    = 64 << 10
)

// batches cuts spans into the spans of frames.
func (x *index) batches(spans []Span, yield func(Span) bool) {
	for _, s := range spans {
		batch, size := Span{First: s.First}, 0
		for n := s.First; n < s.First+s.Count; n++ {
			next := int(x.chunks[n].Size)
			if batch.Count > 0 && size+next > frameTarget {
				if !yield(batch) {
					return
				}
				batch, size = Span{First: n}, 0
			}
			batch.Count++
			size += next
		}
		if batch.Count > 0 && !yield(batch) {
			return
		}
	}
}

// framer makes frames of a source's chunks. It belongs to one stream.
type framer struct {
	source      Source
	x           *index
	compression Compression
	buffers     *frameBuffers

	sent  int64         // bytes, decaying
	spent time.Duration // writing them
}

type frameBuffers struct {
	raw, packed []byte
	encoder     *zstd.Encoder
	decoder     *zstd.Decoder
}

// pool bounds nothing by itself: each stream has one set of buffers, about
// 4 MiB, for as long as it lasts.
var pool = sync.Pool{New: func() any {
	return &frameBuffers{raw: make([]byte, headerSize+MaxChunk)}
}}

func newFramer(source Source, c Compression) *framer {
	return &framer{source: source, x: source.Manifest().indexed(), compression: c, buffers: pool.Get().(*frameBuffers)}
}

func (f *framer) release() {
	pool.Put(f.buffers)
	f.buffers = nil
}

// frame returns the frame of a span, valid until the next call.
func (f *framer) frame(ctx context.Context, s Span) ([]byte, error) {
	size, ok := f.x.size(s)
	if !ok {
		return nil, skyport.Errorf(skyport.CodeInvalid, "there are no chunks %d to %d", s.First, uint64(s.First)+uint64(s.Count))
	}
	b := f.buffers
	data := b.raw[headerSize : headerSize+size]
	for n, at := s.First, 0; n < s.First+s.Count; n++ {
		ref := f.x.chunks[n]
		if err := f.source.ReadChunk(ctx, ref, data[at:at+int(ref.Size)]); err != nil {
			return nil, err
		}
		at += int(ref.Size)
	}
	if f.worthwhile(data) {
		if b.encoder == nil {
			var err error
			b.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
				zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
			if err != nil {
				return nil, fmt.Errorf("compressing: %w", err)
			}
			b.packed = make([]byte, headerSize, headerSize+MaxChunk)
		}
		b.packed = b.encoder.EncodeAll(data, b.packed[:headerSize])
		if packed := len(b.packed) - headerSize; packed < size-size/16 {
			putHeader(b.packed, s, uint32(packed)|compressedBit)
			return b.packed, nil
		}
	}
	putHeader(b.raw, s, uint32(size))
	return b.raw[:headerSize+size], nil
}

func putHeader(b []byte, s Span, length uint32) {
	binary.BigEndian.PutUint32(b, s.First)
	binary.BigEndian.PutUint32(b[4:], s.Count)
	binary.BigEndian.PutUint32(b[8:], length)
}

// fastWire is the speed of one stream above which compressing costs more time
// than it spares.
const fastWire = 150 << 20

// worthwhile says whether a frame should be compressed: the data looks as if it
// would shrink, and the wire has not shown over some MiB that it is fast.
func (f *framer) worthwhile(data []byte) bool {
	switch {
	case f.compression == CompressNever || len(data) < 256:
		return false
	case f.compression == CompressAuto && f.sent >= 4<<20 && float64(f.sent) > fastWire*f.spent.Seconds():
		return false
	}
	const sample = 4 << 10
	for _, at := range []int{0, len(data)/2 - sample/2, len(data) - sample} {
		at = max(at, 0)
		if compress.Estimate(data[at:min(at+sample, len(data))]) > 0.1 {
			return true
		}
	}
	return false
}

// wrote tells how long the wire took for so many bytes.
func (f *framer) wrote(n int, took time.Duration) {
	f.sent += int64(n)
	f.spent += took
	if f.sent > 16<<20 {
		f.sent, f.spent = f.sent/2, f.spent/2
	}
}

// endFrame ends a stream; a problem tells why it ends early.
func endFrame(problem error) []byte {
	var data []byte
	if problem != nil {
		data, _ = json.Marshal(problemOf(problem)) // strings only
		data = data[:min(len(data), maxProblem)]
	}
	frame := make([]byte, headerSize, headerSize+len(data))
	putHeader(frame, Span{}, uint32(len(data)))
	return append(frame, data...)
}

// readFrames gives a sink what a stream brings, up to the stream's end. Whatever
// a peer sends, no more than the tree is read, and none but verified data kept.
// told is called after each frame with the size of its chunks and of the frame;
// it may be nil.
func readFrames(ctx context.Context, r io.Reader, sink Sink, told func(size, wire int)) error {
	m := sink.Manifest()
	x := m.indexed()
	b := pool.Get().(*frameBuffers)
	defer pool.Put(b)
	budget := int64(m.Bytes())
	for {
		var header [headerSize]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return cut(err)
		}
		s := Span{binary.BigEndian.Uint32(header[:]), binary.BigEndian.Uint32(header[4:])}
		length := binary.BigEndian.Uint32(header[8:])
		isPacked := length&compressedBit != 0
		length &^= compressedBit
		if s.Count == 0 {
			return readEnd(r, length)
		}
		size, ok := x.size(s)
		if !ok || int(length) > size || !isPacked && int(length) != size {
			return skyport.Errorf(skyport.CodeInvalid, "a frame came that does not go with the manifest")
		}
		if budget -= int64(size); budget < 0 {
			return skyport.Errorf(skyport.CodeInvalid, "the peer sends more than the tree")
		}
		data := b.raw[:length]
		if _, err := io.ReadFull(r, data); err != nil {
			return cut(err)
		}
		if isPacked {
			var err error
			if data, err = b.unpack(data, size); err != nil {
				return err
			}
		}
		if err := Verify(m, s, data); err != nil {
			return err
		}
		if err := sink.Put(ctx, s, data); err != nil {
			return err
		}
		if told != nil {
			told(size, headerSize+int(length))
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("receiving: %w", err)
		}
	}
}

func (b *frameBuffers) unpack(data []byte, size int) ([]byte, error) {
	if b.decoder == nil {
		var err error
		b.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxChunk))
		if err != nil {
			return nil, fmt.Errorf("decompressing: %w", err)
		}
	}
	if cap(b.packed) < headerSize+MaxChunk {
		b.packed = make([]byte, headerSize, headerSize+MaxChunk)
	}
	plain, err := b.decoder.DecodeAll(data, b.packed[:0])
	if err != nil || len(plain) != size {
		return nil, skyport.Errorf(skyport.CodeInvalid, "a frame came that does not decompress to its chunks")
	}
	return plain, nil
}

func readEnd(r io.Reader, length uint32) error {
	if length == 0 {
		return nil
	}
	if length > maxProblem {
		return skyport.Errorf(skyport.CodeInvalid, "a frame came that does not go with the manifest")
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(r, data); err != nil {
		return cut(err)
	}
	var p problem
	if err := json.Unmarshal(data, &p); err != nil {
		return skyport.Errorf(skyport.CodeInvalid, "the sender stopped and said nothing sensible")
	}
	return fmt.Errorf("the sender stopped: %w", p.err())
}

// errCut marks the loss of a connection: trying again helps.
var errCut = errors.New("the connection was lost")

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", errCut, err)
}
