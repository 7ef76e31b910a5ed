package doors

import "net/http"

// The headers by which pages of other origins may call the server (CORS, WHATWG Fetch).
// Callers prove who they are by tokens that they send themselves. No cookie or other credential
// that a browser adds by itself counts, so Access-Control-Allow-Credentials is never sent, and a
// page gains nothing that its visitor could not have given to any other program.
var (
	anyOrigin      = []string{"*"}
	exposedHeaders = []string{"ETag, RateLimit, RateLimit-Limit, RateLimit-Policy, RateLimit-Remaining, RateLimit-Reset, Retry-After, WWW-Authenticate"}
	allowedMethods = []string{"GET, HEAD, POST"}
	// * does not include Authorization.
	allowedHeaders = []string{"Authorization, Content-Type, Last-Event-ID, *"}
	preflightAge   = []string{"7200"} // seconds; browsers keep no answer longer than that
)

// AllowAnyOrigin lets pages of any origin read the answers of next, which may be a mux that
// redirects or refuses by itself.
func AllowAnyOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Access-Control-Allow-Origin"] = anyOrigin
		next.ServeHTTP(w, r)
	})
}

// ServeAnyOrigin serves a request by mux so that pages of any origin may read the answer, and
// answers the preflight requests of browsers for the paths and methods that mux has.
func ServeAnyOrigin(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Access-Control-Allow-Origin"] = anyOrigin
	if method := r.Header.Get("Access-Control-Request-Method"); r.Method == http.MethodOptions && method != "" {
		asked := *r
		asked.Method = method
		if _, pattern := mux.Handler(&asked); pattern != "" {
			header["Access-Control-Allow-Methods"] = allowedMethods
			header["Access-Control-Allow-Headers"] = allowedHeaders
			header["Access-Control-Max-Age"] = preflightAge
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	header["Access-Control-Expose-Headers"] = exposedHeaders
	mux.ServeHTTP(w, r)
}
