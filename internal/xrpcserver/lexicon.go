package xrpcserver

import (
	"encoding/json"
	"net/http"
	"strconv"

	"waxwing.im/waxwing/lexicons"
)

// registerLexicons publishes the lexicons: /lexicons/ lists them, /lexicons/a/NSID.json
// and /lexicons/b/NSID.json are the files of each generation.
func (s *Server) registerLexicons() {
	sets := map[string]lexicons.Set{"a": lexicons.A, "b": lexicons.B}
	index := map[string][]string{}
	for name, set := range sets {
		index[name] = lexicons.NSIDs(set)
	}
	list, err := json.Marshal(index)
	if err != nil {
		panic(err) // strings always marshal
	}
	s.mux.HandleFunc("GET /lexicons/{$}", func(w http.ResponseWriter, _ *http.Request) { writePublic(w, list) })
	s.mux.HandleFunc("GET /lexicons/{set}/{file}", func(w http.ResponseWriter, r *http.Request) {
		set, ok := sets[r.PathValue("set")]
		const suffix = ".json"
		name := r.PathValue("file")
		if !ok || len(name) <= len(suffix) || name[len(name)-len(suffix):] != suffix {
			http.NotFound(w, r)
			return
		}
		text, err := lexicons.File(set, name[:len(name)-len(suffix)])
		if err != nil {
			http.NotFound(w, r)
			return
		}
		writePublic(w, text)
	})
}

// writePublic writes an answer that is the same for all callers, so caches may keep it.
func writePublic(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}
