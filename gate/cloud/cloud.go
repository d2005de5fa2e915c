package cloud

import (
	"context"
	"net/netip"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Cloud is one site of a cloud: a region of a subscription, a project. It is
// what a kind of cloud implements; [New] makes a provider of several. Its
// methods do the work while the caller waits, may take as long as the cloud
// does, may be called at the same time, and end soon after their context. Two
// calls of Make, Extend, Condemn and Clear for one partition never overlap.
//
// Errors are classified by the cloud's real answer: see [Permanent],
// [Throttled] and the codes of package skyport (CodeNoCapacity, CodeQuota,
// CodeCredentials, CodeUnknownImage and so on). All others are passing.
type Cloud interface {
	// Site describes the site, from memory.
	Site() skyport.Site
	// Flavors and Images ask the cloud. The provider caches their answers, on
	// disk too, and asks in the background: see [Options].
	Flavors(ctx context.Context) ([]skyport.Flavor, error)
	Images(ctx context.Context) ([]skyport.Image, error)

	// Make makes all that the plan asks for, every resource under a name made
	// from the plan's Name and with the plan's Tags from its creation on, and
	// returns when all nodes exist and have addresses; they need not answer yet.
	// What is there already, made by a call that was cut off, it takes as it is.
	// It tells what is going on, resource by resource. When it fails, the
	// provider clears what it has left.
	Make(ctx context.Context, plan Plan, tell func(text string)) error
	// Find tells what is at the site of one partition, or with an empty id of
	// all that carry our tags, going by the tags of every kind of resource, not
	// only of nodes: what is half made or half removed is found too.
	Find(ctx context.Context, id skyport.PartitionID) ([]Found, error)
	// Extend writes the new end of the lease into the tags, and moves the
	// cloud's own end of the nodes' life where there is one.
	Extend(ctx context.Context, id skyport.PartitionID, until time.Time) error
	// Condemn marks a partition as one to be removed, in its tags: whoever finds
	// it goes on with the removal. Nothing happens when there is nothing of it.
	Condemn(ctx context.Context, id skyport.PartitionID) error
	// Clear removes all that belongs to the partition, in whatever state it is,
	// and returns when the cloud's own lists agree that nothing is left. It tells
	// what it waits for.
	Clear(ctx context.Context, id skyport.PartitionID, tell func(text string)) error
	// Admit opens port 22 of a partition to these sources, and to no others.
	Admit(ctx context.Context, id skyport.PartitionID, sources []netip.Prefix) error
	// Check tries what the site will need; see [gate.Checker].
	Check(ctx context.Context) ([]gate.Finding, error)
	// Close ends what the cloud keeps open. Nodes go on.
	Close() error
}

// Plan is a partition to be made, checked against the catalogue.
type Plan struct {
	gate.PartitionSpec
	// Name begins every name at the site: "swm-" and the id.
	Name string
	// Kind of nodes and image, as the catalogue has them.
	NodeFlavor skyport.Flavor
	NodeImage  skyport.Image
	// Tags are put on every resource by the call that creates it.
	Tags Tags
	// Sources may reach port 22 of the main node. Never empty.
	Sources []netip.Prefix
}

// Found is what is at a site of one partition.
type Found struct {
	// Tags as they are now. Where resources differ, the latest Lease counts.
	Tags Tags
	// Created is when the first resource was.
	Created time.Time
	// Nodes that exist, main first. Address is the one inside the partition's
	// network, Endpoint as [gate.Endpoint] says it, by the public address for main.
	Nodes []Node
	// Made is true when all that was planned is there and every node has its
	// addresses. Only a partition that is Made is up.
	Made bool
	// Failure says why it will never be made or is not usable any more, with a
	// code: a deployment that failed, a node that was taken back or is gone.
	Failure error
	// Resources are all that is there, for people.
	Resources []Resource
}

// Node is a node at a site.
type Node struct {
	skyport.Node
	// Running is false while the cloud still boots it.
	Running bool
}

// Resource is one thing that may cost money.
type Resource struct {
	Kind string // in the cloud's own words, such as "virtual machine"
	Name string
}
