package bootstrap

import (
	_ "embed"
	"fmt"
	"path"
	"strings"
)

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

//go:embed scripts/join.sh
var joinScript string

// Script returns what one node runs, by its login user, as `sh -s`. It may run
// again at any time, after a reboot for instance, and on all nodes at once.
//
// It holds the inner private key: it goes to the node over the link, by stdin.
func (j Join) Script(node int) string {
	dir := path.Clean(plain(j.Dir))
	if j.Dir == "" {
		dir = Dir
	}
	var b strings.Builder
	b.WriteString("set -u\n")
	b.WriteString(assign("dir", dir))
	b.WriteString(assign("name", word(j.Nodes[node].Name)))
	b.WriteString(assign("main", word(j.Nodes[0].Name)))
	b.WriteString(assign("count", fmt.Sprint(len(j.Nodes))))
	prints(&b, "key", string(j.Keys.Inner.Private))
	prints(&b, "known_hosts", j.knownHosts())
	prints(&b, "config", j.config(dir))
	prints(&b, "addresses", j.addresses())
	b.WriteString(joinScript)
	return b.String()
}

// prints defines a function that prints a text as it stands.
func prints(b *strings.Builder, name, text string) {
	const end = "END_OF_SKYPORT_TEXT"
	fmt.Fprintf(b, "%s() {\n\tcat <<'%s'\n%s\n%s\n}\n", name, end, strings.TrimSuffix(text, "\n"), end)
}

func (j Join) addresses() string {
	var b strings.Builder
	for _, n := range j.Nodes {
		fmt.Fprintf(&b, "%s %s\n", word(n.Address), word(n.Name))
	}
	return b.String()
}

// knownHosts names each node's only key.
func (j Join) knownHosts() string {
	var b strings.Builder
	for i, n := range j.Nodes {
		key := n.HostKey
		if key == "" && i < len(j.Keys.Hosts) {
			key = j.Keys.Hosts[i].Public
		}
		if fields := strings.Fields(key); len(fields) >= 2 {
			fmt.Fprintf(&b, "%s %s %s\n", word(n.Name), fields[0], fields[1])
		}
	}
	return b.String()
}

// config is for the nodes alone, by name or address: a user's own configuration
// may include it.
func (j Join) config(dir string) string {
	var all, each strings.Builder
	for _, n := range j.Nodes {
		name, address := word(n.Name), word(n.Address)
		login := n.User
		if login == "" {
			login = j.User
		}
		if login == "" {
			login = User
		}
		port := n.Port
		if port == 0 {
			port = 22
		}
		fmt.Fprintf(&all, " %s %s", name, address)
		fmt.Fprintf(&each, "Host %s %s\n\tHostName %s\n\tHostKeyAlias %s\n\tPort %d\n\tUser %s\n", name, address, address, name, port, word(login))
	}
	file := func(name string) string { return `"` + strings.ReplaceAll(dir, "%", "%%") + "/ssh/" + name + `"` }
	return each.String() + "Host" + all.String() + `
	IdentityFile ` + file("id_ed25519") + `
	IdentitiesOnly yes
	IdentityAgent none
	UserKnownHostsFile ` + file("known_hosts") + `
	GlobalKnownHostsFile /dev/null
	StrictHostKeyChecking yes
	UpdateHostKeys no
	PreferredAuthentications publickey
	BatchMode yes
	ConnectTimeout 10
	ServerAliveInterval 5
	ServerAliveCountMax 6
	Compression no
	Ciphers ^aes128-gcm@openssh.com
	LogLevel ERROR
`
}

// word keeps what names, addresses and logins are made of: a gate cannot slip
// lines or patterns into a file by them.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._:-", r):
			return r
		}
		return '_'
	}, s)
}

// plain keeps what a path may have inside ssh's quotes.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == '\'' || r == 0x7f {
			return '_'
		}
		return r
	}, s)
}
