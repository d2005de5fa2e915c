package lifecycle

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openworkload/skyport"
)

// collector shows what is active as Prometheus metrics, counted when asked.
type collector struct {
	e                      *Engine
	jobs, partitions, held *prometheus.Desc
}

// NewCollector makes the engine's metrics: skyport_jobs (active jobs by state),
// skyport_partitions (by state and site), skyport_attempts (that hold room).
func NewCollector(e *Engine) prometheus.Collector {
	return &collector{
		e:          e,
		jobs:       prometheus.NewDesc("skyport_jobs", "Active jobs by state.", []string{"state"}, nil),
		partitions: prometheus.NewDesc("skyport_partitions", "Partitions that are not deleted, by state and site.", []string{"state", "site"}, nil),
		held:       prometheus.NewDesc("skyport_attempts", "Attempts that hold room on a partition.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.jobs
	out <- c.partitions
	out <- c.held
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	states := map[skyport.JobState]int{}
	partitions := map[[2]string]int{}
	held := 0
	c.e.mu.Lock()
	for _, job := range c.e.jobs {
		states[job.State]++
	}
	for _, p := range c.e.partitions {
		partitions[[2]string{string(p.row.State), p.row.Site}]++
	}
	for _, list := range c.e.attempts {
		held += len(list)
	}
	c.e.mu.Unlock()
	for _, state := range skyport.JobStates() {
		if !state.Terminal() {
			out <- prometheus.MustNewConstMetric(c.jobs, prometheus.GaugeValue, float64(states[state]), string(state))
		}
	}
	for key, n := range partitions {
		out <- prometheus.MustNewConstMetric(c.partitions, prometheus.GaugeValue, float64(n), key[0], key[1])
	}
	out <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(held))
}
