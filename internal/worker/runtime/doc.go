// Package runtime says where a job's script runs: on the node itself, or in a
// container on it.
//
// A runtime prepares what a run needs, says what the shim has to execute, and
// removes whatever of a run lies outside its directory. The rest is the same
// for all runtimes and not theirs: the shim waits, keeps time and limits,
// records the end; the worker keeps the files, the logs and the samples. A
// runtime of containers makes the shim execute a small client of the engine,
// which passes signals on and ends as the container ended.
//
// Runtimes keep nothing in memory: every method may be called by another
// worker process than the one before, for several runs at once, and again
// after it was cut off at any instruction.
package runtime
