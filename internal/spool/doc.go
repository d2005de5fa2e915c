// Package spool knows the one directory that holds everything durable of Sky
// Port: where each file lies, the configuration, the version, and who may use
// it now.
//
// [Setup] makes a spool and its certificates; it only ever adds what is
// missing, so it may be killed at any point and run again. [Open] reads one and
// changes nothing: a spool that a newer version has made, or a configuration
// with a mistake, is refused. [Spool.Lock] makes a process the only core (or
// the only gate) of a spool: the kernel drops the lock with the process,
// however it ends, so a crash leaves nothing to clean.
//
// The configuration comes from skyport.yaml, and above it from environment
// variables: core.listen from SWM_CORE_LISTEN. Unknown keys are errors.
//
// A Spool is read-only after Open and safe for concurrent use.
package spool
