package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	sqlite "modernc.org/sqlite"

	"github.com/openworkload/skyport"
)

// JobFilter selects jobs; the zero value of a field does not restrict. Purged
// jobs are never selected.
type JobFilter struct {
	Owner     skyport.UserID
	States    []skyport.JobState
	Account   string
	Site      string
	Name      string // a substring
	IDPrefix  string
	Partition skyport.PartitionID
	// After is the number of the last job of the page before; 0 on the first.
	After     int64
	Ascending bool // by number; default is newest first
	Limit     int  // 0: no limit
}

// Jobs returns the jobs that the filter selects.
func (s *Store) Jobs(ctx context.Context, f JobFilter) ([]skyport.Job, error) {
	w := where{}
	w.add("purged = ", 0)
	w.unlessZero("owner = ", f.Owner)
	w.unlessZero("account = ", f.Account)
	w.unlessZero("site = ", f.Site)
	w.unlessZero("partition_id = ", f.Partition)
	if f.Name != "" {
		w.addTail("name LIKE ", "%"+escapeLike(f.Name)+"%", ` ESCAPE '\'`)
	}
	if f.IDPrefix != "" {
		w.addTail("id LIKE ", escapeLike(strings.ToLower(f.IDPrefix))+"%", ` ESCAPE '\'`)
	}
	if len(f.States) > 0 {
		marks := make([]string, len(f.States))
		for i, state := range f.States {
			marks[i] = w.mark(state)
		}
		w.terms = append(w.terms, "state IN ("+strings.Join(marks, ", ")+")")
	}
	order, beyond := "DESC", "number < "
	if f.Ascending {
		order, beyond = "ASC", "number > "
	}
	if f.After != 0 {
		w.add(beyond, f.After)
	}
	return many(ctx, s, scanJob, selectJob+w.String()+" ORDER BY number "+order+w.limit(f.Limit), w.args...)
}

// Job returns a job, unless it was purged.
func (s *Store) Job(ctx context.Context, id skyport.JobID) (skyport.Job, error) {
	return one(ctx, s, scanJob, notFound("job", id), selectJob+` WHERE id = $1 AND purged = 0`, id)
}

// EndedBefore returns the ids of jobs that ended before a moment, oldest first.
func (s *Store) EndedBefore(ctx context.Context, before time.Time, limit int) ([]skyport.JobID, error) {
	scan := func(row scanner) (id skyport.JobID, err error) { return id, row.Scan(&id) }
	return many(ctx, s, scan, `SELECT id FROM jobs WHERE state IN ('F', 'C', 'E') AND end_time < $1 AND purged = 0
		ORDER BY end_time LIMIT $2`, micros(before), limit)
}

// Script returns the script of a job.
func (s *Store) Script(ctx context.Context, id skyport.JobID) ([]byte, error) {
	scan := func(row scanner) (body []byte, err error) { return body, row.Scan(&body) }
	return one(ctx, s, scan, notFound("script of job", id), `SELECT body FROM scripts WHERE job = $1`, id)
}

// Attempts returns the attempts of a job, first to last.
func (s *Store) Attempts(ctx context.Context, id skyport.JobID) ([]skyport.Attempt, error) {
	return many(ctx, s, scanAttempt, selectAttempt+` WHERE job = $1 ORDER BY number`, id)
}

// Partitions returns the partitions that are not deleted, or all, newest first.
func (s *Store) Partitions(ctx context.Context, all bool, limit int) ([]skyport.Partition, error) {
	w := where{}
	if !all {
		w.terms = append(w.terms, "state <> 'deleted'")
	}
	return many(ctx, s, scanPartition, selectPartition+w.String()+" ORDER BY created DESC, id"+w.limit(limit), w.args...)
}

// Partition returns a partition, deleted or not.
func (s *Store) Partition(ctx context.Context, id skyport.PartitionID) (skyport.Partition, error) {
	return one(ctx, s, scanPartition, notFound("partition", id), selectPartition+` WHERE id = $1`, id)
}

// LastOwner is the owner of the job that came onto a partition last, "" when
// the store knows none.
func (s *Store) LastOwner(ctx context.Context, id skyport.PartitionID) (skyport.UserID, error) {
	scan := func(row scanner) (owner skyport.UserID, err error) { return owner, row.Scan(&owner) }
	owners, err := many(ctx, s, scan, `SELECT jobs.owner FROM attempts JOIN jobs ON jobs.id = attempts.job
		WHERE attempts.partition_id = $1 ORDER BY attempts.created DESC LIMIT 1`, id)
	if err != nil || len(owners) == 0 {
		return "", err
	}
	return owners[0], nil
}

// EventFilter selects events; the zero value of a field does not restrict.
type EventFilter struct {
	Owner     skyport.UserID
	Job       skyport.JobID
	Partition skyport.PartitionID
	After     int64
	Limit     int
}

// Events returns stored events in order.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]skyport.Event, error) {
	w := where{}
	w.unlessZero("owner = ", f.Owner)
	w.unlessZero("job = ", f.Job)
	w.unlessZero("partition_id = ", f.Partition)
	w.add("seq > ", f.After)
	return many(ctx, s, scanEvent, selectEvent+w.String()+" ORDER BY seq"+w.limit(f.Limit), w.args...)
}

// LastEvent is the seq of the newest event that there ever was, or 0.
func (s *Store) LastEvent(ctx context.Context) (seq int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT value FROM counters WHERE name = 'event'`).Scan(&seq)
	if err != nil {
		return 0, fmt.Errorf("store: last event: %w", err)
	}
	return seq, nil
}

// Active is all that core must keep in mind: what is not over.
type Active struct {
	Jobs       []skyport.Job       // not terminal, or to be forgotten, or held by an attempt
	Attempts   []skyport.Attempt   // not released
	Partitions []skyport.Partition // not deleted
}

// Active reads what is not over, as one snapshot.
func (s *Store) Active(ctx context.Context) (Active, error) {
	var a Active
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return a, fmt.Errorf("store: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	q := txQuerier{tx}
	a.Jobs, err = many(ctx, q, scanJob, selectJob+` WHERE state IN ('Q', 'W', 'T', 'R') OR purged = 1 ORDER BY number`)
	if err != nil {
		return a, err
	}
	held, err := many(ctx, q, scanJob, selectJob+` WHERE state IN ('F', 'C', 'E') AND purged = 0
		AND id IN (SELECT job FROM attempts WHERE phase < 6)`)
	if err != nil {
		return a, err
	}
	a.Jobs = append(a.Jobs, held...)
	if a.Attempts, err = many(ctx, q, scanAttempt, selectAttempt+` WHERE phase < 6 ORDER BY created, job`); err != nil {
		return a, err
	}
	a.Partitions, err = many(ctx, q, scanPartition, selectPartition+` WHERE state <> 'deleted' ORDER BY created, id`)
	return a, err
}

// Fact returns a remembered value, "" when there is none.
func (s *Store) Fact(ctx context.Context, name string) (string, error) {
	var value string
	err := s.read.QueryRowContext(ctx, `SELECT value FROM facts WHERE name = $1`, name).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("store: fact %s: %w", name, err)
	}
	return value, nil
}

// Submission is what [Tx.Submission] is, outside of an update.
func (s *Store) Submission(ctx context.Context, owner skyport.UserID, key, hash string) ([]skyport.JobID, error) {
	return submission(s.read.QueryRowContext(ctx, selectSubmission, owner, key), key, hash)
}

// InputManifests returns the manifests of all staged inputs that jobs of the
// owner still name: what the staging area must keep.
func (s *Store) InputManifests(ctx context.Context, owner skyport.UserID) (map[string]bool, error) {
	scan := func(row scanner) (list []skyport.StagedInput, err error) {
		var data []byte
		if err := row.Scan(&data); err != nil {
			return nil, err
		}
		return list, fromJSON(data, &list)
	}
	lists, err := many(ctx, s, scan, `SELECT inputs FROM jobs WHERE owner = $1 AND inputs <> 'null'`, owner)
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, list := range lists {
		for _, input := range list {
			keep[input.Manifest] = true
		}
	}
	return keep, nil
}

// mostPrepared bounds how many statements are kept prepared; the lists alone
// can be asked for in thousands of ways.
const mostPrepared = 64

// query runs a reading statement; those that came first stay prepared.
func (s *Store) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s.mu.Lock()
	stmt, ok := s.prepared[query]
	if !ok && len(s.prepared) < mostPrepared {
		// It is prepared on a connection at its first use there.
		var err error
		if stmt, err = s.read.PrepareContext(ctx, query); err != nil {
			s.mu.Unlock()
			return nil, err //nolint:wrapcheck // many wraps
		}
		s.prepared[query] = stmt
	}
	s.mu.Unlock()
	if stmt == nil {
		return s.read.QueryContext(ctx, query, args...) //nolint:wrapcheck,sqlclosecheck // many wraps and closes
	}
	return stmt.QueryContext(ctx, args...) //nolint:wrapcheck,sqlclosecheck // many wraps and closes
}

type txQuerier struct{ tx *sql.Tx }

func (q txQuerier) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return q.tx.QueryContext(ctx, query, args...) //nolint:wrapcheck,sqlclosecheck // many wraps and closes
}

// where builds the condition of a query.
type where struct {
	terms []string
	args  []any
}

func (w *where) mark(value any) string {
	w.args = append(w.args, value)
	return fmt.Sprintf("$%d", len(w.args))
}

func (w *where) add(left string, value any) { w.terms = append(w.terms, left+w.mark(value)) }

func (w *where) addTail(left string, value any, tail string) {
	w.terms = append(w.terms, left+w.mark(value)+tail)
}

// unlessZero adds a condition on a string of any type unless it is empty.
func (w *where) unlessZero(left string, value any) {
	if fmt.Sprint(value) != "" {
		w.add(left, value)
	}
}

func (w *where) limit(n int) string {
	if n <= 0 {
		return ""
	}
	return " LIMIT " + w.mark(n)
}

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}

func escapeLike(s string) string {
	return strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(s)
}

// diskError tells a full disk from other errors.
func diskError(err error) error {
	const full = 13 // SQLITE_FULL
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == full {
		return skyport.Errorf(skyport.CodeNoSpace, "the disk of the spool is full: %w", err).
			WithHint("free some space; nothing that was accepted is lost")
	}
	return err
}
