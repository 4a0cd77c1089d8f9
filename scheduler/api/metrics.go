package api

import "github.com/prometheus/client_golang/prometheus"

// metrics of the public API. Methods and codes are closed sets.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "gangline_api_requests_total", Help: "Calls and streams that have ended, by gRPC method and status code.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gangline_api_request_seconds", Help: "Time to answer a unary call in seconds, by gRPC method.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 11), // 0.1 ms to 6 s
		}, []string{"method"}),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds)
	}
	return m
}

// hubMetrics of the agents' streams.
type hubMetrics struct {
	expired prometheus.Counter
}

func newHubMetrics(reg prometheus.Registerer, connected func() float64) *hubMetrics {
	m := &hubMetrics{
		expired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "gangline_node_lease_expiries_total", Help: "Leases of nodes that ran out without a heartbeat, as seen by this server while it led.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.expired, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gangline_agents_connected", Help: "Agents connected to this server; 0 unless it leads.",
		}, connected))
	}
	return m
}
