// Package admission decides whether a submission becomes a job. It parses the
// script, fills in what the submitter left open, and holds the request against
// the accounts and the catalogue, so that a job that could never run is refused
// at once with the place and what to do, and not after an hour in the queue.
//
// It keeps nothing and reads nothing but the inputs' names, and only where the
// caller may name files of core's own machine.
package admission
