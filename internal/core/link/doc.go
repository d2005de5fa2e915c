// Package link is core's live connection to the nodes of a partition. A [Link]
// reaches the workers of all nodes, keeps a watch stream to each and with it the
// latest status of every run, and dials again for as long as it is open: whoever
// uses it sees workers that answer or do not, never a connection.
//
// Endpoints say how a worker is reached. unix:///path is a worker on this
// machine. ssh://user@host:port/dir is a node with an OpenSSH server: the link
// checks the server against the one host key that the node must have, logs in
// with the partition's key, and sets the node up: one shell script (setup.sh),
// which joins the node with the others, installs the worker of the node's
// architecture, and starts it in the directory dir. All is skipped that is there;
// a worker of another content is replaced, its runs go on. Nothing of the node
// outlives its reboot but files: the script sees that, and does all again.
//
//	core ── control ────────▶ main: calls, watch streams, forwarded ports
//	     ══ lines (4) ══════▶ main: transfers
//	     ── control ─▶ main ─▶ compute nodes: SSH within SSH, verified end to end
//
// The worker crosses the way from core to the partition once: compute nodes fetch
// it from the main node, a few at a time.
//
// A connection over which nothing arrives for 9 seconds, though asked for, is
// closed: all that goes on over it fails, and the link dials again, several times
// a second as long as it is told that nobody listens. Only a wrong host key and an
// unknown architecture end that ([ErrRefused]).
//
// What nodes say is bounded in length and time, and is told in errors, cut.
//
// Ordering: the status of a run that [Link.Status] returns never goes back to
// an older one of the same worker. Changes are told by [Options.Changed] after
// they can be seen. Nothing here is durable; after a crash core opens its links
// anew and the watch streams tell everything again.
package link
