// Package e2e holds the tests that cross all rooms: the real skyport, with core,
// gate and the local site as `skyport up` or apart, seen from the outside as
// people and terminals see it: by its command line, its client and its API.
//
// Each test has a house of its own (a throw-away HOME and spool, ports that the
// kernel chooses), so all run side by side. A house that is closed must be empty:
// every test therefore also proves that nothing is left, no partition, no
// process, no directory of a node. Nothing here sleeps; every wait is for a
// condition and has a deadline.
//
// The binary is built once per run, with a worker of its own inside; the
// environment variable SKYPORT_BINARY names another one to be tested.
package e2e
