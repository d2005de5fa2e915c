// Package aws is Amazon's EC2 as a cloud of [cloud.Provider]: a region of an
// account is a site.
//
// A partition is a security group, the nodes in it and, when there are several,
// a cluster placement group; unless the site names a VPC or subnet of its own,
// also a VPC with an internet gateway and a subnet in each zone that was tried.
// Nodes are made by one RunInstances each, side by side, idempotent by a client
// token; they have no key pair (cloud-init brings the keys), answer metadata
// requests only with a token and terminate when they shut down. Everything
// carries our tags from the call on that makes it, and is found by them alone.
//
// Prices come from the Price List API and the spot price history, images from
// AMI ids and from public parameters of Systems Manager. policy.json is the
// least policy that suffices.
package aws
