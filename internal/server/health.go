package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"
)

// healthAge is the time for which the results of /health and /health/ready are cached: they are
// open to all callers, and each check queries the database.
const healthAge = time.Second

// health is the cached result of the last check.
type health struct {
	mu     sync.Mutex // guards the rest, and allows one check at a time
	reason string     // why it should get no traffic; "" if it may
	at     time.Time
}

// unready returns the reason why the server should get no traffic, or "".
func (s *Server) unready(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	switch {
	case s.draining.Load():
		return "shutting down"
	case s.store.Ping(ctx) != nil:
		return "the database does not answer"
	case !s.store.TakesWrites():
		return "the database takes no writes"
	}
	return ""
}

// recentlyUnready is unready with a cache, for callers without a limit.
func (s *Server) recentlyUnready() string {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	if now := time.Now(); now.Sub(s.health.at) > healthAge {
		s.health.reason = s.unready(context.Background()) // for all concurrent callers
		s.health.at = now
	}
	return s.health.reason
}

// healthReport is the answer of /health, in the form that clients of the reference server know.
// The actors of that form are the flushers here.
type healthReport struct {
	Status    string       `json:"status"`
	Timestamp int64        `json:"timestamp"` // unix seconds
	Version   string       `json:"version"`
	Checks    healthChecks `json:"checks"`
}

type healthChecks struct {
	Database string       `json:"database"`
	Memory   string       `json:"memory,omitempty"`
	Actors   healthActors `json:"actors"`
}

type healthActors struct {
	Active  int    `json:"active_actors"`
	Status  string `json:"status"`
	Healthy bool   `json:"healthy"`
}

const (
	healthy   = "healthy"
	unhealthy = "unhealthy"
)

// serveHealth adds the health pages of the AT Protocol's services to the public listener.
func (s *Server) serveHealth(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		status := healthy
		if s.recentlyUnready() != "" {
			status = unhealthy
		}
		writeHealth(w, status, healthReport{Status: status, Timestamp: time.Now().Unix(), Version: s.config.Version,
			Checks: healthChecks{Database: status, Memory: healthy, Actors: healthActors{Status: healthy, Healthy: true}}})
	})
	mux.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "OK") })
	mux.HandleFunc("GET /health/ready", func(w http.ResponseWriter, _ *http.Request) {
		status := healthy
		if s.recentlyUnready() != "" {
			status = unhealthy
		}
		writeHealth(w, status, struct {
			Ready  bool            `json:"ready"`
			Checks map[string]bool `json:"checks"`
		}{status == healthy, map[string]bool{"database": status == healthy, "actors": true}})
	})
}

func writeHealth(w http.ResponseWriter, status string, report any) {
	text, err := json.Marshal(report)
	if err != nil {
		panic(err) // texts and flags always marshal
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status != healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(text)
}
