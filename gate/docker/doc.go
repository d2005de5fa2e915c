// Package docker is the provider of sites that are Docker engines: a node is a
// privileged container of the node image, with an address of its own on a
// network of its partition, that boots by running cloud-init on its user data.
//
// Nothing durable lies beside the engine. Every object carries the partition,
// the site and the owner in its labels. Labels cannot change, so what becomes
// known later is noted by empty volumes whose labels are the note:
//
//	swm-<id>            the record: names of the nodes, flavor, fingerprint, first lease
//	swm-<id>.lease-<n>  the lease was moved; the highest n counts
//	swm-<id>.made       all nodes were started
//	swm-<id>.failed     the creation failed for good, and why; what it had made is removed
//	swm-<id>.deleting   the removal is decided; it goes last
//
// A creation that was cut off goes on when core asks again: only core has the
// user data, which holds private host keys and is kept nowhere but in the nodes.
// A removal that was cut off goes on by itself.
//
// The provider follows the engine's events and knocks at the nodes' SSH servers
// until they answer, so it must reach the engine's bridge networks: it runs on
// the engine's machine, or has a route there.
package docker
