// Package client is the Go client of core, and the only way in: every
// terminal of Sky Port, the command line included, uses it.
//
// It guarantees that a call which is safe to repeat is repeated when the
// connection or core fails for a moment: reads, and submissions, which carry
// an Idempotency-Key. Streams (events, logs, waiting) dial again by themselves
// and continue where they were, so a restart of core is a pause and nothing
// else: no event and no byte is lost or told twice.
//
// A refused call returns a [*skyport.Error] with its stable code, the hint of
// what to do next and, for job scripts, line and column. When core cannot be
// reached at all the code is [skyport.CodeUnavailable].
//
// A [Client] is safe for use by many goroutines. It starts none that outlive
// the call; Close drops idle connections.
package client
