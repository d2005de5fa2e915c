package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// partition is one partition in memory. The fields below the line are guarded
// by the provider's mutex.
type partition struct {
	id       skyport.PartitionID
	dir      string
	created  time.Time
	writing  sync.Mutex    // one change of the record at a time; taken before the provider's mutex
	recorded chan struct{} // closed when the record is on disk, or cannot be

	// ---
	record    record
	recordErr error
	nodes     []*node
	trouble   string             // why a removal takes long
	stop      context.CancelFunc // ends the supervisors; nil before they start
	watched   sync.WaitGroup     // the supervisors
}

// node is one node in memory, guarded like its partition.
type node struct {
	name   string
	dir    string     // of the worker
	socket string     // of the worker, maybe by a short path
	state  gate.State // creating, booting, up or failed
	detail string
}

// newPartition prepares the memory of a partition; it starts nothing.
func (p *Provider) newPartition(r record) *partition {
	part := &partition{id: r.Spec.ID, dir: filepath.Join(p.options.Dir, string(r.Spec.ID)), created: r.Created, record: r}
	for _, name := range r.Spec.Nodes {
		part.nodes = append(part.nodes, &node{
			name: name, dir: filepath.Join(part.dir, name), socket: p.socket.path(part.id, name), state: gate.StateCreating,
		})
	}
	return part
}

// awaitRecord waits until a creation that is under way is on disk.
func (part *partition) awaitRecord(ctx context.Context) error {
	select {
	case <-part.recorded:
		return part.recordErr
	case <-ctx.Done():
		return fmt.Errorf("partition %s is being written down: %w", part.id, ctx.Err())
	}
}

// status puts the partition into words. Callers hold the provider's mutex.
func (part *partition) status() gate.PartitionStatus {
	r := part.record
	s := gate.PartitionStatus{
		ID: part.id, Owner: r.Spec.Owner, Site: r.Spec.Site, Lease: r.Spec.Lease, Created: r.Created,
		State: gate.StateUp,
	}
	// The partition is as far as its slowest node; a failed one fails it.
	rank := map[gate.State]int{gate.StateUp: 0, gate.StateBooting: 1, gate.StateCreating: 2, gate.StateFailed: 3}
	var details []string
	for i, n := range part.nodes {
		told := skyport.Node{Name: n.name, Role: skyport.RoleCompute}
		if i == 0 {
			told.Role = skyport.RoleMain
		}
		if n.state == gate.StateUp {
			told.Address, told.Endpoint = "127.0.0.1", n.endpoint()
		}
		if rank[n.state] > rank[s.State] {
			s.State = n.state
		}
		if n.detail != "" {
			details = append(details, n.name+": "+n.detail)
		}
		s.Nodes = append(s.Nodes, told)
	}
	s.Details = strings.Join(details, "; ")
	switch {
	case r.Deleting:
		s.State, s.Details = gate.StateDeleting, part.trouble
	case r.Failed != "":
		s.State, s.Details = gate.StateFailed, r.Failed
	}
	return s
}

// load reads what the directory holds and carries it on.
func (p *Provider) load() error {
	entries, err := os.ReadDir(p.options.Dir)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	var found []*partition
	for _, e := range entries {
		id, err := skyport.ParsePartitionID(e.Name())
		if err != nil || !e.IsDir() {
			continue // the lock, or something that is not ours
		}
		r, err := readRecord(filepath.Join(p.options.Dir, e.Name()))
		switch {
		case errors.Is(err, os.ErrNotExist):
			// A creation was cut off before its record, or a removal after it:
			// nothing was started, or all is ended.
			r = record{Version: recordVersion, Spec: gate.PartitionSpec{ID: id, Site: p.options.Site}, Deleting: true}
		case skyport.CodeOf(err) == skyport.CodeUnsupported:
			return err
		case err != nil || r.Spec.ID != id:
			p.log.Error("partition cannot be read and is left alone", "dir", e.Name(), "error", err)
			continue
		}
		part := p.newPartition(r)
		part.recorded = make(chan struct{})
		close(part.recorded)
		p.partitions[id] = part
		found = append(found, part)
	}
	// Nothing starts before everything is known: limits count them all.
	for _, part := range found {
		switch {
		case part.record.Deleting:
			p.remove(part.id)
		case part.record.Failed == "":
			p.start(part, true)
		}
	}
	return nil
}

// start lets the nodes of a partition be watched over.
func (p *Provider) start(part *partition, adopt bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || part.record.Deleting || part.stop != nil {
		return // a Delete was faster, or the next provider does it
	}
	ctx, stop := context.WithCancel(p.ctx)
	part.stop = stop
	faults := p.faults
	for _, n := range part.nodes {
		n.state, n.detail = gate.StateBooting, "booting"
		p.work.Add(1)
		part.watched.Go(func() {
			defer p.work.Done()
			p.supervise(ctx, part, n, adopt, faults)
		})
	}
	p.notify()
}

// say notes how far a node is and tells watchers.
func (p *Provider) say(n *node, state gate.State, format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.state == state && n.detail == detail {
		return
	}
	n.state, n.detail = state, detail
	p.notify()
}

// amend changes the record of a partition, on disk and then in memory. When it
// cannot be written, only a decision to delete is kept in memory all the same.
func (p *Provider) amend(ctx context.Context, site string, id skyport.PartitionID, change func(*record)) error {
	if err := p.ours(site); err != nil {
		return err
	}
	missing := fmt.Errorf("partition %s at site %s: %w", id, site, gate.ErrNotFound)
	p.mu.Lock()
	part, ok := p.partitions[id]
	p.mu.Unlock()
	if !ok {
		return missing
	}
	if err := part.awaitRecord(ctx); err != nil {
		if part.recordErr != nil {
			return missing
		}
		return err
	}
	part.writing.Lock()
	defer part.writing.Unlock()
	p.mu.Lock()
	gone := p.partitions[id] != part
	before := part.record
	p.mu.Unlock()
	if gone {
		return missing
	}
	after := before
	change(&after)
	if before.Deleting && after.Deleting {
		return nil // nothing matters any more; the directory may be half gone
	}
	err := after.write(part.dir)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || after.Deleting {
		part.record = after
		p.notify()
	}
	return err
}

// give up a partition: a node of it does not come up, whatever we do.
func (p *Provider) giveUp(part *partition, why string) {
	p.log.Error("partition failed", "partition", part.id, "reason", why)
	err := p.amend(p.ctx, p.options.Site, part.id, func(r *record) { r.Failed = why })
	if err != nil && !errors.Is(err, gate.ErrNotFound) {
		p.log.Error("failure of a partition not written down", "partition", part.id, "error", err)
	}
}

// remove starts the removal of a partition whose deletion is decided. It goes
// on until nothing is left, or the provider is closed.
func (p *Provider) remove(id skyport.PartitionID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.partitions[id]
	if part.stop != nil {
		part.stop()
	}
	if p.closed {
		return // the next provider does it
	}
	p.work.Go(func() {
		part.watched.Wait()
		for pause := 50 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
			err := p.clear(part)
			if err == nil {
				break
			}
			p.log.Warn("partition not removed yet", "partition", id, "error", err)
			p.mu.Lock()
			part.trouble = err.Error()
			p.notify()
			p.mu.Unlock()
			if !rest(p.ctx, pause) {
				return
			}
		}
		p.log.Info("partition removed", "partition", id)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.partitions, id)
		p.notify()
	})
}

// clear ends the processes of a partition and removes its directory, the
// record last: a removal that is cut off is found and goes on.
func (p *Provider) clear(part *partition) error {
	part.writing.Lock()
	defer part.writing.Unlock()
	entries, err := os.ReadDir(part.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove partition: %w", err)
	}
	if err := endProcesses(p.ctx, part.dir); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != recordName {
			if err := removeTree(filepath.Join(part.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := removeIfThere(filepath.Join(part.dir, recordName)); err != nil {
		return err
	}
	return removeTree(part.dir)
}

// removeTree removes a directory that a job may have made hard to remove.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			// Comes before the directory is read, so that it can be.
			err = os.Chmod(path, 0o700) //nolint:gosec // a directory, of ours
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err //nolint:wrapcheck // names the path; wrapped below
	})
	if again := os.RemoveAll(dir); again != nil {
		return fmt.Errorf("remove %s: %w", dir, errors.Join(again, err))
	}
	return nil
}

// rest waits; it is false when the context ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
