// Package local is the provider of the site that is this machine: a node is a
// worker process with a directory of its own, reached by a unix socket.
//
// Everything lies under one directory, which one provider at a time may hold:
//
//	<dir>/lock                         held while a provider is open
//	<dir>/<partition>/partition.json   spec, lease, what was decided; written before anything is started
//	<dir>/<partition>/<node>.log       what the worker says
//	<dir>/<partition>/<node>/          the worker's own: socket, runs
//
// Workers are leaders of sessions of their own and outlive the provider. The
// next provider on the directory finds them by the mark in their environment
// and watches over them; a worker that dies is started again, with growing
// pauses, until it is given up. A deletion ends all processes of a partition,
// whatever they did to hide, removes the directory, and only then is complete;
// it goes on after a kill of the gate at any instruction.
package local
