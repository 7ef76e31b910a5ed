package gatewayserver

import (
	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
)

// connection is a socket or a stream in the server's registry.
type connection interface {
	doors.Connection
	// drain ends the connection because the server stops, after a last frame.
	drain(d gateway.Drain)
	// transport returns transportWS or transportSSE.
	transport() string
	// ending returns the cause of the end of the connection.
	ending() string
}

// accountConnectionsMax bounds the sockets and streams of one account on this server.
const accountConnectionsMax = 1024

var refuseConnections = ds.Refuse(ds.LimitExceeded, "at most %d connections of one account", accountConnectionsMax)

// admit adds a connection, unless the server is shutting down.
func (s *Server) admit(c connection) bool {
	if !s.connections.Admit(c) {
		return false
	}
	s.metrics.open(c.transport()).Inc()
	return true
}

// ended counts the end of a connection; its last frames may still be in progress.
func (s *Server) ended(c connection) {
	s.metrics.closes.WithLabelValues(c.ending(), c.transport()).Inc()
	if c.ending() == causeStalled {
		s.metrics.slow.Inc()
	}
}

// forget removes an admitted connection.
func (s *Server) forget(c connection) {
	s.metrics.open(c.transport()).Dec()
	s.connections.Forget(c)
}
