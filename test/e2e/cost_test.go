package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openworkload/skyport"
)

// TestBudget is the life of an account's budget on this machine, at a price at
// which one sees it pass: 20 EUR for each CPU and second.
func TestBudget(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "SWM_LOCAL_PRICE=72000")
	config := filepath.Join(h.spool, "skyport.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(text), `    sites: ["*"]`, `    sites: ["*"]
    budget: {amount: 200, currency: EUR, period: total, end_jobs: true}`, 1)
	if err := os.WriteFile(config, []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start("up")
	h.ready()

	out := h.ok("submit", "--dry-run", "--cpus", "1", "--time", "1h", "--", "true")
	if !strings.Contains(out, "Up to its time limit of 1h00m it costs 72000.00 at most.") {
		t.Errorf("the estimate is:\n%s", out)
	}
	id := h.submit(`#SWM cpus 1
#SWM output-files out.txt
trap 'echo asked > out.txt; echo bye; exit 0' TERM
echo hello
while :; do sleep 0.05; done
`)
	job := h.finish(id, 0)
	if job.Details != "Finished: stopped, the budget of account default is used up" {
		t.Errorf("it ended as %q", job.Details)
	}
	if log := h.log(id, skyport.Stdout); log != "hello\nbye\n" {
		t.Errorf("its log is %q", log)
	}
	if len(job.Warnings) == 0 || !strings.Contains(job.Warnings[0], "has spent") {
		t.Errorf("it was not warned: %q", job.Warnings)
	}
	if job.ResultBytes != skyport.Bytes(len("asked\n")) {
		t.Errorf("%d bytes of results came", job.ResultBytes)
	}
	_, errs, code := h.run("", "submit", "--", "true")
	if code != 4 || !strings.Contains(errs, "the budget of account default is used up: it has spent") || !strings.Contains(errs, "hint: ") {
		t.Errorf("a further job ends with %d and says %q", code, errs)
	}
	h.settle()
	var before, after skyport.CostReport
	costs := func(into *skyport.CostReport, args ...string) {
		t.Helper()
		if err := json.Unmarshal([]byte(h.ok(append([]string{"cost", "--json"}, args...)...)), into); err != nil {
			t.Fatal(err)
		}
	}
	costs(&before, "--by", "job", "--all")
	if len(before.Costs) != 1 || before.Costs[0].Key != string(id) || before.Costs[0].Amount < 200 || before.Costs[0].Running != 0 {
		t.Fatalf("it cost %+v", before.Costs)
	}
	if len(before.Budgets) != 1 || !before.Budgets[0].UsedUp || before.Budgets[0].Spent < 200 {
		t.Errorf("budgets %+v", before.Budgets)
	}
	if out := h.ok("show", string(id)); !strings.Contains(out, "cost       "+skyport.Money(before.Costs[0].Amount, "")+"\n") {
		t.Errorf("show says:\n%s", out)
	}
	// What was spent outlives the job and core.
	h.ok("purge", "--yes", string(id))
	h.stop()
	h.start("up")
	h.ready()
	costs(&after)
	if len(after.Costs) != 1 || after.Costs[0].Key != "default" || after.Costs[0].Amount != before.Costs[0].Amount {
		t.Errorf("then it cost %+v, before %+v", after.Costs, before.Costs)
	}
	if _, errs, code := h.run("", "submit", "--", "true"); code != 4 {
		t.Errorf("a job after the restart ends with %d and says %q", code, errs)
	}
}
