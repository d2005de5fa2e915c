package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/openworkload/skyport"
)

// CostFilter says which costs to sum up, and by what. The zero value of a field
// does not restrict.
type CostFilter struct {
	By skyport.CostBy // default: account
	// Since and Until are the first and the last day or month, in UTC, such as
	// 2026-11-22 or 2026-11.
	Since, Until string
	// All is of all users, for the user as whom core runs.
	All bool
}

// Costs tells what was spent, and how the budgets of the caller's accounts stand.
func (c *Client) Costs(ctx context.Context, filter CostFilter) (skyport.CostReport, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("by", string(filter.By))
	set("since", filter.Since)
	set("until", filter.Until)
	if filter.All {
		set("all", "true")
	}
	var report skyport.CostReport
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/costs", query: query, out: &report})
	return report, err
}

// JobCost tells what a job has cost so far, or in the end: one sum for each
// currency.
func (c *Client) JobCost(ctx context.Context, id skyport.JobID) ([]skyport.Cost, error) {
	var answer struct {
		Costs []skyport.Cost `json:"costs"`
	}
	_, err := c.do(ctx, call{method: http.MethodGet, path: jobPath(id, "cost"), out: &answer})
	return answer.Costs, err
}
