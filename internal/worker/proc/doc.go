// Package proc reads the kernel's table of processes: who descends from whom,
// what a tree uses, whether a process is still the one that was meant.
//
// Everything is read from /proc at the moment of the call; nothing is cached
// and nothing is kept open. Processes come and go while a table is read, so a
// table is a good guess, never a fact: callers that must reach every process
// of a tree read again until nothing is left.
package proc
