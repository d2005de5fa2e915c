// Package gate is the kit for gate writers: the [Provider] interface that
// speaks to a kind of site, the [Server] that offers providers to core over
// HTTP, and the [Client] by which core talks to a server. A third party may
// write providers, or a whole gate of its own behind the same routes.
//
// Promises of the server. It keeps nothing durable: what exists is at the
// sites, under ids that core chose, so any call may be made again after a lost
// answer, and a gate that was killed goes on from what its providers tell.
// Calls are answered at once or when their deadline passes; a provider that
// hangs delays nobody but itself. A partition whose lease has passed is removed
// by [Server.Run], unless the gate was away itself, in which case core first
// gets a while to renew.
//
// Package gatetest has the conformance suite that every provider passes, and a
// scripted provider for tests. docs/gates.md is the manual.
package gate
