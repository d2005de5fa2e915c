// Package cloudtest is a cloud in memory, with the faults that real ones have:
// lists that lag, errors after the work was done, work that is done late or
// twice, throttling, nodes that are taken back. A [World] is the account, which
// outlives the processes that use it; each of them opens a [Cloud] of its own
// and can be killed.
//
// It is what package cloud is tried with, an example of a small Cloud, and a
// base for tests of what is built on both. It starts no goroutines and works in
// a synctest bubble.
package cloudtest
