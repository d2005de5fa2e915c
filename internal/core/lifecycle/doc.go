// Package lifecycle moves partitions and jobs from state to state: the heart of
// core. It holds three kinds of loops, all owned by an [Engine]:
//
//   - one scheduler, which makes a snapshot of what waits and what there is, asks
//     package schedule, and writes the decision;
//   - one reconciler per partition, from planned to deleted;
//   - one reconciler per attempt of a job, from its placement to the moment when
//     the worker has forgotten it.
//
// What they share is the store. Every loop reads where its row stands, takes
// the next step outside, and writes what came of it; nothing is kept in memory
// that a restarted core could not read again. Each outside effect has a row
// before it and a name that we chose, so it can be tried again: the gate
// creates under the partition's id, the worker runs under the attempt's name,
// once.
//
// The engine keeps a mirror of all active rows, fed by the store after every
// commit. A commit wakes the loops that it concerns, so nothing here polls: a
// cancel, a requeue, a partition that came up, a script that ended are each seen
// at once.
//
// Locks: Engine.mu guards the mirror and is never held across I/O, a store
// update or a call into a link. The store's commit listener takes it; so never
// call Store.Update with it held.
package lifecycle
