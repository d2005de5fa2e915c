package worker

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openworkload/skyport/internal/worker/protocol"
)

// counts are what Prometheus is told:
//
//	skyport_worker_info{version}         1
//	skyport_worker_runs{state}           runs that the worker knows
//	skyport_worker_runs_ended_total{how} runs that ended: ok, failed, timed_out, out_of_memory, stopped, lost, refused
//	process_…, go_…                      the worker itself
type counts struct {
	registry *prometheus.Registry
	runs     *prometheus.GaugeVec
	ended    *prometheus.CounterVec
}

func newCounts(version string) *counts {
	c := &counts{
		registry: prometheus.NewRegistry(),
		runs: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "skyport_worker_runs", Help: "Runs that the worker knows, by state.",
		}, []string{"state"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skyport_worker_runs_ended_total", Help: "Runs that ended, by how.",
		}, []string{"how"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "skyport_worker_info", Help: "The worker's version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	c.registry.MustRegister(c.runs, c.ended, info)
	return c
}

func (c *counts) handler() http.Handler {
	return promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{})
}

// moved counts a run that went from one state to another. A run that is new
// comes from a status without a version.
func (c *counts) moved(before, after protocol.RunStatus) {
	if before.Version != 0 {
		if before.State == after.State {
			return
		}
		c.runs.WithLabelValues(string(before.State)).Dec()
	}
	c.runs.WithLabelValues(string(after.State)).Inc()
	if how := outcome(after); how != "" && before.Version != 0 {
		c.ended.WithLabelValues(how).Inc()
	}
}

func (c *counts) forgot(last protocol.RunStatus) {
	c.runs.WithLabelValues(string(last.State)).Dec()
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
