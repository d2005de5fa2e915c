package lifecycle_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/gate/gatetest"
	"github.com/openworkload/skyport/internal/core/cost"
	"github.com/openworkload/skyport/internal/core/lifecycle"
	"github.com/openworkload/skyport/internal/core/store"
	"github.com/openworkload/skyport/internal/worker/protocol/protocoltest"
)

// expensive makes nodes cost 100 EUR a second.
func expensive(h *house) {
	h.site = gatetest.NewProvider(gatetest.Script{
		Endpoint: h.endpoint,
		Sites:    []skyport.Site{{Name: "test", DefaultFlavor: "small", DefaultImage: "plain", Limits: skyport.Limits{Nodes: 8}, Currency: "EUR"}},
		Flavors:  []skyport.Flavor{{Name: "small", Site: "test", CPUs: 2, Memory: 4 << 30, Price: 360_000, Arch: "amd64"}},
	})
}

func budget(b skyport.Budget) func(*house) {
	if b.Currency == "" {
		b.Currency = "EUR"
	}
	return func(h *house) { h.budget = &b }
}

func (h *house) spent(f cost.Filter) []cost.Sum {
	h.Helper()
	spent, err := h.store.Spending(h.Context(), f)
	if err != nil {
		h.Fatal(err)
	}
	return cost.Add(spent.Settled, spent.Live, f, time.Now())
}

// usedUp waits until the account may start nothing more.
func (h *house) usedUp() {
	h.Helper()
	h.until("the budget is used up", func() bool { _, err := h.engine.Afford("lab"); return err != nil })
}

func TestPartitionsAreMeteredAndSettled(t *testing.T) {
	t.Parallel()
	h := build(t, expensive)
	id := h.submit(skyport.Request{CPUs: 1})
	w, run := h.runs(id)
	h.until("it costs something", func() bool {
		sums := h.spent(cost.Filter{By: skyport.CostByJob})
		return len(sums) == 1 && sums[0].Key == string(id) && sums[0].Running == sums[0].Amount && sums[0].Amount > 1e6 && sums[0].Currency == "EUR"
	})
	h.restart() // the meter runs on
	before := h.spent(cost.Filter{})[0].Amount
	w.End(run, 0)
	h.nothingIsLeft()
	sums := h.spent(cost.Filter{By: skyport.CostByUser})
	if len(sums) != 1 || sums[0].Key != "me" || sums[0].Running != 0 || sums[0].Amount <= before {
		t.Errorf("in the end: %+v, before %d", sums, before)
	}
	want := sums[0].Amount
	if err := h.engine.Purge(t.Context(), []skyport.JobID{id}); err != nil {
		t.Fatal(err)
	}
	h.until("the job is forgotten", func() bool { return len(h.attempts(id)) == 0 })
	h.restart()
	if sums := h.spent(cost.Filter{By: skyport.CostByJob}); len(sums) != 1 || sums[0].Amount != want {
		t.Errorf("after the purge: %+v, want %d", sums, want)
	}
	if n, err := testutil.GatherAndCount(registry(t, h), "skyport_cost_total"); err != nil || n != 1 {
		t.Errorf("%d metrics: %v", n, err)
	}
}

func TestBudgetWarnsOnceAndHoldsJobs(t *testing.T) {
	t.Parallel()
	h := build(t, expensive, budget(skyport.Budget{Amount: 60, Period: skyport.BudgetMonth}))
	id := h.submit(skyport.Request{Flavor: "small"})
	w, run := h.runs(id)
	h.until("a warning", func() bool { return len(h.job(id).Warnings) > 0 })
	h.usedUp()
	h.until("the last warning", func() bool { return strings.Contains(strings.Join(h.warnings(id), "\n"), "is used up") })
	if warning, _ := h.engine.Afford("lab"); !strings.Contains(warning, "is used up") {
		t.Errorf("warning %q", warning)
	}
	late := h.submit(skyport.Request{Flavor: "small"})
	h.until("a reason", func() bool { return strings.Contains(h.engine.Reason(late), "the budget of account lab is used up") })
	h.restart()
	if _, err := h.engine.Afford("lab"); skyport.CodeOf(err) != skyport.CodeBudget {
		t.Errorf("at the start: %v", err)
	}
	h.until("a reason again", func() bool { return h.engine.Reason(late) != "" })
	// Without end_jobs what runs goes on.
	if s, _ := w.Status(run); s.Stopped {
		t.Error("the running job was stopped")
	}
	w.End(run, 0)
	if job := h.comesTo(id, skyport.JobFinished); job.Details != "Finished" {
		t.Errorf("details %q", job.Details)
	}
	// Each level is told once, restarts or not; a slow look may find the last one only.
	if texts := h.warnings(id); len(texts) > 2 || !strings.Contains(texts[len(texts)-1], "is used up") || texts[0] == texts[len(texts)-1] && len(texts) > 1 {
		t.Errorf("warnings %q", texts)
	}
	if h.job(late).State != skyport.JobQueued {
		t.Error("the late job did not stay in the queue")
	}
	if n, err := testutil.GatherAndCount(registry(t, h), "skyport_budget_used_ratio"); err != nil || n != 1 {
		t.Errorf("%d metrics: %v", n, err)
	}
	if err := h.engine.Cancel(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	h.nothingIsLeft()
}

func (h *house) warnings(id skyport.JobID) (texts []string) {
	h.Helper()
	events, err := h.store.Events(h.Context(), store.EventFilter{Job: id})
	if err != nil {
		h.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == skyport.EventWarning {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

func TestBudgetEndsJobsWithTheirResults(t *testing.T) {
	t.Parallel()
	h := build(t, expensive, func(h *house) {
		h.newborn = func(w *protocoltest.Worker) { w.Stubborn() } // a stop takes its time
	})
	id := h.submit(skyport.Request{Flavor: "small", OutputFiles: []string{"out.txt"}, KeepResources: true})
	w, run := h.runs(id)
	if err := os.WriteFile(filepath.Join(w.Work(run), "out.txt"), []byte("so far"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.Write(run, "hello\n")
	// The operator gives the account less than it has spent.
	budget(skyport.Budget{Amount: 0.001, Period: skyport.BudgetTotal, EndJobs: true})(h)
	h.restart()
	h.until("it is asked to stop", func() bool { s, _ := w.Status(run); return s.Stopped })
	h.until("its details say so", func() bool {
		return strings.Contains(h.job(id).Details, "is being stopped, the budget of account lab is used up")
	})
	h.restart() // what was asked for is not forgotten
	w.End(run, 143)
	job := h.comesTo(id, skyport.JobFinished)
	if job.Details != "Finished: stopped, the budget of account lab is used up" || job.ExitCode != 143 || job.ResultBytes != 6 {
		t.Errorf("it ended as %+v", job)
	}
	if a := h.attempts(id)[0]; a.Outcome != "the budget of account lab is used up" {
		t.Errorf("outcome %q", a.Outcome)
	}
	if log := h.log(id, 1); log != "hello\n" {
		t.Errorf("log %q", log)
	}
	h.nothingIsLeft() // though resources were to be kept
}

func TestBudgetPutsBackWhatHasNotBegun(t *testing.T) {
	t.Parallel()
	h := build(t, expensive, budget(skyport.Budget{Amount: 20, Period: skyport.BudgetTotal, EndJobs: true}), func(h *house) { h.noAnswer = true })
	id := h.submit(skyport.Request{Flavor: "small"})
	h.usedUp()
	job := h.comesTo(id, skyport.JobQueued)
	if !strings.Contains(job.Details, "the budget of account lab is used up") || job.Retried != 0 || job.Partition != "" {
		t.Errorf("it is %+v", job)
	}
	h.until("its nodes are removed", func() bool { return h.inState(skyport.PartitionDeleted) == len(h.partitions()) })
	if err := h.engine.Cancel(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	h.nothingIsLeft()
}

func TestBudgetRemovesIdlePartitions(t *testing.T) {
	t.Parallel()
	h := build(t, expensive, budget(skyport.Budget{Amount: 50, Period: skyport.BudgetTotal}))
	h.newborn = endsAtOnce
	h.comesTo(h.submit(skyport.Request{Flavor: "small", KeepAlive: 3600}), skyport.JobFinished)
	h.usedUp()
	h.nothingIsLeft()
}

func TestBudgetInAnotherCurrency(t *testing.T) {
	t.Parallel()
	h := build(t, expensive, budget(skyport.Budget{Amount: 50, Currency: "USD", Period: skyport.BudgetTotal}))
	id := h.submit(skyport.Request{Flavor: "small"})
	h.until("a reason", func() bool {
		return strings.Contains(h.engine.Reason(id), "site test charges in EUR, and the budget of account lab is in USD")
	})
	if len(h.partitions()) != 0 {
		t.Error("there is a partition")
	}
	if purses := h.engine.Purses(); len(purses) != 1 || purses[0].Spent != 0 {
		t.Errorf("purses %+v", purses)
	}
	if h.job(id).State != skyport.JobQueued {
		t.Error("the job did not stay in the queue")
	}
}

func registry(t *testing.T, h *house) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(lifecycle.NewCostCollector(h.engine)); err != nil {
		t.Fatal(err)
	}
	return r
}
