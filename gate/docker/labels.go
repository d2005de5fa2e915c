package docker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
)

// The labels of what the provider makes. All carry the first three and a kind.
const (
	prefix         = "io.openworkload.skyport."
	labelPartition = prefix + "partition"
	labelSite      = prefix + "site"
	labelOwner     = prefix + "owner"
	labelKind      = prefix + "kind"

	// Of the record, and repeated by the notes that may outlive it.
	labelNodes       = prefix + "nodes" // JSON list of names
	labelFlavor      = prefix + "flavor"
	labelImage       = prefix + "image"
	labelCPUs        = prefix + "cpus"
	labelMemory      = prefix + "memory"
	labelFingerprint = prefix + "fingerprint"
	labelCreated     = prefix + "created"
	labelLease       = prefix + "lease"

	labelSerial  = prefix + "serial"  // of a lease
	labelReason  = prefix + "reason"  // of a failure
	labelNode    = prefix + "node"    // number of the node
	labelRole    = prefix + "role"    // of the node
	labelAddress = prefix + "address" // of the node
)

// Kinds of objects.
const (
	kindRecord   = "record"
	kindLease    = "lease"
	kindMade     = "made"
	kindFailed   = "failed"
	kindDeleting = "deleting"
	kindNetwork  = "network"
	kindDraft    = "draft" // a network that was only made to be given a subnet
	kindNode     = "node"
	kindDisk     = "disk" // the volume of a node's container engine
)

// record is what is known of a partition from its beginning.
type record struct {
	id          skyport.PartitionID
	owner       string
	nodes       []string
	flavor      string
	image       string
	cpus        int
	memory      skyport.Bytes
	fingerprint string
	created     time.Time
	lease       time.Time
}

// newRecord is the record of what is asked for.
func newRecord(spec gate.PartitionSpec, flavor skyport.Flavor, image string) record {
	return record{
		id: spec.ID, owner: spec.Owner, nodes: spec.Nodes, flavor: flavor.Name, image: image,
		cpus: flavor.CPUs, memory: flavor.Memory, fingerprint: spec.Fingerprint(),
		created: time.Now().UTC(), lease: spec.Lease.UTC(),
	}
}

// labels are those of an object of the kind that belongs to the partition.
func (r record) labels(site, kind string) map[string]string {
	return map[string]string{
		labelPartition: string(r.id), labelSite: site, labelOwner: r.owner, labelKind: kind,
	}
}

// full are the labels of a note that repeats the record.
func (r record) full(site, kind string) (map[string]string, error) {
	nodes, err := json.Marshal(r.nodes)
	if err != nil {
		return nil, fmt.Errorf("names of nodes: %w", err)
	}
	labels := r.labels(site, kind)
	labels[labelNodes] = string(nodes)
	labels[labelFlavor] = r.flavor
	labels[labelImage] = r.image
	labels[labelCPUs] = strconv.Itoa(r.cpus)
	labels[labelMemory] = strconv.FormatInt(int64(r.memory), 10)
	labels[labelFingerprint] = r.fingerprint
	labels[labelCreated] = r.created.Format(time.RFC3339Nano)
	labels[labelLease] = r.lease.Format(time.RFC3339Nano)
	return labels, nil
}

// readRecord takes the record out of labels. What a person has spoilt by hand
// is left out: a partition with holes can still be told and removed.
func readRecord(labels map[string]string) record {
	r := record{
		id: skyport.PartitionID(labels[labelPartition]), owner: labels[labelOwner], flavor: labels[labelFlavor],
		image: labels[labelImage], fingerprint: labels[labelFingerprint],
		created: readTime(labels[labelCreated]), lease: readTime(labels[labelLease]),
	}
	if json.Unmarshal([]byte(labels[labelNodes]), &r.nodes) != nil {
		r.nodes = nil
	}
	r.cpus = readInt(labels[labelCPUs])
	if n, err := strconv.ParseInt(labels[labelMemory], 10, 64); err == nil {
		r.memory = skyport.Bytes(n)
	}
	return r
}

func readTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

func readInt(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// role of the node with a number.
func role(number int) skyport.Role {
	if number == 0 {
		return skyport.RoleMain
	}
	return skyport.RoleCompute
}
