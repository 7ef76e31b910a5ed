package server

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
)

// statsInterval is the interval at which the content of the database is counted for the metrics.
const statsInterval = time.Minute

// watchStats keeps the metrics about the content of the database, which costs queries: a scrape
// reads what was counted last.
func (s *Server) watchStats() {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "waxwing", Name: name, Help: help})
		s.metrics.MustRegister(g)
		return g
	}
	accounts := gauge("accounts", "Accounts that are admitted; an estimate where there are many.")
	conversations := gauge("conversations", "Conversations; an estimate where there are many.")
	records := gauge("records", "Records of all logs; an estimate where there are many.")
	sessions := gauge("sessions", "Sessions that can be used, up to 100 000.")
	stored := gauge("stored_bytes", "Size of all rows with their indexes.")
	database := gauge("database_bytes", "Size of the files of the database.")
	oldest := gauge("oldest_event_seconds", "Age of the oldest device event that a device has not acknowledged, or 0.")
	count := func(ctx context.Context) error {
		stats, err := s.store.Stats(ctx)
		if err != nil {
			return err
		}
		accounts.Set(float64(stats.Accounts.Count))
		conversations.Set(float64(stats.Conversations.Count))
		records.Set(float64(stats.Records.Count))
		sessions.Set(float64(stats.Sessions.Count))
		stored.Set(float64(stats.StoredBytes))
		database.Set(float64(stats.DatabaseBytes))
		oldest.Set(0)
		if stats.OldestEventMS > 0 {
			oldest.Set(s.store.Now().Sub(time.UnixMilli(stats.OldestEventMS)).Seconds())
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = count(ctx) // again in a minute
		condition.New(s.logger, "counting for the metrics", 0).Every(ctx, statsInterval, count)
	})
	s.endStats = func() {
		cancel()
		running.Wait()
	}
}

// timed measures the requests of the public listener. Streams and sockets last as long as their
// clients want, so they are left out.
func (s *Server) timed(next http.Handler) http.Handler {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "waxwing_request_seconds",
		Help:    "Time from the head of a request to the end of its answer, by route; without streams and sockets.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"route"})
	s.metrics.MustRegister(seconds)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		next.ServeHTTP(w, r)
		if r.Header.Get("Upgrade") == "" && !strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
			// The pattern is of the doors' tables, whatever the client has asked for.
			seconds.WithLabelValues(cmp.Or(r.Pattern, "none")).Observe(time.Since(began).Seconds())
		}
	})
}
