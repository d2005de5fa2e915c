package bootstrap

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// User is the user that user data makes on a node and that core logs in as, Dir
// the directory that belongs to it. They are gate.NodeUser and gate.NodeDir.
const (
	User = "skyport"
	Dir  = "/var/lib/skyport"
)

// Sizes, after compression: what the smallest of the clouds takes.
const maxUserData = 16 << 10

// grace is for how long a node bears a lease that makes no sense.
const grace = 10 * time.Minute

// Config is what the user data of a partition is made from.
type Config struct {
	Name  string   // of the partition, for people who look at a node
	Nodes []string // names, main first
	Keys  *Keys    // Hosts in the order of Nodes
	// Life is how long a node lives from its first boot unless its lease is
	// extended: then it powers itself off.
	Life time.Duration
	// Longest is how far ahead a lease may reach: one that reaches further is not
	// believed. Zero: twice Life, at least a day.
	Longest time.Duration
}

//go:embed scripts/early.sh
var earlyScript string

//go:embed scripts/boot.sh
var bootScript string

//go:embed scripts/lease.sh
var leaseScript string

//go:embed scripts/node.sh
var nodeScript string

// leaseUnit runs the lease's loop where there is systemd.
const leaseUnit = `[Unit]
Description=End of this node's lease (Sky Port)

[Service]
ExecStart=/usr/local/lib/skyport/lease
Restart=always
RestartSec=5

[Install]
WantedBy=multi-user.target
`

// sshConfig lets the user's ssh know the nodes by name, once they have joined.
const sshConfig = "Match localuser " + User + "\n\tInclude " + Dir + "/ssh/config\n"

// cloudConfig is what we use of cloud-config, in the order in which it is written.
type cloudConfig struct {
	Hostname       string            `yaml:"hostname"`
	PreserveName   bool              `yaml:"preserve_hostname"`
	ManageHosts    bool              `yaml:"manage_etc_hosts"`
	DisableRoot    bool              `yaml:"disable_root"`
	PasswordLogin  bool              `yaml:"ssh_pwauth"`
	DeleteHostKeys bool              `yaml:"ssh_deletekeys"`
	HostKeys       map[string]string `yaml:"ssh_keys"`
	Bootcmd        [][]string        `yaml:"bootcmd"`
	Users          []cloudUser       `yaml:"users"`
	Files          []cloudFile       `yaml:"write_files"`
}

type cloudUser struct {
	Name         string   `yaml:"name"`
	Gecos        string   `yaml:"gecos"`
	Shell        string   `yaml:"shell"`
	LockPassword bool     `yaml:"lock_passwd"`
	Groups       []string `yaml:"groups"`
	Sudo         string   `yaml:"sudo"`
	Keys         []string `yaml:"ssh_authorized_keys"`
}

type cloudFile struct {
	Path        string `yaml:"path"`
	Permissions string `yaml:"permissions"`
	Content     string `yaml:"content"`
}

// nodeName is what a node may be called: a host's name without dots.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c *Config) check(node int) error {
	switch {
	case c.Keys == nil:
		return errors.New("no keys")
	case node < 0 || node >= len(c.Nodes):
		return fmt.Errorf("there are %d nodes", len(c.Nodes))
	case len(c.Keys.Hosts) != len(c.Nodes):
		return fmt.Errorf("%d host keys for %d nodes", len(c.Keys.Hosts), len(c.Nodes))
	case c.Life < time.Second:
		return fmt.Errorf("a life of %v", c.Life)
	case c.Longest != 0 && c.Longest < c.Life:
		return fmt.Errorf("a lease of at most %v for a life of %v", c.Longest, c.Life)
	}
	for _, name := range c.Nodes {
		if !nodeName.MatchString(name) {
			return fmt.Errorf("%q is no name for a node: small letters, digits and dashes, at most 63", name)
		}
	}
	return nil
}

// UserData returns the cloud-config of one node: equal input, equal text. It
// works with cloud-init from version 22 on, with systemd and without.
func UserData(c Config, node int) (string, error) {
	if err := c.check(node); err != nil {
		return "", fmt.Errorf("user data of node %d of %s: %w", node, c.Name, err)
	}
	name, host := c.Nodes[node], c.Keys.Hosts[node]
	longest := c.Longest
	if longest == 0 {
		longest = max(2*c.Life, 24*time.Hour)
	}
	many := "no"
	if len(c.Nodes) > 1 {
		many = "yes"
	}
	early := assign("life", seconds(c.Life)) + assign("name", name) + earlyScript
	config := cloudConfig{
		Hostname: name, DisableRoot: true, DeleteHostKeys: true,
		HostKeys: map[string]string{"ed25519_private": string(host.Private), "ed25519_public": host.Public},
		Bootcmd:  [][]string{{"sh", "-c", early}},
		Users: []cloudUser{{
			Name: User, Gecos: "Sky Port", Shell: "/bin/bash", LockPassword: true, Groups: []string{"docker"},
			Sudo: "ALL=(root) NOPASSWD: /usr/local/sbin/skyport-node",
			Keys: []string{c.Keys.Client.Public, c.Keys.Inner.Public},
		}},
		Files: []cloudFile{
			{"/usr/local/sbin/skyport-node", "0755", prefixed(nodeScript, assign("nodes", strings.Join(c.Nodes, " ")))},
			{"/usr/local/lib/skyport/lease", "0755", prefixed(leaseScript, assign("longest", seconds(longest))+assign("grace", seconds(grace)))},
			{"/var/lib/cloud/scripts/per-boot/skyport", "0755", prefixed(bootScript, assign("many", many))},
			{"/etc/systemd/system/skyport-lease.service", "0644", leaseUnit},
			{"/etc/ssh/ssh_config.d/50-skyport.conf", "0644", sshConfig},
		},
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "#cloud-config\n# Node %s of the Sky Port partition %q.\n", name, c.Name)
	e := yaml.NewEncoder(&text)
	e.SetIndent(2)
	if err := e.Encode(config); err != nil {
		return "", fmt.Errorf("user data of node %s: %w", name, err)
	}
	if err := e.Close(); err != nil {
		return "", fmt.Errorf("user data of node %s: %w", name, err)
	}
	if n := len(Compressed(text.String())); n > maxUserData {
		return "", fmt.Errorf("user data of node %s has %d bytes compressed, clouds take %d", name, n, maxUserData)
	}
	return text.String(), nil
}

// Compressed returns user data as clouds take it when its size matters, which
// cloud-init unpacks by itself. Equal text, equal bytes.
func Compressed(userData string) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = io.WriteString(w, userData)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return []byte(userData) // cannot be: a buffer takes everything; plain text is as good
	}
	return b.Bytes()
}

func seconds(d time.Duration) string { return fmt.Sprint(int64(d / time.Second)) }

// assign is the shell's line that gives a variable a value.
func assign(variable, value string) string {
	return variable + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'\n"
}

// prefixed puts lines below a script's first, which says who runs it.
func prefixed(script, lines string) string {
	first, rest, _ := strings.Cut(script, "\n")
	return first + "\n" + lines + rest
}
