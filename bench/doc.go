// Command bench measures what README and docs/performance.md quote: make bench
// runs all of it against bin/skyport, prints a table for people and writes the
// same as JSON below bench/out.
//
// Every measurement is of the real thing: the program in a throw-away spool with
// a home directory of its own, called by the public client package over mutual
// TLS. What is compared (a copy with cp, a forwarded port with a direct
// connection) runs in turns in the same run, on the same disk; medians are
// told, and no round is dropped. A missed aim is a row of the table, not an
// error: bench fails only when something cannot be measured. A last look at
// /proc ends the nodes that a measurement left, so nothing stays behind.
//
// With -short it does everything with small numbers, in seconds: a test runs it
// so that it never rots. Its figures mean nothing.
package main
