package transfer

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// candidate is a file in the place that has the name of one of the tree.
type candidate struct {
	entry  int
	stamp  stamp
	starts []int64      // offsets of the chunks that the tree wants of it
	other  atomic.Bool  // it is not what the tree wants
	left   atomic.Int32 // segments to be compared
}

func newCandidate(e *Entry, i int, info fs.FileInfo) *candidate {
	c := &candidate{entry: i, stamp: stampOf(info), starts: make([]int64, len(e.Chunks))}
	var offset int64
	for n, chunk := range e.Chunks {
		c.starts[n] = offset
		offset += int64(chunk.Size)
	}
	c.left.Store(int32((info.Size() + segmentSize - 1) / segmentSize))
	c.other.Store(info.Size() != e.Size)
	return c
}

// origin is where a chunk of the tree lies in the place.
type origin struct {
	entry  int
	offset int64
}

// comparison looks for the chunks of a tree in its place.
type comparison struct {
	a    *assembly
	root string

	mu      sync.Mutex
	origins map[uint32]origin
	inPlace map[int]stamp
}

// compare reads the candidates once, all processors at once. A file that is
// whole stays. Chunks of one that is known to be another are copied while they
// are at hand; what came before that was known is copied at the end.
func (a *assembly) compare(ctx context.Context, candidates []*candidate) error {
	if len(candidates) == 0 {
		return nil
	}
	type segment struct {
		file *candidate
		n    int64
	}
	c := &comparison{a: a, root: withoutLinks(a.dir), origins: map[uint32]origin{}, inPlace: map[int]stamp{}}
	work := make(chan segment)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(work)
		for _, file := range candidates {
			for n := range int64(file.left.Load()) {
				select {
				case work <- segment{file, n}:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			cut := newCutter()
			for s := range work {
				if err := c.segment(gctx, cut, s.file, s.n*segmentSize); err != nil {
					return err
				}
			}
			return gctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("comparing with what is there: %w", err)
	}
	a.inPlace = c.inPlace
	return c.copy(ctx)
}

// segment compares a stretch of a file.
func (c *comparison) segment(ctx context.Context, cut *cutter, file *candidate, offset int64) error {
	e := &c.a.m.Entries[file.entry]
	f, err := openFile(c.root, string(e.Path), os.O_RDONLY)
	if err != nil {
		return nil // what cannot be read comes over the wire
	}
	defer func() { _ = f.Close() }() // only read
	next, aligned := slices.BinarySearch(file.starts, offset)
	if !aligned {
		file.other.Store(true)
	}
	var failed error
	_, err = cut.cut(f, offset, min(segmentSize, file.stamp.size-offset), func(at int64, chunk Chunk, p []byte) {
		if next >= len(e.Chunks) || e.Chunks[next] != chunk {
			file.other.Store(true)
		}
		next++
		n, wanted := c.a.x.numbers[chunk.Hash]
		if !wanted || failed != nil {
			return
		}
		if file.other.Load() && !c.a.has(n) {
			failed = c.a.Put(ctx, Span{n, 1}, p)
			return
		}
		c.mu.Lock()
		c.origins[n] = origin{file.entry, at}
		c.mu.Unlock()
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		file.other.Store(true) // it changes: what was found is verified when it is copied
		return nil
	}
	if file.left.Add(-1) == 0 && !file.other.Load() && file.stamp.check(f) == nil {
		c.mu.Lock()
		c.inPlace[file.entry] = file.stamp
		c.mu.Unlock()
	}
	return nil
}

// copy takes what was found and is wanted elsewhere too.
func (c *comparison) copy(ctx context.Context) error {
	a, there := c.a, &Tree{root: c.root, manifest: c.a.m}
	buf := make([]byte, MaxChunk)
	for n := range uint32(len(a.x.chunks)) {
		from, ok := c.origins[n]
		if !ok || a.has(n) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("copying what is there: %w", err)
		}
		elsewhere := false
		_ = a.x.places(n, func(ref ChunkRef) error { // never fails
			if _, ok := a.inPlace[ref.Entry]; !ok {
				elsewhere = true
			}
			return nil
		})
		if !elsewhere {
			// Not in the journal: should the transfer be cut, the place may change
			// before it goes on.
			a.mu.Lock()
			a.mark(Span{n, 1})
			a.mu.Unlock()
			continue
		}
		p := buf[:a.x.chunks[n].Size]
		ref := ChunkRef{Entry: from.entry, Offset: from.offset}
		if there.readUnchecked(ref, p) != nil || Verify(a.m, Span{n, 1}, p) != nil {
			continue
		}
		if err := a.Put(ctx, Span{n, 1}, p); err != nil {
			return err
		}
	}
	return nil
}

// has says whether a chunk is there.
func (a *assembly) has(n uint32) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrived[n]
}
