// Package core is the daemon that owns jobs. It wires the rooms below it and
// owns their start and stop:
//
//	api ──▶ core (Backend) ──▶ admission ──▶ store ──▶ lifecycle ──▶ gate, link
//	  ▲                                        │
//	  └───────── events, logs, results ◀───────┘
//
// [Run] takes the spool's lock, so there is one core per spool, opens the
// store, starts the lifecycle with what is not over, and answers terminals as
// soon as that is done; it returns when all of it has stopped. Killing core at any
// instruction loses nothing: the next Run goes on from the store.
package core
