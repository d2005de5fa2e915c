package main

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/client"
)

type costOptions struct {
	by, since, until string
	all              bool
}

// costKeys are what costs can be summed up by, with the title of the column.
var costKeys = []struct {
	by    skyport.CostBy
	title string
}{
	{skyport.CostByAccount, "ACCOUNT"},
	{skyport.CostByMonth, "MONTH"},
	{skyport.CostBySite, "SITE"},
	{skyport.CostByJob, "JOB"},
	{skyport.CostByUser, "USER"},
}

func newCostCommand(a *app) *cobra.Command {
	var opts costOptions
	cmd := &cobra.Command{
		Use:   "cost [flags]",
		Short: "Show what was spent, and how budgets stand",
		Long: `Show what your jobs have cost, and how the budgets of your accounts stand.
Nodes cost from the moment at which their site is asked for them until it
confirms that they are removed; the jobs on them share that by their CPUs, and
a job also pays for the time in which its nodes boot, idle after it, or are
removed. COST is all of it, RUNNING the part of it that still grows, because its
nodes are not removed yet. Currencies are never added up. Days and months are
in UTC. "skyport show JOB" tells what one job has cost, "skyport submit
--dry-run" what one would cost.`,
		Example: lines(
			"skyport cost",
			"skyport cost --by month",
			"skyport cost --by job --since 2026-11 --until 2026-11-22",
			"skyport cost --by user --all --json",
		),
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runCost(cmd.Context(), a, opts) },
	}
	f := cmd.Flags()
	f.StringVar(&opts.by, "by", string(skyport.CostByAccount), "sum up by `WHAT`: "+strings.Join(costWords(), ", "))
	f.StringVar(&opts.since, "since", "", "from this `DAY` or month on, such as 2026-11-22 or 2026-11")
	f.StringVar(&opts.until, "until", "", "up to this `DAY` or month")
	f.BoolVarP(&opts.all, "all", "a", false, "what all users spend; only for the user as whom core runs")
	completeOn(cmd, "by", cobra.FixedCompletions(costWords(), cobra.ShellCompDirectiveNoFileComp))
	completeOn(cmd, "since", cobra.NoFileCompletions)
	completeOn(cmd, "until", cobra.NoFileCompletions)
	return cmd
}

func costWords() []string {
	words := make([]string, len(costKeys))
	for i, k := range costKeys {
		words[i] = string(k.by)
	}
	return words
}

func runCost(ctx context.Context, a *app, opts costOptions) error {
	title := ""
	for _, k := range costKeys {
		if string(k.by) == opts.by {
			title = k.title
		}
	}
	if title == "" {
		return usagef("--by %s: want one of %s", opts.by, strings.Join(costWords(), ", "))
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	filter := client.CostFilter{By: skyport.CostBy(opts.by), Since: opts.since, Until: opts.until, All: opts.all}
	report, err := c.Costs(ctx, filter)
	if err != nil {
		return err
	}
	report.Costs, report.Budgets = list(report.Costs), list(report.Budgets)
	if a.JSON {
		return a.printJSON(report)
	}
	printCosts(a, title, report)
	return a.Out.failed()
}

func printCosts(a *app, title string, report skyport.CostReport) {
	t := table{
		columns: []column{
			{title: title, flex: true},
			{title: "COST", right: true},
			{title: "RUNNING", right: true},
			{title: "NODE HOURS", right: true, rank: 1},
		},
		empty: "Nothing was spent.",
	}
	unpriced := false
	for _, cost := range report.Costs {
		name, running := cost.Key, "-"
		if name == "" {
			name = "-"
		}
		if cost.Running > 0 {
			running = skyport.Money(cost.Running, cost.Currency)
		}
		spent := skyport.Money(cost.Amount, cost.Currency)
		if cost.Unpriced {
			unpriced = true
			spent += " +"
		}
		t.add(text(name), text(spent), text(running), text(fmt.Sprintf("%.2f", cost.NodeHours)))
	}
	t.print(a.Out)
	if unpriced {
		a.Out.printf("\n+ Some of the nodes have no price that is known, and count as 0.\n")
	}
	if len(report.Budgets) > 0 {
		a.Out.printf("\n")
	}
	for _, b := range report.Budgets {
		a.Out.printf("%s\n", a.Out.paint(budgetStyle(b), oneLine(budgetWords(b))))
	}
}

// warnedAt is from where on a budget is shown as one that comes to its end.
const warnedAt = 0.8

func budgetStyle(b skyport.BudgetStatus) style {
	switch {
	case b.UsedUp:
		return red
	case b.Spent >= warnedAt*b.Budget.Amount:
		return yellow
	}
	return ""
}

func budgetWords(b skyport.BudgetStatus) string {
	period, end := "in all", ""
	if !b.Since.IsZero() {
		period = "since " + b.Since.UTC().Format("2006-01-02")
	}
	if b.UsedUp {
		end = ": new jobs are refused"
		if b.Budget.EndJobs {
			end += ", running ones are ended"
		}
	}
	return fmt.Sprintf("Budget of account %s: %s of %s spent %s (%.0f %%)%s", b.Account, skyport.Money(b.Spent, ""),
		skyport.Money(b.Budget.Amount, b.Budget.Currency), period, math.Floor(100*b.Spent/b.Budget.Amount), end)
}

// costWordsOf says what a job has cost, "" when that is nothing.
func costWordsOf(costs []skyport.Cost) string {
	var parts []string
	for _, cost := range costs {
		words := skyport.Money(cost.Amount, cost.Currency)
		switch {
		case cost.Unpriced && cost.Amount == 0:
			words = "not known: the site does not tell its prices"
		case cost.Amount == 0:
			continue
		case cost.Unpriced:
			words += " and what the site does not tell"
		}
		if cost.Running > 0 {
			words += " so far"
		}
		parts = append(parts, words)
	}
	return strings.Join(parts, ", ")
}

// estimateWords says what a planned job may cost, "" when it is free.
func estimateWords(p skyport.Plan) string {
	const more = "Nodes also cost while they boot, take and give files, and are removed."
	switch {
	case p.Site == "" || p.Price == 0:
		return ""
	case p.MostCost > 0:
		return fmt.Sprintf("Up to its time limit of %s it costs %s at most. %s",
			duration(p.Request.TimeLimit.Duration()), skyport.Money(p.MostCost, p.Currency), more)
	}
	return "It has no time limit: it costs that for each hour until it ends. " + more
}

// planPrice spells the price of a plan.
func planPrice(p skyport.Plan) string {
	if p.Unpriced {
		return "at a price that the site does not tell"
	}
	return priceIn(p.Price, p.Currency)
}
