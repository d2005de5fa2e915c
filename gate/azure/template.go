package azure

import (
	"crypto/ed25519"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// What is not plain in the template: nodes without a public address reach the
// internet, for the container engine and images, by the access that Azure gives
// by default; newer versions of its API give it only when asked, so we ask. A NAT
// gateway would cost as much as a small node. The rules of the security group
// end with one that forbids all else: Azure's own would let peered networks in.
// Everything that hangs on a machine has the deleteOption Delete, so that a
// spot machine that is taken back leaves nothing that costs.
//
//go:embed template.json
var templateText []byte

// template is the embedded one, as the SDK wants it.
func template() (map[string]any, error) {
	var t map[string]any
	if err := json.Unmarshal(templateText, &t); err != nil {
		return nil, skyport.Errorf(skyport.CodeInternal, "the template of partitions: %w", err)
	}
	return t, nil
}

// parameters are what the template is filled with for a plan.
func (s *site) parameters(plan *cloud.Plan, now time.Time) (map[string]any, error) {
	image, plain, err := s.imageOf(plan)
	if err != nil {
		return nil, err
	}
	sources, err := prefixes(plan.Sources)
	if err != nil {
		return nil, err
	}
	data, err := customData(plan)
	if err != nil {
		return nil, err
	}
	key, err := publicKey(plan.Keys)
	if err != nil {
		return nil, err
	}
	all := map[string]any{
		"name": plan.Name, "location": s.o.Region, "tags": s.tagsOf(plan), "nodes": plan.Nodes, "size": plan.Flavor,
		"image": image, "disk": s.diskGiB(plain), "spot": plan.Spot, "close": len(plan.Nodes) > 1 && near(plan.Flavor),
		"accelerated": accelerated(plan.NodeFlavor), "user": gate.NodeUser, "key": key, "sources": sources,
		"shutdown": shutdownTime(plan.Tags.Lease, now), "userData": map[string]any{"nodes": data},
	}
	for name, v := range all {
		all[name] = map[string]any{"value": v}
	}
	return all, nil
}

// tagsOf are the tags of every resource.
func (s *site) tagsOf(plan *cloud.Plan) map[string]string {
	all := map[string]string{}
	maps.Copy(all, s.o.ExtraTags)
	maps.Copy(all, plan.Tags.Map())
	return all
}

// horizon is how far ahead the shutdown of a node is set at most.
const horizon = 23*time.Hour + 30*time.Minute

// shutdownTime is the time of the day, in UTC, at which Azure deallocates the
// nodes by itself when nobody comes back: the first full minute after the lease.
//
// Azure knows a daily time only, so the next one is less than 24 hours ahead. A
// lease that ends later would be cut short by the very first one; a schedule that
// is switched off until then would need somebody who comes back. So for longer
// leases it is set to 23.5 hours from now. Core moves a lease, and with it this
// time, after each quarter of it: with leases of up to three days a node is
// shut down early only when core has been away for nearly a day.
func shutdownTime(lease, now time.Time) string {
	if latest := now.Add(horizon); lease.After(latest) {
		lease = latest
	}
	lease = lease.UTC()
	if full := lease.Truncate(time.Minute); full.Before(lease) {
		lease = full.Add(time.Minute)
	}
	return lease.Format("1504")
}

// customData is the user data of the nodes as Azure takes it. See
// https://learn.microsoft.com/azure/virtual-machines/custom-data
func customData(plan *cloud.Plan) ([]any, error) {
	all := make([]any, len(plan.Nodes))
	for i, text := range plan.UserData {
		if i >= len(all) || text == "" {
			continue
		}
		packed, err := cloud.UserData(text)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", plan.Nodes[i], err)
		}
		all[i] = base64.StdEncoding.EncodeToString(packed)
	}
	return all, nil
}

// prefixes are the sources as a rule of a security group takes them. The public
// address is one of IPv4, and one rule takes one family only.
func prefixes(sources []netip.Prefix) ([]string, error) {
	var all []string
	for _, source := range sources {
		if source.Addr().Is4() {
			all = append(all, source.Masked().String())
		}
	}
	if len(all) == 0 {
		return nil, cloud.Permanent(skyport.CodeInvalid, "no IPv4 address may reach the nodes: of %v none is one", sources).
			WithHint("Name what core comes from under ssh_from of the site.")
	}
	return all, nil
}

// publicKey is the key of the login that Azure insists on making. It is the
// one that the user data makes too, so that there is no second door. Without any
// key it is one whose private half nobody has.
func publicKey(keys []string) (string, error) {
	if len(keys) > 0 {
		return strings.TrimSpace(keys[0]), nil
	}
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", skyport.Errorf(skyport.CodeInternal, "make a key: %w", err)
	}
	var blob []byte
	for _, part := range []string{"ssh-ed25519", string(public)} {
		blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(part))), part...) //nolint:gosec // a key is short
	}
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(blob), nil
}

// diskGiB is the size of the system disk. A plain distribution's image is small,
// containers are not; images that bring more know what they need.
func (s *site) diskGiB(plain bool) int {
	const gib = 1 << 30
	switch {
	case s.o.Disk > 0:
		return int((s.o.Disk + gib - 1) / gib)
	case plain:
		return 64
	}
	return 0
}

// Sizes by their names: Standard_, family, number of cores, features, version. See
// https://learn.microsoft.com/azure/virtual-machines/vm-naming-conventions
var sizeName = regexp.MustCompile(`^Standard_([A-Z]+)\d+(?:-\d+)?([a-z]*)(?:_[A-Za-z0-9]+?)??(?:_v(\d+))?$`)

// accelerated says whether nodes of a flavor see their network card itself: all
// of the general families from version 5 on, see "Accelerated Networking" in
// https://learn.microsoft.com/azure/virtual-machines/sizes/overview
func accelerated(flavor skyport.Flavor) bool {
	m := sizeName.FindStringSubmatch(flavor.Name)
	return m != nil && flavor.CPUs > 1 && (m[1] == "D" || m[1] == "E" || m[1] == "F") && modern(m[3])
}

// near says whether nodes of a flavor can be placed near to each other: not those
// that share hosts by the burst or are confidential. See
// https://learn.microsoft.com/azure/virtual-machines/co-location
func near(flavor string) bool {
	m := sizeName.FindStringSubmatch(flavor)
	return m != nil && !strings.HasPrefix(m[1], "B") && !strings.HasPrefix(m[1], "DC") && !strings.HasPrefix(m[1], "EC")
}

// describe names a type of resource for people.
func describe(kind string) string {
	if words, ok := kinds[strings.ToLower(kind)]; ok {
		return words
	}
	return kind
}

var kinds = map[string]string{
	"microsoft.network/networksecuritygroups":    "security group",
	"microsoft.network/virtualnetworks":          "network",
	"microsoft.network/publicipaddresses":        "public address",
	"microsoft.network/networkinterfaces":        "network interface",
	"microsoft.compute/proximityplacementgroups": "placement group",
	"microsoft.compute/virtualmachines":          "virtual machine",
	"microsoft.compute/disks":                    "disk",
	"microsoft.devtestlab/schedules":             "shutdown schedule",
}

// scheduleName is the only name under which the portal, too, finds the schedule.
func scheduleName(machine string) string { return fmt.Sprintf("shutdown-computevm-%s", machine) }
