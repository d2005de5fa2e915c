package schedule_test

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// simulation runs Decide over virtual time: jobs come, partitions need minutes
// to come up and to go, scripts end. It decides after every event, as core does.
type simulation struct {
	*testing.T
	world      schedule.Snapshot
	events     events
	partitions map[skyport.PartitionID]*schedule.Partition
	run        map[skyport.JobID]time.Duration
	waiting    map[skyport.JobID]schedule.Job

	decisions, created, drained, unused, finished int
	waits                                         map[skyport.JobID]time.Duration
	useful, paid                                  time.Duration // of one CPU
	born                                          map[skyport.PartitionID]time.Time
	worked                                        map[skyport.PartitionID]bool
}

type event struct {
	at   time.Time
	seq  int
	what func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(e[i].at.Compare(e[j].at), cmp.Compare(e[i].seq, e[j].seq)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) } //nolint:forcetypeassert // heap's own
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const (
	bootTime   = 2 * time.Minute
	removeTime = time.Minute
)

func newSimulation(t *testing.T, s schedule.Snapshot) *simulation {
	return &simulation{
		T: t, world: s, partitions: map[skyport.PartitionID]*schedule.Partition{}, run: map[skyport.JobID]time.Duration{},
		waiting: map[skyport.JobID]schedule.Job{}, waits: map[skyport.JobID]time.Duration{}, born: map[skyport.PartitionID]time.Time{},
		worked: map[skyport.PartitionID]bool{},
	}
}

func (s *simulation) after(d time.Duration, what func()) {
	heap.Push(&s.events, event{at: s.world.Now.Add(d), seq: s.decisions*1000 + len(s.events), what: what})
}

// submit has a job come after a while.
func (s *simulation) submit(after time.Duration, number int, run time.Duration, r skyport.Request) {
	s.after(after, func() {
		j := job(number, r)
		j.Submitted = s.world.Now
		s.waiting[j.ID], s.run[j.ID] = j, run
	})
}

// play goes on until nothing is left to happen.
func (s *simulation) play() {
	s.Helper()
	var woken time.Time
	for len(s.events) > 0 {
		if s.decisions++; s.decisions > 50_000 {
			s.Fatalf("no end: %d jobs wait, %d partitions were made, %d drained", len(s.waiting), s.created, s.drained)
		}
		next := heap.Pop(&s.events).(event) //nolint:forcetypeassert // all are
		s.world.Now = next.at
		next.what()
		s.world.Jobs, s.world.Partitions = nil, nil
		for _, j := range s.waiting {
			s.world.Jobs = append(s.world.Jobs, j)
		}
		for _, p := range s.partitions {
			s.world.Partitions = append(s.world.Partitions, *p)
		}
		d := schedule.Decide(s.world)
		s.carryOut(&d)
		if !d.WakeAt.IsZero() {
			if !d.WakeAt.After(s.world.Now) {
				s.Fatalf("wants to be woken at %s, and it is %s", d.WakeAt, s.world.Now)
			}
			if !woken.Equal(d.WakeAt) {
				woken = d.WakeAt
				s.after(d.WakeAt.Sub(s.world.Now), func() {})
			}
		}
	}
	if len(s.waiting) > 0 {
		s.Fatalf("%d jobs wait for ever: %v", len(s.waiting), schedule.Decide(s.world).Reasons)
	}
	if len(s.partitions) > 0 {
		s.Fatalf("%d partitions are left", len(s.partitions))
	}
}

func (s *simulation) carryOut(d *schedule.Decision) {
	for _, placement := range d.Place {
		s.begin(placement.Job, s.partitions[placement.Partition], placement.Room)
	}
	for _, c := range d.Create {
		s.created++
		p := &schedule.Partition{Partition: skyport.Partition{
			ID: skyport.PartitionID(fmt.Sprintf("p%06d", s.created)), State: skyport.PartitionPlanned, Account: c.Account, Site: c.Site, Flavor: c.Flavor,
			Image: c.Image, Nodes: make([]skyport.Node, c.Nodes), KeepAlive: c.KeepAlive, KeepResources: c.KeepResources,
		}}
		s.partitions[p.ID], s.born[p.ID] = p, s.world.Now
		s.after(bootTime, func() {
			if p.State.Usable() {
				p.State = skyport.PartitionReady
				p.IdleSince = s.world.Now
				if p.Attempts > 0 {
					p.State, p.IdleSince = skyport.PartitionBusy, time.Time{}
				}
			}
		})
		for i, id := range c.Jobs {
			s.begin(id, p, c.Rooms[i])
		}
		s.checkLimits(c.Site)
	}
	for _, id := range d.Drain {
		p := s.partitions[id]
		s.drained++
		if !s.worked[id] {
			s.unused++
		}
		p.State = skyport.PartitionDraining
		s.after(removeTime, func() {
			s.paid += s.world.Now.Sub(s.born[id]) * time.Duration(p.Flavor.CPUs*len(p.Nodes))
			delete(s.partitions, id)
		})
	}
}

func (s *simulation) begin(id skyport.JobID, p *schedule.Partition, room schedule.Room) {
	j := s.waiting[id]
	delete(s.waiting, id)
	s.waits[id] = s.world.Now.Sub(j.Submitted)
	p.Held = plus(p.Held, room)
	p.Attempts++
	var boot time.Duration
	if p.State.Connected() {
		p.State, p.IdleSince = skyport.PartitionBusy, time.Time{}
	} else {
		boot = s.born[p.ID].Add(bootTime).Sub(s.world.Now)
	}
	s.after(boot+s.run[id], func() {
		s.finished++
		s.worked[p.ID] = true
		s.useful += s.run[id] * time.Duration(room.CPUs*len(p.Nodes))
		p.Held = plus(p.Held, schedule.Room{CPUs: -room.CPUs, Memory: -room.Memory, GPUs: -room.GPUs})
		if p.Attempts--; p.Attempts == 0 {
			p.State, p.IdleSince = skyport.PartitionReady, s.world.Now
		}
	})
}

func (s *simulation) checkLimits(site string) {
	nodes := 0
	for _, p := range s.partitions {
		if p.Site == site {
			nodes += len(p.Nodes)
		}
	}
	if most := siteOf(&s.world, site).Limits.Nodes; most > 0 && nodes > most {
		s.Fatalf("site %s has %d nodes and may have %d", site, nodes, most)
	}
}

func (s *simulation) longest() time.Duration {
	var most time.Duration
	for _, w := range s.waits {
		most = max(most, w)
	}
	return most
}

// A day of mixed jobs on two small sites: all of them end, nothing waits much
// longer than the work before it, and nothing is made in vain.
func TestADayOfMixedJobs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 7))
			w := world()
			w.Sites[0].Limits.Nodes, w.Sites[1].Limits.Nodes = 6, 4
			s := newSimulation(t, w)
			const jobs = 500
			for i := range jobs {
				r := skyport.Request{CPUs: 1 + random.IntN(4), Priority: random.IntN(2), KeepAlive: skyport.Seconds(random.IntN(4) * 100)}
				switch random.IntN(10) {
				case 0:
					r.Nodes = 2 + random.IntN(2)
				case 1:
					r.ContainerImage = "python:3"
				case 2:
					r.Flavor, r.CPUs = "big", 0
				case 3:
					r.GPUs = 1
				case 4:
					r.CloudImage = []string{"suse", "debian"}[random.IntN(2)]
				}
				s.submit(time.Duration(random.IntN(24*60))*time.Minute, i+1, time.Duration(1+random.IntN(10))*time.Minute, r)
			}
			s.play()
			if s.finished != jobs {
				t.Errorf("%d of %d jobs ended", s.finished, jobs)
			}
			if s.longest() > 2*time.Hour {
				t.Errorf("a job waited for %s", s.longest())
			}
			if s.unused > 0 || s.created > jobs || s.created != s.drained {
				t.Errorf("%d partitions were made, %d removed, %d without a job", s.created, s.drained, s.unused)
			}
			t.Logf("%d decisions, %d partitions, longest wait %s, %.0f%% of the CPUs used", s.decisions, s.created, s.longest(), 100*float64(s.useful)/float64(s.paid))
		})
	}
}

// A full queue of one kind keeps the nodes busy: partitions are used again and
// again, and the CPUs that are paid for work.
func TestAFullQueueKeepsNodesBusy(t *testing.T) {
	t.Parallel()
	w := world()
	w.Sites, w.Sites[0].Limits.Nodes = w.Sites[:1], 4
	s := newSimulation(t, w)
	const jobs = 400
	for i := range jobs {
		s.submit(0, i+1, 10*time.Minute, skyport.Request{CPUs: 4, Flavor: "big"})
	}
	s.play()
	if used := float64(s.useful) / float64(s.paid); used < 0.9 {
		t.Errorf("only %.0f%% of the CPUs were used", 100*used)
	}
	if s.created != 4 {
		t.Errorf("%d partitions were made for 4 nodes of work", s.created)
	}
	// 8 at a time for 10 minutes each, and a little for the boot.
	if best := jobs / 8 * 10 * time.Minute; s.longest() > best+bootTime {
		t.Errorf("the last job waited for %s, at best %s", s.longest(), best)
	}
}

// A job of all nodes gets them in the end, however many small jobs come.
func TestBigJobsDoNotStarve(t *testing.T) {
	t.Parallel()
	w := world()
	w.Sites, w.Sites[0].Limits.Nodes = w.Sites[:1], 4
	s := newSimulation(t, w)
	for i := range 600 {
		s.submit(time.Duration(i)*30*time.Second, 10*(i+1), 8*time.Minute, skyport.Request{CPUs: 8, KeepAlive: 3600})
	}
	const big = 1205 // 120 came before it: four hours of work
	s.submit(time.Hour+time.Second, big, 10*time.Minute, skyport.Request{Nodes: 4, CPUs: 8})
	s.play()
	if got := s.waits[jobID(big)]; got > 3*time.Hour+30*time.Minute {
		t.Errorf("the big job waited for %s", got)
	}
	if s.longest() < 10*time.Hour {
		t.Errorf("there were not enough small jobs to starve it: the longest wait is %s", s.longest())
	}
}

// Two kinds that exclude each other take turns without a partition per job.
func TestKindsTakeTurnsWithoutThrash(t *testing.T) {
	t.Parallel()
	w := world()
	w.Sites, w.Sites[0].Limits.Nodes = w.Sites[:1], 1
	s := newSimulation(t, w)
	const jobs = 200
	for i := range jobs {
		s.submit(time.Duration(i)*time.Minute, i+1, time.Minute, skyport.Request{Flavor: []string{"small", "big"}[i%2], KeepAlive: 600})
	}
	s.play()
	if s.finished != jobs {
		t.Errorf("%d of %d jobs ended", s.finished, jobs)
	}
	if s.unused > 0 || s.created > jobs {
		t.Errorf("%d partitions were made, %d of them for nothing", s.created, s.unused)
	}
	t.Logf("%d partitions for %d jobs, longest wait %s", s.created, jobs, s.longest())
}

// crowd is a queue of forty kinds of jobs, and two hundred partitions.
func crowd(jobs, limit int) schedule.Snapshot {
	w := world()
	w.Sites[0].Limits.Nodes, w.Sites[1].Limits.Nodes = limit, limit
	for i := range 200 {
		p := partitionOf{id: fmt.Sprintf("p%03d", i), state: skyport.PartitionBusy, attempts: 1, held: schedule.Room{CPUs: 1}}
		w.Partitions = append(w.Partitions, p.at([]string{"near", "far"}[i%2], []string{"small", "big"}[i%2]))
	}
	for i := range jobs {
		j := job(i+1, skyport.Request{CPUs: 1 + i%8, Memory: skyport.Bytes(i%20) * gib / 8, Priority: i % 3})
		if i%5 == 0 {
			j = old(j)
		}
		w.Jobs = append(w.Jobs, j)
	}
	return w
}

func BenchmarkDecide(b *testing.B) {
	for name, limit := range map[string]int{"full": 100, "room": 1000, "endless": 0} {
		b.Run(name, func(b *testing.B) {
			s := crowd(100_000, limit)
			for b.Loop() {
				schedule.Decide(s)
			}
		})
	}
}

// However long the queue, deciding takes a moment.
func TestALongQueueIsDecidedAtOnce(t *testing.T) {
	s := crowd(20_000, 0)
	start := time.Now()
	d := schedule.Decide(s)
	// A twentieth of a second is usual, some seconds are with the race detector on a busy machine;
	// the bound is for what grows by the square.
	if took := time.Since(start); took > time.Minute {
		t.Errorf("a queue of %d jobs took %s", len(s.Jobs), took)
	}
	if len(d.Place) == 0 || len(d.Create) == 0 {
		t.Error("nothing was decided")
	}
}
