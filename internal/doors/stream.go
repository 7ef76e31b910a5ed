package doors

import (
	"net/http"
	"strings"
)

// setStreamHeaders sets the headers of an answer of text/event-stream. Proxies must
// pass on each event at once: nginx buffers answers without X-Accel-Buffering: no, and
// compressing proxies, such as Caddy's encode, buffer answers that have no Content-Encoding
// and may be transformed.
func setStreamHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Content-Encoding", "identity")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// firstSubprotocol returns the first subprotocol that a WebSocket offers, as a list, or
// nil. A browser fails a connection on which it offered subprotocols and none was taken
// (WHATWG WebSockets, "establish a WebSocket connection"), so one is always accepted.
func firstSubprotocol(r *http.Request) []string {
	offered := strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ",")
	for name := range strings.SplitSeq(offered, ",") {
		if name = strings.TrimSpace(name); name != "" {
			return []string{name}
		}
	}
	return nil
}
