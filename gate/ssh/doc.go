// Package ssh is the provider of machines that a person already has: hosts that
// are reached by SSH with a key of theirs, where nobody needs to be root.
//
// A node is a host that a partition has claimed. The claim is a file that only
// one of several gates can make; it holds the whole record, so that what exists
// can be read from the hosts. All that belongs to a partition lies in
// ~/.skyport/<partition>, but for its lines in ~/.ssh/authorized_keys. When the
// lease passes and nobody comes, a watchdog on the host removes everything by
// itself. A deletion ends all processes of the partition, whatever they did to
// hide, and is complete when each host has said that nothing is left.
//
// The gate's own directory keeps which hosts a partition was to have, written
// before they are asked: a host that does not answer is not forgotten. host.sh is
// what runs on the hosts. docs/own-machines.md is the manual.
package ssh
