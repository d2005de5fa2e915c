package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/schedule"
)

// Jobs of an account that is held stay with the reason; those of others go on.
func TestHeldAccountsStartNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	job := func(id, account string, number int64) schedule.Job {
		return schedule.Job{ID: skyport.JobID(id), Number: number, Account: account, Request: &skyport.Request{Nodes: 1}, Submitted: now.Add(-time.Hour)}
	}
	d := schedule.Decide(schedule.Snapshot{
		Now:      now,
		Jobs:     []schedule.Job{job("a", "poor", 1), job("b", "rich", 2)},
		Sites:    []skyport.Site{{Name: "s", Limits: skyport.Limits{Nodes: 1}}},
		Flavors:  []skyport.Flavor{{Name: "f", Site: "s", CPUs: 1, Memory: 1 << 30}},
		Accounts: []skyport.Account{{Name: "poor", Sites: []string{"*"}}, {Name: "rich", Sites: []string{"*"}}},
		Held:     map[string]string{"poor": "it has no money"},
	})
	if len(d.Create) != 1 || d.Create[0].Account != "rich" || !strings.Contains(d.Reasons["a"], "it has no money") {
		t.Errorf("decided %+v, reasons %v", d.Create, d.Reasons)
	}
}

func TestSitesInAnotherCurrencyAreNoOffers(t *testing.T) {
	t.Parallel()
	r := &skyport.Request{Nodes: 1}
	sites := []skyport.Site{{Name: "us", Currency: "USD"}, {Name: "eu", Currency: "EUR"}, {Name: "here"}}
	flavors := []skyport.Flavor{{Name: "f", Site: "us"}, {Name: "f", Site: "eu"}, {Name: "f", Site: "here"}}
	accounts := []skyport.Account{{Name: "lab", Sites: []string{"*"}, Budget: &skyport.Budget{Amount: 1, Currency: "EUR"}}}
	offers, err := schedule.Offers(r, "lab", accounts, sites, flavors)
	if err != nil || len(offers) != 2 || offers[0].Site.Name == "us" || offers[1].Site.Name == "us" {
		t.Errorf("offers %+v, %v", offers, err)
	}
	r.Site = "us"
	if _, err := schedule.Offers(r, "lab", accounts, sites, flavors); skyport.CodeOf(err) != skyport.CodeUnsatisfiable ||
		!strings.HasPrefix(err.Error(), "site us charges in USD, and the budget of account lab is in EUR") || skyport.HintOf(err) == "" {
		t.Errorf("a site in another currency: %v, hint %q", err, skyport.HintOf(err))
	}
	accounts[0].Budget = nil
	if _, err := schedule.Offers(r, "lab", accounts, sites, flavors); err != nil {
		t.Errorf("without a budget: %v", err)
	}
}
