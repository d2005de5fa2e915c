package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
	"github.com/openworkload/skyport/internal/core/api"
)

func TestCosts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	since := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	mine := skyport.BudgetStatus{Account: "lab", Budget: skyport.Budget{Amount: 10, Currency: "EUR", Period: skyport.BudgetMonth}, Spent: 8, Since: since}
	h.Catalog.Accounts = []skyport.Account{{Name: "lab", Users: []string{ann.Name}}, {Name: "theirs", Users: []string{bob.Name}}}
	h.Spending.Budgets = []skyport.BudgetStatus{mine, {Account: "theirs", UsedUp: true}}
	h.Spending.Operator = bob.ID
	want := []skyport.Cost{{Key: "lab", Currency: "EUR", Amount: 8, Running: 1, NodeHours: 2, Unpriced: true}}
	var asked []api.CostQuery
	h.Spending.Of = func(q api.CostQuery) []skyport.Cost {
		asked = append(asked, q)
		return want
	}
	got, err := h.ann.Costs(t.Context(), client.CostFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(skyport.CostReport{Costs: want, Budgets: []skyport.BudgetStatus{mine}}, got); diff != "" {
		t.Errorf("costs (-want +got):\n%s", diff)
	}
	if _, err := h.bob.Costs(t.Context(), client.CostFilter{By: skyport.CostByUser, Since: "2026-10", Until: "2026-11-22", All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.ann.JobCost(t.Context(), h.job); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.CostQuery{
		{By: skyport.CostByAccount, Owner: ann.ID},
		{By: skyport.CostByUser, Since: "2026-10-01", Until: "2026-11-22"},
		{By: skyport.CostByJob, Job: h.job},
	}, asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	for _, c := range []struct {
		code   skyport.Code
		filter client.CostFilter
	}{
		{skyport.CodeForbidden, client.CostFilter{All: true}},
		{skyport.CodeInvalid, client.CostFilter{By: "moon"}},
		{skyport.CodeInvalid, client.CostFilter{Since: "2026"}},
		{skyport.CodeInvalid, client.CostFilter{Until: "2026-13-01"}},
	} {
		if _, err := h.ann.Costs(t.Context(), c.filter); skyport.CodeOf(err) != c.code {
			t.Errorf("%+v: %v, want %s", c.filter, err, c.code)
		}
	}
	if _, err := h.bob.JobCost(t.Context(), h.job); skyport.CodeOf(err) != skyport.CodeForbidden && skyport.CodeOf(err) != skyport.CodeNotFound {
		t.Errorf("the cost of somebody else's job: %v", err)
	}
	if len(asked) != 3 {
		t.Errorf("what was refused was asked for: %+v", asked[3:])
	}
	h.Spending.Of, h.Spending.Budgets = nil, nil
	if got, err := h.ann.Costs(t.Context(), client.CostFilter{}); err != nil || got.Costs == nil || got.Budgets == nil {
		t.Errorf("nothing is no list: %+v, %v", got, err)
	}
}
