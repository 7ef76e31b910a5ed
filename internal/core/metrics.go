package core

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds the metrics of the rules. They have no label that a client can invent.
type metrics struct {
	duplicates           prometheus.Counter
	commitConflicts      prometheus.Counter
	attestationConflicts prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help})
	}
	return &metrics{
		duplicates:           counter("append_duplicates_total", "Requests that were answered with an earlier record of the same message id."),
		commitConflicts:      counter("commit_conflicts_total", "Commits refused because another one had ended their epoch."),
		attestationConflicts: counter("epoch_attestation_conflicts_total", "Epoch authenticators that differ from what another member reports."),
	}
}

// Collectors lists the metrics for a registry.
func (s *Service) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.duplicates, s.metrics.commitConflicts, s.metrics.attestationConflicts}
}
