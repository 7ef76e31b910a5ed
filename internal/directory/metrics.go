package directory

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// metrics holds the metrics of key packages. They have no label that a client can invent.
type metrics struct {
	claims     *prometheus.CounterVec // by result
	lastResort prometheus.Counter
	low        prometheus.Counter
	available  prometheus.Histogram
}

// The results of a claim.
const (
	claimOneTime    = "ok"
	claimLastResort = "last_resort"
	claimNone       = "none"
	claimRefused    = "refused"
)

func newMetrics() metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help})
	}
	m := metrics{
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "waxwing", Name: "key_package_claims_total",
			Help: "Key packages handed out (ok: one-time, last_resort), and claims that got none or were refused by a limit."}, []string{"result"}),
		lastResort: counter("key_package_last_resort_total", "Last-resort key packages handed out, because a pool had no other."),
		low:        counter("key_package_pool_low_total", "Pools that a claim made low or empty, and of which their device was notified."),
		available: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "waxwing", Name: "key_packages_available",
			Help: "One-time key packages left in a pool after a claim.", Buckets: []float64{0, 1, 5, 10, 25, 50, 100}}),
	}
	for _, result := range []string{claimOneTime, claimLastResort, claimNone, claimRefused} {
		m.claims.WithLabelValues(result) // 0 is a figure, too
	}
	return m
}

// claimed counts a claim that was committed, with the sizes of the pools after it and the number
// of events about them.
func (m metrics) claimed(list []ds.KeyPackage, left []int64, events int) {
	for _, p := range list {
		if p.LastResort {
			m.claims.WithLabelValues(claimLastResort).Inc()
			m.lastResort.Inc()
		} else {
			m.claims.WithLabelValues(claimOneTime).Inc()
		}
	}
	for _, n := range left {
		m.available.Observe(float64(n))
	}
	m.low.Add(float64(events))
}

// Collectors lists the metrics for a registry.
func (s *Service) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.claims, m.lastResort, m.low, m.available}
}
