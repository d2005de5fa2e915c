package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the API; docs/api.md lists the names.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skyport_api_requests_total",
			Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "skyport_api_request_seconds",
			Help:    "Time from the request's header to the end of its answer, by route; streams are not counted.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}, []string{"route"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skyport_api_streams",
			Help: "Streams of events and logs that are open now.",
		}),
	}
	r.MustRegister(m.requests, m.seconds, m.streams)
	return m
}

func (m *metrics) answered(r *http.Request, out *answer, took time.Duration) {
	route := r.Pattern
	if route == "" {
		route = "none"
	}
	status := out.status
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !out.stream {
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}
