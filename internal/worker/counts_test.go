package worker

import (
	"testing"

	"github.com/openworkload/skyport/internal/worker/protocol"
)

// TestCountsInPrometheusFormat compares with the text format to the byte.
func TestCountsInPrometheusFormat(t *testing.T) {
	t.Parallel()
	c := newCounts("1.0 \"a\\b\"\n")
	c.moved(protocol.RunStatus{}, protocol.RunStatus{State: protocol.RunRunning, Version: 1})
	c.moved(protocol.RunStatus{}, protocol.RunStatus{State: protocol.RunRunning, Version: 1})
	ended := protocol.RunStatus{State: protocol.RunEnded, Version: 2, ExitCode: 3}
	c.moved(protocol.RunStatus{State: protocol.RunRunning, Version: 1}, ended)
	c.moved(ended, ended)
	const want = `# HELP skyport_worker_info The worker's version.
# TYPE skyport_worker_info gauge
skyport_worker_info{version="1.0 \"a\\b\"\n"} 1
# HELP skyport_worker_runs Runs that the worker knows, by state.
# TYPE skyport_worker_runs gauge
skyport_worker_runs{state="ended"} 1
skyport_worker_runs{state="running"} 1
# HELP skyport_worker_runs_ended_total Runs that ended, by how.
# TYPE skyport_worker_runs_ended_total counter
skyport_worker_runs_ended_total{how="failed"} 1
`
	if got := c.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	c.forgot(ended)
	if c.runs["ended"] != 0 {
		t.Errorf("a forgotten run is still counted: %v", c.runs)
	}
}
