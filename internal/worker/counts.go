package worker

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/openworkload/skyport/internal/worker/protocol"
)

// counts are what Prometheus is told:
//
//	skyport_worker_info{version}         1
//	skyport_worker_runs{state}           runs that the worker knows
//	skyport_worker_runs_ended_total{how} runs that ended: ok, failed, timed_out, out_of_memory, stopped, lost, refused
//
// They are written in Prometheus' text format by hand: its library would be a
// quarter of the worker, and make every shim, which is the same program, start
// later.
type counts struct {
	version string

	mu    sync.Mutex
	runs  map[string]int
	ended map[string]int
}

func newCounts(version string) *counts {
	return &counts{version: version, runs: map[string]int{}, ended: map[string]int{}}
}

func (c *counts) handler() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = rw.Write([]byte(c.String())) // the reader went away: nobody is left to tell
	})
}

// String returns the counts in the text format.
func (c *counts) String() string {
	var b strings.Builder
	family := func(name, kind, help, label string, values map[string]int) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
		for _, value := range slices.Sorted(maps.Keys(values)) {
			fmt.Fprintf(&b, "%s{%s=%s} %d\n", name, label, quoteLabel(value), values[value])
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	family("skyport_worker_info", "gauge", "The worker's version.", "version", map[string]int{c.version: 1})
	family("skyport_worker_runs", "gauge", "Runs that the worker knows, by state.", "state", c.runs)
	family("skyport_worker_runs_ended_total", "counter", "Runs that ended, by how.", "how", c.ended)
	return b.String()
}

// quoteLabel writes a label's value as the format wants it.
func quoteLabel(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}

// moved counts a run that went from one state to another. A run that is new
// comes from a status without a version.
func (c *counts) moved(before, after protocol.RunStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before.Version != 0 {
		if before.State == after.State {
			return
		}
		c.runs[string(before.State)]--
	}
	c.runs[string(after.State)]++
	if how := outcome(after); how != "" && before.Version != 0 {
		c.ended[how]++
	}
}

func (c *counts) forgot(last protocol.RunStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs[string(last.State)]--
}

func outcome(s protocol.RunStatus) string {
	switch s.State {
	case protocol.RunLost, protocol.RunRefused:
		return string(s.State)
	case protocol.RunEnded:
	default:
		return ""
	}
	switch {
	case s.OutOfMem:
		return "out_of_memory"
	case s.TimedOut:
		return "timed_out"
	case s.Stopped:
		return "stopped"
	case s.ExitCode != 0:
		return "failed"
	}
	return "ok"
}
