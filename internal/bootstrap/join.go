package bootstrap

// Node is a node that exists: it has an address.
type Node struct {
	Name    string
	Address string // in the partition's network
	Port    int    // of its SSH server; zero: 22
	User    string // who logs in; empty: the Join's
	HostKey string // its public host key; empty: that of Keys.Hosts
}

// Join makes nodes that run a partition: they reach one another by SSH, under
// their names, and share a directory.
type Join struct {
	Nodes []Node // all of the partition, main first
	Keys  *Keys
	Dir   string // the directory that belongs to us, the same on all nodes; empty: [Dir]
	User  string // who logs in; empty: [User]
}

// NotShared is the exit code of a Join's script when everything is done but the
// shared directory, which this node cannot have: it says why on stderr.
const NotShared = 3

// Script returns what one node runs, by its login user, as `sh -s`. It may run
// again at any time, after a reboot for instance, and on all nodes at once.
func (j Join) Script(node int) string {
	return ""
}
