package openstack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// checking collects findings.
type checking struct {
	*site
	se       *session
	findings []gate.Finding
}

// Check tries what partitions will need, and makes nothing.
func (s *site) Check(ctx context.Context) ([]gate.Finding, error) {
	c := &checking{site: s}
	se, err := s.open(ctx)
	if err != nil {
		if !errors.Is(err, gate.ErrPermanent) {
			return nil, err
		}
		c.failed("credentials", err)
		return c.findings, nil
	}
	c.se = se
	c.credentials()
	for _, look := range []func(context.Context){c.services, c.compute, c.networks, c.quotas, c.flavor, c.image} {
		look(ctx)
		if err := ctx.Err(); err != nil {
			return c.findings, fmt.Errorf("check of site %s: %w", s.o.Name, err)
		}
	}
	return c.findings, nil
}

func (c *checking) add(subject string, level gate.Level, fix, format string, args ...any) {
	c.findings = append(c.findings, gate.Finding{
		Site: c.o.Name, Subject: subject, Level: level, Text: fmt.Sprintf(format, args...), Fix: fix,
	})
}

func (c *checking) failed(subject string, err error) {
	c.add(subject, gate.LevelFailure, skyport.HintOf(err), "%v", err)
}

func (c *checking) credentials() {
	const renew = "openstack application credential create skyport --expiration …, then put its id and secret into the configuration"
	level, fix, more := gate.LevelOK, "", ""
	switch {
	case c.se.expires.IsZero():
	case c.se.endsSoon():
		level, fix = gate.LevelWarning, renew
		more = fmt.Sprintf("; the application credential ends %s, in %d days",
			c.se.expires.Format(time.RFC3339), int(time.Until(c.se.expires)/(24*time.Hour)))
	default:
		more = "; the application credential ends " + c.se.expires.Format(time.RFC3339)
	}
	c.add("credentials", level, fix, "logged in to project %s with roles %s%s", c.se.project, strings.Join(c.se.roles, ", "), more)
	if c.se.project == "" {
		c.add("credentials", gate.LevelFailure, "give project_name and project_domain_name, or an application credential",
			"the login is for no project, so nothing can be made")
	}
	if !c.se.mayCreate() {
		c.add("permissions", gate.LevelFailure, fmt.Sprintf("openstack role add --user %s --project %s member", c.se.user, c.se.project),
			"the only role in the project is reader: it may make nothing")
	}
}

func (c *checking) services(context.Context) {
	at := []string{"compute " + c.se.compute.Endpoint, "network " + c.se.network.Endpoint, "image " + c.se.image.Endpoint}
	if c.se.volume != nil {
		at = append(at, "volume "+c.se.volume.Endpoint)
	}
	c.add("services", gate.LevelOK, "", "%s", strings.Join(at, ", "))
	if c.o.BootVolume && c.se.volume == nil {
		c.add("services", gate.LevelFailure, "boot_volume: false", "nodes are to boot from volumes, but the cloud has no volume service")
	}
	if c.se.minor < 15 {
		c.add("services", gate.LevelWarning, "", "the compute API is old (2.%d): nodes of one partition are not placed close together", c.se.minor)
	}
}

// compute looks at https://docs.openstack.org/api-ref/compute/#limits-limits
func (c *checking) compute(ctx context.Context) {
	var answer struct {
		Limits struct {
			Absolute map[string]int `json:"absolute"`
		} `json:"limits"`
	}
	if err := fetch(ctx, c.se.compute, c.se.compute.ServiceURL("limits"), &answer); err != nil {
		c.failed("quota", c.explain(err, "ask for the project's limits"))
		return
	}
	all := answer.Limits.Absolute
	for _, q := range []struct {
		what, limit, used, option string
		need                      int
	}{
		{"servers", "maxTotalInstances", "totalInstancesUsed", "instances", 1},
		{"CPUs", "maxTotalCores", "totalCoresUsed", "cores", 1},
		{"MiB of memory", "maxTotalRAMSize", "totalRAMUsed", "ram", 512},
	} {
		limit, ok := all[q.limit]
		if ok {
			c.quota(q.what, q.option, all[q.used], limit, q.need)
		}
	}
}

// quotas looks at https://docs.openstack.org/api-ref/network/v2/#show-quota-details-for-a-tenant
func (c *checking) quotas(ctx context.Context) {
	var answer struct {
		Quota map[string]struct{ Limit, Used, Reserved int } `json:"quota"`
	}
	if err := fetch(ctx, c.se.network, c.se.network.ServiceURL("quotas", c.se.project, "details.json"), &answer); err != nil {
		c.add("quota", gate.LevelWarning, "openstack quota show --usage",
			"the network service does not tell its quotas: %v", c.explain(err, "ask for quotas"))
		return
	}
	need := map[string]int{"security_group": 1, "security_group_rule": 3, "port": 2}
	if c.o.Network == "" {
		need["network"], need["subnet"], need["router"] = 1, 1, 1
	}
	if c.floating() {
		need["floatingip"] = 1
	}
	for _, name := range []string{"floatingip", "network", "subnet", "router", "port", "security_group", "security_group_rule"} {
		if q, ok := answer.Quota[name]; ok && need[name] > 0 {
			what := map[string]string{"floatingip": "floating IPs"}[name]
			if what == "" {
				what = strings.ReplaceAll(name, "_", " ") + "s"
			}
			c.quota(what, map[string]string{
				"floatingip": "floating-ips", "network": "networks", "subnet": "subnets", "router": "routers", "port": "ports",
				"security_group": "secgroups", "security_group_rule": "secgroup-rules",
			}[name], q.Used+q.Reserved, q.Limit, need[name])
		}
	}
}

func (c *checking) quota(what, option string, used, limit, need int) {
	switch left := limit - used; {
	case limit < 0:
		c.add("quota", gate.LevelOK, "", "%s: %d used, no limit", what, used)
	case left < need:
		c.add("quota", gate.LevelFailure, fmt.Sprintf("openstack quota set --%s %d %s", option, limit+10*need, c.se.project),
			"%s: %d of %d used, so no partition can be made", what, used, limit)
	case left < 3*need:
		c.add("quota", gate.LevelWarning, fmt.Sprintf("openstack quota set --%s %d %s", option, limit+10*need, c.se.project),
			"%s: %d of %d used, few are left", what, used, limit)
	default:
		c.add("quota", gate.LevelOK, "", "%s: %d of %d used", what, used, limit)
	}
}

func (c *checking) networks(ctx context.Context) {
	if c.o.Network != "" {
		if _, err := c.networkNamed(ctx, c.se, c.o.Network); err != nil {
			c.failed("network", err)
		} else {
			c.add("network", gate.LevelOK, "", "nodes get addresses in %s", c.o.Network)
		}
	}
	external, err := c.externalNetwork(ctx, c.se)
	switch {
	case err != nil:
		c.failed("external network", err)
	case external != "" && c.floating():
		c.add("external network", gate.LevelOK, "", "main gets a floating IP of %s", external)
	case external != "":
		c.add("external network", gate.LevelOK, "", "nodes reach out by %s", external)
	}
}

func (c *checking) flavor(ctx context.Context) {
	all, err := c.Flavors(ctx)
	switch {
	case err != nil:
		c.failed("flavor", err)
	case len(all) == 0:
		c.add("flavor", gate.LevelFailure, "openstack flavor list; mend flavors in the configuration", "no flavor is offered")
	case c.o.DefaultFlavor != "" && !slices.ContainsFunc(all, func(f skyport.Flavor) bool { return f.Name == c.o.DefaultFlavor }):
		c.add("flavor", gate.LevelFailure, "openstack flavor list",
			"the default flavor %s is not among the %d that are offered", c.o.DefaultFlavor, len(all))
	default:
		c.add("flavor", gate.LevelOK, "", "%d flavors are offered", len(all))
		c.prices(all)
	}
}

func (c *checking) prices(all []skyport.Flavor) {
	unpriced := 0
	for _, f := range all {
		if f.Unpriced {
			unpriced++
		}
	}
	if unpriced > 0 {
		c.add("prices", gate.LevelWarning, "write prices per hour into the configuration, for estimates and budgets",
			"%d of %d flavors have no price", unpriced, len(all))
	}
}

func (c *checking) image(ctx context.Context) {
	all, err := c.Images(ctx)
	switch {
	case err != nil:
		c.failed("image", err)
		return
	case len(all) == 0:
		c.add("image", gate.LevelFailure, "openstack image create --file noble-server-cloudimg-amd64.img --disk-format qcow2 ubuntu-24.04",
			"the cloud has no image that nodes could boot")
		return
	case c.o.DefaultImage == "":
		c.add("image", gate.LevelWarning, "set default_image, for instance to "+all[0].Name, "no default image: jobs must name one of %d", len(all))
		return
	}
	i, err := c.site.image(ctx, c.o.DefaultImage)
	if err != nil {
		c.failed("image", err)
		return
	}
	c.add("image", gate.LevelOK, "", "nodes boot %s (%s)", c.o.DefaultImage, i.ID)
	if c.o.DefaultFlavor == "" {
		return
	}
	if f, err := c.site.flavor(ctx, c.o.DefaultFlavor); err == nil {
		if err := c.fits(f, i); err != nil {
			c.failed("image", err)
		}
	}
}
