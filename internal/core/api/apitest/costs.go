package apitest

import (
	"context"
	"slices"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

// Spending is what the backend tells of money. It is set before use.
type Spending struct {
	// Of answers a query; nil: nothing was spent.
	Of       func(q api.CostQuery) []skyport.Cost
	Budgets  []skyport.BudgetStatus
	Operator skyport.UserID
	// Warning is put on every job that is submitted, "" is none.
	Warning string
}

// Costs implements [api.CostBackend].
func (b *Backend) Costs(_ context.Context, q api.CostQuery) ([]skyport.Cost, error) {
	if err := b.failing("Costs"); err != nil || b.Spending.Of == nil {
		return nil, err
	}
	return b.Spending.Of(q), nil
}

// Budgets implements [api.CostBackend].
func (b *Backend) Budgets() []skyport.BudgetStatus { return slices.Clone(b.Spending.Budgets) }

// Operates implements [api.CostBackend].
func (b *Backend) Operates(user skyport.UserID) bool { return b.Spending.Operator == user }
