package azuretest

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// resource is one thing as it is at a moment. What is in the store is never
// changed, only replaced.
type resource struct {
	ID       string            `json:"id"`
	Kind     string            `json:"kind"` // type, as it is spelled
	Name     string            `json:"name"`
	Group    string            `json:"group"`
	Location string            `json:"location,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	// Body is what a GET tells, without id, name, type, location and tags.
	Body    json.RawMessage `json:"body,omitempty"`
	Created time.Time       `json:"created"`
	Changed time.Time       `json:"changed"`
	// Ready is when a change is over; until then it is Updating.
	Ready time.Time `json:"ready"`

	// Of virtual machines.
	Size    string `json:"size,omitempty"`
	Spot    bool   `json:"spot,omitempty"`
	Power   string `json:"power,omitempty"`
	State   string `json:"state,omitempty"`   // provisioning state, when it is told here and not by Ready
	Secret  string `json:"secret,omitempty"`  // custom data
	Failure string `json:"failure,omitempty"` // code and message of a failed creation
	// Of groups and deployments.
	Error *Problem `json:"error,omitempty"`
	// Of schedules: when it is due.
	Due time.Time `json:"due"`
}

// key is the id as a key.
func key(id string) string { return strings.ToLower(id) }

// entry is the history of an id, newest last. Nil: it was not there.
type entry struct{ past []version }

type version struct {
	since time.Time
	is    *resource
}

// remembered is how long the past is kept for those who are shown stale lists.
const remembered = time.Minute

// put replaces what is at an id. e.mu is held here and below.
func (e *Emulator) put(r *resource) {
	now := time.Now()
	r.Changed = e.now()
	e.record(r.ID, r, now)
}

// drop removes what is at an id.
func (e *Emulator) drop(id string) { e.record(id, nil, time.Now()) }

func (e *Emulator) record(id string, r *resource, now time.Time) {
	e.dirty = true
	k := key(id)
	en := e.entries[k]
	if en == nil {
		en = &entry{}
		e.entries[k] = en
	}
	en.past = append(en.past, version{now, r})
	// Of what is older than all who may ask, the last counts.
	for len(en.past) > 1 && now.Sub(en.past[1].since) > remembered {
		en.past = en.past[1:]
	}
	if r == nil && e.Faults().ListLag == 0 && e.Faults().GetLag == 0 {
		delete(e.entries, k)
	}
}

// at is what was at an id so long ago.
func (e *Emulator) at(id string, lag time.Duration) *resource {
	en := e.entries[key(id)]
	if en == nil {
		return nil
	}
	return en.at(lag)
}

func (en *entry) at(lag time.Duration) *resource {
	if lag <= 0 {
		return en.past[len(en.past)-1].is
	}
	then := time.Now().Add(-lag)
	for i := len(en.past) - 1; i >= 0; i-- {
		if !en.past[i].since.After(then) {
			return en.past[i].is
		}
	}
	return nil
}

// get is what is at an id now.
func (e *Emulator) get(id string) *resource { return e.at(id, 0) }

// list is all that pleases, as it was so long ago, ordered by id.
func (e *Emulator) list(lag time.Duration, please func(*resource) bool) []*resource {
	var keys []string
	found := map[string]*resource{}
	for k, en := range e.entries {
		if r := en.at(lag); r != nil && please(r) {
			keys = append(keys, k)
			found[k] = r
		}
	}
	slices.Sort(keys)
	all := make([]*resource, len(keys))
	for i, k := range keys {
		all[i] = found[k]
	}
	return all
}

// in lists what a group has of a kind, "" for all kinds.
func (e *Emulator) in(group, kind string) []*resource {
	return e.list(0, func(r *resource) bool {
		return strings.EqualFold(r.Group, group) && r.Kind != kindGroup && (kind == "" || strings.EqualFold(r.Kind, kind))
	})
}

// clone is a copy to be changed and put.
func (r *resource) clone() *resource {
	c := *r
	c.Tags = maps.Clone(r.Tags)
	return &c
}

// state is the provisioning state.
func (r *resource) state() string {
	switch {
	case r.State != "":
		return r.State
	case time.Now().Before(r.Ready):
		return "Updating"
	}
	return "Succeeded"
}

// ready has a resource take the time that changes take.
func (e *Emulator) ready(r *resource) { r.Ready = time.Now().Add(e.o.Latency) }

// id is a resource's id, taken apart.
type id struct {
	subscription, group string
	namespace           string
	kind                string // namespace/type/type
	names               []string
}

// parseID takes an id apart, as far as it goes.
func parseID(text string) id {
	var p id
	s := strings.Split(strings.Trim(text, "/"), "/")
	if len(s) >= 2 && strings.EqualFold(s[0], "subscriptions") {
		p.subscription = s[1]
		s = s[2:]
	}
	if len(s) >= 2 && strings.EqualFold(s[0], "resourceGroups") {
		p.group = s[1]
		s = s[2:]
	}
	if len(s) >= 2 && strings.EqualFold(s[0], "providers") {
		p.namespace, p.kind = s[1], s[1]
		for i := 2; i < len(s); i++ {
			if i%2 == 0 {
				p.kind += "/" + s[i]
			} else {
				p.names = append(p.names, s[i])
			}
		}
	}
	return p
}

// parent is the id without its last type and name.
func parent(of string) string {
	s := strings.Split(of, "/")
	return strings.Join(s[:max(0, len(s)-2)], "/")
}

func (e *Emulator) groupID(name string) string {
	return "/subscriptions/" + e.o.Subscription + "/resourceGroups/" + name
}

func lastOf(id string) string { return id[strings.LastIndex(id, "/")+1:] }
