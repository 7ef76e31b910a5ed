package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// readyTimeout bounds the query behind /readyz.
const readyTimeout = 2 * time.Second

// profileTimeout bounds an answer of the ops listener, the longest profile included.
const profileTimeout = 2 * time.Minute

// serveOps starts the listener for operators: /livez answers while the process works, /readyz
// while it should get traffic, /metrics is for Prometheus and /debug/pprof/ for profiling.
func (s *Server) serveOps() error {
	s.metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "waxwing_build_info", Help: "Always 1; the labels say which program runs.",
			ConstLabels: prometheus.Labels{"version": s.config.Version},
		}, func() float64 { return 1 }),
	)
	s.watchStats()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	// Not cmdline: a database URL among the arguments may contain a password.
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	listener, err := listen(s.config.OpsListen)
	if err != nil {
		return fmt.Errorf("ops: %w", err)
	}
	s.opsURL = "http://" + listener.Addr().String()
	s.ops = s.httpServer(mux)
	s.ops.WriteTimeout = profileTimeout
	s.serve(s.ops, listener)
	return nil
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	reason := s.unready(r.Context())
	if reason != "" {
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}
