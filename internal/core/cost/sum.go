package cost

import (
	"cmp"
	"slices"
	"time"

	"github.com/openworkload/skyport"
)

// Sum is an amount with what it is the sum of.
type Sum struct {
	Key      string
	Currency string
	Amount   Micros
	Running  Micros // part of Amount
	NodeTime time.Duration
	Unpriced bool
}

// Filter selects what costs. The zero value of a field does not restrict.
type Filter struct {
	By    skyport.CostBy
	Owner skyport.UserID
	Job   skyport.JobID
	Since Day // the first day
	Until Day // the last day
}

// Add adds what partitions that are not removed yet cost by now to the sums of
// those that are.
func Add(settled []Sum, live []Meter, f Filter, now time.Time) []Sum {
	type key struct{ key, currency string }
	at := map[key]int{}
	sums := slices.Clone(settled)
	for i, s := range sums {
		at[key{s.Key, s.Currency}] = i
	}
	for i := range live {
		m := &live[i]
		for _, share := range m.Shares(now) {
			if !f.takes(&share) {
				continue
			}
			k := key{f.keyOf(m, &share), m.Currency}
			n, ok := at[k]
			if !ok {
				n = len(sums)
				at[k] = n
				sums = append(sums, Sum{Key: k.key, Currency: k.currency})
			}
			sum := &sums[n]
			sum.Amount, sum.Running = sum.Amount.plus(share.Amount), sum.Running.plus(share.Amount)
			sum.NodeTime += share.NodeTime
			sum.Unpriced = sum.Unpriced || m.Unpriced
		}
	}
	slices.SortFunc(sums, func(a, b Sum) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Currency, b.Currency)) })
	return sums
}

func (f *Filter) takes(s *Share) bool {
	return (f.Owner == "" || s.Owner == f.Owner) && (f.Job == "" || s.Job == f.Job) &&
		(f.Since == "" || s.Day >= f.Since) && (f.Until == "" || s.Day <= f.Until)
}

func (f *Filter) keyOf(m *Meter, s *Share) string {
	switch f.By {
	case skyport.CostByUser:
		return string(s.Owner)
	case skyport.CostBySite:
		return m.Site
	case skyport.CostByMonth:
		return s.Day.Month()
	case skyport.CostByJob:
		return string(s.Job)
	}
	return m.Account
}

// Words makes of sums what terminals are told.
func Words(sums []Sum) []skyport.Cost {
	list := make([]skyport.Cost, len(sums))
	for i, s := range sums {
		list[i] = skyport.Cost{
			Key: s.Key, Currency: s.Currency, Amount: s.Amount.Float(), Running: s.Running.Float(),
			NodeHours: s.NodeTime.Hours(), Unpriced: s.Unpriced,
		}
	}
	return list
}
