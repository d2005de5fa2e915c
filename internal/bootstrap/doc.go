// Package bootstrap makes what a node needs before core can reach it: the keys
// of its partition, and the cloud-init user data that a gate hands to the site.
package bootstrap
