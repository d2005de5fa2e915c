package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // core's database

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/worker/proc"
)

// checkRemains looks for what should not be there when all jobs are over.
func (h *house) checkRemains(ctx context.Context) {
	gone := until(ctx, time.Minute, func() bool {
		left, err := h.user.Partitions(ctx, false)
		return err == nil && len(left) == 0
	})
	if !gone {
		left, err := h.user.Partitions(ctx, false)
		h.t.Errorf("partitions are left: %+v, %v\n%s", left, err, h.logTail("", 30))
		return
	}
	remains := map[string][]string{
		"orphans at the site":    h.orphans(ctx),
		"control groups":         h.controlGroups(),
		"listening sockets":      h.listeners(),
		"temporary files":        entries(h.path("tmp")),
		"jobs that nobody asked": h.strangers(ctx),
		"half-made files":        h.halfMade(),
	}
	maps.Copy(remains, h.site.remains(ctx))
	for what, left := range remains {
		if len(left) > 0 {
			h.t.Errorf("%s are left: %s", what, strings.Join(left, "\n    "))
		}
	}
	h.checkAgain(ctx)
}

func (h *house) orphans(ctx context.Context) (left []string) {
	orphans, err := h.user.Sweep(ctx, "", true)
	if err != nil {
		h.t.Error(err)
	}
	for _, o := range orphans {
		left = append(left, fmt.Sprintf("%+v", o))
	}
	return left
}

// controlGroups are those of runs of our jobs, which carry their names.
func (h *house) controlGroups() (left []string) {
	ours := map[string]bool{}
	for _, w := range h.works {
		ours[string(w.id)] = true
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error { // what comes and goes meanwhile is not ours
		if err != nil || !d.IsDir() || !strings.HasPrefix(d.Name(), "skyport-") {
			return nil
		}
		parts := strings.SplitN(d.Name(), "-", 3)
		if job, _, _ := strings.Cut(parts[len(parts)-1], "."); ours[job] {
			left = append(left, path)
		}
		return nil
	})
	return left
}

// listeners are the ports of core and gate beside their own.
func (h *house) listeners() (left []string) {
	for _, d := range []*daemon{h.core, h.gate} {
		open := listening(d.pid())
		if len(open) != 1 {
			left = append(left, fmt.Sprintf("%s listens on %v", d.name, open))
		}
	}
	return left
}

// listening returns the TCP addresses that a process listens on, as the kernel
// writes them.
func listening(pid int) (addresses []string) {
	inodes := proc.Sockets(pid)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // no such protocol
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" {
				continue
			}
			if inode, err := strconv.ParseUint(fields[9], 10, 64); err == nil && slices.Contains(inodes, inode) {
				addresses = append(addresses, fields[1])
			}
		}
	}
	return addresses
}

// strangers are jobs beside those that were submitted, each of which is there
// once.
func (h *house) strangers(ctx context.Context) (left []string) {
	known := map[skyport.JobID]bool{}
	for _, w := range h.works {
		known[w.id] = true
	}
	for job, err := range h.user.Jobs(ctx, client.JobFilter{}) {
		if err != nil {
			h.t.Error(err)
			return left
		}
		if !known[job.ID] {
			left = append(left, fmt.Sprintf("%s %s", job.ID, job.Name))
		}
		delete(known, job.ID)
	}
	for id := range known {
		h.t.Errorf("job %s is lost", id)
	}
	return left
}

// halfMade are files in the archive that are on their way to another name.
func (h *house) halfMade() (left []string) {
	err := filepath.WalkDir(h.layout.Jobs(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != h.layout.Jobs() && (strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), ".tmp")) {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		h.t.Error(err)
	}
	return left
}

// checkAgain: nothing has happened to a job since it was judged, and whoever
// followed all events over all restarts has heard each one once.
func (h *house) checkAgain(ctx context.Context) {
	for _, w := range h.works {
		now, err := w.read()
		// A canceled script was still being stopped when its job was judged.
		if err != nil || len(now) != w.doneLines && !w.canceled {
			h.fail(ctx, w, "its script ran again after its end: %v, %v", now, err)
			continue
		}
		job, err := h.user.Job(ctx, w.id)
		if err == nil {
			err = errors.Join(h.judgeEnd(ctx, w, &job), h.judgeRuns(ctx, w, &job))
		}
		if err == nil {
			err = h.judgeHeard(ctx, w)
		}
		if err != nil {
			h.fail(ctx, w, "in the end: %v", err)
		}
	}
}

func (h *house) judgeHeard(ctx context.Context, w *work) error {
	var stored []int64
	for e, err := range h.user.StoredEvents(ctx, client.EventFilter{Job: w.id}, 0) {
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		stored = append(stored, e.Seq)
	}
	heard, ended := h.watch.of(w.id)
	if !slices.Equal(stored, heard) {
		return fmt.Errorf("who followed heard of the events %v, stored are %v (%w)", heard, stored, ended)
	}
	return nil
}

// checkKeys looks for keys of partitions that are gone in the database, which
// nobody uses any more.
func (h *house) checkKeys(ctx context.Context) {
	db, err := sql.Open("sqlite", "file:"+h.layout.Database()+"?mode=ro")
	if err != nil {
		h.t.Error(err)
		return
	}
	defer func() { _ = db.Close() }() // only read
	var left int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM partition_keys").Scan(&left); err != nil || left > 0 {
		h.t.Errorf("the keys of %d partitions are left, %v", left, err)
	}
}

func entries(dir string) (names []string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
