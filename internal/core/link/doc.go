// Package link is core's live connection to the nodes of a partition. A [Link]
// reaches the worker of the main node, keeps one watch stream open and with it
// the latest status of every run, and dials again for as long as it is open:
// whoever uses it sees a worker that answers or does not, never a connection.
//
// Endpoints say how a worker is reached: unix:///path is a worker on this
// machine. Other schemes (ssh) bring their own dialer into [Dial].
//
// Ordering: the status of a run that [Link.Status] returns never goes back to
// an older one of the same worker. Changes are told by [Options.Changed] after
// they can be seen. Nothing here is durable; after a crash core opens its links
// anew and the watch stream tells everything again.
package link
