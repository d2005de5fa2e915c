package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver named "sqlite"

	"github.com/openworkload/skyport"
)

// Options say where the store lives.
type Options struct {
	// Path of the SQLite file. Its directory must exist.
	Path string
	// Logger takes what cannot be returned; nil discards.
	Logger *slog.Logger
	// OnCommit is called after every commit, in order, from one goroutine. It
	// must not block and must not call Update.
	OnCommit func(Commit)
	// Now is the clock of events; nil means time.Now.
	Now func() time.Time
}

// Commit tells what one transaction changed: the rows as they are now.
type Commit struct {
	Events     []skyport.Event
	Jobs       []skyport.Job
	Attempts   []skyport.Attempt
	Partitions []skyport.Partition
	Forgotten  []skyport.JobID
}

// Store is an open store. Its methods may be called from many goroutines.
type Store struct {
	read     *sql.DB
	write    *sql.DB
	writer   *writer
	log      *slog.Logger
	done     sync.WaitGroup
	shutdown context.CancelFunc

	mu       sync.Mutex
	prepared map[string]*sql.Stmt // on read; closed with it
}

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the store, creating or migrating its tables. A store written by a
// newer version is refused and left as it is.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	write, err := openSQLite(opts.Path, "rwc", 1)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", opts.Path, err), write.Close())
	}
	read, err := openSQLite(opts.Path, "ro", max(4, runtime.NumCPU()))
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	conn, err := write.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", opts.Path, err), read.Close(), write.Close())
	}
	w, err := newWriter(ctx, conn, opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store %s: %w", opts.Path, err), conn.Close(), read.Close(), write.Close())
	}
	run, shutdown := context.WithCancel(context.Background())
	s := &Store{read: read, write: write, writer: w, log: opts.Logger, shutdown: shutdown, prepared: map[string]*sql.Stmt{}}
	s.done.Go(func() { w.run(run) })
	return s, nil
}

// Close ends the writer after the updates that it has taken, and closes the
// files. Updates that come later fail.
func (s *Store) Close() error {
	s.shutdown()
	s.done.Wait()
	return errors.Join(s.writer.close(), s.read.Close(), s.write.Close())
}

// openSQLite opens a pool of connections. WAL with synchronous=FULL syncs the
// log at each commit: an answer that was given survives a power loss.
func openSQLite(path, mode string, conns int) (*sql.DB, error) {
	pragmas := url.Values{
		"mode":    {mode},
		"_txlock": {"immediate"},
		"_pragma": {
			"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
			"temp_store(MEMORY)", "cache_size(-8000)", "wal_autocheckpoint(2000)",
		},
	}
	if mode == "ro" {
		pragmas["_pragma"] = []string{"busy_timeout(10000)", "query_only(ON)", "temp_store(MEMORY)", "cache_size(-4000)"}
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragmas.Encode())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// migrate brings the tables up to what this version knows.
func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	at, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the tables: %w", err)
	}
	if at > known {
		return skyport.Errorf(skyport.CodeConflict, "the tables are of version %d, this program knows versions up to %d", at, known).
			WithHint("use the newer skyport that wrote this spool, or another spool")
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the tables: %w", err)
	}
	return nil
}
