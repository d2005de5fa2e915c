package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/cost"
	"github.com/openworkload/skyport/internal/core/store"
)

// occupied is a partition that costs, with the attempts of jobs on it.
func occupied(t *testing.T, s *store.Store, perHour float64, jobs ...*skyport.Job) skyport.Partition {
	t.Helper()
	p := skyport.Partition{
		ID: skyport.NewPartitionID(), State: skyport.PartitionPlanned, Account: "default", Site: "cloud",
		Flavor: skyport.Flavor{Name: "small", Price: perHour}, Nodes: []skyport.Node{{Name: "n"}},
	}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.InsertPartition(&p); err != nil {
			return err
		}
		for _, job := range jobs {
			if err := tx.InsertJob(job, nil); err != nil {
				return err
			}
			a := skyport.Attempt{Job: job.ID, Number: 1, Partition: p.ID, CPUs: 2}
			if err := tx.InsertAttempt(&a); err != nil {
				return err
			}
		}
		if err := tx.MovePartition(&p, skyport.PartitionCreating, ""); err != nil {
			return err
		}
		m := cost.Meter{
			Partition: p.ID, Account: p.Account, Site: p.Site, Flavor: p.Flavor.Name, Nodes: 1, Currency: "EUR", Price: cost.PriceOf(perHour), Spot: true,
		}
		return tx.StartMeter(&m)
	}))
	return p
}

// removed takes a partition through the rest of its life.
func removed(t *testing.T, s *store.Store, p *skyport.Partition) {
	t.Helper()
	for _, to := range []skyport.PartitionState{skyport.PartitionFailed, skyport.PartitionDeleting, skyport.PartitionDeleted, skyport.PartitionDeleted} {
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.MovePartition(p, to, string(to)) }))
	}
}

func spending(t *testing.T, s *store.Store, f cost.Filter) store.Spending {
	t.Helper()
	spent, err := s.Spending(t.Context(), f)
	must(t, err)
	return spent
}

func costs(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	one, two := newJob("one"), newJob("two")
	two.Owner = "two"
	// So expensive that some microseconds can be seen.
	p := occupied(t, s, 1e6, &one, &two)
	never := skyport.Partition{ID: skyport.NewPartitionID(), State: skyport.PartitionPlanned}
	must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertPartition(&never) }))
	removed(t, s, &never)

	must(t, s.Close())
	s = f.Open(t, nil)
	defer s.Close()
	live := spending(t, s, cost.Filter{})
	if len(live.Settled) != 0 || len(live.Live) != 1 || len(live.Live[0].Holds) != 2 {
		t.Fatalf("while it runs: %+v", live)
	}
	m := live.Live[0]
	if m.Partition != p.ID || m.Currency != "EUR" || m.Price != 1e15 || !m.Spot || m.Unpriced || m.Began.IsZero() || m.Flavor != "small" {
		t.Errorf("meter is %+v", m)
	}
	// What runs goes on as it is.
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		again := cost.Meter{Partition: p.ID, Currency: "USD"}
		return tx.StartMeter(&again)
	}))
	// The second ends early: it pays less.
	must(t, s.Update(t.Context(), func(tx *store.Tx) error {
		a, err := tx.Attempt(two.ID, 1)
		if err != nil {
			return err
		}
		a.Phase = skyport.PhaseDone
		return tx.UpdateAttempt(&a)
	}))
	for _, h := range spending(t, s, cost.Filter{}).Live[0].Holds {
		if h.Ended.IsZero() != (h.Job == one.ID) || h.CPUs != 2 || h.Owner == "" || h.Attempt != 1 {
			t.Errorf("hold is %+v", h)
		}
	}
	time.Sleep(time.Millisecond) // costs a quarter of a euro
	removed(t, s, &p)

	all := spending(t, s, cost.Filter{By: skyport.CostByAccount})
	if len(all.Live) != 0 || len(all.Settled) != 1 {
		t.Fatalf("in the end: %+v", all)
	}
	whole := all.Settled[0]
	if whole.Key != "default" || whole.Currency != "EUR" || whole.Amount < 250_000 || whole.NodeTime < time.Millisecond {
		t.Errorf("it cost %+v", whole)
	}
	byJob := spending(t, s, cost.Filter{By: skyport.CostByJob, Since: cost.DayOf(m.Began), Until: cost.DayOf(time.Now())}).Settled
	if len(byJob) != 2 || byJob[0].Amount+byJob[1].Amount != whole.Amount {
		t.Errorf("jobs cost %+v of %+v", byJob, whole)
	}
	for _, c := range []struct {
		filter cost.Filter
		keys   []string
	}{
		{cost.Filter{By: skyport.CostByUser, Owner: "two"}, []string{"two"}},
		{cost.Filter{By: skyport.CostByJob, Job: one.ID}, []string{string(one.ID)}},
		{cost.Filter{By: skyport.CostBySite}, []string{"cloud"}},
		{cost.Filter{By: skyport.CostByMonth, Owner: "two"}, []string{cost.DayOf(m.Began).Month()}},
		{cost.Filter{By: skyport.CostByUser, Owner: "nobody"}, nil},
		{cost.Filter{Until: "2001-01-01"}, nil},
		{cost.Filter{Since: "2999-01-01"}, nil},
	} {
		var keys []string
		for _, sum := range spending(t, s, c.filter).Settled {
			keys = append(keys, sum.Key)
		}
		if diff := cmp.Diff(c.keys, keys, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c.filter, diff)
		}
	}
	sums, meters, err := s.SpendingBySite(t.Context())
	must(t, err)
	want := []store.SiteSum{{Account: "default", Site: "cloud", Currency: "EUR", Amount: whole.Amount}}
	if diff := cmp.Diff(want, sums); diff != "" || len(meters) != 0 {
		t.Errorf("by site (-want +got), %d meters:\n%s", len(meters), diff)
	}
}

func costsOutliveJobs(t *testing.T, f Fixture) {
	s := f.Open(t, nil)
	defer s.Close()
	early, late := newJob("forgotten while it costs"), newJob("forgotten later")
	p := occupied(t, s, 1e6, &early, &late)
	forget := func(id skyport.JobID) {
		t.Helper()
		must(t, s.Update(t.Context(), func(tx *store.Tx) error { return tx.ForgetJob(id) }))
	}
	forget(early.ID)
	removed(t, s, &p)
	forget(late.ID)
	got := spending(t, s, cost.Filter{By: skyport.CostByJob}).Settled
	if len(got) != 2 {
		t.Errorf("left of the costs: %+v", got)
	}
}
