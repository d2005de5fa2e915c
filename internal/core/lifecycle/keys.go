package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/internal/bootstrap"
	"github.com/openworkload/skyport/internal/core/store"
)

// Sealer keeps keys unreadable in the store and in its backups. Package seal
// has one.
type Sealer interface {
	Seal(context string, plain []byte) ([]byte, error)
	Open(context string, box []byte) ([]byte, error)
}

// sealContext binds a partition's keys to the partition.
func sealContext(id skyport.PartitionID) string { return "partition/" + string(id) }

// plan makes the keys of a planned partition, before anything exists at the
// site, and moves it on. Nodes that are this machine need none.
func (p *partition) plan(ctx context.Context, row *skyport.Partition) error {
	if p.e.local(row.Site) {
		return p.update(ctx, skyport.PartitionPlanned, p.asked)
	}
	keys, err := bootstrap.NewKeys(nodeNames(row))
	if err != nil {
		return err
	}
	plain, err := json.Marshal(keys)
	if err != nil {
		return fmt.Errorf("keys of partition %s: %w", row.ID, err)
	}
	box, err := p.e.Sealer.Seal(sealContext(row.ID), plain)
	if err != nil {
		return fmt.Errorf("keys of partition %s: %w", row.ID, err)
	}
	return p.update(ctx, skyport.PartitionPlanned, func(tx *store.Tx, row *skyport.Partition) error {
		if err := tx.InsertPartitionKeys(row.ID, box); err != nil {
			return err
		}
		return p.asked(tx, row)
	})
}

// keys reads the partition's keys; nil when its nodes need none.
func (p *partition) keys(ctx context.Context, row *skyport.Partition) (*bootstrap.Keys, error) {
	box, err := p.e.Store.PartitionKeys(ctx, row.ID)
	if skyport.CodeOf(err) == skyport.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plain, err := p.e.Sealer.Open(sealContext(row.ID), box)
	if err != nil {
		return nil, fmt.Errorf("keys of partition %s: %w", row.ID, err)
	}
	keys := &bootstrap.Keys{}
	if err := json.Unmarshal(plain, keys); err != nil {
		return nil, fmt.Errorf("keys of partition %s: %w", row.ID, err)
	}
	return keys, nil
}

// spec is what the gate is asked for: made of the row and its keys alone, so that
// the same call can be made again. Only the lease moves.
func (p *partition) spec(ctx context.Context, row *skyport.Partition) (gate.PartitionSpec, error) {
	spec := gate.PartitionSpec{
		ID: row.ID, Owner: p.e.Owner, Site: row.Site, Flavor: row.Flavor.Name, Image: row.Image,
		Nodes: nodeNames(row), Lease: p.e.leaseEnd(), Spot: row.Spot,
	}
	spec.Job, spec.User = p.madeFor()
	keys, err := p.keys(ctx, row)
	if err != nil || keys == nil {
		return spec, err
	}
	spec.Keys = []string{keys.Client.Public, keys.Inner.Public}
	config := bootstrap.Config{Name: row.Name, Nodes: spec.Nodes, Keys: keys, Life: max(p.e.Limits.Lease, shortestLife)}
	for i := range spec.Nodes {
		data, err := bootstrap.UserData(config, i)
		if err != nil {
			return spec, fmt.Errorf("user data of node %s: %w", spec.Nodes[i], err)
		}
		spec.UserData = append(spec.UserData, data)
	}
	return spec, nil
}

// madeFor tells the first job that waits for the partition, and whose it is.
func (p *partition) madeFor() (skyport.JobID, string) {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	var first *skyport.Job
	for _, a := range p.e.attemptsOn(p.id) {
		if job := p.e.jobs[a.Job]; job != nil && (first == nil || job.Number < first.Number) {
			first = job
		}
	}
	if first == nil {
		return "", ""
	}
	return first.ID, string(first.Owner)
}

func nodeNames(row *skyport.Partition) []string {
	names := make([]string, len(row.Nodes))
	for i, n := range row.Nodes {
		names[i] = n.Name
	}
	return names
}

// shortestLife is the least that a node is given to live by itself: a lease that
// is shorter is watched over by the gate alone.
const shortestLife = 5 * time.Minute
