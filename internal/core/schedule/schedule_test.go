package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

const gib = skyport.Bytes(1 << 30)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// world is one account that may use two sites: near is small and has no
// container engine, far is dearer, has one, and is without limits.
func world() schedule.Snapshot {
	return schedule.Snapshot{
		Now: now,
		Sites: []skyport.Site{
			{Name: "near", Limits: skyport.Limits{Nodes: 2}, DefaultImage: "ubuntu"},
			{Name: "far", Container: true, DefaultImage: "debian"},
		},
		Flavors: []skyport.Flavor{
			flavor("near", "small", 2, 4, 1), flavor("near", "big", 8, 32, 4),
			flavor("far", "small", 2, 4, 2), flavor("far", "big", 8, 32, 8), gpu(flavor("far", "gpu", 8, 64, 20), 2),
		},
		Accounts: []skyport.Account{{Name: "lab", Sites: []string{"*"}}, {Name: "poor", Sites: []string{"near"}}},
		Refused:  map[schedule.Offer]schedule.Refusal{},
	}
}

func flavor(site, name string, cpus int, memory skyport.Bytes, price float64) skyport.Flavor {
	return skyport.Flavor{Name: name, Site: site, CPUs: cpus, Memory: memory * gib, Price: price}
}

func gpu(f skyport.Flavor, n int) skyport.Flavor { f.GPUs = n; return f }

// job makes a job that waits for a minute; its number says its age.
func job(number int, r skyport.Request) schedule.Job {
	return schedule.Job{
		ID: jobID(number), Number: int64(number), Account: "lab", Request: &r, Submitted: now.Add(-time.Minute),
	}
}

func jobID(number int) skyport.JobID { return skyport.JobID(fmt.Sprintf("j%07d-job", number)) }

func old(j schedule.Job) schedule.Job {
	j.Submitted = now.Add(-schedule.Patience)
	return j
}

func (of partitionOf) at(site, name string) schedule.Partition {
	w := world()
	p := schedule.Partition{Partition: skyport.Partition{
		ID: skyport.PartitionID(of.id), State: of.state, Account: "lab", Site: site, Image: of.image, KeepAlive: 600,
		KeepResources: of.keep, Nodes: make([]skyport.Node, max(1, of.nodes)),
	}, Held: of.held, Attempts: of.attempts}
	for _, f := range w.Flavors {
		if f.Site == site && f.Name == name {
			p.Flavor = f
		}
	}
	if of.attempts == 0 {
		p.IdleSince = now.Add(-of.idle)
	}
	return p
}

type partitionOf struct {
	id       string
	state    skyport.PartitionState
	image    string
	nodes    int
	attempts int
	held     schedule.Room
	idle     time.Duration
	keep     bool
}

func TestDecide(t *testing.T) {
	t.Parallel()
	ready, busy := skyport.PartitionReady, skyport.PartitionBusy
	idle := func(id string, since time.Duration) partitionOf {
		return partitionOf{id: id, state: ready, idle: since}
	}
	full := partitionOf{id: "full", state: busy, attempts: 1, held: schedule.Room{CPUs: 2}}
	tests := map[string]struct {
		change func(*schedule.Snapshot)
		// want lists what is decided: "job@partition", "job+job@site/flavor*nodes", "-partition".
		want string
		// reason is part of the reason of the job named before the colon.
		reason string
		wake   time.Duration
	}{
		"nothing to do": {change: func(*schedule.Snapshot) {}},
		"rule 1: priority goes before age": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("p", 0).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 2, Site: "near", Flavor: "small"}), job(2, skyport.Request{CPUs: 2, Priority: 1})}
			},
			want: "2@p 1@near/small*1",
		},
		"rule 1: age decides among equals": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("p", 0).at("near", "small")}
				s.Jobs = []schedule.Job{job(2, skyport.Request{CPUs: 2}), job(1, skyport.Request{CPUs: 2})}
			},
			want: "1@p 2@near/small*1",
		},
		"rule 2: a ready partition before one that comes up": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{
					partitionOf{id: "a", state: skyport.PartitionBooting, attempts: 1}.at("near", "big"), idle("b", 0).at("near", "small"),
				}
				s.Jobs = []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@b",
		},
		"rule 2: jobs share a partition": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{job(1, skyport.Request{}), job(2, skyport.Request{}), job(3, skyport.Request{})}
			},
			want: "1+2@near/small*1 3@near/small*1",
		},
		"rule 2: not beyond a partition's memory": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{job(1, skyport.Request{Memory: 3 * gib}), job(2, skyport.Request{Memory: 3 * gib})}
			},
			want: "1@near/small*1 2@near/small*1",
		},
		"rule 2: a named flavor without cpus is a whole node": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{job(1, skyport.Request{Flavor: "small", Site: "far"}), job(2, skyport.Request{CPUs: 1, Site: "far", Flavor: "small"})}
			},
			want: "1@far/small*1 2@far/small*1",
		},
		"rule 2: not onto another account's partition": {
			change: func(s *schedule.Snapshot) {
				p := idle("p", 0).at("near", "small")
				p.Account = "poor"
				s.Partitions, s.Jobs = []schedule.Partition{p}, []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@near/small*1",
		},
		"rule 2: not onto nodes without the engine that a container needs": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("p", 0).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{ContainerImage: "python:3"})}
			},
			want: "1@far/small*1",
		},
		"rule 2: not onto another image": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{partitionOf{id: "p", state: ready, image: "ubuntu"}.at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CloudImage: "suse"})}
			},
			want: "1@near/small*1",
		},
		"rule 2: not onto a partition that leaves": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{partitionOf{id: "p", state: skyport.PartitionDraining}.at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@near/small*1",
		},
		"rule 3: the cheapest that fits": {
			change: func(s *schedule.Snapshot) { s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 4})} },
			want:   "1@near/big*1",
		},
		"rule 3: gpus are found": {
			change: func(s *schedule.Snapshot) { s.Jobs = []schedule.Job{job(1, skyport.Request{GPUs: 1})} },
			want:   "1@far/gpu*1",
		},
		"rule 3: the next cheapest where the first is full": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{job(1, skyport.Request{Nodes: 2}), job(2, skyport.Request{})}
			},
			want: "1@near/small*2 2@far/small*1",
		},
		"rule 3: only sites of the account": {
			change: func(s *schedule.Snapshot) {
				j := job(1, skyport.Request{GPUs: 1})
				j.Account = "poor"
				s.Jobs = []schedule.Job{j}
			},
			reason: "1:no flavor has 1 GPUs",
		},
		"rule 3: a refused offer is passed over": {
			change: func(s *schedule.Snapshot) {
				s.Refused[schedule.Offer{Site: "near", Flavor: "small"}] = schedule.Refusal{Until: now.Add(time.Minute), Reason: "quota"}
				s.Jobs = []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@far/small*1", wake: time.Minute,
		},
		"rule 3: a refusal that is over counts no more": {
			change: func(s *schedule.Snapshot) {
				s.Refused[schedule.Offer{Site: "near", Flavor: "small"}] = schedule.Refusal{Until: now, Reason: "quota"}
				s.Jobs = []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@near/small*1",
		},
		"rule 3: nothing new while blind, but what is there is used": {
			change: func(s *schedule.Snapshot) {
				s.Blind = "the gate does not answer"
				s.Partitions = []schedule.Partition{idle("p", 0).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 2}), job(2, skyport.Request{CPUs: 2})}
			},
			want: "1@p", reason: "2:the gate does not answer", wake: schedule.Patience - time.Minute,
		},
		"rule 4: an idle partition makes room": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("a", time.Minute).at("near", "small"), idle("b", 2*time.Minute).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 8, Site: "near"})}
			},
			want: "-b", reason: "1:removed to make room", wake: 9 * time.Minute,
		},
		"rule 4: nothing is drained where another site has room": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("a", time.Minute).at("near", "small"), idle("b", 2*time.Minute).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 8})}
			},
			want: "1@far/big*1", wake: 8 * time.Minute,
		},
		"rule 4: nothing more is drained while one leaves": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{partitionOf{id: "a", state: skyport.PartitionDeleting}.at("near", "small"), idle("b", 2*time.Minute).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 8, Site: "near"})}
			},
			reason: "1:removed to make room", wake: 8 * time.Minute,
		},
		"rule 4: each waiting job gets room of its own": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("a", 0).at("near", "small"), idle("b", 0).at("near", "small")}
				r := skyport.Request{CPUs: 8, Site: "near"}
				s.Jobs = []schedule.Job{job(1, r), job(2, r), job(3, r)}
			},
			want: "-a -b", reason: "3:all 2 nodes of site near are in use", wake: schedule.Patience - time.Minute,
		},
		"rule 4: not what is to be kept": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{partitionOf{id: "a", state: ready, nodes: 2, keep: true, idle: time.Hour}.at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 8, Site: "near"})}
			},
			reason: "1:all 2 nodes of site near are in use", wake: schedule.Patience - time.Minute,
		},
		"rule 5: small jobs pass a big one for a while": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{full.at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{Nodes: 2, Site: "near"}), job(2, skyport.Request{})}
			},
			want: "2@near/small*1", reason: "1:all 2 nodes", wake: schedule.Patience - time.Minute,
		},
		"rule 5: then its site is kept free": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{full.at("near", "small")}
				s.Jobs = []schedule.Job{old(job(1, skyport.Request{Nodes: 2, Site: "near"})), job(2, skyport.Request{Site: "near"})}
			},
			reason: "2:kept free for job j0000001", wake: schedule.Patience - time.Minute,
		},
		"rule 5: but not other sites": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{full.at("near", "small")}
				s.Jobs = []schedule.Job{old(job(1, skyport.Request{Nodes: 2, Site: "near"})), job(2, skyport.Request{})}
			},
			want: "2@far/small*1",
		},
		"rule 5: nor for a job that nothing could serve": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{old(job(1, skyport.Request{CPUs: 99})), job(2, skyport.Request{})}
			},
			want: "2@near/small*1", reason: "1:no flavor has 99 CPUs",
		},
		"rule 6: a job that was put back keeps its reason": {
			change: func(s *schedule.Snapshot) {
				j := job(1, skyport.Request{})
				j.NotBefore, j.Details = now.Add(time.Second), "again after: the node burnt"
				s.Jobs = []schedule.Job{j}
			},
			reason: "1:the node burnt", wake: time.Second,
		},
		"rule 6: max-price": {
			change: func(s *schedule.Snapshot) {
				s.Jobs = []schedule.Job{job(1, skyport.Request{CPUs: 8, MaxPrice: 3.5})}
			},
			reason: "1:nothing that fits costs 3.5 an hour or less: far/big costs 8",
		},
		"rule 7: past its keep-alive a partition is drained": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("a", 10*time.Minute).at("near", "small"), idle("b", 9*time.Minute).at("near", "small")}
			},
			want: "-a", wake: time.Minute,
		},
		"rule 7: unless a waiting job gets it": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{idle("a", 10*time.Minute).at("near", "small")}
				s.Jobs = []schedule.Job{job(1, skyport.Request{})}
			},
			want: "1@a",
		},
		"rule 7: or it is to be kept": {
			change: func(s *schedule.Snapshot) {
				s.Partitions = []schedule.Partition{partitionOf{id: "a", state: ready, keep: true, idle: time.Hour}.at("near", "small")}
			},
		},
		"rule 7: one that its job left before it came up goes at once": {
			change: func(s *schedule.Snapshot) {
				p := partitionOf{id: "a", state: skyport.PartitionBooting}.at("near", "small")
				p.IdleSince = time.Time{}
				s.Partitions = []schedule.Partition{p}
			},
			want: "-a",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := world()
			test.change(&s)
			d := schedule.Decide(s)
			if got := spell(d); got != test.want {
				t.Errorf("decided %q, want %q; reasons %v", got, test.want, d.Reasons)
			}
			if number, text, ok := strings.Cut(test.reason, ":"); ok {
				var n int
				if _, err := fmt.Sscan(number, &n); err != nil {
					t.Fatal(err)
				}
				if got := d.Reasons[jobID(n)]; !strings.Contains(got, text) {
					t.Errorf("job %d stays because of %q, want %q", n, got, text)
				}
			}
			var wake time.Duration
			if !d.WakeAt.IsZero() {
				wake = d.WakeAt.Sub(now)
			}
			if test.reason != "" || test.wake != 0 {
				if wake != test.wake && !(test.wake == 0 && wake <= schedule.Patience) {
					t.Errorf("looks again in %s, want %s", wake, test.wake)
				}
			}
		})
	}
}

// spell writes a decision in one line.
func spell(d schedule.Decision) string {
	var parts []string
	short := func(id skyport.JobID) string {
		return strings.TrimLeft(strings.TrimSuffix(strings.TrimPrefix(string(id), "j"), "-job"), "0")
	}
	for _, p := range d.Place {
		parts = append(parts, short(p.Job)+"@"+string(p.Partition))
	}
	for _, c := range d.Create {
		var jobs []string
		for _, id := range c.Jobs {
			jobs = append(jobs, short(id))
		}
		parts = append(parts, fmt.Sprintf("%s@%s/%s*%d", strings.Join(jobs, "+"), c.Site, c.Flavor.Name, c.Nodes))
	}
	for _, id := range d.Drain {
		parts = append(parts, "-"+string(id))
	}
	return strings.Join(parts, " ")
}

// A new partition is what its first job asked for.
func TestCreationCarriesTheRequest(t *testing.T) {
	t.Parallel()
	s := world()
	s.Jobs = []schedule.Job{job(1, skyport.Request{KeepAlive: 60, KeepResources: true, Nodes: 3, CPUs: 2, Site: "far", CloudImage: "suse"}), job(2, skyport.Request{Site: "far"})}
	d := schedule.Decide(s)
	want := []schedule.Creation{{
		Account: "lab", Site: "far", Flavor: flavor("far", "small", 2, 4, 2), Image: "suse", Nodes: 3, KeepAlive: 60, KeepResources: true,
		Jobs: []skyport.JobID{jobID(1)}, Rooms: []schedule.Room{{CPUs: 2, Memory: 4 * gib}},
	}, {
		Account: "lab", Site: "far", Flavor: flavor("far", "small", 2, 4, 2), Image: "debian", Nodes: 1,
		Jobs: []skyport.JobID{jobID(2)}, Rooms: []schedule.Room{{CPUs: 1}},
	}}
	if diff := cmp.Diff(want, d.Create, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestOffersSayWhyThereAreNone(t *testing.T) {
	t.Parallel()
	w := world()
	w.Sites[1].Limits = skyport.Limits{Nodes: 4, CPUs: 16}
	tests := map[string]struct {
		request skyport.Request
		account string
		code    skyport.Code
		text    string
		hint    bool
	}{
		"unknown account":   {account: "nobody", code: skyport.CodeUnknownAccount, text: `no account "nobody"`},
		"site not allowed":  {account: "poor", request: skyport.Request{Site: "far"}, code: skyport.CodeUnsatisfiable, text: "may not use any site named far"},
		"unknown flavor":    {request: skyport.Request{Flavor: "huge"}, code: skyport.CodeUnsatisfiable, text: "no flavor named huge", hint: true},
		"too many cpus":     {request: skyport.Request{CPUs: 9}, code: skyport.CodeUnsatisfiable, text: "no flavor has 9 CPUs", hint: true},
		"too much memory":   {request: skyport.Request{CPUs: 1, Memory: 65 * gib}, code: skyport.CodeUnsatisfiable, text: "no flavor has 1 CPUs, 65.0 GiB of memory", hint: true},
		"too many nodes":    {request: skyport.Request{Nodes: 5}, code: skyport.CodeUnsatisfiable, text: "far has 4 nodes at most", hint: true},
		"too dear":          {request: skyport.Request{Nodes: 2, MaxPrice: 1}, code: skyport.CodeUnsatisfiable, text: "nothing that fits costs 1 an hour or less", hint: true},
		"no engine":         {request: skyport.Request{Site: "near", ContainerImage: "python:3"}, code: skyport.CodeNoEngine, text: "site near have no container engine", hint: true},
		"more cpus in all":  {request: skyport.Request{Nodes: 3, CPUs: 8, Site: "far"}, code: skyport.CodeUnsatisfiable, text: "16 CPUs at most", hint: true},
		"gpus and too many": {request: skyport.Request{GPUs: 3}, code: skyport.CodeUnsatisfiable, text: "no flavor has 3 GPUs", hint: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account := test.account
			if account == "" {
				account = "lab"
			}
			offers, err := schedule.Offers(&test.request, account, w.Accounts, w.Sites, w.Flavors)
			if err == nil || len(offers) > 0 {
				t.Fatalf("got offers %v", offers)
			}
			if skyport.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.text) || (skyport.HintOf(err) != "") != test.hint {
				t.Errorf("got %s %q (hint %q), want %s %q", skyport.CodeOf(err), err, skyport.HintOf(err), test.code, test.text)
			}
		})
	}
}

func TestOffersAreCheapestFirst(t *testing.T) {
	t.Parallel()
	w := world()
	offers, err := schedule.Offers(&skyport.Request{}, "lab", w.Accounts, w.Sites, w.Flavors)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range offers {
		got = append(got, o.Site.Name+"/"+o.Flavor.Name)
	}
	want := []string{"near/small", "far/small", "near/big", "far/big", "far/gpu"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
