package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"golang.org/x/sync/errgroup"
)

// Commit implements [Sink]. It finishes the tree in the stage, syncs it when it
// is to be durable, notes in the journal that placing begins, and renames. A
// kill before the note leaves the place untouched; after it, the next Commit
// goes on.
func (a *assembly) Commit(ctx context.Context) error {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	left, committed, journal := a.left, a.committed, a.journal
	a.mu.Unlock()
	switch {
	case committed:
		return nil
	case left > 0:
		return skyport.Errorf(skyport.CodeConflict, "the tree is not complete: %d of %d chunks are missing", left, len(a.x.chunks))
	case journal == nil:
		return errClosed
	}
	if !a.placing {
		if err := a.complete(ctx); err != nil {
			return err
		}
		if err := a.noteDurably(journal); err != nil {
			return err
		}
		a.placing = true
	}
	if err := a.place(); err != nil {
		return err
	}
	if err := os.RemoveAll(a.stage); err != nil {
		return onDisk(err, "removing", a.stage)
	}
	a.mu.Lock()
	a.committed = true
	a.mu.Unlock()
	return a.closeJournal()
}

// complete makes what has no chunks and gives every file its mode and time.
func (a *assembly) complete(ctx context.Context) error {
	root := withoutLinks(a.dir)
	for i, was := range a.inPlace {
		f, err := openFile(root, string(a.m.Entries[i].Path), os.O_RDONLY)
		if err == nil {
			err = was.check(f)
			_ = f.Close() // only read
		}
		if err != nil {
			return skyport.Errorf(skyport.CodeConflict, "%s changed during the transfer: %w", a.placed(a.m.Entries[i].Path), err)
		}
	}
	err := a.inParallel(ctx, func(i int) error {
		e := &a.m.Entries[i]
		path := a.staged(e.Path)
		switch {
		case e.Kind == Symlink:
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return onDisk(err, "replacing", path)
			}
			if err := os.Symlink(string(e.Link), path); err != nil {
				return onDisk(err, "linking", path)
			}
			linkTime(path, e.ModTime)
		case e.Kind == File && len(e.Chunks) != 1:
			if _, ok := a.inPlace[i]; ok {
				return nil
			}
			f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
			if errors.Is(err, fs.ErrPermission) {
				// Finished by a commit that did not come to its note, with a
				// mode that does not let its owner read.
				if err = os.Chmod(path, 0o600); err == nil {
					f, err = os.Open(path)
				}
			}
			if err != nil {
				return onDisk(err, "finishing", path)
			}
			if err := errors.Join(finish(f, e), f.Close()); err != nil {
				return onDisk(err, "finishing", path)
			}
		}
		return nil
	})
	if err != nil || !a.durable {
		return err
	}
	return syncTree(a.staged(nil), a.m)
}

// inParallel calls do for every entry, all processors at once.
func (a *assembly) inParallel(ctx context.Context, do func(i int) error) error {
	const batch = 256
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(a.m.Entries); from += batch {
		g.Go(func() error {
			for i := from; i < min(from+batch, len(a.m.Entries)); i++ {
				if err := do(i); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// finish gives a file that has its content its mode and time.
func finish(f *os.File, e *Entry) error {
	if err := fileTime(f, e.ModTime); err != nil {
		return err
	}
	if e.Mode == 0o600 {
		return nil // as it was made
	}
	return f.Chmod(fs.FileMode(e.Mode)) //nolint:wrapcheck // callers do
}

func (a *assembly) noteDurably(journal *os.File) error {
	if _, err := journal.Write(appendSpan(nil, Span{})); err != nil {
		return onDisk(err, "writing", journal.Name())
	}
	if !a.durable {
		return nil
	}
	if err := journal.Sync(); err != nil {
		return onDisk(err, "syncing", journal.Name())
	}
	return nil
}

// place moves everything from the stage to its place, then gives directories
// their modes and times, the deepest first.
func (a *assembly) place() error {
	touched := []string{a.dir} // directories that got new names
	var moved []byte           // a directory that moved as a whole
	for i := range a.m.Entries {
		e := &a.m.Entries[i]
		if moved != nil && below(e.Path, moved) {
			continue
		}
		if _, ok := a.inPlace[i]; ok {
			continue
		}
		from, to := a.staged(e.Path), a.placed(e.Path)
		info, err := os.Lstat(to)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return onDisk(err, "looking at", to)
		case err == nil && info.IsDir() && e.Kind == Dir:
			touched = append(touched, to)
			continue // merge: what is below is placed one by one
		case err == nil && info.IsDir() != (e.Kind == Dir):
			return skyport.Errorf(skyport.CodeConflict, "%s is in the way: one of it and the tree's is a directory", to).
				WithHint("move it away, or choose another directory")
		}
		if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return onDisk(err, "placing", to)
		} else if err != nil {
			// Not in the stage: an earlier commit has placed it.
			if _, gone := os.Lstat(to); gone != nil {
				return skyport.Errorf(skyport.CodeInternal, "placing %s: it is neither in its stage nor in its place", to)
			}
		}
		if e.Kind == Dir {
			moved = e.Path
		}
	}
	for i := len(a.m.Entries) - 1; i >= 0; i-- {
		e := &a.m.Entries[i]
		_, stayed := a.inPlace[i]
		if e.Kind != Dir && !stayed {
			continue
		}
		if err := a.settle(e); err != nil {
			return err
		}
	}
	if !a.durable {
		return nil
	}
	for _, dir := range touched {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// settle gives mode and time to what is in its place.
func (a *assembly) settle(e *Entry) error {
	path := a.placed(e.Path)
	info, err := os.Lstat(path)
	if err != nil {
		return onDisk(err, "looking at", path)
	}
	if info.Mode().Perm() == fs.FileMode(e.Mode) && info.ModTime().Equal(e.ModTime) {
		return nil
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return skyport.Errorf(skyport.CodeConflict, "%s became a link during the transfer", path)
	}
	// The time first: who may not write may still set times as the owner, and
	// who may not enter a directory may not open it.
	if err := errors.Join(os.Chtimes(path, time.Time{}, e.ModTime), os.Chmod(path, fs.FileMode(e.Mode))); err != nil {
		return onDisk(err, "setting mode and time of", path)
	}
	return nil
}

// syncTree brings the files of a tree to the disk: few one by one, many by
// syncing the whole file system at once, which costs one flush.
func syncTree(root string, m *Manifest) error {
	const few = 16
	if len(m.Entries) > few {
		return syncFileSystem(root)
	}
	for _, e := range m.Entries {
		if e.Kind == Symlink {
			continue
		}
		path := filepath.Join(root, string(e.Path))
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // in place already
		}
		if err != nil {
			return syncFileSystem(root) // its mode does not let us
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return onDisk(err, "syncing", path)
		}
	}
	return syncDir(root)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return syncFileSystem(filepath.Dir(path)) // its mode does not let us
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return onDisk(err, "syncing", path)
	}
	return nil
}

// bootID changes when the machine boots. Empty where that cannot be known: then
// every start is taken for a boot.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(id) < bootIDSize {
		return fmt.Sprintf("%036d", os.Getpid())
	}
	return string(id[:bootIDSize])
})
