package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// work is a creation or a removal that is under way in this process. Calls for
// the same partition join it.
type work struct {
	id       skyport.PartitionID
	removing bool
	record   record        // guarded by the provider's mutex when removing
	image    string        // of a creation
	userData []string      // of a creation; dies with it
	faults   Faults        // that were on when it began
	begun    chan struct{} // closed when the decision is noted at the engine, or cannot be
	err      error         // why it cannot be; set before begun is closed
	stop     chan struct{} // closed when a creation should end: a removal has come
	done     chan struct{} // closed when all is done
	trouble  string        // why a removal takes long; guarded by the provider's mutex
}

// underWay is what a status tells of a work.
type underWay struct {
	record   record
	removing bool
	trouble  string
}

// answer waits until the decision is noted.
func (w *work) answer(ctx context.Context) error {
	select {
	case <-w.begun:
		return w.err
	case <-ctx.Done():
		return fmt.Errorf("partition %s is being noted down: %w", w.id, ctx.Err())
	}
}

func (w *work) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// begin starts a creation, or finds the one of the same id that is under way.
func (p *Provider) begin(spec gate.PartitionSpec, flavor skyport.Flavor, image string) (*work, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, p.isClosed()
	}
	if w, ok := p.works[spec.ID]; ok {
		switch {
		case w.removing:
			return nil, skyport.Errorf(skyport.CodeConflict, "partition %s is being removed", spec.ID)
		case w.record.fingerprint != spec.Fingerprint():
			return nil, fmt.Errorf("partition %s: %w", spec.ID, gate.ErrConflict)
		}
		return w, nil
	}
	w := &work{
		id: spec.ID, record: newRecord(spec, flavor, image), image: image, userData: spec.UserData, faults: p.faults,
		begun: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.works[spec.ID] = w
	p.jobs.Go(func() { p.create(p.ctx, w) })
	return w, nil
}

// end starts a removal, which ends a creation that is under way, or joins one.
func (p *Provider) end(id skyport.PartitionID) (*work, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, p.isClosed()
	}
	creation := p.works[id]
	if creation != nil && creation.removing {
		return creation, nil
	}
	w := &work{id: id, removing: true, begun: make(chan struct{}), done: make(chan struct{})}
	if creation != nil {
		w.record = creation.record
		close(creation.stop)
	}
	p.works[id] = w
	p.jobs.Go(func() { p.remove(p.ctx, w, creation) })
	return w, nil
}

func (p *Provider) isClosed() error {
	return skyport.Errorf(skyport.CodeUnavailable, "site %s is closed", p.options.Site)
}

// over forgets a work, unless another one has taken its place.
func (p *Provider) over(w *work) {
	p.mu.Lock()
	if p.works[w.id] == w {
		delete(p.works, w.id)
		if w.removing {
			p.removed++
		}
	}
	p.mu.Unlock()
	close(w.done)
	p.notify()
}

// underWay copies what is under way for a partition, or for all.
func (p *Provider) underWay(id skyport.PartitionID) map[skyport.PartitionID]*underWay {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[skyport.PartitionID]*underWay{}
	for _, w := range p.works {
		if id == "" || w.id == id {
			all[w.id] = &underWay{record: w.record, removing: w.removing, trouble: w.trouble}
		}
	}
	return all
}

func (p *Provider) removals() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed
}

func (p *Provider) removing(id skyport.PartitionID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, ok := p.works[id]
	return ok && w.removing
}

// turn lets one at a time change the notes of a partition.
type turn struct {
	free  chan struct{} // holds one element while free
	users int
}

// take waits for a partition's turn; release gives it back.
func (p *Provider) take(ctx context.Context, id skyport.PartitionID) (release func(), err error) {
	p.mu.Lock()
	t, ok := p.writing[id]
	if !ok {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		p.writing[id] = t
	}
	t.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.users--; t.users == 0 {
			delete(p.writing, id)
		}
	}
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("partition %s is being changed: %w", id, ctx.Err())
	}
}

// note writes a note: an empty volume with labels. It is there already after a
// first call that was cut off, which is as good.
func (p *Provider) note(ctx context.Context, name string, labels map[string]string) error {
	all := map[string]string{}
	for k, v := range p.options.Labels {
		all[k] = v
	}
	for k, v := range labels {
		all[k] = v
	}
	answer, err := p.engine.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: all})
	if err != nil {
		return p.engineError(err, "note "+name)
	}
	if answer.Volume.Labels[labelPartition] != labels[labelPartition] {
		return permanent(skyport.CodeConflict, "the engine has a volume %s that is not ours", name)
	}
	if f := labels[labelFingerprint]; f != "" && answer.Volume.Labels[labelFingerprint] != f {
		return fmt.Errorf("partition %s: %w", labels[labelPartition], gate.ErrConflict)
	}
	return nil
}

func noteName(id skyport.PartitionID, kind string) string {
	name := "swm-" + string(id)
	if kind == kindRecord {
		return name
	}
	return name + "." + kind
}

func (p *Provider) removeVolume(ctx context.Context, name string) error {
	_, err := p.engine.VolumeRemove(ctx, name, client.VolumeRemoveOptions{Force: true})
	if err != nil && !cerrdefs.IsNotFound(err) {
		return p.engineError(err, "remove volume "+name)
	}
	return nil
}

// engineError puts an error of the engine into words that help.
func (p *Provider) engineError(err error, what string) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the Docker engine at %s: %s: %w", p.engine.DaemonHost(), what, err)
	case client.IsErrConnectionFailed(err):
		return skyport.Errorf(skyport.CodeUnavailable, "the Docker engine cannot be reached: %w", err).
			WithHint("start the Docker engine, or set docker.host (DOCKER_HOST) to where it is")
	case noSpace(err):
		return skyport.Errorf(skyport.CodeNoSpace, "the Docker engine has no space left: %s: %w", what, err).
			WithHint("docker system df shows what takes it")
	case strings.Contains(err.Error(), "non-overlapping IPv4 address pool"), strings.Contains(err.Error(), "predefined address pools"):
		return skyport.Errorf(skyport.CodeUnavailable, "the Docker engine has no more subnets for networks: %s: %w", what, err).
			WithHint("remove partitions or unused networks (docker network prune), or give the engine more default-address-pools")
	}
	return skyport.Errorf(skyport.CodeUnavailable, "the Docker engine at %s: %s: %w", p.engine.DaemonHost(), what, err)
}

func noSpace(err error) bool { return strings.Contains(err.Error(), "no space left on device") }

// passing says whether a call of the engine may succeed when it is made again.
func passing(err error) bool {
	return client.IsErrConnectionFailed(err) || cerrdefs.IsUnavailable(err) || cerrdefs.IsConflict(err)
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

// longer is the next pause between tries.
func longer(pause, most time.Duration) time.Duration {
	return min(cmp.Or(2*pause, 50*time.Millisecond), most)
}
