package skyport

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Cost is what nodes cost, of one currency: different currencies are never
// added up.
type Cost struct {
	Key      string  `json:"key" doc:"Whose or what it is the cost of: id of a user or a job, name of an account or a site, a month such as 2026-11"`
	Currency string  `json:"currency" doc:"Such as USD; empty: the site does not say"`
	Amount   float64 `json:"amount" doc:"All of it, running included"`
	Running  float64 `json:"running" doc:"The part that grows: of partitions that are not removed yet"`

	NodeHours float64 `json:"node_hours" doc:"How long nodes were held, summed up over nodes"`
	Unpriced  bool    `json:"unpriced,omitempty" doc:"Some of the nodes have no price that is known, and count as 0"`
}

// CostBy says what costs are summed up by.
type CostBy string

const (
	CostByUser    CostBy = "user"
	CostByAccount CostBy = "account"
	CostBySite    CostBy = "site"
	CostByMonth   CostBy = "month"
	CostByJob     CostBy = "job"
)

// CostReport is what was spent, and how the budgets of the caller's accounts stand.
type CostReport struct {
	Costs   []Cost         `json:"costs" doc:"Sums, by key and currency"`
	Budgets []BudgetStatus `json:"budgets" doc:"Of the accounts that the caller may spend from and that have one"`
}

// Budget is what an account may spend.
type Budget struct {
	Amount   float64      `json:"amount" doc:"What may be spent in the period"`
	Currency string       `json:"currency,omitempty" doc:"Such as USD. Sites that say another currency cannot be used; what sites cost that say none counts as this one"`
	Period   BudgetPeriod `json:"period" enum:"month,total" doc:"What it is for: each calendar month (UTC), or all time"`
	EndJobs  bool         `json:"end_jobs,omitempty" doc:"Running jobs are ended, with their results, when it is used up"`
}

// BudgetPeriod is what a budget is for.
type BudgetPeriod string

const (
	BudgetMonth BudgetPeriod = "month" // each calendar month, in UTC
	BudgetTotal BudgetPeriod = "total" // all time
)

// Covers says whether what costs in a currency is paid from the budget: in its
// own, or in one that is not said.
func (b *Budget) Covers(currency string) bool {
	return b == nil || currency == "" || currency == b.Currency
}

// BudgetStatus is how the budget of an account stands.
type BudgetStatus struct {
	Account string    `json:"account"`
	Budget  Budget    `json:"budget"`
	Spent   float64   `json:"spent" doc:"In the period, running partitions included"`
	Since   time.Time `json:"since,omitzero" doc:"Beginning of the period; absent: all time"`
	UsedUp  bool      `json:"used_up" doc:"New jobs are refused, and queued ones wait"`
}

// Money spells an amount for people: with two decimals, and four where it is
// small. The currency may be empty.
func Money(amount float64, currency string) string {
	words := fmt.Sprintf("%.2f", amount)
	if amount != 0 && math.Abs(amount) < 1 {
		words = fmt.Sprintf("%.4f", amount)
	}
	return strings.TrimSpace(words + " " + currency)
}
