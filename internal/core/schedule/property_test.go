package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// snapshots draws worlds that are crowded enough for all rules to meet.
func snapshots() *rapid.Generator[schedule.Snapshot] {
	return rapid.Custom(func(t *rapid.T) schedule.Snapshot {
		draw := func(label string, least, most int) int { return rapid.IntRange(least, most).Draw(t, label) }
		of := func(label string, words ...string) string { return rapid.SampledFrom(words).Draw(t, label) }
		s := schedule.Snapshot{Now: now, Refused: map[schedule.Offer]schedule.Refusal{}}
		names := []string{"a", "b", "c"}[:draw("sites", 1, 3)]
		for _, name := range names {
			s.Sites = append(s.Sites, skyport.Site{
				Name: name, Container: rapid.Bool().Draw(t, "engine"), DefaultImage: "default",
				Limits: skyport.Limits{Nodes: draw("limit of nodes", 0, 5), CPUs: draw("limit of cpus", 0, 24), Memory: skyport.Bytes(draw("limit of memory", 0, 64)) * gib},
			})
			for i := range draw("flavors", 1, 3) {
				cpus := draw("cpus", 1, 8)
				s.Flavors = append(s.Flavors, gpu(flavor(name, fmt.Sprint("f", i), cpus, skyport.Bytes(draw("memory", 1, 16)), float64(draw("price", 1, 9))), draw("gpus", 0, 1)))
				if draw("refused", 0, 9) == 0 {
					s.Refused[schedule.Offer{Site: name, Flavor: fmt.Sprint("f", i)}] = schedule.Refusal{
						Until: now.Add(time.Duration(draw("until", -1, 1)) * time.Minute), Reason: "no quota",
					}
				}
			}
		}
		s.Accounts = []skyport.Account{{Name: "x", Sites: []string{"*"}}, {Name: "y", Sites: []string{"a"}}}
		for i := range draw("partitions", 0, 5) {
			f := rapid.SampledFrom(s.Flavors).Draw(t, "flavor")
			p := schedule.Partition{Partition: skyport.Partition{
				ID: skyport.PartitionID(fmt.Sprint("p", i)), Account: of("account", "x", "x", "y"), Site: f.Site, Flavor: f, Image: of("image", "default", "other"),
				State: rapid.SampledFrom(skyport.PartitionStates()).Draw(t, "state"), Nodes: make([]skyport.Node, draw("nodes", 1, 2)),
				KeepAlive: skyport.Seconds(draw("alive", 0, 600)), KeepResources: draw("kept", 0, 4) == 0,
			}}
			if p.Attempts = draw("attempts", 0, 2); p.Attempts > 0 {
				p.Held = schedule.Room{CPUs: draw("held", 0, f.CPUs), Memory: skyport.Bytes(draw("held memory", 0, int(f.Memory/gib))) * gib}
			} else if rapid.Bool().Draw(t, "was busy") {
				p.IdleSince = now.Add(-time.Duration(draw("idle", 0, 900)) * time.Second)
			}
			s.Partitions = append(s.Partitions, p)
		}
		for i := range draw("jobs", 0, 12) {
			r := skyport.Request{
				Nodes: draw("nodes", 0, 3), CPUs: draw("cpus", 0, 8), Memory: skyport.Bytes(draw("memory", 0, 12)) * gib, GPUs: draw("gpus", 0, 5) / 5,
				Priority: draw("priority", 0, 2), Site: of("site", "", "", "", "a", "b", "nowhere"), Flavor: of("flavor", "", "", "", "f0", "f1"),
				CloudImage: of("image", "", "", "default", "other"), ContainerImage: of("container", "", "", "python"), MaxPrice: float64(draw("max-price", -9, 12)),
			}
			r.MaxPrice = max(0, r.MaxPrice)
			j := job(i+1, r)
			j.Account = of("account", "x", "x", "y", "nobody")
			j.Submitted = now.Add(-time.Duration(draw("waited", 0, 15)) * time.Minute)
			if draw("put back", 0, 7) == 0 {
				j.NotBefore = now.Add(time.Second)
			}
			s.Jobs = append(s.Jobs, j)
		}
		if draw("blind", 0, 19) == 0 {
			s.Blind = "the gate is not there"
		}
		return s
	})
}

// placed is where a job went.
type placed struct {
	site, image string
	account     string
	flavor      skyport.Flavor
	nodes       int
}

// outcome looks at a decision from the side of the jobs.
func outcome(t *rapid.T, s *schedule.Snapshot, d *schedule.Decision) map[skyport.JobID]placed {
	at := map[skyport.JobID]placed{}
	put := func(id skyport.JobID, p placed) {
		if _, twice := at[id]; twice {
			t.Fatalf("job %s is placed twice", id)
		}
		at[id] = p
	}
	for _, p := range d.Place {
		i := slices.IndexFunc(s.Partitions, func(q schedule.Partition) bool { return q.ID == p.Partition })
		if i < 0 || !s.Partitions[i].State.Usable() {
			t.Fatalf("job %s is placed on partition %s, which cannot be used", p.Job, p.Partition)
		}
		q := s.Partitions[i]
		put(p.Job, placed{q.Site, q.Image, q.Account, q.Flavor, len(q.Nodes)})
	}
	for _, c := range d.Create {
		if len(c.Jobs) == 0 || len(c.Jobs) != len(c.Rooms) {
			t.Fatalf("a new partition with %d jobs and %d rooms", len(c.Jobs), len(c.Rooms))
		}
		for _, id := range c.Jobs {
			put(id, placed{c.Site, c.Image, c.Account, c.Flavor, c.Nodes})
		}
	}
	return at
}

func siteOf(s *schedule.Snapshot, name string) skyport.Site {
	i := slices.IndexFunc(s.Sites, func(site skyport.Site) bool { return site.Name == name })
	return s.Sites[i]
}

// totals is what a site's partitions take once the decision is carried out.
func totals(s *schedule.Snapshot, d *schedule.Decision, site string) (l skyport.Limits) {
	add := func(nodes int, f skyport.Flavor) {
		l.Nodes += nodes
		l.CPUs += nodes * f.CPUs
		l.Memory += skyport.Bytes(nodes) * f.Memory
	}
	for _, p := range s.Partitions {
		if p.Site == site && p.State != skyport.PartitionDeleted {
			add(len(p.Nodes), p.Flavor)
		}
	}
	for _, c := range d.Create {
		if c.Site == site {
			add(c.Nodes, c.Flavor)
		}
	}
	return l
}

func within(l, most skyport.Limits) bool {
	return (most.Nodes == 0 || l.Nodes <= most.Nodes) && (most.CPUs == 0 || l.CPUs <= most.CPUs) && (most.Memory == 0 || l.Memory <= most.Memory)
}

func before(a, b schedule.Job) bool {
	return a.Request.Priority > b.Request.Priority || (a.Request.Priority == b.Request.Priority && a.Number < b.Number)
}

// sameKind says whether two jobs fit in the same places, in the test's own words.
func sameKind(a, b schedule.Job) bool {
	x, y := *a.Request, *b.Request
	x.Priority, y.Priority = 0, 0
	return a.Account == b.Account && cmp.Equal(x, y)
}

func (p placed) honours(s *schedule.Snapshot, j schedule.Job) string {
	r := j.Request
	account := slices.IndexFunc(s.Accounts, func(a skyport.Account) bool { return a.Name == j.Account })
	switch {
	case account < 0 || p.account != j.Account:
		return "account"
	case !slices.Contains(s.Accounts[account].Sites, "*") && !slices.Contains(s.Accounts[account].Sites, p.site):
		return "account's sites"
	case r.Site != "" && r.Site != p.site:
		return "site"
	case r.Flavor != "" && r.Flavor != p.flavor.Name:
		return "flavor"
	case r.CloudImage != "" && r.CloudImage != p.image:
		return "cloud-image"
	case r.ContainerImage != "" && !siteOf(s, p.site).Container:
		return "container-image"
	case r.MaxPrice > 0 && p.flavor.Price*float64(p.nodes) > r.MaxPrice:
		return "max-price"
	case max(1, r.Nodes) != p.nodes:
		return "nodes"
	case r.CPUs > p.flavor.CPUs || r.Memory > p.flavor.Memory || r.GPUs > p.flavor.GPUs:
		return "size"
	}
	return ""
}

// TestDecisionsKeepTheRules holds any decision to the rules of the package.
func TestDecisionsKeepTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := snapshots().Draw(t, "snapshot")
		d := schedule.Decide(s)
		at := outcome(t, &s, &d)

		// Every job is placed or has a reason; what is placed is what was asked for.
		waiting := []schedule.Job{}
		for _, j := range s.Jobs {
			reason, stays := d.Reasons[j.ID]
			p, goes := at[j.ID]
			if goes == stays {
				t.Fatalf("job %s: placed %v, reason %q", j.ID, goes, reason)
			}
			if stays && (reason == "" || strings.HasSuffix(reason, ": ")) {
				t.Fatalf("job %s stays for no reason: %q", j.ID, reason)
			}
			if goes && j.NotBefore.After(now) {
				t.Fatalf("job %s is placed too early", j.ID)
			}
			if broken := p.honours(&s, j); goes && broken != "" {
				t.Fatalf("job %s did not get the %s it asked for: %+v", j.ID, broken, p)
			}
			if stays && !j.NotBefore.After(now) {
				waiting = append(waiting, j)
			}
		}
		checkRoom(t, &s, &d)
		checkDrains(t, &s, &d)
		for _, j := range s.Jobs {
			if _, goes := at[j.ID]; !goes {
				continue
			}
			for _, w := range waiting {
				// Priority, then age, within a kind.
				if before(w, j) && sameKind(w, j) {
					t.Fatalf("job %s passed job %s, which is of its kind", j.ID, w.ID)
				}
				// Nothing passes a job at its sites that waits for longer than Patience.
				if before(w, j) && !w.Submitted.Add(schedule.Patience).After(now) && slices.Contains(sitesFor(&s, w), at[j.ID].site) {
					t.Fatalf("job %s started at site %s, which is kept for job %s", j.ID, at[j.ID].site, w.ID)
				}
			}
		}
		checkCheapest(t, &s, &d, waiting)
	})
}

// sitesFor are the sites that could have the job and did not refuse it.
func sitesFor(s *schedule.Snapshot, j schedule.Job) (names []string) {
	offers, err := schedule.Offers(j.Request, j.Account, s.Accounts, s.Sites, s.Flavors)
	if err != nil {
		return nil
	}
	for _, o := range offers {
		if !s.Refused[schedule.Offer{Site: o.Site.Name, Flavor: o.Flavor.Name}].Until.After(now) {
			names = append(names, o.Site.Name)
		}
	}
	return names
}

// checkRoom: no node and no site is filled beyond what it has.
func checkRoom(t *rapid.T, s *schedule.Snapshot, d *schedule.Decision) {
	over := func(held schedule.Room, f skyport.Flavor) bool {
		return held.CPUs > f.CPUs || held.Memory > f.Memory || held.GPUs > f.GPUs
	}
	for _, p := range s.Partitions {
		held, more := p.Held, false
		for _, q := range d.Place {
			if q.Partition == p.ID {
				held, more = plus(held, q.Room), true
			}
		}
		if more && over(held, p.Flavor) {
			t.Fatalf("partition %s has %+v and is to hold %+v", p.ID, p.Flavor, held)
		}
	}
	for _, c := range d.Create {
		var held schedule.Room
		for _, room := range c.Rooms {
			held = plus(held, room)
		}
		if over(held, c.Flavor) {
			t.Fatalf("a new partition of %+v is to hold %+v", c.Flavor, held)
		}
		if s.Blind != "" {
			t.Fatal("a new partition in the dark")
		}
		if total, site := totals(s, d, c.Site), siteOf(s, c.Site); !within(total, site.Limits) {
			t.Fatalf("site %s has limits %+v and is to hold %+v", c.Site, site.Limits, total)
		}
	}
}

func plus(a, b schedule.Room) schedule.Room {
	return schedule.Room{CPUs: a.CPUs + b.CPUs, Memory: a.Memory + b.Memory, GPUs: a.GPUs + b.GPUs}
}

// checkDrains: only what nobody uses goes, and only because its time is over or
// a job waits for its room.
func checkDrains(t *rapid.T, s *schedule.Snapshot, d *schedule.Decision) {
	for _, id := range d.Drain {
		i := slices.IndexFunc(s.Partitions, func(p schedule.Partition) bool { return p.ID == id })
		p := s.Partitions[i]
		taken := slices.ContainsFunc(d.Place, func(q schedule.Placement) bool { return q.Partition == id })
		if p.Attempts > 0 || taken || p.KeepResources || !p.State.Usable() {
			t.Fatalf("partition %s is drained, though it has %d attempts, taken %v, kept %v, %s", id, p.Attempts, taken, p.KeepResources, p.State)
		}
		over := p.IdleSince.IsZero() || !p.IdleSince.Add(p.KeepAlive.Duration()).After(now)
		wanted := false
		for _, reason := range d.Reasons {
			wanted = wanted || strings.Contains(reason, "site "+p.Site+" are being removed to make room")
		}
		if !over && !wanted {
			t.Fatalf("partition %s is drained for nothing", id)
		}
	}
}

// checkCheapest: a new partition is of the cheapest offer that nothing hindered.
func checkCheapest(t *rapid.T, s *schedule.Snapshot, d *schedule.Decision, waiting []schedule.Job) {
	var kept []string
	for _, w := range waiting {
		if !w.Submitted.Add(schedule.Patience).After(now) {
			kept = append(kept, sitesFor(s, w)...)
		}
	}
	for _, c := range d.Create {
		i := slices.IndexFunc(s.Jobs, func(j schedule.Job) bool { return j.ID == c.Jobs[0] })
		j := s.Jobs[i]
		offers, err := schedule.Offers(j.Request, j.Account, s.Accounts, s.Sites, s.Flavors)
		if err != nil {
			t.Fatalf("job %s got a partition that cannot serve it: %v", j.ID, err)
		}
		for _, o := range offers {
			if o.Flavor.Name == c.Flavor.Name && o.Site.Name == c.Site {
				break
			}
			if s.Refused[schedule.Offer{Site: o.Site.Name, Flavor: o.Flavor.Name}].Until.After(now) || slices.Contains(kept, o.Site.Name) {
				continue
			}
			total := totals(s, d, o.Site.Name)
			total.Nodes += c.Nodes
			total.CPUs += c.Nodes * o.Flavor.CPUs
			total.Memory += skyport.Bytes(c.Nodes) * o.Flavor.Memory
			if c.Site == o.Site.Name {
				continue // its own partition took the room that it compares with
			}
			if within(total, o.Site.Limits) {
				t.Fatalf("job %s went to %s/%s, though %s/%s has room and costs less", j.ID, c.Site, c.Flavor.Name, o.Site.Name, o.Flavor.Name)
			}
		}
	}
}

// TestDecisionsAreReproducible: neither the order of the rows nor chance has a
// say, and the snapshot stays as it was.
func TestDecisionsAreReproducible(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := snapshots().Draw(t, "snapshot")
		copied := s
		copied.Jobs, copied.Partitions = slices.Clone(s.Jobs), slices.Clone(s.Partitions)
		copied.Sites, copied.Flavors, copied.Accounts = slices.Clone(s.Sites), slices.Clone(s.Flavors), slices.Clone(s.Accounts)
		first := schedule.Decide(s)
		if diff := cmp.Diff(copied, s, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("the snapshot was changed: %s", diff)
		}
		shuffled := s
		shuffled.Jobs = rapid.Permutation(s.Jobs).Draw(t, "jobs")
		shuffled.Partitions = rapid.Permutation(s.Partitions).Draw(t, "partitions")
		shuffled.Sites = rapid.Permutation(s.Sites).Draw(t, "sites")
		shuffled.Flavors = rapid.Permutation(s.Flavors).Draw(t, "flavors")
		shuffled.Accounts = rapid.Permutation(s.Accounts).Draw(t, "accounts")
		if diff := cmp.Diff(first, schedule.Decide(shuffled), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("another order, another decision: %s", diff)
		}
	})
}
