package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/openworkload/skyport"
)

// CostBackend is what the API needs of core to tell of money.
type CostBackend interface {
	// Costs sums up what was spent, by key and currency.
	Costs(ctx context.Context, q CostQuery) ([]skyport.Cost, error)
	// Budgets tells how those of all accounts stand.
	Budgets() []skyport.BudgetStatus
	// Operates says whether the user is the one as whom core runs, who may see
	// what all users spend.
	Operates(user skyport.UserID) bool
}

// CostQuery selects what costs. The zero value of a field does not restrict.
type CostQuery struct {
	By    skyport.CostBy
	Owner skyport.UserID
	Job   skyport.JobID
	// Since and Until are the first and the last day, as 2026-11-22, in UTC.
	Since, Until string
}

// costRoutes tell what was spent.
func (a *api) costRoutes() {
	costs := []string{"Costs"}
	operation(a, huma.Operation{
		OperationID: "list-costs", Method: http.MethodGet, Path: "/v1/costs", Tags: costs,
		Summary: "What the caller has spent, and how budgets stand",
		Description: "Partitions cost from the moment at which their site is asked for them until it confirms their removal; " +
			"the jobs on them share that by their CPUs. Days and months are in UTC.",
	}, func(ctx context.Context, in *struct {
		By    skyport.CostBy `query:"by" enum:"user,account,site,month,job" default:"account" doc:"What to sum up by"`
		Since string         `query:"since" maxLength:"10" doc:"First day or month, such as 2026-11-22 or 2026-11"`
		Until string         `query:"until" maxLength:"10" doc:"Last day or month"`
		All   bool           `query:"all" doc:"Of all users; only for the user as whom core runs"`
	},
	) (*body[skyport.CostReport], error) {
		caller := callerOf(ctx)
		query := CostQuery{By: in.By, Owner: caller.ID}
		if in.All {
			if !a.Backend.Operates(caller.ID) {
				return nil, skyport.Errorf(skyport.CodeForbidden, "what all users spend is shown only to the user as whom core runs").
					WithHint("leave out all to see what you spend")
			}
			query.Owner = ""
		}
		var err error
		if query.Since, err = day("since", in.Since, "01"); err != nil {
			return nil, err
		}
		if query.Until, err = day("until", in.Until, "31"); err != nil {
			return nil, err
		}
		report := skyport.CostReport{}
		if report.Costs, err = a.Backend.Costs(ctx, query); err != nil {
			return nil, err
		}
		if report.Budgets, err = a.budgetsOf(ctx, caller); err != nil {
			return nil, err
		}
		report.Costs, report.Budgets = notNil(report.Costs), notNil(report.Budgets)
		return &body[skyport.CostReport]{Body: report}, nil
	})
	operation(a, huma.Operation{
		OperationID: "get-job-cost", Method: http.MethodGet, Path: "/v1/jobs/{id}/cost", Tags: costs,
		Summary:     "What a job has cost so far, or in the end",
		Description: "All its attempts together, one sum for each currency. It grows until the nodes that it was the last to use are removed.",
	}, func(ctx context.Context, _ *jobPath) (*body[jobCosts], error) {
		list, err := a.Backend.Costs(ctx, CostQuery{By: skyport.CostByJob, Job: jobOf(ctx).ID})
		return &body[jobCosts]{Body: jobCosts{notNil(list)}}, err
	})
}

type jobCosts struct {
	Costs []skyport.Cost `json:"costs"`
}

// budgetsOf are the budgets of the accounts that the caller may spend from.
func (a *api) budgetsOf(ctx context.Context, caller User) ([]skyport.BudgetStatus, error) {
	accounts, err := a.Backend.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(a.Backend.Budgets(), func(b skyport.BudgetStatus) bool {
		return !slices.ContainsFunc(accounts, func(account skyport.Account) bool { return account.Name == b.Account && maySpend(account, caller) })
	}), nil
}

// day checks a day, or makes one of a month. Days compare as texts, so the
// month's last day need not exist.
func day(name, value, ofMonth string) (string, error) {
	if value == "" {
		return "", nil
	}
	if _, err := time.Parse("2006-01", value); err == nil {
		return value + "-" + ofMonth, nil
	}
	if _, err := time.Parse(time.DateOnly, value); err != nil || strings.TrimSpace(value) != value {
		return "", skyport.Errorf(skyport.CodeInvalid, "%s: %q is neither a day such as 2026-11-22 nor a month such as 2026-11",
			name, skyport.Abbreviate(value, 40))
	}
	return value, nil
}
