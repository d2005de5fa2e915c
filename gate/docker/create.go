package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

const (
	// stepTime bounds one step of a creation or removal: a few calls of the engine.
	stepTime = 2 * time.Minute
	// sideBySide is how many nodes the engine is asked for at the same time.
	sideBySide = 32
	// tries is how often something that the engine refuses is asked for.
	tries = 6
)

// errStopped ends a creation that a removal has overtaken.
var errStopped = errors.New("stopped by a removal")

// create carries a creation from where it is to its end.
func (p *Provider) create(ctx context.Context, w *work) {
	defer p.over(w)
	net, settled, err := p.admit(ctx, w)
	w.err = err
	close(w.begun)
	p.notify()
	if err != nil || settled {
		return
	}
	err = p.build(ctx, w, net)
	w.userData = nil
	if err == nil {
		var labels map[string]string
		if labels, err = w.record.full(p.options.Site, kindMade); err == nil {
			err = p.insist(ctx, w, func(ctx context.Context) error { return p.note(ctx, noteName(w.id, kindMade), labels) })
		}
	}
	switch {
	case errors.Is(err, errStopped) || ctx.Err() != nil:
		return // a removal, or the next provider, goes on
	case err != nil:
		p.giveUp(ctx, w, err)
		return
	}
	p.log.InfoContext(ctx, "partition made", "partition", w.id, "nodes", len(w.record.nodes))
	p.haunt(w)
}

// insist makes a step until it is done, cannot be done, or is no longer wanted.
// What the engine refuses is tried a few times, what it cannot do now for ever.
func (p *Provider) insist(ctx context.Context, w *work, step func(context.Context) error) error {
	var pause time.Duration
	for try := 1; ; try++ {
		if w.stopped() {
			return errStopped
		}
		err := bounded(ctx, step)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, gate.ErrPermanent), skyport.CodeOf(err) == skyport.CodeNoSpace, try >= tries && !passing(err):
			return err
		}
		p.log.DebugContext(ctx, "the engine is asked again", "partition", w.id, "error", err)
		if pause = longer(pause, 5*time.Second); !rest(ctx, pause) {
			return err
		}
	}
}

func bounded(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return step(ctx)
}

// admit finds what is there of the partition, or writes its record, and gives
// it a network. It is settled when the partition was made, or failed, before.
func (p *Provider) admit(ctx context.Context, w *work) (net subnet, settled bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	p.admission.Lock()
	defer p.admission.Unlock()
	if w.stopped() {
		return net, false, skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", w.id)
	}
	seen, err := p.look(ctx, "")
	if err != nil {
		return net, false, err
	}
	v, there := seen[w.id]
	switch {
	case !there:
		err = p.register(ctx, w, seen)
		v = &view{}
	case v.deleting:
		err = skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", w.id)
	case !v.recorded:
		err = skyport.Errorf(skyport.CodeConflict, "partition %s lost its record and has to be removed first", w.id)
	case v.record.fingerprint != w.record.fingerprint:
		err = fmt.Errorf("partition %s: %w", w.id, gate.ErrConflict)
	case v.made || v.failed != "":
		return net, true, nil
	default:
		p.mu.Lock()
		w.record = v.record
		p.mu.Unlock()
	}
	if err != nil {
		return net, false, err
	}
	if net, err = p.network(ctx, w, v); err != nil && !there {
		// Nothing is left of what could not begin.
		err = errors.Join(err, p.clear(ctx, w.id, true))
	}
	return net, false, err
}

// register writes the record of a partition that fits.
func (p *Provider) register(ctx context.Context, w *work, seen map[skyport.PartitionID]*view) error {
	p.mu.Lock()
	err := p.faults.create()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if why := p.full(seen, w.record); why != "" {
		return skyport.Errorf(skyport.CodeUnavailable, "site %s is full: %s", p.options.Site, why).
			WithHint("wait until a partition is removed")
	}
	if err := p.imageThere(ctx, w.image); err != nil {
		return err
	}
	labels, err := w.record.full(p.options.Site, kindRecord)
	if err != nil {
		return err
	}
	return p.note(ctx, noteName(w.id, kindRecord), labels)
}

// build makes the nodes, side by side. The first that cannot be made ends it.
func (p *Provider) build(ctx context.Context, w *work, net subnet) error {
	nodes, nodesCtx := errgroup.WithContext(ctx)
	nodes.SetLimit(sideBySide)
	for i := range w.record.nodes {
		nodes.Go(func() error {
			return p.insist(nodesCtx, w, func(ctx context.Context) error { return p.raise(ctx, w, net, i) })
		})
	}
	return nodes.Wait()
}

// giveUp notes that a creation has failed, and why, and removes what it made.
func (p *Provider) giveUp(ctx context.Context, w *work, cause error) {
	reason := cause.Error()
	if hint := skyport.HintOf(cause); hint != "" {
		reason += " (" + hint + ")"
	}
	p.log.ErrorContext(ctx, "partition failed", "partition", w.id, "reason", reason)
	labels, err := w.record.full(p.options.Site, kindFailed)
	if err != nil {
		return
	}
	labels[labelReason] = skyport.Abbreviate(reason, 1000)
	for pause := time.Duration(0); !w.stopped(); pause = longer(pause, 5*time.Second) {
		err := bounded(ctx, func(ctx context.Context) error {
			noted := p.note(ctx, noteName(w.id, kindFailed), labels)
			if noted != nil && skyport.CodeOf(noted) != skyport.CodeNoSpace {
				return noted
			}
			if err := p.clear(ctx, w.id, false); err != nil || noted == nil {
				return err
			}
			return p.note(ctx, noteName(w.id, kindFailed), labels) // there is space now
		})
		if err == nil {
			return
		}
		p.log.WarnContext(ctx, "what a failed creation made is not removed yet", "partition", w.id, "error", err)
		if !rest(ctx, longer(pause, 5*time.Second)) {
			return
		}
	}
}
