// Package forward moves TCP: the ports of a job to its user (in ports) and the
// ports of the user to the job (out ports). It holds both ends; core uses one,
// the worker the other, and between them lies whatever the link gives: a unix
// socket on this machine, an SSH channel to a remote node. Each connection is
// an HTTP request to the worker that is upgraded ([DialUpgrade], [Upgrade]) and
// then carries the bytes as they are ([Pipe]).
//
//	in:   user ─▶ Set (core) ─▶ DialUpgrade ═ link ═ Upgrade (worker) ─▶ job
//	out:  job ─▶ Park (worker) ─▶ Upgrade ═ link ═ DialUpgrade (core) ─▶ user
//
// # The user's side of an in port
//
// A job has a loopback address of its own ([Addresses]), and its in ports answer
// there under their own numbers. (As with any loopback address, everybody on this
// machine can connect; whom to answer is up to the job's server.) Towards a remote node core listens before the
// job is called running, and a connection that comes before the job listens
// waits for it a bounded time.
//
// On the local site job and user share one network stack. There Linux refuses
// the job's bind(0.0.0.0:8888) while anybody listens on 127.1.2.3:8888, so core
// must not listen ahead of the job. It waits until the worker says where the
// job listens, and then does the least that makes Address:8888 answer:
//
//	nowhere                  nothing; what core had opened is closed
//	0.0.0.0, the Address     nothing: the job itself answers there
//	::                       the same, unless the socket is for IPv6 only: then as below
//	127.0.0.1, ::1, another  core listens on Address:8888 and leads to it
//
// What remains: a server that moves from 127.0.0.1:P to 0.0.0.0:P within the
// moment that the news takes is refused by the kernel and must try again.
//
// # Out ports
//
// The worker listens on the job's loopback and core dials the submission
// address. Where job and user share the network stack and the submission address
// is this machine, the job reaches 127.0.0.1:P as it is; a listener of ours would
// take the very port of the user's service. So [Forwarded] leaves such ports out,
// and the worker must be given only what it returns.
//
// # Guarantees
//
// Bytes keep their order; the end of one direction is passed on by itself
// (half-close); a slow reader stops its writer, with at most one buffer of ours
// between them. An idle connection holds no buffer. Whoever opens
// something here closes it and then all its goroutines and descriptors are gone:
// [Set.Close], [Park.Close], the context of [Pipe] and of [Reverse]. Everything
// may be used by many goroutines at once. Nothing here is durable: after a crash
// core opens its sets anew, and the connections of before are lost.
package forward
