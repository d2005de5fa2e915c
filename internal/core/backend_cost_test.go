package core

import (
	"strings"
	"testing"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/api"
	"github.com/openworkload/skyport/internal/core/cost"
	"github.com/openworkload/skyport/internal/core/store"
)

// spend lets a partition of the account live for a moment, and returns what it cost.
func spend(t *testing.T, b *backend, account string) float64 {
	t.Helper()
	p := skyport.Partition{ID: skyport.NewPartitionID(), State: skyport.PartitionPlanned, Account: account, Site: "test", Nodes: []skyport.Node{{}}}
	job := skyport.Job{ID: skyport.NewJobID(), Owner: ada.ID, State: skyport.JobCanceled}
	steps := []func(*store.Tx) error{
		func(tx *store.Tx) error { return tx.InsertPartition(&p) },
		func(tx *store.Tx) error { return tx.InsertJob(&job, nil) },
		func(tx *store.Tx) error {
			return tx.InsertAttempt(&skyport.Attempt{Job: job.ID, Number: 1, Partition: p.ID, Phase: skyport.PhaseReleased})
		},
		func(tx *store.Tx) error {
			return tx.StartMeter(&cost.Meter{Partition: p.ID, Account: account, Site: "test", Nodes: 1, Price: cost.PriceOf(1e6)})
		},
	}
	for _, to := range []skyport.PartitionState{skyport.PartitionFailed, skyport.PartitionDeleting, skyport.PartitionDeleted} {
		steps = append(steps, func(tx *store.Tx) error { return tx.MovePartition(&p, to, "") })
	}
	for _, step := range steps {
		if err := b.store.Update(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	costs, err := b.Costs(t.Context(), api.CostQuery{By: skyport.CostByAccount, Owner: ada.ID, Since: string(cost.DayOf(time.Now().Add(-time.Hour)))})
	if err != nil || len(costs) != 1 || costs[0].Key != account || costs[0].Amount <= 0 {
		t.Fatalf("costs %+v, %v", costs, err)
	}
	return costs[0].Amount
}

func TestBudgetsAtSubmission(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	submit := func(key string) ([]skyport.Job, error) {
		return b.Submit(t.Context(), ada, key, []api.Submission{sub("time 2:00:00")})
	}
	spent := spend(t, b, "lab")
	give := func(amount float64) {
		t.Helper()
		b.catalog.Accounts()[0].Budget = &skyport.Budget{Amount: amount, Period: skyport.BudgetTotal}
		if err := b.engine.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	give(2 * spent)
	fine, err := submit("fine")
	if err != nil || len(fine[0].Warnings) > 0 {
		t.Fatalf("with half of it left: %+v, %v", fine, err)
	}
	plan, err := b.Plan(t.Context(), ada, sub("time 2:00:00"))
	if err != nil || plan.Price != 0.1 || plan.MostCost != 0.2 || plan.Unpriced {
		t.Errorf("plan %+v, %v", plan, err)
	}
	give(spent / 0.9)
	if jobs, err := submit("warned"); err != nil || len(jobs[0].Warnings) != 1 || !strings.Contains(jobs[0].Warnings[0], "account lab has spent") {
		t.Errorf("at 90 %%: %+v, %v", jobs, err)
	}
	give(spent)
	if _, err := submit("late"); skyport.CodeOf(err) != skyport.CodeBudget || !strings.Contains(skyport.HintOf(err), "skyport.yaml") {
		t.Errorf("used up: %v, hint %q", err, skyport.HintOf(err))
	}
	if _, err := b.Plan(t.Context(), ada, sub()); skyport.CodeOf(err) != skyport.CodeBudget {
		t.Errorf("a plan: %v", err)
	}
	// What was accepted stays accepted.
	if again, err := submit("fine"); err != nil || again[0].ID != fine[0].ID {
		t.Errorf("the first again: %+v, %v", again, err)
	}
	if list := b.Budgets(); len(list) != 1 || !list[0].UsedUp || list[0].Spent != spent || list[0].Account != "lab" {
		t.Errorf("budgets %+v", list)
	}
	if !b.Operates(ada.ID) || b.Operates(skyport.NewUserID()) {
		t.Error("ada operates core, and nobody else")
	}
}
