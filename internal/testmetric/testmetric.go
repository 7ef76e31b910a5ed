// Package testmetric reads metrics in tests. The package of the same purpose that comes with
// Prometheus's client needs one more module.
package testmetric

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Value returns the value of a counter or a gauge, and of a histogram the number of its samples.
func Value(t testing.TB, metric prometheus.Collector) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metric)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || len(families[0].GetMetric()) != 1 {
		t.Fatalf("not one metric: %v, %v", families, err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
}
