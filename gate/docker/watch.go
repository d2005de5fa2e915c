package docker

import (
	"bufio"
	"context"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
)

const (
	// grace is how long a container may be down before its node counts as dead:
	// a restart stops it for a moment.
	grace = 5 * time.Second
	// firstKnock is what a status waits for the answer of a node that nobody
	// has asked yet.
	firstKnock = 300 * time.Millisecond
)

// knock is what is known of the container of a node beside the engine's word.
type knock struct {
	answered  bool          // its SSH server has answered
	asking    bool          // somebody asks
	first     chan struct{} // closed when the first answer, of any kind, is there
	down      time.Time     // since when it is seen to be down; zero: it is not
	rebooting bool          // we do that: it may take its time
}

// follow reads the engine's events, carries removals on that were cut off, and
// tells watchers, until the provider is closed.
func (p *Provider) follow() {
	var pause time.Duration
	for p.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(p.ctx)
		stream := p.engine.Events(ctx, client.EventsListOptions{
			Filters: client.Filters{}.Add("type", string(events.ContainerEventType)).Add("label", labelSite+"="+p.options.Site),
		})
		// What changes from now on is in the stream; what was before, here.
		err := p.resume(ctx)
		if err == nil {
			pause = 0
			err = p.read(stream)
		}
		cancel()
		for range stream.Err { // its reader has ended when this is closed
		}
		p.notify()
		if pause = longer(pause, 5*time.Second); !rest(p.ctx, pause) {
			return
		}
		p.log.Debug("the engine's events are asked for again", "error", err)
	}
}

// read handles events until the stream ends.
func (p *Provider) read(stream client.EventsResult) error {
	for {
		select {
		case e := <-stream.Messages:
			p.handle(e)
		case err := <-stream.Err:
			return err
		}
	}
}

func (p *Provider) handle(e events.Message) {
	switch e.Action {
	case events.ActionStart:
		p.ask(box{id: e.Actor.ID, address: e.Actor.Attributes[labelAddress], state: container.StateRunning})
	case events.ActionDie:
		p.notifyLater(grace + 50*time.Millisecond)
	case events.ActionDestroy:
		p.mu.Lock()
		delete(p.knocks, e.Actor.ID)
		p.mu.Unlock()
	case events.ActionDisconnect, events.ActionConnect, events.ActionOOM:
	default:
		return // nothing that a status tells
	}
	p.notify()
}

// resume carries on what an earlier provider has left: removals that were
// decided, and what failed creations have made.
func (p *Provider) resume(ctx context.Context) error {
	seen, err := p.look(ctx, "")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for id, v := range seen {
		switch {
		case v.deleting:
			if _, err := p.end(id); err != nil {
				return err
			}
		case v.failed != "" && len(v.nodes)+len(v.networks)+len(v.disks)+len(v.drafts) > 0:
			p.jobs.Go(func() {
				if err := bounded(p.ctx, func(ctx context.Context) error { return p.clear(ctx, id, false) }); err != nil {
					p.log.Warn("what a failed creation made is not removed yet", "partition", id, "error", err)
				}
			})
		}
		for _, b := range v.nodes {
			there[b.id] = true
			if b.state == container.StateRunning {
				p.ask(b)
			}
		}
	}
	p.mu.Lock()
	maps.DeleteFunc(p.knocks, func(id string, _ *knock) bool { return !there[id] }) // who asks them, notices
	p.mu.Unlock()
	p.notify()
	return nil
}

// notifyLater tells watchers after a while.
func (p *Provider) notifyLater(d time.Duration) {
	p.jobs.Go(func() {
		if rest(p.ctx, d) {
			p.notify()
		}
	})
}

// knock has the nodes asked that nobody asks yet, and waits a moment for them.
func (p *Provider) knock(ctx context.Context, seen map[skyport.PartitionID]*view) {
	var firsts []chan struct{}
	for _, v := range seen {
		for _, b := range v.nodes {
			if first := p.ask(b); first != nil {
				firsts = append(firsts, first)
			}
		}
	}
	over := time.NewTimer(firstKnock)
	defer over.Stop()
	for _, first := range firsts {
		select {
		case <-first:
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// ask begins to ask a running node whether its SSH server answers, unless that
// is known or asked already.
func (p *Provider) ask(b box) (first chan struct{}) {
	if b.state != container.StateRunning || b.address == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.knockOf(b.id)
	k.down = time.Time{}
	if p.closed || k.answered || k.asking {
		return nil
	}
	k.asking, k.first = true, make(chan struct{})
	first = k.first
	p.jobs.Go(func() { p.keepAsking(k, b) })
	return first
}

// knockOf is what is known of a container. Callers hold p.mu.
func (p *Provider) knockOf(id string) *knock {
	k, ok := p.knocks[id]
	if !ok {
		k = &knock{}
		p.knocks[id] = k
	}
	return k
}

// keepAsking asks until the node answers or its container is gone or down.
func (p *Provider) keepAsking(k *knock, b box) {
	begin := time.Now()
	pause := 20 * time.Millisecond
	for try := 0; ; try++ {
		answers := speaksSSH(p.ctx, net.JoinHostPort(b.address, "22"))
		if try == 0 {
			close(k.first)
		}
		p.mu.Lock()
		on := p.knocks[b.id] == k && k.down.IsZero()
		k.answered = k.answered || answers
		k.asking = on && !answers
		on = k.asking
		p.mu.Unlock()
		if answers {
			p.notify()
		}
		if !on || !rest(p.ctx, pause) {
			return
		}
		if time.Since(begin) > time.Minute {
			pause = time.Second
		} else {
			pause = min(pause*5/4, 100*time.Millisecond)
		}
	}
}

// speaksSSH says whether an SSH server greets at the address.
func speaksSSH(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // nothing was said
	end, _ := ctx.Deadline()
	if conn.SetDeadline(end) != nil {
		return false
	}
	// The server may say a few lines before its name.
	lines := bufio.NewReaderSize(conn, 512)
	for range 10 {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "SSH-") {
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}

// pulse says whether the node of a container lives and whether it has answered.
// One that is down may be restarting: it is given a moment.
func (p *Provider) pulse(b box) (alive, answers bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.knockOf(b.id)
	switch b.state {
	case container.StateExited, container.StateDead, container.StateRemoving:
	default:
		k.down = time.Time{}
		return true, k.answered && b.state != container.StateCreated
	}
	if k.down.IsZero() {
		k.down = time.Now()
		if !p.closed {
			p.notifyLater(grace + 50*time.Millisecond)
		}
	}
	return k.rebooting || time.Since(k.down) < grace, k.answered
}
