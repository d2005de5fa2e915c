package core

import (
	"context"
	"slices"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/cost"
)

// Costs sums up what was spent: what the ledger has, and what runs.
func (b *backend) Costs(ctx context.Context, q api.CostQuery) ([]skyport.Cost, error) {
	filter := cost.Filter{By: q.By, Owner: q.Owner, Job: q.Job, Since: cost.Day(q.Since), Until: cost.Day(q.Until)}
	spent, err := b.store.Spending(ctx, filter)
	if err != nil {
		return nil, err
	}
	return cost.Words(cost.Add(spent.Settled, spent.Live, filter, time.Now())), nil
}

// Budgets tells how the budgets of all accounts stand, as of the last look.
func (b *backend) Budgets() []skyport.BudgetStatus {
	purses := b.engine.Purses()
	list := make([]skyport.BudgetStatus, len(purses))
	for i := range purses {
		list[i] = purses[i].Status()
	}
	return list
}

// Operates says whether the user is the one as whom core runs.
func (b *backend) Operates(user skyport.UserID) bool { return b.person != "" && user == b.person }

// afford refuses what the account can no longer pay.
func (b *backend) afford(account string) error {
	_, refusal := b.engine.Afford(account)
	return refusal
}

// warnings are what a new job of the account begins with.
func (b *backend) warnings(account string) []string {
	if warning, _ := b.engine.Afford(account); warning != "" {
		return []string{warning}
	}
	return nil
}

// estimate puts on a plan what the job may cost. It pays for the whole
// partition at most.
func (b *backend) estimate(plan *api.Plan, flavor skyport.Flavor) {
	sites := b.catalog.Sites()
	if at := slices.IndexFunc(sites, func(s skyport.Site) bool { return s.Name == plan.Site }); at >= 0 {
		plan.Currency = sites[at].Currency
	}
	plan.Unpriced = flavor.Unpriced
	plan.MostCost = plan.Price * plan.Request.TimeLimit.Duration().Hours()
}
