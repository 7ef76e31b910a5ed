package doors

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestServeAnyOrigin: a preflight is granted for what the mux has and for nothing else, and no
// answer allows credentials.
func TestServeAnyOrigin(t *testing.T) {
	mux := http.NewServeMux()
	called := 0
	mux.HandleFunc("GET /read/{id}", func(http.ResponseWriter, *http.Request) { called++ })
	mux.HandleFunc("POST /write", func(http.ResponseWriter, *http.Request) { called++ })
	for _, row := range []struct {
		verb, path, asks string
		status           int
		methods          string
	}{
		{"OPTIONS", "/read/1", "GET", 204, "GET, HEAD, POST"},
		{"OPTIONS", "/read/1", "HEAD", 204, "GET, HEAD, POST"},
		{"OPTIONS", "/write", "POST", 204, "GET, HEAD, POST"},
		{"OPTIONS", "/write", "GET", 405, ""},
		{"OPTIONS", "/write", "DELETE", 405, ""},
		{"OPTIONS", "/write", strings.Repeat("X", 10000), 405, ""},
		{"OPTIONS", "/write", "", 405, ""}, // no preflight
		{"OPTIONS", "/nowhere", "GET", 404, ""},
		{"GET", "/read/1", "", 200, ""},
		{"GET", "/read/1", "POST", 200, ""}, // the header means nothing here
		{"GET", "/nowhere", "", 404, ""},
	} {
		r := httptest.NewRequest(row.verb, row.path, nil)
		r.Header.Set("Origin", "https://elsewhere.example")
		if row.asks != "" {
			r.Header.Set("Access-Control-Request-Method", row.asks)
		}
		w := httptest.NewRecorder()
		ServeAnyOrigin(mux, w, r)
		name := row.verb + " " + row.path + " " + row.asks[:min(len(row.asks), 10)]
		header := w.Header()
		if got := header.Get("Access-Control-Allow-Methods"); w.Code != row.status || got != row.methods {
			t.Errorf("%s: %d %q, want %d %q", name, w.Code, got, row.status, row.methods)
		}
		if allowed := header.Get("Access-Control-Allow-Headers"); (row.methods != "") != strings.Contains(allowed, "Authorization") {
			t.Errorf("%s: allows the headers %q", name, allowed)
		}
		if header.Get("Access-Control-Allow-Origin") != "*" || header["Access-Control-Allow-Credentials"] != nil {
			t.Errorf("%s: %v", name, header)
		}
		if exposed := header.Get("Access-Control-Expose-Headers"); (row.methods == "") != strings.Contains(exposed, "Retry-After") {
			t.Errorf("%s: exposes %q", name, exposed)
		}
	}
	if called != 2 {
		t.Errorf("%d calls got through, want 2", called)
	}
}
