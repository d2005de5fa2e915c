// Package leaks holds one question, a test alone: does the cloud ever keep
// something that costs money and that nobody knows of?
//
// The real core and the real gate work against the emulator of Azure
// (test/azure), each as a process of its own. Jobs come and go, a batch of them
// at a time, and each run has its own trouble, drawn from a seed: core, the gate
// or both are killed with SIGKILL at a moment of its life, or the cloud errs,
// loses an answer after it has done the work, does things twice, wants fewer
// calls, has no machines left or shows what was a moment ago. Once core says that
// a run's partitions are gone the emulator must hold nothing of them, and must
// still hold what others have put there. docs/testing.md tells how to run it.
package leaks
