package core

import (
	"context"
	"slices"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/lifecycle"
)

// Reach is the way to the nodes that a job is on now.
func (b *backend) Reach(id skyport.JobID) (api.Reach, error) { return reachOf(b.engine.Reach(id)) }

// ReachPartition is the way to the nodes of a partition.
func (b *backend) ReachPartition(id skyport.PartitionID) (api.Reach, error) {
	return reachOf(b.engine.ReachPartition(id))
}

func reachOf(r lifecycle.Reach, err error) (api.Reach, error) {
	if err != nil {
		return api.Reach{}, err
	}
	return api.Reach{Run: r.Run, Nodes: r.Nodes, Worker: r.Worker}, nil
}

// UsersOf tells whose jobs hold a partition now or, when none does, whose was
// the last.
func (b *backend) UsersOf(ctx context.Context, id skyport.PartitionID) ([]skyport.UserID, error) {
	var users []skyport.UserID
	for _, job := range b.engine.JobsOn(id) {
		if !slices.Contains(users, job.Owner) {
			users = append(users, job.Owner)
		}
	}
	if len(users) > 0 {
		return users, nil
	}
	last, err := b.store.LastOwner(ctx, id)
	if err != nil || last == "" {
		return nil, err
	}
	return []skyport.UserID{last}, nil
}
