package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/transfer"
)

// Archive is a directory of what jobs left. Use it from many goroutines.
type Archive struct {
	dir string

	mu   sync.Mutex
	open map[key]*live // logs that may still grow
}

type key struct {
	job     skyport.JobID
	attempt int
}

// live is what followers of an attempt's logs wait for.
type live struct{ changed chan struct{} }

// New uses dir, which must exist.
func New(dir string) *Archive { return &Archive{dir: dir, open: map[key]*live{}} }

// Begin says that the attempt's logs may grow from now on, until End.
func (a *Archive) Begin(job skyport.JobID, attempt int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[key{job, attempt}] == nil {
		a.open[key{job, attempt}] = &live{changed: make(chan struct{})}
	}
}

// End says that the attempt's logs are complete.
func (a *Archive) End(job skyport.JobID, attempt int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.open[key{job, attempt}]; l != nil {
		delete(a.open, key{job, attempt})
		close(l.changed)
	}
}

// LogSize is how much of a log is here.
func (a *Archive) LogSize(job skyport.JobID, attempt int, stream skyport.LogStream) (int64, error) {
	info, err := os.Stat(a.logPath(job, attempt, stream))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("log of job %s: %w", job, err)
	}
	return info.Size(), nil
}

// AppendLog appends what fill writes to the log. What was written stays, also
// when fill fails.
func (a *Archive) AppendLog(job skyport.JobID, attempt int, stream skyport.LogStream, fill func(io.Writer) error) error {
	path := a.logPath(job, attempt, stream)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return diskError("log of job "+string(job), err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return diskError("log of job "+string(job), err)
	}
	err = errors.Join(fill(f), f.Close())
	a.mu.Lock()
	if l := a.open[key{job, attempt}]; l != nil {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	a.mu.Unlock()
	if err != nil {
		return diskError("log of job "+string(job), err)
	}
	return nil
}

// SyncLogs puts the logs of an attempt that has ended on disk. It has both from
// now on: one that nothing was written to is empty, not missing.
func (a *Archive) SyncLogs(job skyport.JobID, attempt int) error {
	for _, stream := range []skyport.LogStream{skyport.Stdout, skyport.Stderr} {
		path := a.logPath(job, attempt, stream)
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
				f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
			}
			if err == nil {
				err = f.Close() // of no content, nothing can be lost
			}
		} else if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return diskError("log of job "+string(job), err)
		}
	}
	return nil
}

// Log is an open log; the file may still grow.
type Log struct {
	*os.File
	archive *Archive
	key     key
}

// OpenLog opens a log for reading. CodeNotFound: nothing of it is here.
func (a *Archive) OpenLog(job skyport.JobID, attempt int, stream skyport.LogStream) (*Log, error) {
	path := a.logPath(job, attempt, stream)
	growing, _ := a.Growing(job, attempt) // asked first: when it ends before the file is looked for, the file is there
	f, err := os.Open(path)
	if growing && errors.Is(err, fs.ErrNotExist) {
		// Its follower waits for the first byte of this very file.
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			f, err = os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
		}
	}
	switch {
	case err == nil:
		return &Log{File: f, archive: a, key: key{job, attempt}}, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("log of job %s: %w", job, err)
	}
	return nil, skyport.Errorf(skyport.CodeNotFound, "job %s has no %s yet", job, stream)
}

// Size tells the size now, whether more may come, and a channel that is closed
// when either changes.
func (l *Log) Size() (size int64, more bool, changed <-chan struct{}) {
	l.archive.mu.Lock()
	if open := l.archive.open[l.key]; open != nil {
		more, changed = true, open.changed
	}
	l.archive.mu.Unlock()
	// The size is taken after the channel: what comes between is told again.
	if info, err := l.Stat(); err == nil {
		size = info.Size()
	}
	return size, more, changed
}

// Growing says whether the attempt's logs may still grow, with a channel that
// is closed when that changes.
func (a *Archive) Growing(job skyport.JobID, attempt int) (bool, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.open[key{job, attempt}]; l != nil {
		return true, l.changed
	}
	return false, nil
}

// OutputsDir is where the outputs of an attempt land.
func (a *Archive) OutputsDir(job skyport.JobID, attempt int) (string, error) {
	dir := filepath.Join(a.attemptDir(job, attempt), "outputs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", diskError("outputs of job "+string(job), err)
	}
	return dir, nil
}

// SaveManifest keeps the manifest of the outputs that arrived.
func (a *Archive) SaveManifest(job skyport.JobID, attempt int, m *transfer.Manifest) error {
	path := filepath.Join(a.attemptDir(job, attempt), "outputs.manifest")
	// One name: what a kill leaves half written is written over the next time.
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return diskError("outputs of job "+string(job), err)
	}
	_, err = m.WriteTo(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that led here is the one to tell
		return diskError("outputs of job "+string(job), err)
	}
	return nil
}

// DropPartial removes what came of outputs that did not all arrive. It is
// called when nothing more will come of the attempt.
func (a *Archive) DropPartial(job skyport.JobID, attempt int) error {
	dir := a.attemptDir(job, attempt)
	switch _, err := os.Stat(filepath.Join(dir, "outputs.manifest")); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("outputs of job %s: %w", job, err)
	}
	for _, name := range []string{"outputs", "outputs.manifest.tmp"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("outputs of job %s: %w", job, err)
		}
	}
	return nil
}

// Outputs opens the outputs of an attempt; CodeNotFound before they arrived.
func (a *Archive) Outputs(job skyport.JobID, attempt int) (*Outputs, error) {
	dir := a.attemptDir(job, attempt)
	f, err := os.Open(filepath.Join(dir, "outputs.manifest"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, skyport.Errorf(skyport.CodeNotFound, "job %s has no results", job).
			WithHint("results are there when a job with output-files has finished")
	}
	if err != nil {
		return nil, fmt.Errorf("outputs of job %s: %w", job, err)
	}
	m, err := transfer.ReadManifest(f, transfer.Limits{})
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("outputs of job %s: %w", job, err)
	}
	return &Outputs{Tree: transfer.OpenTree(filepath.Join(dir, "outputs"), m)}, nil
}

// Outputs are the outputs of an attempt, as a source of a transfer.
type Outputs struct{ *transfer.Tree }

// Missing names the outputs that the job did not make.
func (o *Outputs) Missing() []string { return o.Manifest().Missing }

// Forget removes all that a job left.
func (a *Archive) Forget(job skyport.JobID) error {
	if job == "" || filepath.Base(string(job)) != string(job) {
		return skyport.Errorf(skyport.CodeInvalid, "%q is no job", job) // it would be another directory
	}
	if err := os.RemoveAll(filepath.Join(a.dir, string(job))); err != nil {
		return fmt.Errorf("remove what job %s left: %w", job, err)
	}
	return nil
}

func (a *Archive) attemptDir(job skyport.JobID, attempt int) string {
	return filepath.Join(a.dir, string(job), strconv.Itoa(attempt))
}

func (a *Archive) logPath(job skyport.JobID, attempt int, stream skyport.LogStream) string {
	return filepath.Join(a.attemptDir(job, attempt), string(stream)+".log")
}

// diskError tells a full disk from other errors.
func diskError(what string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return skyport.Errorf(skyport.CodeNoSpace, "%s: the disk of the spool is full: %w", what, err).
			WithHint("free some space; the node keeps everything until it is here")
	}
	return fmt.Errorf("%s: %w", what, err)
}
