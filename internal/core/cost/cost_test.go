package cost_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/cost"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func after(d time.Duration) time.Time { return noon.Add(d) }

func hold(job string, cpus int, began, ended time.Duration) cost.Hold {
	h := cost.Hold{Job: skyport.JobID(job), Attempt: 1, Owner: "owner of " + skyport.UserID(job), CPUs: cpus, Began: after(began)}
	if ended >= 0 {
		h.Ended = after(ended)
	}
	return h
}

func meter(perHour float64, nodes int, holds ...cost.Hold) *cost.Meter {
	return &cost.Meter{Account: "lab", Site: "here", Nodes: nodes, Price: cost.PriceOf(perHour), Began: noon, Holds: holds}
}

// paid tells who pays what, without days.
func paid(m *cost.Meter, until time.Duration) map[string]float64 {
	sums := map[string]float64{}
	for _, s := range m.Shares(after(until)) {
		sums[string(s.Job)] += s.Amount.Float()
	}
	return sums
}

func TestWhoPays(t *testing.T) {
	t.Parallel()
	const h = time.Hour
	for _, c := range []struct {
		name  string
		meter *cost.Meter
		until time.Duration
		want  map[string]float64
	}{
		{"nothing yet", meter(1, 1, hold("a", 1, 0, -1)), 0, map[string]float64{}},
		{"one alone", meter(1.5, 2, hold("a", 1, -h, -1)), 2 * h, map[string]float64{"a": 6}},
		{"boot and removal are the job's", meter(1, 1, hold("a", 4, h, 2*h)), 3 * h, map[string]float64{"a": 3}},
		{"by cpus", meter(4, 1, hold("a", 1, 0, -1), hold("b", 3, 0, -1)), h, map[string]float64{"a": 1, "b": 3}},
		{"alike without cpus", meter(4, 1, hold("a", 0, 0, -1), hold("b", 0, 0, -1)), h, map[string]float64{"a": 2, "b": 2}},
		{"idle is of who was last", meter(1, 1, hold("a", 1, 0, h), hold("b", 1, 3*h, 4*h)), 6 * h, map[string]float64{"a": 3, "b": 3}},
		{"the longer of two is last", meter(2, 1, hold("a", 1, 0, h), hold("b", 1, 0, 2*h)), 4 * h, map[string]float64{"a": 1, "b": 7}},
		{"canceled before the site was asked", meter(1, 1, hold("a", 1, -2*h, -h)), h, map[string]float64{"a": 1}},
		{"nobody", meter(1, 1), h, map[string]float64{"": 1}},
		{"free", meter(0, 1, hold("a", 1, 0, -1)), h, map[string]float64{"a": 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, paid(c.meter, c.until)); diff != "" {
				t.Errorf("shares (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDaysAndMonthsAreUTC(t *testing.T) {
	t.Parallel()
	m := meter(1, 1, hold("a", 1, 0, -1))
	m.Began = time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC).In(time.FixedZone("east", 5*3600))
	var got []string
	for _, s := range m.Shares(m.Began.Add(26 * time.Hour)) {
		got = append(got, fmt.Sprintf("%s %s %v %s", s.Day, s.Day.Month(), s.Amount.Float(), s.NodeTime))
	}
	want := []string{"2026-11-30 2026-11 1 1h0m0s", "2026-12-01 2026-12 24 24h0m0s", "2026-12-02 2026-12 1 1h0m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("days (-want +got):\n%s", diff)
	}
}

// TestSharesAddUp is what the package promises: whatever the holds, the shares
// are the partition's cost to the millionth, none is below zero, and the order
// of the holds does not matter.
func TestSharesAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		moment := func(name string) time.Duration {
			return time.Duration(rapid.Int64Range(int64(-time.Hour), int64(100*time.Hour)).Draw(t, name))
		}
		var holds []cost.Hold
		for i := range rapid.IntRange(0, 8).Draw(t, "holds") {
			h := hold(fmt.Sprint("job", i%5), rapid.IntRange(0, 9).Draw(t, "cpus"), moment("began"), -1)
			h.Attempt = i
			if rapid.Bool().Draw(t, "ended") {
				h.Ended = after(moment("until"))
			}
			holds = append(holds, h)
		}
		m := meter(rapid.Float64Range(0, 200).Draw(t, "price"), rapid.IntRange(0, 300).Draw(t, "nodes"), holds...)
		until := after(moment("now"))
		shares := m.Shares(until)
		var sum cost.Micros
		var nodeTime time.Duration
		for _, s := range shares {
			if s.Amount < 0 || s.NodeTime < 0 || s.Ended.Before(s.Began) {
				t.Fatalf("a share below zero: %+v", s)
			}
			sum += s.Amount
			nodeTime += s.NodeTime
		}
		if want := m.Between(m.Began, until); sum != want {
			t.Fatalf("shares add up to %d, the partition costs %d", sum, want)
		}
		if want := max(0, until.Sub(m.Began)) * time.Duration(m.Nodes); nodeTime != want {
			t.Fatalf("node time adds up to %s, want %s", nodeTime, want)
		}
		m.Holds = rapid.Permutation(slices.Clone(holds)).Draw(t, "order")
		if diff := cmp.Diff(shares, m.Shares(until)); diff != "" {
			t.Fatalf("the order of the holds matters (-before +after):\n%s", diff)
		}
		// A look in between changes nothing, as long as nothing ends or begins.
		mid := m.Began.Add(until.Sub(m.Began) / 2)
		if m.Between(time.Time{}, mid)+m.Between(mid, until) != m.Between(m.Began, until) {
			t.Fatal("two halves are not the whole")
		}
	})
}

func TestAmountsDoNotRunOver(t *testing.T) {
	t.Parallel()
	m := meter(math.MaxFloat64, math.MaxInt32, hold("a", 1, 0, -1))
	if sum := cost.Add([]cost.Sum{{Key: "lab", Amount: math.MaxInt64 - 1}}, []cost.Meter{*m}, cost.Filter{}, after(1e6*time.Hour)); sum[0].Amount < 0 {
		t.Errorf("ran over: %+v", sum)
	}
	for _, odd := range []float64{math.NaN(), math.Inf(-1), -1} {
		if p := cost.PriceOf(odd); p != 0 {
			t.Errorf("price %v is %d", odd, p)
		}
	}
	if cost.MicrosOf(math.Inf(1)) != math.MaxInt64 || cost.MicrosOf(math.NaN()) != 0 || cost.MicrosOf(math.Inf(-1)) >= 0 {
		t.Error("amounts that are none")
	}
}

func TestAddKeepsCurrenciesApart(t *testing.T) {
	t.Parallel()
	usd, eur := meter(1, 1, hold("a", 1, 0, -1)), meter(2, 1, hold("b", 1, 0, -1))
	usd.Currency, eur.Currency, eur.Unpriced = "USD", "EUR", true
	settled := []cost.Sum{{Key: "lab", Currency: "USD", Amount: 5e6, NodeTime: time.Hour}}
	got := cost.Add(settled, []cost.Meter{*usd, *eur}, cost.Filter{By: skyport.CostByAccount}, after(time.Hour))
	want := []cost.Sum{
		{Key: "lab", Currency: "EUR", Amount: 2e6, Running: 2e6, NodeTime: time.Hour, Unpriced: true},
		{Key: "lab", Currency: "USD", Amount: 6e6, Running: 1e6, NodeTime: 2 * time.Hour},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		filter cost.Filter
		key    string
	}{
		{cost.Filter{By: skyport.CostByUser, Job: "a"}, "owner of a"},
		{cost.Filter{By: skyport.CostBySite, Owner: "owner of a"}, "here"},
		{cost.Filter{By: skyport.CostByMonth, Job: "a", Since: "2026-11-22", Until: "2026-11-22"}, "2026-11"},
		{cost.Filter{By: skyport.CostByJob, Owner: "owner of a"}, "a"},
		{cost.Filter{By: skyport.CostByJob, Since: "2026-11-23"}, ""},
		{cost.Filter{By: skyport.CostByJob, Until: "2026-11-21"}, ""},
	} {
		got := cost.Words(cost.Add(nil, []cost.Meter{*usd, *eur}, c.filter, after(time.Hour)))
		switch {
		case c.key == "" && len(got) == 0:
		case len(got) != 1 || got[0].Key != c.key || got[0].Amount != 1 || got[0].Running != 1 || got[0].NodeHours != 1 || got[0].Currency != "USD":
			t.Errorf("%+v gives %+v", c.filter, got)
		}
	}
}

func TestPurses(t *testing.T) {
	t.Parallel()
	spent := func(amount float64) []cost.Sum {
		return []cost.Sum{
			{Key: "lab", Currency: "EUR", Amount: cost.MicrosOf(amount)},
			{Key: "lab", Currency: "USD", Amount: 1e9},
			{Key: "other", Currency: "EUR", Amount: 1e9},
		}
	}
	running := *meter(1, 1)
	running.Began = time.Date(2026, 10, 31, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		budget skyport.Budget
		spent  float64
		live   []cost.Meter
		level  cost.Level
		next   time.Time
		says   string
	}{
		{
			"fine",
			skyport.Budget{Amount: 100, Currency: "EUR", Period: skyport.BudgetMonth},
			79.99, nil, cost.Fine,
			time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "",
		},
		{
			"warned",
			skyport.Budget{Amount: 100, Currency: "EUR", Period: skyport.BudgetTotal},
			80, nil, cost.Warned,
			time.Time{},
			"account lab has spent 80.00 of 100.00 EUR in all (80 %) of its budget; at 100 % new jobs are refused",
		},
		{
			"used up",
			skyport.Budget{Amount: 100, Currency: "EUR", Period: skyport.BudgetTotal, EndJobs: true},
			100, nil, cost.UsedUp,
			time.Time{},
			"the budget of account lab is used up: it has spent 100.00 of 100.00 EUR in all (100 %)",
		},
		// 22 days and 12 hours of November at 1 an hour are 516.
		{
			"running, of this month only",
			skyport.Budget{Amount: 1000, Currency: "EUR", Period: skyport.BudgetMonth},
			0,
			[]cost.Meter{running},
			cost.Fine,
			time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC), "",
		},
		{
			"running to the next level",
			skyport.Budget{Amount: 520, Currency: "EUR", Period: skyport.BudgetMonth},
			0,
			[]cost.Meter{running},
			cost.Warned,
			after(4 * time.Hour), "account lab has spent 516.00 of 520.00 EUR this month (99 %) of its budget; at 100 % new jobs are refused",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := cost.Weigh("lab", c.budget, spent(c.spent), c.live, noon)
			if p.Level != c.level || !p.Next(noon).Equal(c.next) || p.Warning() != c.says {
				t.Errorf("level %d, next %s, %q", p.Level, p.Next(noon), p.Warning())
			}
			err := p.Refusal()
			if refused := err != nil; refused != (c.level == cost.UsedUp) || p.Status().UsedUp != refused || (p.Reason() != "") != refused {
				t.Errorf("refusal %v, status %+v", err, p.Status())
			}
			if err != nil && (skyport.CodeOf(err) != skyport.CodeBudget || skyport.HintOf(err) == "") {
				t.Errorf("refusal %v, hint %q", err, skyport.HintOf(err))
			}
		})
	}
}

// TestNextIsWhenTheLevelChanges: a look at the moment that Next tells finds
// another level or period, whatever the price.
func TestNextIsWhenTheLevelChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := skyport.Budget{
			Amount: rapid.Float64Range(0.01, 1e4).Draw(t, "amount"),
			Period: rapid.SampledFrom([]skyport.BudgetPeriod{skyport.BudgetMonth, skyport.BudgetTotal}).Draw(t, "period"),
		}
		live := []cost.Meter{*meter(rapid.Float64Range(0.001, 100).Draw(t, "price"), rapid.IntRange(1, 9).Draw(t, "nodes"))}
		now := after(time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "now")))
		p := cost.Weigh("lab", b, nil, live, now)
		next := p.Next(now)
		if next.IsZero() {
			return
		}
		if !next.After(now) {
			t.Fatalf("next %s is not after %s", next, now)
		}
		then := cost.Weigh("lab", b, nil, live, next)
		if then.Level == p.Level && then.Since.Equal(p.Since) {
			t.Fatalf("nothing is different at %s: %+v, %+v", next, p, then)
		}
	})
}
