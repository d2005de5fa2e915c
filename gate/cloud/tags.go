package cloud

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// Names of the tags. They are legal as Azure tags, AWS tags, OpenStack server
// metadata and, joined by "=", OpenStack network tags.
const (
	TagOwner       = "skyport-owner"       // of the core that asked
	TagPartition   = "skyport-partition"   // its id
	TagJob         = "skyport-job"         // id of the job that it was made for; for people
	TagUser        = "skyport-user"        // whose job that is; for people
	TagDeleteAt    = "skyport-delete-at"   // end of the lease, RFC 3339 in UTC
	TagFingerprint = "skyport-fingerprint" // of the spec
	TagNodes       = "skyport-nodes"       // how many were asked for
	TagCondemned   = "skyport-condemned"   // "yes": to be removed, whatever the lease says
)

// Tags are what Sky Port writes on everything that it makes.
type Tags struct {
	Owner       string
	Partition   skyport.PartitionID
	Job         skyport.JobID
	User        string
	Lease       time.Time
	Fingerprint string
	Nodes       int
	Condemned   bool
}

// TagsOf are the tags of what a spec asks for.
func TagsOf(spec gate.PartitionSpec) Tags {
	return Tags{
		Owner: spec.Owner, Partition: spec.ID, Job: spec.Job, User: spec.User, Lease: spec.Lease.UTC().Truncate(time.Second),
		Fingerprint: spec.Fingerprint(), Nodes: len(spec.Nodes),
	}
}

// Map spells the tags. What is empty is left out.
func (t Tags) Map() map[string]string {
	all := map[string]string{
		TagOwner: t.Owner, TagPartition: string(t.Partition), TagJob: string(t.Job), TagUser: clean(t.User), TagFingerprint: t.Fingerprint,
	}
	if !t.Lease.IsZero() {
		all[TagDeleteAt] = t.Lease.UTC().Format(time.RFC3339)
	}
	if t.Nodes > 0 {
		all[TagNodes] = strconv.Itoa(t.Nodes)
	}
	if t.Condemned {
		all[TagCondemned] = "yes"
	}
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	return all
}

// ParseTags reads tags, other people's among them. ours is false for what is
// not Sky Port's: no owner or no partition. A tag of ours that cannot be read is
// an error: such a thing is never removed unseen.
func ParseTags(all map[string]string) (t Tags, ours bool, err error) {
	if all[TagOwner] == "" || all[TagPartition] == "" {
		return Tags{}, false, nil
	}
	t = Tags{
		Owner: all[TagOwner], Job: skyport.JobID(all[TagJob]), User: all[TagUser], Fingerprint: all[TagFingerprint], Condemned: all[TagCondemned] == "yes",
	}
	if t.Partition, err = skyport.ParsePartitionID(all[TagPartition]); err != nil {
		return t, true, fmt.Errorf("tag %s: %w", TagPartition, err)
	}
	if text := all[TagDeleteAt]; text != "" {
		if t.Lease, err = time.Parse(time.RFC3339, text); err != nil {
			return t, true, fmt.Errorf("tag %s: %w", TagDeleteAt, err)
		}
	}
	if text := all[TagNodes]; text != "" {
		if t.Nodes, err = strconv.Atoi(text); err != nil || t.Nodes < 1 {
			return t, true, fmt.Errorf("tag %s: %q is no number of nodes", TagNodes, skyport.Abbreviate(text, 20))
		}
	}
	return t, true, nil
}

// Merge joins the tags of two resources of one partition: the latest lease
// counts, and one that is condemned condemns all.
func (t Tags) Merge(other Tags) Tags {
	if other.Lease.After(t.Lease) {
		t.Lease = other.Lease
	}
	t.Condemned = t.Condemned || other.Condemned
	if t.Fingerprint == "" {
		t.Fingerprint = other.Fingerprint
	}
	t.Nodes = max(t.Nodes, other.Nodes)
	return t
}

// clean makes a text that all clouds take as the value of a tag.
func clean(text string) string {
	text = strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.ContainsRune("._-@+ ", c):
			return c
		}
		return '_'
	}, text)
	return text[:min(len(text), 120)]
}
