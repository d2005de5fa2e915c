package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
	"github.com/openworkload/skyport/internal/worker/protocol"
)

const (
	// filesIdle is how long a copy may rest before what is open of it is closed.
	// What had come is kept: the copy goes on where it was.
	filesIdle = 2 * time.Minute
	// maxFiles bounds the copies of a worker that are open at one time.
	maxFiles = 64
)

// files are the copies from and to work directories that are under way. Each
// stands on an open directory, found without following a link out of the work
// directory: whatever the job renames meanwhile, the copy stays there.
type files struct {
	mu    sync.Mutex
	open  map[fileKey]*copying
	timer *time.Timer
	done  bool
}

type fileKey struct{ op, run, path string }

// copying is one copy.
type copying struct {
	dir      *os.File
	receiver *transfer.Receiver
	source   *transfer.Tree
	used     time.Time
	users    int
}

func newFiles() *files { return &files{open: make(map[fileKey]*copying)} }

func (c *copying) close() error {
	var err error
	if c.receiver != nil {
		err = c.receiver.Close()
	}
	return errors.Join(err, c.dir.Close())
}

// path is the open directory's name, whatever it is called now.
func (c *copying) path() string { return "/proc/self/fd/" + strconv.Itoa(int(c.dir.Fd())) }

// putFiles is a directory of the run's work directory that files are copied to.
func (w *Worker) putFiles(req *http.Request) (transfer.Place, error) {
	r, path, err := w.filesOf(req)
	if err != nil {
		return nil, err
	}
	c, err := w.files.get(req.Context(), fileKey{"put", r.name, path}, func() (*copying, error) {
		dir, err := r.directory(path, true)
		if err != nil {
			return nil, err
		}
		c := &copying{dir: dir}
		stage := r.stage()
		if stage != "" { // one for each place: the same tree may go to several
			sum := sha256.Sum256([]byte(path))
			stage = filepath.Join(stage, "copy-"+hex.EncodeToString(sum[:6]))
		}
		c.receiver = transfer.NewReceiver(c.path(), transfer.ReceiverOptions{Stage: stage})
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("copy to %s of run %s: %w", skyport.Abbreviate(path, 200), r.name, err)
	}
	return c.receiver, nil
}

// getFiles is a file or directory of the run's work directory.
func (w *Worker) getFiles(req *http.Request) (transfer.Source, error) {
	r, path, err := w.filesOf(req)
	if err != nil {
		return nil, err
	}
	key := fileKey{"get", r.name, path}
	if req.Method == http.MethodGet { // of the manifest: the tree as it is now
		w.files.drop(key)
	}
	c, err := w.files.get(req.Context(), key, func() (*copying, error) {
		parent, names := filepath.Dir(path), []string{filepath.Base(path)}
		if path == "." {
			parent, names = ".", nil
		}
		dir, err := r.directory(parent, false)
		if err != nil {
			return nil, err
		}
		c := &copying{dir: dir}
		c.source, err = transfer.Scan(w.ctx, transfer.ScanOptions{Root: c.path(), Names: names})
		if err == nil && len(names) > 0 && len(c.source.Manifest().Missing) > 0 {
			err = skyport.Errorf(skyport.CodeNotFound, "there is no such file")
		}
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		return c, nil
	})
	if err != nil {
		return nil, fmt.Errorf("copy %s of run %s: %w", skyport.Abbreviate(path, 200), r.name, err)
	}
	return c.source, nil
}

// filesOf reads of which run a request is, and the cleaned path in its work directory.
func (w *Worker) filesOf(req *http.Request) (*run, string, error) {
	r, err := w.known(req.PathValue("run"))
	if err != nil {
		return nil, "", err
	}
	path, err := protocol.FilesPath(req.PathValue("path"))
	if err != nil {
		return nil, "", err
	}
	if !filepath.IsLocal(path) {
		return nil, "", skyport.Errorf(skyport.CodeForbidden, "%q is not below the job's work directory", skyport.Abbreviate(path, 200)).
			WithHint("use a path relative to it, without .. at its beginning")
	}
	return r, filepath.Clean(path), nil
}

// directory opens a directory of the work directory, and with create makes it.
// A link that leads out of the work directory is an error.
func (r *run) directory(path string, create bool) (*os.File, error) {
	if create {
		if err := os.MkdirAll(r.rt.Work, 0o700); err != nil {
			return nil, diskError("make the work directory", err)
		}
	}
	root, err := os.OpenRoot(r.rt.Work)
	if err != nil {
		return nil, pathError(err)
	}
	defer func() { _ = root.Close() }() // was only read
	if create && path != "." {
		if err := root.MkdirAll(path, 0o755); err != nil {
			return nil, pathError(err)
		}
	}
	dir, err := root.Open(path)
	if err != nil {
		return nil, pathError(err)
	}
	if info, err := dir.Stat(); err != nil || !info.IsDir() {
		return nil, errors.Join(skyport.Errorf(skyport.CodeConflict, "%s is not a directory", skyport.Abbreviate(path, 200)), err, dir.Close())
	}
	return dir, nil
}

// pathError gives an error about a path of the user's its code.
func pathError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return skyport.Errorf(skyport.CodeNotFound, "%w", err)
	case errors.Is(err, os.ErrPermission):
		return skyport.Errorf(skyport.CodeForbidden, "%w", err)
	case errors.Is(err, os.ErrExist):
		return skyport.Errorf(skyport.CodeConflict, "%w", err)
	}
	var path *os.PathError
	if errors.As(err, &path) {
		if err := diskError(path.Op, err); skyport.CodeOf(err) != skyport.CodeInternal {
			return err
		}
		// Also what package os says of a path that leads out, which has no error of its own.
		return skyport.Errorf(skyport.CodeForbidden, "%w", err).
			WithHint("links are followed inside the work directory only")
	}
	return err
}

// get returns a copy that is under way, or begins one. It is in use until ctx
// ends: the request's.
func (f *files) get(ctx context.Context, key fileKey, begin func() (*copying, error)) (*copying, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return nil, skyport.Errorf(skyport.CodeUnavailable, "the worker is ending")
	}
	c := f.open[key]
	if c == nil {
		if len(f.open) >= maxFiles {
			return nil, skyport.Errorf(skyport.CodeUnavailable, "%d copies are under way already", len(f.open)).
				WithHint("wait until some have ended")
		}
		f.mu.Unlock() // a large tree takes its time
		made, err := begin()
		f.mu.Lock()
		switch {
		case err != nil:
			return nil, err
		case f.open[key] != nil: // somebody was faster
			_ = made.close() // nothing came yet
		case f.done:
			_ = made.close() // as above
			return nil, skyport.Errorf(skyport.CodeUnavailable, "the worker is ending")
		default:
			f.open[key] = made
		}
		c = f.open[key]
	}
	c.users++
	c.used = time.Now()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		c.users--
		c.used = time.Now()
		f.sweep()
	})
	return c, nil
}

// sweep closes what rests, and comes again while there is something. f.mu is held.
func (f *files) sweep() {
	if f.timer != nil {
		f.timer.Stop()
	}
	for key, c := range f.open {
		if c.users == 0 && time.Since(c.used) >= filesIdle {
			delete(f.open, key)
			_ = c.close() // it can be begun again
		}
	}
	if len(f.open) > 0 && !f.done {
		f.timer = time.AfterFunc(filesIdle, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.sweep()
		})
	}
}

// drop lets the next get begin anew. Who still reads the old one asks again.
func (f *files) drop(key fileKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.open[key]; c != nil && c.users == 0 {
		delete(f.open, key)
		_ = c.close() // was only read
	}
}

// forget closes the copies of a run.
func (f *files) forget(run string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, c := range f.open {
		if key.run == run {
			delete(f.open, key)
			_ = c.close() // it is removed
		}
	}
}

// close ends all copies.
func (f *files) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	f.sweep()
	for key, c := range f.open {
		delete(f.open, key)
		_ = c.close() // the next worker goes on with it
	}
}
