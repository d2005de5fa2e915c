package cost

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/openworkload/skyport"
)

// Meter is what is known of a partition that costs.
type Meter struct {
	Partition skyport.PartitionID
	Account   string
	Site      string
	Flavor    string
	Spot      bool
	Nodes     int
	Currency  string
	// Price is that of one node for an hour, in billionths.
	Price    int64
	Unpriced bool
	Began    time.Time
	// Holds are the attempts that hold it, or held it.
	Holds []Hold
}

// Hold is the time in which an attempt has room on a partition.
type Hold struct {
	Job     skyport.JobID
	Attempt int
	Owner   skyport.UserID
	CPUs    int
	Began   time.Time
	Ended   time.Time // zero while it goes on
}

// Share is the part of a meter that one attempt pays for one day.
type Share struct {
	Job      skyport.JobID
	Attempt  int
	Owner    skyport.UserID
	Day      Day
	Began    time.Time
	Ended    time.Time
	Amount   Micros
	NodeTime time.Duration // summed up over nodes
}

// PriceOf makes a price of a meter from one per node and hour.
func PriceOf(perHour float64) int64 {
	const most = 1e6 // per hour: no node costs that
	if math.IsNaN(perHour) || perHour <= 0 {
		return 0
	}
	return int64(math.Round(min(perHour, most) * 1e9))
}

// PerHour is what all nodes of the partition cost for an hour.
func (m *Meter) PerHour() Micros { return m.after(time.Hour) }

// after is what the meter shows some time after its beginning.
func (m *Meter) after(d time.Duration) Micros {
	const hour = int64(time.Hour / time.Microsecond)
	perHour := scale(m.Price, int64(max(0, m.Nodes)), 1)
	return Micros(scale(perHour, d.Microseconds(), hour*1000)) // billionths to millionths
}

// Between is what the meter added from one moment to another. The zero time
// from means from its beginning.
func (m *Meter) Between(from, until time.Time) Micros {
	return m.after(max(0, until.Sub(m.Began))) - m.after(max(0, m.since(from)))
}

func (m *Meter) since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return t.Sub(m.Began)
}

// Shares tells who pays which part of what the meter shows at a moment, by day.
// They add up to Between(Began, until) exactly. They are in the order of job,
// attempt and day, whatever the order of the holds is. Without any hold there
// is one payer without a job for each day.
func (m *Meter) Shares(until time.Time) []Share {
	if !until.After(m.Began) {
		return nil
	}
	s := sweep{meter: m, until: until, sums: map[payer]*Share{}}
	s.open()
	for at := m.Began; at.Before(until); {
		s.to(at)
		end := s.next(at)
		s.pay(at, end)
		at = end
	}
	shares := make([]Share, 0, len(s.sums))
	for _, share := range s.sums {
		shares = append(shares, *share)
	}
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Day, b.Day))
	})
	return shares
}

// sweep goes over the time of a meter.
type sweep struct {
	meter *Meter
	until time.Time
	holds []Hold // by their beginnings; all end
	begun int    // of holds: how many have
	now   []Hold // hold it at the moment, by job and attempt
	idle  []Hold // who pays when none does
	sums  map[payer]*Share
}

type payer struct {
	job     skyport.JobID
	attempt int
	day     Day
}

// open puts the holds in order and inside the time of the meter.
func (s *sweep) open() {
	s.holds = slices.Clone(s.meter.Holds)
	for i := range s.holds {
		h := &s.holds[i]
		if h.Ended.IsZero() || h.Ended.After(s.until) {
			h.Ended = s.until
		}
		h.Began, h.Ended = later(h.Began, s.meter.Began), later(h.Ended, s.meter.Began)
		h.Ended = later(h.Ended, h.Began)
	}
	slices.SortFunc(s.holds, func(a, b Hold) int {
		return cmp.Or(a.Began.Compare(b.Began), byName(a, b))
	})
	for _, h := range s.holds {
		if h.Began.After(s.holds[0].Began) {
			break
		}
		s.idle = append(s.idle, h)
	}
}

// to brings the sweep to a moment: who holds the partition then, and who pays
// if none does.
func (s *sweep) to(at time.Time) {
	for ; s.begun < len(s.holds) && !s.holds[s.begun].Began.After(at); s.begun++ {
		s.now = append(s.now, s.holds[s.begun])
	}
	slices.SortFunc(s.now, byName)
	var last time.Time
	s.now = slices.DeleteFunc(s.now, func(h Hold) bool {
		if h.Ended.After(at) {
			return false
		}
		if h.Ended.After(last) {
			last, s.idle = h.Ended, nil
		}
		if h.Ended.Equal(last) {
			s.idle = append(s.idle, h)
		}
		return true
	})
}

// next is the end of the stretch that begins at a moment: nothing changes in it.
func (s *sweep) next(at time.Time) time.Time {
	end := earlier(s.until, nextDay(at))
	if s.begun < len(s.holds) {
		end = earlier(end, s.holds[s.begun].Began)
	}
	for _, h := range s.now {
		end = earlier(end, h.Ended)
	}
	return end
}

// pay shares a stretch out.
func (s *sweep) pay(from, until time.Time) {
	holders := s.now
	if len(holders) == 0 {
		holders = s.idle
	}
	if len(holders) == 0 {
		holders = []Hold{{}}
	}
	total, weight := int64(0), func(h Hold) int64 { return int64(max(0, h.CPUs)) }
	for _, h := range holders {
		total += weight(h)
	}
	if total == 0 {
		total, weight = int64(len(holders)), func(Hold) int64 { return 1 }
	}
	amount := int64(s.meter.Between(from, until))
	nodeTime := scale(int64(until.Sub(from)), int64(max(0, s.meter.Nodes)), 1)
	day, before := DayOf(from), int64(0)
	for _, h := range holders {
		upTo := before + weight(h)
		key := payer{h.Job, h.Attempt, day}
		share := s.sums[key]
		if share == nil {
			share = &Share{Job: h.Job, Attempt: h.Attempt, Owner: h.Owner, Day: day, Began: from}
			s.sums[key] = share
		}
		share.Ended = until
		share.Amount += Micros(scale(amount, upTo, total) - scale(amount, before, total))
		share.NodeTime += time.Duration(scale(nodeTime, upTo, total) - scale(nodeTime, before, total))
		before = upTo
	}
}

func byName(a, b Hold) int {
	return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Attempt, b.Attempt))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
