// Package node makes the node image: a Debian with OpenSSH, cloud-init and a
// container engine that boots as a container, for gate/docker and for tests. The
// image is built by `make node-image`; tests get it by [Ensure].
package node
