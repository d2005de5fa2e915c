package apitest

import (
	"context"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// SetReach says how the nodes of a job are reached.
func (b *Backend) SetReach(id skyport.JobID, reach api.Reach) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reaches == nil {
		b.reaches = map[skyport.JobID]api.Reach{}
	}
	b.reaches[id] = reach
}

// SetPartition says how the nodes of a partition are reached, and whose it is.
func (b *Backend) SetPartition(id skyport.PartitionID, reach api.Reach, users ...skyport.UserID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.partitions == nil {
		b.partitions, b.users = map[skyport.PartitionID]api.Reach{}, map[skyport.PartitionID][]skyport.UserID{}
	}
	b.partitions[id], b.users[id] = reach, users
}

// Reach implements [api.Backend].
func (b *Backend) Reach(id skyport.JobID) (api.Reach, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reach, ok := b.reaches[id]; ok {
		return reach, nil
	}
	return api.Reach{}, skyport.Errorf(skyport.CodeConflict, "job %s has no nodes now", id)
}

// ReachPartition implements [api.Backend].
func (b *Backend) ReachPartition(id skyport.PartitionID) (api.Reach, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reach, ok := b.partitions[id]; ok {
		return reach, nil
	}
	return api.Reach{}, skyport.Errorf(skyport.CodeNotFound, "there is no partition %s now", id)
}

// UsersOf implements [api.Backend].
func (b *Backend) UsersOf(_ context.Context, id skyport.PartitionID) ([]skyport.UserID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.users[id], nil
}
