// Package worker is the agent on a node: it runs jobs through a runtime, keeps
// their files, logs and samples, and tells core. Package protocol has its API
// and the client; package shim is the process beside each script.
//
// # What a crash leaves
//
// Everything that must survive lies under the worker's directory, written
// before it is acted upon, and is read again by the next worker:
//
//	worker.lock, worker.sock, epoch
//	runs/<run>/spec.json     what core asked for
//	runs/<run>/start         the start was asked for
//	runs/<run>/script, work/, tmp/, stage/, metrics.json
//	runs/<run>/…             what worker and shim tell one another: see package shim
//
// A run appears and disappears by one rename. Its script is started once,
// however often the worker is killed and the start is asked for; see package
// shim. Scripts go on while no worker is there. Nothing is synced to disk: a
// kill of any process loses nothing, a node without power loses its runs, and
// core is told so by the boot id.
//
// # Order and concurrency
//
// One goroutine drives each run; requests leave a file that says what they
// want and wake it. Statuses carry a version that grows with every change, also
// over restarts. A reader of the watch stream gets the latest status of what
// changed, not every step, and a slow one holds up nobody. When a status says
// ended, the sizes of its logs are final.
package worker
