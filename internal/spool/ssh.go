package spool

import (
	"fmt"

	"github.com/openworkload/skyport"
)

// SSHSite is a site of hosts that are there already and are reached by SSH. What
// it says of the login counts for hosts that say nothing.
type SSHSite struct {
	Name    string    `koanf:"name"`
	User    string    `koanf:"user"`     // empty: the gate's own user
	Key     string    `koanf:"key"`      // private key file; empty: the SSH agent, then the usual keys
	HostKey string    `koanf:"host_key"` // path of a known_hosts file
	Hosts   []SSHHost `koanf:"hosts"`
}

// SSHHost is one of them.
type SSHHost struct {
	Name            string        `koanf:"name"`    // empty: the address
	Address         string        `koanf:"address"` // host or host:port
	InternalAddress string        `koanf:"internal_address"`
	User            string        `koanf:"user"`
	Key             string        `koanf:"key"`
	HostKey         string        `koanf:"host_key"` // public key, or path of a known_hosts file
	Labels          []string      `koanf:"labels"`
	CPUs            int           `koanf:"cpus"` // 0, and so on: as the host says
	Memory          skyport.Bytes `koanf:"memory"`
	GPUs            int           `koanf:"gpus"`
	Price           float64       `koanf:"price"` // per hour
	Dir             string        `koanf:"dir"`   // empty: ~/.skyport
	Drain           bool          `koanf:"drain"` // takes no new partitions
}

// checkSSH refuses what is wrong whatever the hosts say. What the provider
// checks itself when it opens is left to it.
func checkSSH(sites []SSHSite, refuse func(key, format string, args ...any)) {
	names := map[string]bool{}
	for i, site := range sites {
		key := fmt.Sprintf("ssh.%d", i)
		switch {
		case site.Name == "":
			refuse(key, "the site has no name")
		case site.Name == "local":
			refuse(key+".name", "the name local is that of this machine's own site")
		case names[site.Name]:
			refuse(key+".name", "the site %q is there twice", site.Name)
		}
		names[site.Name] = true
		if len(site.Hosts) == 0 {
			refuse(key, "the site %q has no hosts", site.Name)
		}
		hosts := map[string]bool{}
		for j, host := range site.Hosts {
			key := fmt.Sprintf("%s.hosts.%d", key, j)
			name := host.Name
			if name == "" {
				name = host.Address
			}
			if host.Address == "" {
				refuse(key, "the host has no address")
			} else if hosts[name] {
				refuse(key, "the host %q is there twice", name)
			}
			hosts[name] = true
			if host.HostKey == "" && site.HostKey == "" {
				refuse(key, "the host %q has no host_key: give the line that ssh-keyscan -t ed25519 prints, or a known_hosts file", name)
			}
			atLeast(refuse, key+".cpus", host.CPUs, 0)
			atLeast(refuse, key+".memory", host.Memory, 0)
			atLeast(refuse, key+".gpus", host.GPUs, 0)
			atLeast(refuse, key+".price", host.Price, 0)
		}
	}
}
