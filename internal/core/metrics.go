package core

import (
	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/store"
)

// Metrics holds the metrics of this package. They have no label that a client can invent.
type Metrics struct {
	appendSeconds      prometheus.Histogram
	batchRequests      prometheus.Histogram
	duplicates         prometheus.Counter
	commitConflicts    prometheus.Counter
	lockWaitsLost      prometheus.Counter
	recordsRead        prometheus.Counter
	recordsReplayed    prometheus.Counter
	keyPackagesClaimed prometheus.Counter

	attestationConflicts prometheus.Counter
	announcementsDropped prometheus.Counter
}

func newMetrics() *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "waxwing", Name: name, Help: help})
	}
	return &Metrics{
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "waxwing", Name: "append_seconds",
			Help: "Time from the start of a batch to its commit.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		batchRequests: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "waxwing", Name: "append_batch_requests",
			Help: "Requests that shared one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 9)}),
		duplicates:         counter("append_duplicates_total", "Requests that were answered with an earlier record of the same message id."),
		commitConflicts:    counter("commit_conflicts_total", "Commits refused because another one had ended their epoch."),
		lockWaitsLost:      counter("store_lock_waits_lost_total", "Transactions that gave up waiting for what another one holds, and ran again or later. Nothing is wrong with the database."),
		recordsRead:        counter("records_read_total", "Records read from logs for followers."),
		recordsReplayed:    counter("records_replayed_total", "Those of the records read that were there before their follower came: what it had missed."),
		keyPackagesClaimed: counter("key_package_claims_total", "Key packages handed out."),

		attestationConflicts: counter("epoch_attestation_conflicts_total", "Epoch authenticators that differ from what another member reports."),
		announcementsDropped: counter("announcements_dropped_total", "Typing, read and ephemeral messages that a listener was too slow for."),
	}
}

// storeFailed counts a transaction that gave up waiting for a lock. Faults of the
// database are counted by the store.
func (m *Metrics) storeFailed(err error) {
	if store.IsLockLost(err) {
		m.lockWaitsLost.Inc()
	}
}

// Collectors lists the metrics for a registry.
func (s *Service) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.appendSeconds, m.batchRequests, m.duplicates, m.commitConflicts, m.lockWaitsLost, m.recordsRead, m.recordsReplayed, m.keyPackagesClaimed,
		m.attestationConflicts, m.announcementsDropped}
}
