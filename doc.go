// Package skyport holds the words of Sky Port as types: jobs, partitions,
// nodes, sites, flavors, images, events, the tables of legal state moves, and
// the errors that carry a stable code.
//
// It does no I/O and imports nothing else of this module, so every room of the
// house can speak it: core stores these types, the API sends them, the client
// returns them, the scheduler decides on them.
//
// All values are plain data and safe to copy. Times are UTC, sizes are bytes,
// prices are per node and hour in the currency of the site.
package skyport
