package skyport

import (
	"fmt"
	"slices"
	"time"
)

// PartitionState says where a partition stands between plan and deletion.
type PartitionState string

const (
	PartitionPlanned    PartitionState = "planned"    // decided, the site knows nothing
	PartitionCreating   PartitionState = "creating"   // the gate was asked
	PartitionBooting    PartitionState = "booting"    // the site has its nodes, they boot
	PartitionConnecting PartitionState = "connecting" // addresses are known, core dials
	PartitionReady      PartitionState = "ready"      // workers answer, no job
	PartitionBusy       PartitionState = "busy"       // workers answer, jobs are on it
	PartitionDraining   PartitionState = "draining"   // takes no more jobs
	PartitionFailed     PartitionState = "failed"     // gone wrong; deletion follows
	PartitionDeleting   PartitionState = "deleting"   // the gate was asked to delete
	PartitionDeleted    PartitionState = "deleted"    // the site says that it is gone
)

// partitionMoves is the only table of legal moves of a partition. A move to
// the same state (new details) is always legal and not listed.
var partitionMoves = map[PartitionState][]PartitionState{
	PartitionPlanned:    {PartitionCreating, PartitionDraining, PartitionFailed},
	PartitionCreating:   {PartitionBooting, PartitionConnecting, PartitionDraining, PartitionFailed},
	PartitionBooting:    {PartitionConnecting, PartitionDraining, PartitionFailed},
	PartitionConnecting: {PartitionReady, PartitionBusy, PartitionDraining, PartitionFailed},
	PartitionReady:      {PartitionBusy, PartitionDraining, PartitionFailed},
	PartitionBusy:       {PartitionReady, PartitionDraining, PartitionFailed},
	PartitionDraining:   {PartitionDeleting, PartitionFailed},
	PartitionFailed:     {PartitionDeleting},
	PartitionDeleting:   {PartitionDeleted},
	PartitionDeleted:    {},
}

// CanMove says whether a partition may go from s to the state to.
func (s PartitionState) CanMove(to PartitionState) bool {
	return slices.Contains(partitionMoves[s], to)
}

// Valid says whether s is a state of a partition.
func (s PartitionState) Valid() bool { _, ok := partitionMoves[s]; return ok }

// Usable says whether jobs may be placed on a partition in this state: its
// nodes are there, or are on their way.
func (s PartitionState) Usable() bool {
	switch s {
	case PartitionPlanned, PartitionCreating, PartitionBooting, PartitionConnecting, PartitionReady, PartitionBusy:
		return true
	}
	return false
}

// Connected says whether the partition's workers answer in this state.
func (s PartitionState) Connected() bool { return s == PartitionReady || s == PartitionBusy }

// PartitionStates lists the states in the order of a partition's life.
func PartitionStates() []PartitionState {
	return []PartitionState{
		PartitionPlanned, PartitionCreating, PartitionBooting, PartitionConnecting, PartitionReady,
		PartitionBusy, PartitionDraining, PartitionFailed, PartitionDeleting, PartitionDeleted,
	}
}

// Partition is the cluster of nodes that the gate created at a site, for one
// job or for several in a row.
type Partition struct {
	ID      PartitionID    `json:"id" format:"uuid" doc:"Id, chosen by core before anything exists at the site"`
	Name    string         `json:"name" doc:"Name, made from the id"`
	State   PartitionState `json:"state" doc:"Where it stands"`
	Details string         `json:"details" doc:"What is going on, for people"`
	Account string         `json:"account" doc:"Account that pays"`
	Site    string         `json:"site" doc:"Site it lives at"`
	Flavor  Flavor         `json:"flavor" doc:"Flavor of its nodes, with the price as it was when it was decided"`
	Spot    bool           `json:"spot,omitempty" doc:"Its nodes are spot; the flavor's price is that"`
	Image   string         `json:"image,omitempty" doc:"Cloud image that the nodes boot"`
	Code    Code           `json:"code,omitempty" doc:"Why it failed, for programs"`
	Nodes   []Node         `json:"nodes" doc:"Its nodes, main first; without addresses until the site gave them"`

	KeepAlive     Seconds   `json:"keep_alive" doc:"How long it waits idle for a next job"`
	KeepResources bool      `json:"keep_resources" doc:"Is not deleted when idle"`
	Created       time.Time `json:"created" doc:"When it was decided"`
	ReadyAt       time.Time `json:"ready_at,omitzero" doc:"When its workers answered"`
	IdleSince     time.Time `json:"idle_since,omitzero" doc:"Since when it has no job"`
	DeletedAt     time.Time `json:"deleted_at,omitzero" doc:"When the site confirmed its removal"`
}

// PricePerHour is the price of all nodes together.
func (p *Partition) PricePerHour() float64 { return p.Flavor.Price * float64(len(p.Nodes)) }

// Node is one machine of a partition.
type Node struct {
	Name     string `json:"name" doc:"Name, such as swm-1a2b3c4d-main"`
	Role     Role   `json:"role" enum:"main,compute" doc:"main runs the script"`
	Address  string `json:"address,omitempty" doc:"IP address, once the site gave it"`
	Endpoint string `json:"endpoint,omitempty" doc:"How core reaches the worker: unix:///path on this machine, ssh://user@host:port/dir elsewhere"`
	HostKey  string `json:"host_key,omitempty" doc:"Public SSH host key that the gate vouches for, as in authorized_keys; empty: the one that core made and handed over"`
}

// Role is what a node does in its partition.
type Role string

const (
	RoleMain    Role = "main"
	RoleCompute Role = "compute"
)

// PartitionName is the name of a partition at its site.
func PartitionName(id PartitionID) string { return "swm-" + id.Short() }

// NodeNames returns the names of a partition's n nodes, main first: names are
// known before anything exists.
func NodeNames(id PartitionID, n int) []string {
	names := make([]string, 0, n)
	for i := range n {
		if i == 0 {
			names = append(names, PartitionName(id)+"-main")
			continue
		}
		names = append(names, fmt.Sprintf("%s-compute%d", PartitionName(id), i))
	}
	return names
}
