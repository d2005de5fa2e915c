package cloudtest

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate"
	"github.com/openworkload/skyport/gate/cloud"
)

// Options describe a world. The zero value is a site "test" of kind "memory"
// with two flavors and two images, where everything happens at once.
type Options struct {
	Kind, Name string
	Flavors    []skyport.Flavor
	Images     []skyport.Image
	Limits     skyport.Limits
	Step       time.Duration // what each call takes that lists or changes something
	Boot       time.Duration // from a node's creation until it runs
	Faults     Faults
	Seed       uint64 // of all chance
}

// Faults are what goes wrong. Shares are of calls that change something, from 0 to 1.
type Faults struct {
	Lag      time.Duration // lists show what was up to so long ago, each another moment
	Error    float64       // nothing is done and the call fails
	Lost     float64       // the work is done and the call fails
	Late     float64       // the call fails and the work is done up to Lag later
	Twice    float64       // a node is made twice
	Throttle float64       // of all calls: nothing is done, and the cloud wants to be left alone
	Quiet    time.Duration // for how long, then; 0: it does not say
}

// Resource is one thing in a world.
type Resource struct {
	Kind string // "group", "network", "address", "node"
	Name string
	Tags map[string]string
}

// World is an account of a cloud in memory. Make it with [NewWorld].
type World struct {
	o    Options
	site skyport.Site

	mu        sync.Mutex
	chance    *rand.Rand
	faults    Faults
	resources []*resource
	late      []pending
	refusals  []error
	calls     map[string]int
	hushed    time.Time
	early     int // calls that came while the cloud wanted to be left alone
	serial    int
}

// resource is a thing with all that it ever was, oldest first.
type resource struct {
	kind, name string
	host       string // of a node
	number     int    // of a node, from 0
	address    string
	spot       bool
	history    []version
	open       string // of a group: the sources that it admits
}

// version is what a resource was from a moment on.
type version struct {
	at   time.Time
	gone bool
	took bool // a node: the cloud has taken it back
	tags map[string]string
}

// pending is work that is done later.
type pending struct {
	at time.Time
	do func()
}

// NewWorld makes an empty world.
func NewWorld(o Options) *World {
	o.Kind, o.Name = cmp.Or(o.Kind, "memory"), cmp.Or(o.Name, "test")
	if o.Flavors == nil {
		o.Flavors = []skyport.Flavor{
			{Name: "small", CPUs: 2, Memory: 4 << 30, Price: 0.1, SpotPrice: 0.03, Arch: "amd64"},
			{Name: "arm", CPUs: 4, Memory: 8 << 30, Price: 0.2, Arch: "arm64"},
		}
	}
	if o.Images == nil {
		o.Images = []skyport.Image{
			{Name: "plain", Kind: skyport.ImageCloud, Arch: "amd64"}, {Name: "plain-arm", Kind: skyport.ImageCloud, Arch: "arm64"},
		}
	}
	w := &World{o: o, faults: o.Faults, chance: rand.New(rand.NewPCG(o.Seed, 1)), calls: map[string]int{}} //nolint:gosec // seeded on purpose
	w.site = skyport.Site{
		ID: gate.StableID(o.Kind, o.Name), Name: o.Name, Kind: o.Kind, Limits: o.Limits, Region: "nowhere", Currency: "USD",
		DefaultFlavor: o.Flavors[0].Name, DefaultImage: o.Images[0].Name, Container: true,
	}
	return w
}

// SetFaults changes what goes wrong from now on.
func (w *World) SetFaults(f Faults) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = f
}

// Refuse lets the next calls of Make fail with these errors, one each, after
// they have made the first resources; no errors: none does any more.
func (w *World) Refuse(errs ...error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals = errs
}

// TakeBack takes the nodes of a partition back, as clouds do with spot.
func (w *World) TakeBack(id skyport.PartitionID) {
	w.change(id, func(r *resource, v *version) { v.took = v.took || r.kind == kindNode })
}

// Vanish removes everything of a partition, as somebody else would.
func (w *World) Vanish(id skyport.PartitionID) {
	w.change(id, func(_ *resource, v *version) { v.gone = true })
}

// Foreign puts a thing there that is not Sky Port's.
func (w *World) Foreign(name string, tags map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resources = append(w.resources, &resource{kind: kindNode, name: name, history: []version{{at: time.Now(), tags: tags}}})
}

// Resources are all that there is, in truth, sorted by name.
func (w *World) Resources() []Resource {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	var all []Resource
	for _, r := range w.resources {
		if v, there := r.now(); there {
			all = append(all, Resource{Kind: r.kind, Name: r.name, Tags: maps.Clone(v.tags)})
		}
	}
	slices.SortFunc(all, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Of are the resources of one partition, in truth.
func (w *World) Of(id skyport.PartitionID) []Resource {
	return slices.DeleteFunc(w.Resources(), func(r Resource) bool { return r.Tags[cloud.TagPartition] != string(id) })
}

// Admitted tells whom a partition lets in.
func (w *World) Admitted(id skyport.PartitionID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.resources {
		if v, there := r.now(); there && r.kind == kindGroup && v.tags[cloud.TagPartition] == string(id) {
			return r.open
		}
	}
	return ""
}

// Calls tells how often a method of [cloud.Cloud] was called.
func (w *World) Calls(method string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[method]
}

// Early tells how many calls were begun while the cloud wanted to be left alone.
func (w *World) Early() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.early
}

// Pending tells whether work of earlier calls is still to be done.
func (w *World) Pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return len(w.late) > 0
}

// exists asks for a resource by its name, which does not lag.
func (w *World) exists(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return slices.ContainsFunc(w.resources, func(r *resource) bool { _, there := r.now(); return there && r.name == name })
}

// The rest is called with the mutex held, change aside.

func (w *World) change(id skyport.PartitionID, f func(*resource, *version)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	w.alter(id, f)
}

// alter writes a new version of all resources of a partition.
func (w *World) alter(id skyport.PartitionID, f func(*resource, *version)) {
	for _, r := range w.resources {
		if v, there := r.now(); there && v.tags[cloud.TagPartition] == string(id) {
			v.at, v.tags = time.Now(), maps.Clone(v.tags)
			f(r, &v)
			r.history = append(r.history, v)
		}
	}
}

// catchUp does the late work whose time has come.
func (w *World) catchUp() {
	now := time.Now()
	var left, due []pending
	for _, p := range w.late {
		if p.at.After(now) {
			left = append(left, p)
		} else {
			due = append(due, p)
		}
	}
	w.late = left
	for _, p := range due {
		p.do()
	}
}

// add makes a resource unless it is there.
func (w *World) add(r resource, tags map[string]string, twice bool) {
	for _, other := range w.resources {
		if _, there := other.now(); there && other.name == r.name && !twice {
			return
		}
	}
	w.serial++
	if r.kind == kindNode {
		r.address = fmt.Sprintf("10.%d.%d.%d", w.serial>>16&255, w.serial>>8&255, w.serial&255)
	} else {
		r.address = fmt.Sprintf("198.51.%d.%d", w.serial>>8&255, w.serial&255)
	}
	r.history = []version{{at: time.Now(), tags: tags}}
	w.resources = append(w.resources, &r)
}

// named are the resources of a partition by their names, in truth.
func (w *World) named(id skyport.PartitionID) (all []*resource) {
	for _, r := range w.resources {
		if _, there := r.now(); there && strings.HasPrefix(r.name, "swm-"+string(id)+"-") {
			all = append(all, r)
		}
	}
	return all
}

func (r *resource) now() (version, bool) {
	v := r.history[len(r.history)-1]
	return v, !v.gone
}

// then is what the resource was at a moment.
func (r *resource) then(at time.Time) (version, bool) {
	for _, v := range slices.Backward(r.history) {
		if !v.at.After(at) {
			return v, !v.gone
		}
	}
	return version{}, false
}
