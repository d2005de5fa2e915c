// Package bootstrap makes what turns a machine of a site into a node: the keys of
// its partition; the cloud-init user data that a gate hands to the site; and the
// script by which the nodes of a partition find and share with one another.
//
// User data installs a user without password, core's public keys, the host key
// that core made, the directory, an empty disk if there is one, the container
// engine, and the end of the node's life. The only secret in it is the host key:
// sites keep user data, and anything on a node may read it. Whatever else is
// secret travels over the link, as the inner key does in [Join].
package bootstrap
