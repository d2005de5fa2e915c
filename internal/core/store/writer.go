package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/openworkload/skyport"
)

// mostPerCommit bounds how many updates share a transaction, and so how long
// the first of them waits for the last.
const mostPerCommit = 512

// errClosed is returned by updates that come after Close.
var errClosed = skyport.Errorf(skyport.CodeUnavailable, "the store is closed")

// Update runs fn in a transaction, possibly together with other updates, and
// returns when the transaction is on disk. If fn returns an error, what it
// wrote is undone and nothing of the others. fn runs in the writer's goroutine:
// it must only read and write through tx and do no other I/O. ctx is only
// looked at before fn runs: from then on the outcome is waited for, since it
// has to be known.
func (s *Store) Update(ctx context.Context, fn func(tx *Tx) error) error {
	u := &update{ctx: ctx, fn: fn, done: make(chan error, 1)}
	select {
	case s.writer.queue <- u:
	case <-s.writer.closed:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("update of the store: %w", context.Cause(ctx))
	}
	select {
	case err := <-u.done:
		return err
	case <-s.writer.closed:
		// The writer may have answered just before it ended.
		select {
		case err := <-u.done:
			return err
		default:
			return errClosed
		}
	}
}

type update struct {
	ctx  context.Context //nolint:containedctx // handed over with the request it belongs to
	fn   func(tx *Tx) error
	err  error
	done chan error
}

// writer owns the one connection that writes.
type writer struct {
	conn     *sql.Conn
	stmts    map[string]*sql.Stmt
	queue    chan *update
	closed   chan struct{}
	log      *slog.Logger
	now      func() time.Time
	onCommit func(Commit)
	counters counters
}

// counters are the last numbers given out.
type counters struct{ job, event int64 }

func newWriter(ctx context.Context, conn *sql.Conn, opts Options) (*writer, error) {
	w := &writer{
		conn: conn, stmts: map[string]*sql.Stmt{}, queue: make(chan *update, mostPerCommit),
		closed: make(chan struct{}), log: opts.Logger, now: opts.Now, onCommit: opts.OnCommit,
	}
	for name, into := range map[string]*int64{"job": &w.counters.job, "event": &w.counters.event} {
		if err := conn.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = $1`, name).Scan(into); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
	}
	return w, nil
}

// run takes updates until ctx ends, and then those that wait already.
func (w *writer) run(ctx context.Context) {
	defer close(w.closed)
	for {
		select {
		case u := <-w.queue:
			w.commit(u)
		case <-ctx.Done():
			for {
				select {
				case u := <-w.queue:
					w.commit(u)
				default:
					return
				}
			}
		}
	}
}

// commit runs first and all updates that wait by now in one transaction.
func (w *writer) commit(first *update) {
	// The writer's own statements must not be cut short by a caller's context:
	// an interrupted COMMIT leaves its outcome unknown.
	ctx := context.Background()
	before := w.counters
	tx := &Tx{ctx: ctx, w: w}
	batch := []*update{}

	err := w.exec(ctx, `BEGIN IMMEDIATE`)
	if err == nil {
		for u := first; u != nil && len(batch) < mostPerCommit; u = w.next() {
			batch = append(batch, u)
			if err = w.apply(tx, u); err != nil {
				break
			}
		}
	} else {
		batch = append(batch, first)
	}
	if err == nil && w.counters != before {
		err = w.saveCounters(ctx)
	}
	if err == nil {
		err = w.exec(ctx, `COMMIT`)
	}
	if err != nil {
		err = diskError(err)
		w.counters = before
		if rollback := w.exec(ctx, `ROLLBACK`); rollback != nil {
			w.log.Debug("rollback", "error", rollback)
		}
		for _, u := range batch {
			u.done <- errors.Join(u.err, err)
		}
		return
	}
	if w.onCommit != nil && !tx.changes.empty() {
		w.onCommit(tx.changes)
	}
	for _, u := range batch {
		u.done <- u.err
	}
}

// next returns an update that waits already, or nil.
func (w *writer) next() *update {
	select {
	case u := <-w.queue:
		return u
	default:
		return nil
	}
}

// apply runs one update inside a savepoint. The error it returns is the
// store's own; the update's goes to its caller.
func (w *writer) apply(tx *Tx, u *update) error {
	if err := u.ctx.Err(); err != nil {
		u.err = fmt.Errorf("update of the store: %w", context.Cause(u.ctx))
		return nil
	}
	if err := w.exec(tx.ctx, `SAVEPOINT u`); err != nil {
		return err
	}
	counters, changes := w.counters, tx.changes.mark()
	if u.err = u.fn(tx); u.err != nil {
		w.counters = counters
		tx.changes.reset(changes)
		if err := w.exec(tx.ctx, `ROLLBACK TO u`); err != nil {
			return err
		}
	}
	return w.exec(tx.ctx, `RELEASE u`)
}

func (w *writer) saveCounters(ctx context.Context) error {
	const q = `UPDATE counters SET value = $2 WHERE name = $1`
	if err := w.exec(ctx, q, "job", w.counters.job); err != nil {
		return err
	}
	return w.exec(ctx, q, "event", w.counters.event)
}

// exec runs a statement, prepared once.
func (w *writer) exec(ctx context.Context, query string, args ...any) error {
	stmt, err := w.stmt(ctx, query)
	if err != nil {
		return err
	}
	if _, err := stmt.ExecContext(ctx, args...); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

func (w *writer) stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	if stmt, ok := w.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("store: prepare: %w", err)
	}
	w.stmts[query] = stmt
	return stmt, nil
}

func (w *writer) close() error {
	var errs []error
	for _, stmt := range w.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// mark and reset undo what a failed update has noted.
type mark struct{ events, jobs, attempts, partitions, forgotten int }

func (c *Commit) mark() mark {
	return mark{len(c.Events), len(c.Jobs), len(c.Attempts), len(c.Partitions), len(c.Forgotten)}
}

func (c *Commit) reset(m mark) {
	c.Events, c.Jobs, c.Attempts = c.Events[:m.events], c.Jobs[:m.jobs], c.Attempts[:m.attempts]
	c.Partitions, c.Forgotten = c.Partitions[:m.partitions], c.Forgotten[:m.forgotten]
}

func (c *Commit) empty() bool { return *new(mark) == c.mark() }
