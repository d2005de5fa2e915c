package leaks

import (
	"fmt"
	"math/rand/v2"
	"time"

	azuretest "github.com/openworkload/skyport/test/azure"
)

// A weather is what the cloud is like for a whole batch.
type weather struct {
	name   string
	faults azuretest.Faults
}

// drawWeather draws the weather of a batch. Every second one is fair: there each
// run has its own trouble only.
func drawWeather(batch int, random *rand.Rand) weather {
	some := func(most float64) float64 { return most * (0.3 + 0.7*random.Float64()) }
	millis := func(least, most int) time.Duration {
		return time.Duration(least+random.IntN(most-least)) * time.Millisecond
	}
	switch n := batch % 10; {
	case n%2 == 0:
		return weather{name: "fair"}
	case n == 1:
		return weather{"stormy", azuretest.Faults{
			Throttle: some(0.05), Error: some(0.08), ErrorAfter: some(0.08), CutBefore: some(0.08), CutAfter: some(0.08), Duplicate: some(0.08),
		}}
	case n == 3:
		return weather{"stale lists", azuretest.Faults{ListLag: millis(300, 2000), GetLag: millis(1, 80), CutAfter: some(0.03)}}
	case n == 5:
		return weather{"throttled", azuretest.Faults{Throttle: some(0.1), Rate: 150, RetryAfter: millis(200, 1500)}}
	case n == 7:
		return weather{"full", azuretest.Faults{NoCapacity: some(0.25), ErrorAfter: some(0.03)}}
	}
	return weather{"all at once", azuretest.Faults{
		Throttle: some(0.02), Error: some(0.04), ErrorAfter: some(0.04), CutBefore: some(0.04), CutAfter: some(0.04), Duplicate: some(0.04),
		Slow: some(0.1), Delay: millis(10, 100), ListLag: millis(100, 800), GetLag: millis(1, 40), NoCapacity: some(0.08),
	}}
}

// The calls that a run's own fault may meet, one of them.
var calls = []struct{ name, method, path string }{
	{"look for the group", "GET", `resourcegroups/swm-[0-9a-f-]+\?`},
	{"make the group", "PUT", `resourcegroups/swm-[0-9a-f-]+\?`},
	{"look for the deployment", "GET", `deployments/swm-[0-9a-f-]+\?`},
	{"deploy", "PUT", `deployments/swm-[0-9a-f-]+\?`},
	{"follow the deployment", "GET", `operationStatuses`},
	{"tag the group", "PATCH", `tags/default`},
	{"list groups", "GET", `resourcegroups\?.*filter`},
	{"list machines", "GET", `virtualMachines\?`},
	{"list resources", "GET", `/resources\?`},
	{"cancel the deployment", "POST", `/cancel`},
	{"delete the group", "DELETE", `resourcegroups/swm-[0-9a-f-]+\?`},
	{"follow the deletion", "GET", `operationresults`},
}

var kinds = []azuretest.Fault{
	azuretest.FaultThrottle, azuretest.FaultError, azuretest.FaultErrorAfter, azuretest.FaultCutBefore, azuretest.FaultCutAfter, azuretest.FaultDuplicate,
}

// drawFault draws a fault of one of the calls of a batch of so many runs: some
// times in a row, so that the SDK's own retries do not always hide it.
func drawFault(size int, random *rand.Rand) (rule azuretest.Rule, story string) {
	c, kind := calls[random.IntN(len(calls))], kinds[random.IntN(len(kinds))]
	rule = azuretest.Rule{Method: c.method, Path: c.path, Skip: random.IntN(size), Times: 1 + random.IntN(5), Do: kind}
	if kind == azuretest.FaultThrottle {
		rule.Delay = time.Duration(100+random.IntN(900)) * time.Millisecond
	}
	return rule, fmt.Sprintf("%s at call %d to %s, %d times", kind, rule.Skip+1, c.name, rule.Times)
}
