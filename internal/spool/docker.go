package spool

import (
	"fmt"
	"net/url"
	"regexp"

	"github.com/distribution/reference"

	"github.com/openworkload/skyport"
)

// siteName is what jobs can name: one word.
var siteName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// check looks at the settings of the Docker site.
func (c *DockerConfig) check(refuse func(key, format string, args ...any)) {
	if !siteName.MatchString(c.Site) {
		refuse("docker.site", "%q is not a name: letters, digits, dots and dashes", skyport.Abbreviate(c.Site, 70))
	}
	if c.Enabled && c.Site == "local" {
		refuse("docker.site", "the name local is that of this machine's own site")
	}
	if u, err := url.Parse(c.Host); c.Host != "" && (err != nil || !dockerHost(u)) {
		refuse("docker.host", "%q is not an engine's address such as unix:///var/run/docker.sock or tcp://10.0.0.5:2376", c.Host)
	}
	if _, err := reference.ParseNormalizedNamed(c.Image); err != nil {
		refuse("docker.image", "%q is not an image such as skyport-node:dev: %v", skyport.Abbreviate(c.Image, 70), err)
	}
	atLeast(refuse, "docker.nodes", c.Nodes, 0)
	names := map[string]bool{}
	for i, flavor := range c.Flavors {
		key := fmt.Sprintf("docker.flavors.%d", i)
		at := func(name string) string { return key + "." + name }
		switch {
		case !siteName.MatchString(flavor.Name):
			refuse(key, "the flavor has no name of letters, digits, dots and dashes")
		case names[flavor.Name]:
			refuse(at("name"), "the flavor %q is there twice", flavor.Name)
		}
		names[flavor.Name] = true
		atLeast(refuse, at("cpus"), flavor.CPUs, 1)
		atLeast(refuse, at("memory"), flavor.Memory, 64<<20)
		atLeast(refuse, at("price"), flavor.Price, 0)
	}
}

func dockerHost(u *url.URL) bool {
	switch u.Scheme {
	case "unix":
		return u.Path != "" && u.Host == ""
	case "tcp", "http", "https":
		return u.Host != "" && u.Port() != ""
	}
	return false
}
