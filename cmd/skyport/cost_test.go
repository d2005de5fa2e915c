package main

import (
	"strings"
	"testing"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
)

func TestCostsAreAsked(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	code, out, errs := f.sky("cost")
	if code != 0 || out != "Nothing was spent.\n" || errs != "" {
		t.Errorf("with nothing spent it ends with %d and says %q, %q", code, out, errs)
	}
	var asked []api.CostQuery
	f.Spending.Of = func(q api.CostQuery) []skyport.Cost { asked = append(asked, q); return nil }
	for _, c := range []struct {
		args string
		code int
		errs string
	}{
		{"cost --by moon", exitUsage, "skyport: --by moon: want one of account, month, site, job, user"},
		{"cost now", exitUsage, "skyport: "},
		{"cost --since yesterday", exitRefused, `skyport: since: "yesterday" is neither a day such as 2026-11-22 nor a month such as 2026-11`},
		{"cost --until 2026-02-30", exitRefused, `skyport: until: "2026-02-30" is neither a day`},
		{"cost --all", exitRefused, "skyport: what all users spend is shown only to the user as whom core runs"},
		{"cost --by job --since 2026-11 --until 2026-11", 0, ""},
	} {
		code, _, errs := f.sky(strings.Fields(c.args)...)
		if code != c.code || !strings.HasPrefix(errs, c.errs) {
			t.Errorf("%s ends with %d and says %q", c.args, code, errs)
		}
	}
	if len(asked) != 1 || asked[0].Owner == "" || asked[0].By != skyport.CostByJob || asked[0].Since != "2026-11-01" || asked[0].Until != "2026-11-31" {
		t.Errorf("asked for %+v", asked)
	}
	f.Spending.Operator = asked[0].Owner
	if code, _, errs := f.sky("cost", "--all", "--by", "user"); code != 0 || len(asked) != 2 || asked[1].Owner != "" {
		t.Errorf("the operator: %d, %q, asked %+v", code, errs, asked)
	}
}

func TestSubmitWarnsOfBudgets(t *testing.T) {
	t.Parallel()
	f := newFakeCore(t)
	f.Spending.Warning = "account default has spent 85 % of its budget"
	if code, out, errs := f.sky("submit", "--", "true"); code != 0 || len(strings.TrimSpace(out)) != 36 || errs != "  warning: account default has spent 85 % of its budget\n" {
		t.Errorf("it ends with %d and says %q, %q", code, out, errs)
	}
	if code, _, errs := f.sky("submit", "--json", "--", "true"); code != 0 || errs != "" {
		t.Errorf("for programs it ends with %d and says %q", code, errs)
	}
}

func TestCostWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want  string
		costs []skyport.Cost
	}{
		{"", nil},
		{"", []skyport.Cost{{Currency: "USD"}}},
		{"1.50 USD so far", []skyport.Cost{{Currency: "USD", Amount: 1.5, Running: 0.1}}},
		{"not known: the site does not tell its prices", []skyport.Cost{{Unpriced: true}}},
		{"1.50 USD and what the site does not tell, 2.00 EUR", []skyport.Cost{{Currency: "USD", Amount: 1.5, Unpriced: true}, {Currency: "EUR", Amount: 2}}},
	} {
		if got := costWordsOf(c.costs); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for _, c := range []struct {
		want string
		plan skyport.Plan
	}{
		{"", skyport.Plan{Reason: "full"}},
		{"", skyport.Plan{Site: "local"}},
		{
			"Up to its time limit of 2h00m it costs 3.00 USD at most.",
			skyport.Plan{Site: "west", Price: 1.5, MostCost: 3, Currency: "USD", Request: skyport.Request{TimeLimit: 7200}},
		},
		{"It has no time limit: it costs that for each hour until it ends.", skyport.Plan{Site: "west", Price: 1.5}},
	} {
		if got := estimateWords(c.plan); !strings.HasPrefix(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := placement(skyport.Plan{Site: "lab", Flavor: "gpu", Nodes: 1, Unpriced: true}); !strings.Contains(got, "at a price that the site does not tell") {
		t.Errorf("without a price: %q", got)
	}
}
