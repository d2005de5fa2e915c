// Package openstack makes partitions in OpenStack clouds: one [cloud.Cloud] is
// one project in one region.
//
// A partition is a security group, a network with a subnet and a router (or ports
// in a provider network), a port and a server for each node, and a floating
// address for main. Ports are made before servers, so that addresses are known
// early and a second server for a node cannot start. Nothing is kept outside the
// cloud: servers and volumes carry the tags as metadata, the things of the network
// as text in their description, which the call that creates them can write;
// Neutron's own tags need a second call and hold 60 characters only. The security
// group is made first and removed last: it also says whether all was made once, so
// that a server that went away is told from one that is not there yet. OpenStack
// ends no server at a given time: nodes stop themselves by what they have booted,
// and the sweep removes them.
package openstack
