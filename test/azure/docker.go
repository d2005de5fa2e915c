package azuretest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/docker"
)

// DockerOptions say how virtual machines become containers.
type DockerOptions struct {
	// Host is the engine; empty: the one of the docker command. Image is the node
	// image; empty: docker.DefaultImage.
	Host, Image string
	// Name tells the containers of one emulator from those of others; empty: a
	// fresh one. With the name of an earlier emulator, and its State, its machines
	// are found again.
	Name string
	// MaxCPUs and MaxMemory bound a machine, whatever its size says; 0: the cpus of
	// this machine, 1 GiB.
	MaxCPUs   int
	MaxMemory skyport.Bytes
	// NoEngine leaves the container engine inside of the machines out.
	NoEngine bool
	// Env is added to the environment of the machines' first process.
	Env []string
	// Labels are put on all that is made.
	Labels map[string]string
	// Keep leaves the machines alone when the emulator is closed.
	Keep   bool
	Logger *slog.Logger
}

// Docker has virtual machines become nodes of the Docker gate: containers that
// boot their custom data by real cloud-init. Those of one deployment share a
// network. Their addresses are the containers', told as the private ones and,
// of machines that have one, as the public one.
type Docker struct {
	o        DockerOptions
	provider *docker.Provider
	owner    string

	mu    sync.Mutex
	ended map[string]bool // nodes that were removed while others of their partition stayed
}

// NewDocker makes the machines of an emulator, which closes them.
func NewDocker(o DockerOptions) (*Docker, error) {
	o.Name = cmp.Or(o.Name, "azure-"+strings.ToLower(rand.Text()[:8]))
	o.MaxCPUs = cmp.Or(o.MaxCPUs, runtime.NumCPU())
	o.MaxMemory = cmp.Or(o.MaxMemory, 1<<30)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Docker{o: o, owner: o.Name, ended: map[string]bool{}}
	var flavors []skyport.Flavor
	for _, s := range makeSizes(0) {
		flavors = append(flavors, skyport.Flavor{Name: s.name, CPUs: min(s.cpus, o.MaxCPUs), Memory: min(skyport.Bytes(s.memory*(1<<30)), o.MaxMemory)})
	}
	provider, err := docker.New(docker.Options{
		Site: o.Name, Host: o.Host, Image: o.Image, NoEngine: o.NoEngine, Flavors: flavors, Env: o.Env, Labels: o.Labels, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	d.provider = provider
	return d, nil
}

// Name tells its containers from those of others: it is their owner.
func (d *Docker) Name() string { return d.owner }

// Boot makes a partition of the machines of each size.
func (d *Docker) Boot(ctx context.Context, machines []Machine) (map[string]Addresses, error) {
	bySize := map[string][]Machine{}
	for _, m := range machines {
		bySize[m.Size] = append(bySize[m.Size], m)
	}
	addresses := map[string]Addresses{}
	for size, some := range bySize {
		status, err := d.create(ctx, size, some)
		if err != nil {
			return nil, err
		}
		for i, n := range status.Nodes {
			addresses[some[i].ID] = Addresses{Private: n.Address, Public: n.Address}
		}
	}
	return addresses, nil
}

// create makes a partition whose id comes from the group, and is fresh.
func (d *Docker) create(ctx context.Context, size string, machines []Machine) (gate.PartitionStatus, error) {
	spec := gate.PartitionSpec{
		ID:    skyport.PartitionID(gate.StableID(d.owner, machines[0].Group, size, rand.Text())),
		Owner: d.owner, Site: d.o.Name, Flavor: d.flavor(ctx, size), Lease: time.Now().AddDate(0, 0, 1),
	}
	for _, m := range machines {
		spec.Nodes = append(spec.Nodes, m.Host)
		data := string(m.CustomData) // as it came: cloud-init unpacks what is packed
		if data == "" {
			data = "#cloud-config\n"
		}
		spec.UserData = append(spec.UserData, data)
	}
	for {
		changed := d.provider.Changed()
		err := d.provider.Create(ctx, spec)
		if err == nil {
			break
		}
		if errors.Is(err, gate.ErrPermanent) || ctx.Err() != nil {
			return gate.PartitionStatus{}, err
		}
		d.o.Logger.WarnContext(ctx, "the engine does not make machines yet", "group", machines[0].Group, "error", err)
		d.wait(ctx, changed)
	}
	for ctx.Err() == nil {
		changed := d.provider.Changed()
		s, err := d.provider.Status(ctx, d.o.Name, spec.ID)
		switch {
		case err != nil && errors.Is(err, gate.ErrNotFound):
			return s, err
		case err != nil:
		case s.State == gate.StateFailed:
			return s, fmt.Errorf("the engine: %s", s.Details)
		case s.State == gate.StateBooting || s.State == gate.StateUp:
			return s, nil
		}
		d.wait(ctx, changed)
	}
	// The group goes while its machines come.
	return gate.PartitionStatus{}, errors.Join(ctx.Err(), d.drop(context.WithoutCancel(ctx), spec.ID))
}

// flavor is the catalogue's name of a size.
func (d *Docker) flavor(ctx context.Context, size string) string {
	flavors, err := d.provider.Flavors(ctx, d.o.Name)
	if err != nil {
		return size // which Create tells
	}
	i := slices.IndexFunc(flavors, func(f skyport.Flavor) bool { return strings.EqualFold(f.Name, size) })
	if i < 0 {
		return size
	}
	return flavors[i].Name
}

// wait waits for a change, for a moment.
func (d *Docker) wait(ctx context.Context, changed <-chan struct{}) {
	t := time.NewTimer(500 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// Stop takes the power of a machine away.
func (d *Docker) Stop(ctx context.Context, m Machine) error {
	return d.provider.Kill(ctx, m.Host)
}

// Start boots a machine again, on its old disk.
func (d *Docker) Start(ctx context.Context, m Machine) error {
	return d.provider.Reboot(ctx, m.Host)
}

// Remove removes partitions that have no other machines; a machine whose
// partition has others is only ended.
func (d *Docker) Remove(ctx context.Context, machines []Machine) error {
	if len(machines) == 0 {
		return nil
	}
	gone := map[string]bool{}
	for _, m := range machines {
		gone[m.Host] = true
	}
	all, err := d.provider.List(ctx, d.o.Name, d.owner)
	if err != nil {
		return err
	}
	for _, s := range all {
		left, hit := 0, []string{}
		for _, n := range s.Nodes {
			switch {
			case gone[n.Name]:
				hit = append(hit, n.Name)
			case !d.hasEnded(n.Name):
				left++
			}
		}
		switch {
		case len(hit) == 0:
		case left == 0:
			err = errors.Join(err, d.drop(ctx, s.ID))
		default:
			for _, n := range hit {
				if kill := d.provider.Kill(ctx, n); kill != nil {
					d.o.Logger.WarnContext(ctx, "a machine was not running", "machine", n, "error", kill)
				}
				d.end(n)
			}
		}
	}
	return err
}

func (d *Docker) hasEnded(node string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended[node]
}

func (d *Docker) end(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended[node] = true
}

// drop removes a partition and waits until it is gone.
func (d *Docker) drop(ctx context.Context, id skyport.PartitionID) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		changed := d.provider.Changed()
		err := d.provider.Delete(ctx, d.o.Name, id)
		if err == nil {
			_, err = d.provider.Status(ctx, d.o.Name, id)
			if errors.Is(err, gate.ErrNotFound) {
				return nil
			}
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the machines of partition %s stay: %w", id, ctx.Err()), err)
		}
		d.wait(ctx, changed)
	}
}

// Close removes all machines, unless they are to be kept.
func (d *Docker) Close() error {
	var err error
	if !d.o.Keep {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		var all []gate.PartitionStatus
		all, err = d.provider.List(ctx, d.o.Name, d.owner)
		for _, s := range all {
			err = errors.Join(err, d.drop(ctx, s.ID))
		}
	}
	return errors.Join(err, d.provider.Close())
}
