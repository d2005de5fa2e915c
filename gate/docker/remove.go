package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
)

// remove carries a removal to its end: nothing of the partition is listed.
func (p *Provider) remove(ctx context.Context, w, creation *work) {
	defer p.over(w)
	ended := func() bool { // waits for the creation that this removal has overtaken
		if creation == nil {
			return true
		}
		select {
		case <-creation.done:
			return true
		case <-ctx.Done():
			return false
		}
	}
	there, err := p.condemn(ctx, w)
	if err != nil {
		ended()
	}
	w.err = err
	close(w.begun)
	if err != nil || !there {
		return
	}
	p.notify()
	if !ended() {
		return
	}
	var pause time.Duration
	for {
		err := bounded(ctx, func(ctx context.Context) error { return p.clear(ctx, w.id, true) })
		if err == nil {
			p.log.InfoContext(ctx, "partition removed", "partition", w.id)
			return
		}
		p.mu.Lock()
		w.trouble = err.Error()
		p.mu.Unlock()
		p.notify()
		p.log.WarnContext(ctx, "partition not removed yet", "partition", w.id, "error", err)
		if pause = longer(pause, 10*time.Second); !rest(ctx, pause) {
			return // the next provider does it
		}
	}
}

// condemn notes that the partition is to be removed, when there is one.
func (p *Provider) condemn(ctx context.Context, w *work) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	r := w.record
	if r.id == "" {
		seen, err := p.look(ctx, w.id)
		if err != nil {
			return false, err
		}
		v, ok := seen[w.id]
		if !ok {
			return false, nil
		}
		if v.deleting {
			return true, nil
		}
		r = v.record
		p.mu.Lock()
		w.record = r
		p.mu.Unlock()
	}
	release, err := p.take(ctx, w.id)
	if err != nil {
		return false, err
	}
	defer release()
	labels, err := r.full(p.options.Site, kindDeleting)
	if err != nil {
		return false, err
	}
	delete(labels, labelFingerprint) // a deletion is one whatever was asked for
	err = p.note(ctx, noteName(w.id, kindDeleting), labels)
	if skyport.CodeOf(err) == skyport.CodeNoSpace {
		p.log.WarnContext(ctx, "removal goes on without a note of it", "partition", w.id, "error", err) // it makes room
		err = nil
	}
	return err == nil, err
}

// clear removes what the engine has of a partition, and its notes when the
// partition is to go altogether. It is done when the engine lists no more of it.
func (p *Provider) clear(ctx context.Context, id skyport.PartitionID, notes bool) error {
	release, err := p.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	seen, err := p.look(ctx, id)
	if err != nil {
		return err
	}
	v, ok := seen[id]
	if !ok {
		return nil
	}
	if err := p.clearNodes(ctx, v); err != nil {
		return err
	}
	if notes {
		for _, name := range append(v.leases, v.notes...) {
			if err := p.removeVolume(ctx, name); err != nil {
				return err
			}
		}
	}
	if seen, err = p.look(ctx, id); err != nil {
		return err
	}
	if v, ok = seen[id]; ok && (notes || len(v.nodes)+len(v.disks)+len(v.networks)+len(v.drafts) > 0) {
		return skyport.Errorf(skyport.CodeUnavailable, "the engine still lists %d containers, %d networks and %d volumes of it",
			len(v.nodes), len(v.networks)+len(v.drafts), len(v.disks)+len(v.leases)+len(v.notes))
	}
	return nil
}

// clearNodes removes the containers, side by side, their volumes, and the networks.
func (p *Provider) clearNodes(ctx context.Context, v *view) error {
	nodes, nodesCtx := errgroup.WithContext(ctx)
	nodes.SetLimit(sideBySide)
	for _, b := range v.nodes {
		nodes.Go(func() error {
			_, err := p.engine.ContainerRemove(nodesCtx, b.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			if err != nil && !cerrdefs.IsNotFound(err) {
				return p.engineError(err, "remove container "+b.name)
			}
			return nil
		})
	}
	if err := nodes.Wait(); err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	var failed error
	for _, name := range v.disks {
		failed = errors.Join(failed, p.removeVolume(ctx, name))
	}
	for _, id := range append(v.networks, v.drafts...) {
		failed = errors.Join(failed, p.removeNetwork(ctx, id))
	}
	return failed
}
