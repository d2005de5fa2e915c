package ssh

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
)

// Options say which hosts there are. Dir and Sites are needed.
type Options struct {
	// Dir keeps what was begun, and what is known of the hosts.
	Dir   string
	Sites []Site
	// Away is how long a host of a partition may not answer before the partition
	// has failed; 0: 10 minutes.
	Away   time.Duration
	Logger *slog.Logger // nil: slog.Default()
}

// Site is a list of hosts that are had together.
type Site struct {
	Name  string
	Hosts []Host
}

// Host is a machine that a person has.
type Host struct {
	// Name tells the host from others of its site.
	Name string
	// Address is host or host:port of its SSH server, as the gate and core reach it.
	Address string
	// InternalAddress is the IP by which the other hosts reach it; empty: the one of Address.
	InternalAddress string
	// User logs in; empty: the user of the gate.
	User string
	// KeyFile is a private key without a passphrase; empty: the SSH agent, then
	// the usual keys in ~/.ssh.
	KeyFile string
	// HostKey is the public key of its SSH server, as ssh-keyscan prints it, or the
	// path of a known_hosts file that has it.
	HostKey string
	// Labels become part of the flavor's name.
	Labels []string
	// CPUs, Memory and GPUs are asked of the host where they are zero.
	CPUs   int
	Memory skyport.Bytes
	GPUs   int
	// Price is per hour.
	Price float64
	// Dir keeps the partition on the host; empty: ~/.skyport. Hosts that share one
	// home need one of their own each.
	Dir string
	// Drain keeps new partitions away.
	Drain bool
}

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	userPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._@+\\-]{0,62}$`)
	pathPattern = regexp.MustCompile(`^/[A-Za-z0-9/._@+-]{1,80}$`)
)

// complete checks a host and fills in what is left out.
func (c *Host) complete() (key ssh.PublicKey, err error) {
	refuse := func(format string, args ...any) *skyport.Error {
		return skyport.Errorf(skyport.CodeInvalid, "host "+skyport.Abbreviate(c.Name, 70)+": "+format, args...)
	}
	if !namePattern.MatchString(c.Name) {
		return nil, refuse("the name has to be of letters, digits, dots, dashes and underscores")
	}
	if c.Address == "" {
		return nil, refuse("there is no address")
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		c.Address = net.JoinHostPort(strings.Trim(c.Address, "[]"), "22")
	}
	if c.InternalAddress != "" && net.ParseIP(c.InternalAddress) == nil {
		return nil, refuse("the internal address %q is no IP", c.InternalAddress)
	}
	if c.User == "" {
		me, err := user.Current()
		if err != nil {
			return nil, refuse("there is no user, and who the gate is cannot be told: %w", err)
		}
		c.User = me.Username
	}
	if !userPattern.MatchString(c.User) {
		return nil, refuse("the user %q cannot be", c.User)
	}
	if c.Dir != "" && (!pathPattern.MatchString(c.Dir) || path.Clean(c.Dir) != c.Dir) {
		return nil, refuse("the directory %q is no plain absolute path", c.Dir)
	}
	for _, label := range c.Labels {
		if !namePattern.MatchString(label) {
			return nil, refuse("the label %q has to be of letters, digits, dots, dashes and underscores", label)
		}
	}
	c.Labels = slices.Compact(slices.Sorted(slices.Values(c.Labels)))
	if c.CPUs < 0 || c.Memory < 0 || c.GPUs < 0 || c.Price < 0 {
		return nil, refuse("a size or the price is negative")
	}
	if c.KeyFile, err = home(c.KeyFile); err != nil {
		return nil, refuse("key file: %w", err)
	}
	if key, err = hostKey(c.HostKey, c.Address); err != nil {
		host, port, _ := net.SplitHostPort(c.Address) // made above
		return nil, refuse("host key: %w", err).WithHint("get it by ssh-keyscan -t ed25519 -p %s %s, and compare it with what the host itself "+
			"says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", port, host)
	}
	return key, nil
}

// home spells out a leading ~.
func home(file string) (string, error) {
	rest, ok := strings.CutPrefix(file, "~/")
	if !ok {
		return file, nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("~ in %s: %w", file, err)
	}
	return filepath.Join(dir, rest), nil
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return skyport.Errorf(skyport.CodeInvalid, "hosts by SSH: there is no directory for their records")
	}
	o.Away = cmp.Or(o.Away, 10*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	sites := map[string]bool{}
	for _, s := range o.Sites {
		switch {
		case !namePattern.MatchString(s.Name):
			return skyport.Errorf(skyport.CodeInvalid, "the site %q has to have a name of letters, digits, dots, dashes and underscores", s.Name)
		case sites[s.Name]:
			return skyport.Errorf(skyport.CodeInvalid, "the site %s is there twice", s.Name)
		case len(s.Hosts) == 0:
			return skyport.Errorf(skyport.CodeInvalid, "the site %s has no hosts", s.Name)
		}
		sites[s.Name] = true
	}
	return nil
}
