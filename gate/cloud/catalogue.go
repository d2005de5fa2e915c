package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/openworkload/skyport"
)

const (
	shelfVersion = 1
	shelfMost    = 64 << 20         // bytes of a file
	justNow      = 10 * time.Minute // a thing that is younger than that may be missing
	fetchLimit   = 10 * time.Minute // of one question for flavors or images
)

// shelf keeps flavors or images of a site: in memory, and in a file for the next
// start. It asks the cloud when it is first used, and again when they are old.
type shelf[T any] struct {
	s     *site
	what  string
	file  string // empty: none
	fetch func(context.Context) ([]T, error)
	mend  func(*T) (name string) // fills in what the cloud left out

	load     sync.Once
	mu       sync.Mutex
	all      []T
	at       time.Time // when the cloud told them; zero: never
	current  bool      // it told them to this process
	asking   *asking
	failures int // in a row
	again    time.Time
	err      error
}

// asking is a question under way; all who need the answer wait for it.
type asking struct {
	done chan struct{}
	err  error
}

// kept is the form of the file.
type kept[T any] struct {
	Version int       `json:"version"`
	At      time.Time `json:"at"`
	All     []T       `json:"all"`
}

func newShelf[T any](s *site, what, file string, fetch func(context.Context) ([]T, error), mend func(*T) string) *shelf[T] {
	return &shelf[T]{s: s, what: what, file: file, fetch: fetch, mend: mend}
}

// get tells what is there, at once where anything is known.
func (h *shelf[T]) get(ctx context.Context) ([]T, error) {
	h.load.Do(h.read)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at.IsZero() {
		return h.await(ctx)
	}
	if !h.current || time.Since(h.at) > h.s.o.CatalogueLife {
		h.ask()
	}
	return slices.Clone(h.all), nil
}

// having is get for somebody who looks for one thing: when what is known lacks it
// and was not told just now, the cloud is asked and waited for.
func (h *shelf[T]) having(ctx context.Context, wanted func(T) bool) ([]T, error) {
	all, err := h.get(ctx)
	if err != nil || slices.ContainsFunc(all, wanted) {
		return all, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current && time.Since(h.at) < justNow {
		return all, nil
	}
	newer, err := h.await(ctx)
	if err != nil && h.current {
		return all, nil
	}
	return newer, err
}

// await waits for the cloud's answer. The mutex is held.
func (h *shelf[T]) await(ctx context.Context) ([]T, error) {
	a := h.ask()
	if a == nil {
		return nil, h.unknown(h.err)
	}
	h.mu.Unlock()
	select {
	case <-a.done:
		h.mu.Lock()
		if a.err != nil {
			return nil, h.unknown(a.err)
		}
		return slices.Clone(h.all), nil
	case <-ctx.Done():
		h.mu.Lock()
		return nil, skyport.Errorf(skyport.CodeUnavailable, "site %s has not told its %s yet: %w", h.s.name, h.what, ctx.Err()).
			WithHint("try again in a minute")
	}
}

func (h *shelf[T]) unknown(err error) error {
	return skyport.Errorf(codeOf(err), "the %s of site %s are not known yet: %w", h.what, h.s.name, err).WithHint("%s", orText(
		skyport.HintOf(err), "skyport gate check --site "+h.s.name+" tells what is wrong"))
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// ask starts a question to the cloud, or joins the one under way; nil: the last
// one failed a moment ago. The mutex is held.
func (h *shelf[T]) ask() *asking {
	if h.asking != nil {
		return h.asking
	}
	if left, err := h.s.quiet(); left > 0 {
		h.err = err
		return nil
	}
	if time.Now().Before(h.again) {
		return nil
	}
	a := &asking{done: make(chan struct{})}
	if !h.s.p.spawn(func() { h.refresh(a) }) {
		h.err = h.s.isClosed()
		return nil
	}
	h.asking = a
	return a
}

// refresh asks the cloud. What it cannot tell now stays as it was.
func (h *shelf[T]) refresh(a *asking) {
	ctx, cancel := context.WithTimeout(h.s.ctx, fetchLimit)
	defer cancel()
	var all []T
	err := h.s.ask(ctx, func(ctx context.Context) (err error) { all, err = h.fetch(ctx); return err })
	if err == nil {
		all = h.mended(all)
		if len(all) == 0 {
			err = skyport.Errorf(skyport.CodeUnavailable, "the cloud tells none")
		}
	}
	if err != nil {
		h.failed(a, err)
		return
	}
	now := time.Now()
	h.mu.Lock()
	if h.failures > 0 {
		h.s.log.Info("the cloud tells its catalogue again", "what", h.what)
	}
	h.all, h.at, h.current, h.failures, h.err, h.asking = all, now, true, 0, nil, nil
	h.mu.Unlock()
	close(a.done)
	if err := h.write(kept[T]{shelfVersion, now.UTC(), all}); err != nil {
		h.s.log.Warn("the catalogue is not kept for the next start", "what", h.what, "error", err)
	}
}

func (h *shelf[T]) failed(a *asking, err error) {
	h.mu.Lock()
	if h.failures == 0 && h.s.ctx.Err() == nil {
		h.s.log.Warn("the cloud does not tell its catalogue, will be asked again", "what", h.what, "known", len(h.all), "error", err)
	}
	h.again = time.Now().Add(grown(h.s.o.Retry, h.failures))
	h.failures++
	h.err, h.asking, a.err = err, nil, err
	h.mu.Unlock()
	close(a.done)
}

// mended fills in what is left out, and drops what has no name or one that is
// there already.
func (h *shelf[T]) mended(all []T) []T {
	seen := map[string]bool{}
	good := make([]T, 0, len(all))
	for _, one := range all {
		name := h.mend(&one)
		if name != "" && !seen[name] {
			seen[name] = true
			good = append(good, one)
		}
	}
	return good
}

// read takes in what an earlier process has kept.
func (h *shelf[T]) read() {
	if h.file == "" {
		return
	}
	k, err := h.readFile()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		h.s.log.Warn("a kept catalogue is not used", "file", h.file, "error", err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.at = h.mended(k.All), k.At
	if len(h.all) == 0 {
		h.at = time.Time{}
	}
}

func (h *shelf[T]) readFile() (k kept[T], err error) {
	f, err := os.Open(h.file)
	if err != nil {
		return k, fmt.Errorf("open: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, shelfMost))
	if err != nil {
		return k, fmt.Errorf("read: %w", err)
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return k, fmt.Errorf("it is damaged: %w", err)
	}
	if k.Version != shelfVersion {
		return k, fmt.Errorf("it is of version %d, not %d", k.Version, shelfVersion)
	}
	return k, nil
}

// write replaces the file in one step.
func (h *shelf[T]) write(k kept[T]) error {
	if h.file == "" {
		return nil
	}
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("marshal: %w", err)
	}
	dir := filepath.Dir(h.file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	half, err := os.CreateTemp(dir, ".half-*") // readable by us only
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	_, err = half.Write(text)
	if err = errors.Join(err, half.Close()); err == nil {
		err = os.Rename(half.Name(), h.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write: %w", err), os.Remove(half.Name()))
	}
	return nil
}
