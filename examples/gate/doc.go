// Command gate is a complete gate in three small files, to read and to begin
// from: a provider whose nodes are SSH servers on this machine (provider.go,
// node.go), and the service that offers it to core (main.go). docs/gates.md
// walks through it.
//
//	go run ./examples/gate                                # beside a spool that skyport setup has made
//	SWM_GATE_URL=https://localhost:8454 skyport core
//
// It needs Linux and OpenSSH's server, and no root. A job there is a process of
// whoever runs the gate: it is an example, not a site for strangers.
package main
