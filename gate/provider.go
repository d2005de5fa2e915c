package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/openworkload/skyport"
)

// Provider speaks to the sites of one kind: one cloud, one virtualisation, this
// machine. It is what a gate writer implements; [Exercise] in package gatetest
// checks an implementation.
//
// All methods may be called at the same time from many goroutines. An error is
// taken for passing and the call is tried again with backoff, unless it matches
// [ErrPermanent] or [ErrNotFound]. No method waits for slow work: Create and
// Delete start it, Status tells how far it is. Every method returns soon after
// its context has ended. A provider keeps nothing in memory that it could not
// read back from its site after a kill. Names of sites are unique over all
// providers of a gate. An error may carry a [skyport.Code]; it reaches core.
type Provider interface {
	// Kind is the kind of the provider's sites, such as "local" or "azure".
	Kind() string

	// Sites lists the sites. It may answer from memory.
	Sites(ctx context.Context) ([]skyport.Site, error)
	// Flavors lists what nodes the site offers, with prices.
	Flavors(ctx context.Context, site string) ([]skyport.Flavor, error)
	// Images lists what nodes can boot and, where known, what jobs can run in.
	Images(ctx context.Context, site string) ([]skyport.Image, error)

	// Create starts the creation of a partition under the id that core chose.
	// Called again with the same spec it changes nothing and returns nil, even
	// while a first call is under way or after the partition has failed. With
	// another spec under the id of a partition that exists (compare
	// [PartitionSpec.Fingerprint]) it changes nothing and returns an error
	// matching ErrConflict. While a deletion of the id is under way the error
	// is a passing one. It returns an error matching ErrPermanent when trying
	// again cannot help (no quota, no such flavor); nothing is left at the
	// site then.
	Create(ctx context.Context, spec PartitionSpec) error
	// Status tells how far a partition is. ErrNotFound means that nothing of
	// it is at the site (any more): only then a deletion is complete.
	Status(ctx context.Context, site string, id skyport.PartitionID) (PartitionStatus, error)
	// List tells all partitions at the site that carry the owner's tag;
	// an empty owner means those of every owner that this gate made.
	List(ctx context.Context, site, owner string) ([]PartitionStatus, error)
	// Extend moves the end of the lease. The site's own end of life, where
	// there is one, moves with it. ErrNotFound when there is no partition.
	Extend(ctx context.Context, site string, id skyport.PartitionID, until time.Time) error
	// Delete starts the removal of all that belongs to the partition,
	// whatever its state. Deleting what is not there is no error.
	Delete(ctx context.Context, site string, id skyport.PartitionID) error
}

// Watcher is implemented by providers that can tell of changes at once. The
// service's long poll uses it in place of asking Status again and again.
type Watcher interface {
	// Changed returns a channel that is closed at the next change of any
	// partition of the provider. Take the channel first, then ask Status.
	Changed() <-chan struct{}
}

// Troubled is implemented by providers that know of trouble with how they are
// configured and serve on without, as they were. Whoever lists the sites is told.
type Troubled interface {
	Troubles() []error
}

// Checker is implemented by providers that can say beforehand whether a site
// is usable: skyport gate check asks them.
type Checker interface {
	// Check tries what creating partitions at the site will need: credentials,
	// permissions, quotas, images. What it finds missing are findings; the error
	// is for a check that could not be made at all. It makes nothing that stays.
	Check(ctx context.Context, site string) ([]Finding, error)
}

// Finding is one thing that a check has looked at.
type Finding struct {
	Site    string `json:"site" doc:"Name of the site"`
	Subject string `json:"subject" doc:"What was looked at, such as credentials, permissions, quota, image"`
	Level   Level  `json:"level" enum:"ok,warning,failure"`
	Text    string `json:"text" doc:"What was found, for people"`
	Fix     string `json:"fix,omitempty" doc:"A command, or what else to do, that mends it"`
}

// Level says how bad a finding is.
type Level string

const (
	LevelOK      Level = "ok"
	LevelWarning Level = "warning" // jobs run, but not all or not for long
	LevelFailure Level = "failure" // no job can run
)

// ErrPermanent marks errors that trying again cannot mend.
var ErrPermanent = errors.New("permanent")

// ErrNotFound means that the site has nothing of that id.
var ErrNotFound = errors.New("not found")

// ErrConflict means that a partition of that id exists and was asked for with
// another spec. It matches ErrPermanent too.
var ErrConflict = fmt.Errorf("the id belongs to a partition with another spec: %w", ErrPermanent)

// PartitionSpec is what core asks for. Everything in it was chosen by core, so
// that the same call can be made again.
type PartitionSpec struct {
	ID     skyport.PartitionID `json:"id" format:"uuid" doc:"Chosen by core; becomes part of every name at the site"`
	Owner  string              `json:"owner" doc:"Tag of the core that asks; removal sweeps go by it"`
	Site   string              `json:"site"`
	Flavor string              `json:"flavor" doc:"Name of the flavor"`
	Image  string              `json:"image,omitempty" doc:"Name of the cloud image; empty: the site's default"`
	Nodes  []string            `json:"nodes" minItems:"1" doc:"Names of the nodes, main first"`
	Lease  time.Time           `json:"lease" doc:"Past this moment the gate removes the partition unless it was extended"`
	Spot   bool                `json:"spot,omitempty" doc:"Nodes that the site may take back, at the flavor's spot price"`
	Job    skyport.JobID       `json:"job,omitempty" doc:"Job that the partition is made for; a tag for people"`
	User   string              `json:"user,omitempty" doc:"Whose job that is; a tag for people"`
	// Keys are public keys, as in authorized_keys, that open the login of the
	// nodes' user: core's own for this partition first, then the one by which
	// its nodes reach each other.
	Keys []string `json:"keys,omitempty"`
	// UserData is what each node boots with, in the order of Nodes: cloud-config
	// text for cloud-init. It installs Keys for [NodeUser], the host key that core
	// made, and the end of the node's life. It holds private host keys: a provider
	// hands it to the site and keeps it nowhere else.
	UserData []string `json:"user_data,omitempty"`
}

// NodeUser is the user that UserData makes and that core logs in as, NodeDir the
// directory that belongs to it on each node.
const (
	NodeUser = "skyport"
	NodeDir  = "/var/lib/skyport"
)

// Endpoint is the endpoint of a node that booted its UserData and has its SSH
// server at an address, an IP with or without a port.
func Endpoint(address string) string {
	if addr, err := netip.ParseAddr(address); err == nil {
		address = netip.AddrPortFrom(addr, 22).String()
	}
	return "ssh://" + NodeUser + "@" + address + NodeDir
}

// Fingerprint is a short name of what is asked for: equal specs have equal
// fingerprints. The lease is left out, it moves; so is the user data, whose
// wording may change with the version of core: the keys stand for it; and so are
// the tags for people. A provider
// that cannot keep the spec at its site keeps the fingerprint, in a tag for instance.
func (s PartitionSpec) Fingerprint() string {
	s.Lease, s.UserData = time.Time{}, nil
	s.Job, s.User = "", ""
	text, err := json.Marshal(s)
	if err != nil {
		panic("gate: a spec of strings and a time cannot fail to marshal: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// PartitionStatus is what a site has of a partition.
type PartitionStatus struct {
	ID      skyport.PartitionID `json:"id" format:"uuid"`
	Owner   string              `json:"owner"`
	Site    string              `json:"site"`
	State   State               `json:"state" enum:"creating,booting,up,failed,deleting"`
	Details string              `json:"details,omitempty" doc:"What is going on or what went wrong, for people"`
	Code    skyport.Code        `json:"code,omitempty" doc:"Of a failed partition: what went wrong, for programs; empty: not known"`
	Nodes   []skyport.Node      `json:"nodes" doc:"The nodes, main first; addresses and endpoints as far as they are known"`
	Lease   time.Time           `json:"lease"`
	Created time.Time           `json:"created"`
}

// State is how far a partition is at its site.
type State string

const (
	StateCreating State = "creating" // resources are being made
	StateBooting  State = "booting"  // all nodes exist, not all can be dialled yet
	StateUp       State = "up"       // every node has an address and an endpoint
	StateFailed   State = "failed"   // it will not become or stay up; delete it
	StateDeleting State = "deleting" // removal is under way
)
