// Package shim is the process that stands between a worker and a job's script:
// it starts the script once, waits for it, keeps its limits, and writes down
// how it ended. It outlives the worker, so the script does.
//
// A run has a directory, and all that worker and shim tell one another lies in
// it as files, each written once and atomically:
//
//	launch.json  worker: what to execute; written before the first shim is started
//	shim.lock    held by the one living shim, for its whole life
//	began        shim: from here on the script may have run
//	stop         worker: end the run; a TERM to the shim tells it to look
//	exit.json    shim: how the run ended; from here on nothing of it lives
//
// Exactly once: any number of shims may be started for a directory. Each waits
// for the lock; with the lock in hand it goes away at once when began or
// exit.json is there. So a script whose shim was killed after began is never
// run again: it is lost, and the worker says so.
//
// Nothing is synced to disk: the files survive a kill of any process. A node
// that loses its power loses its runs anyway, which the boot id in began shows.
//
// The package is small on purpose: between the request and the script's first
// instruction there is the start of this program.
package shim
