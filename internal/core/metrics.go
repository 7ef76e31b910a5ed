package core

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
)

// metrics holds the metrics of the rules. They have no label that a client can invent.
type metrics struct {
	duplicates           prometheus.Counter
	commits              *prometheus.CounterVec // by result
	commitConflicts      prometheus.Counter
	attestationConflicts prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help})
	}
	m := &metrics{
		duplicates: counter("append_duplicates_total", "Requests that were answered with an earlier record of the same message id."),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "waxwing", Name: "commits_total",
			Help: "Commits that were decided, by result: ok, conflict (another one had ended their epoch), refused or fault; without repeats."}, []string{"result"}),
		commitConflicts:      counter("commit_conflicts_total", "Commits refused because another one had ended their epoch."),
		attestationConflicts: counter("epoch_attestation_mismatch_total", "Epoch authenticators that differ from what another member reports."),
	}
	for _, result := range []string{"ok", "conflict", "refused", "fault"} {
		m.commits.WithLabelValues(result) // 0 is a figure, too
	}
	return m
}

// commit counts a commit.
func (m *metrics) commit(err error) {
	result := "fault"
	switch code := ds.CodeOf(err); {
	case err == nil:
		result = "ok"
	case code == ds.EpochConflict:
		result = "conflict"
		m.commitConflicts.Inc()
	case code != "":
		result = "refused"
	}
	m.commits.WithLabelValues(result).Inc()
}

// Collectors lists the metrics for a registry.
func (s *Service) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.duplicates, s.metrics.commits, s.metrics.commitConflicts, s.metrics.attestationConflicts}
}
