// Package apitest is core in memory, for tests of the API and of the client:
// a [Backend] that keeps jobs, events and logs in maps, and a [Server] that
// puts the real API before it, over real mutual TLS.
//
// Nothing happens by itself: a test moves jobs by [Backend.Move], writes logs
// by [Backend.Write] and breaks things by [Server.Cut].
package apitest
