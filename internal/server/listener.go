package server

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
)

// The first and the longest wait of a listener after it could not accept a connection.
const (
	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// acceptSettle is the time without a failure that ends a shortage: with a limit that is almost
// reached, some connections are accepted and some are not.
const acceptSettle = 10 * time.Second

// patientListener accepts connections while there are file descriptors and memory for them, and
// waits while there are none: the first failure is logged, and so is the connection that ends
// the shortage.
type patientListener struct {
	net.Listener
	accepts *condition.Condition
	refused prometheus.Counter
	closing sync.Once
	closed  chan struct{}
}

func newListener(l net.Listener, logger *slog.Logger, refused prometheus.Counter) *patientListener {
	return &patientListener{Listener: l, accepts: condition.New(logger, "accepting connections (see the limit of open files)", acceptSettle), refused: refused, closed: make(chan struct{})}
}

// Accept waits for a connection. An error means the end of the listener.
func (l *patientListener) Accept() (net.Conn, error) {
	for wait := acceptRetryMin; ; wait = min(2*wait, acceptRetryMax) {
		network, err := l.Listener.Accept()
		if err == nil || !isWant(err) {
			if err == nil {
				l.accepts.Worked()
			}
			return network, err
		}
		l.refused.Inc()
		l.accepts.Failed(err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.closed:
			timer.Stop()
			return nil, net.ErrClosed
		}
	}
}

// Close ends Accept.
func (l *patientListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conns holds the state of the connections that speak HTTP, and counts them by it.
type conns struct {
	counts [http.StateIdle + 1]prometheus.Gauge // by state

	mu     sync.Mutex
	states map[net.Conn]http.ConnState // mu guards it
}

func newConns(r prometheus.Registerer) *conns {
	c := &conns{states: map[net.Conn]http.ConnState{}}
	gauges := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "waxwing_connections",
		Help: "Connections of the public listener that speak HTTP, by state: new (no request has come), active (a request or stream) or idle. A WebSocket is none of them."}, []string{"state"})
	r.MustRegister(gauges)
	for state := range c.counts {
		c.counts[state] = gauges.WithLabelValues(http.ConnState(state).String())
	}
	return c
}

// note is the ConnState of an http.Server.
func (c *conns) note(network net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, isKnown := c.states[network]; isKnown {
		c.counts[before].Dec()
	}
	if state > http.StateIdle { // closed, or a socket's
		delete(c.states, network)
		return
	}
	c.states[network] = state
	c.counts[state].Inc()
}

// closeSilent closes the connections on which no request has come, such as those that browsers
// open in advance: http.Server.Shutdown would wait five seconds for their first one.
func (c *conns) closeSilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for network, state := range c.states {
		if state == http.StateNew {
			network.Close()
		}
	}
}

// isWant reports whether err means that the machine lacks a resource for a connection, which is
// temporary, or that the client has disconnected already.
func isWant(err error) bool {
	for _, want := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
