package server

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
