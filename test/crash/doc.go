// Package crash holds the crash matrix, a test alone: core, gate, workers and
// whole nodes are killed with SIGKILL at every stage of jobs' lives and at
// random moments, and started again, while people go on to submit, cancel and
// requeue jobs. Each job must end as it would have ended: once, whole, and
// without a trace of it left at the site.
//
// The processes are real ones of a spool of their own; the test owns core and
// gate as an init system would, and everything else is watched from outside:
// by the client, by the files that scripts write, and by /proc. docs/testing.md
// tells how to read a failure.
package crash
