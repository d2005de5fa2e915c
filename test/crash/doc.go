// Package crash holds the crash matrix, a test alone: core, gate, workers and
// whole nodes are killed with SIGKILL at every stage of jobs' lives and at
// random moments, and started again, while people go on to submit, cancel and
// requeue jobs. Each job must end as it would have ended: once, whole, and
// without a trace of it left at the site.
//
// The processes are real ones of a spool of their own; the test owns core and
// gate as an init system would, and everything else is watched from outside:
// by the client, by the ledger that scripts write to, and by /proc. The same is
// done to nodes that core reaches by SSH: containers of the Docker site, of which
// shims, SSH servers and whole nodes are killed besides, and some restarted; there
// an engine is what looks from outside; and the same to such nodes that the Azure
// provider makes, in an emulator that is held to be empty at the end.
// docs/testing.md tells how to read a failure.
package crash
