package gate

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gate's numbers for Prometheus. Their names are a promise.
type metrics struct {
	requests   *prometheus.CounterVec   // by route and status
	seconds    *prometheus.HistogramVec // by route; long polls are left out
	waiting    prometheus.Gauge
	calls      *prometheus.CounterVec // by kind, method and result
	callTime   *prometheus.HistogramVec
	partitions *prometheus.GaugeVec // by site and state, as of the last look
	expired    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skyport_gate_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "skyport_gate_request_seconds", Help: "Time to answer a request, long polls left out.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}, []string{"route"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skyport_gate_waiting_requests", Help: "Long polls that wait for a change now.",
		}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skyport_gate_provider_calls_total", Help: "Calls of providers, by kind, method and result (ok, not_found, permanent, passing).",
		}, []string{"kind", "method", "result"}),
		callTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "skyport_gate_provider_call_seconds", Help: "Time that calls of providers took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"kind", "method"}),
		partitions: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "skyport_gate_partitions", Help: "Partitions at a site by state, when the gate last listed it.",
		}, []string{"site", "state"}),
		expired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skyport_gate_expired_leases_total", Help: "Removals that the gate began because a lease had passed.",
		}, []string{"site"}),
	}
	r.MustRegister(m.requests, m.seconds, m.waiting, m.calls, m.callTime, m.partitions, m.expired)
	return m
}

// answered notes one answer of a route.
func (m *metrics) answered(route string, status int, took time.Duration, waited bool) {
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !waited {
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}

// called notes one call of a provider.
func (m *metrics) called(kind, method string, took time.Duration, err error) {
	result := "passing"
	switch {
	case err == nil:
		result = "ok"
	case errors.Is(err, ErrNotFound):
		result = "not_found"
	case errors.Is(err, ErrPermanent):
		result = "permanent"
	}
	m.calls.WithLabelValues(kind, method, result).Inc()
	m.callTime.WithLabelValues(kind, method).Observe(took.Seconds())
}

// counted notes what a list of a site told.
func (m *metrics) counted(site string, all []PartitionStatus) {
	n := map[State]int{}
	for _, p := range all {
		n[p.State]++
	}
	for _, state := range []State{StateCreating, StateBooting, StateUp, StateFailed, StateDeleting} {
		m.partitions.WithLabelValues(site, string(state)).Set(float64(n[state]))
	}
}
