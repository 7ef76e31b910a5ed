// Package gatewayserver is the realtime door: the WebSocket and the HTTP calls
// under /v1 that api/gateway describes.
//
// A call is decoded, authenticated, handed to core, and its answer encoded; the
// endpoints are the lines of New, the frames those of the table in frames.go. A
// socket has one goroutine that reads requests and answers them in order, sends
// excepted, which are answered in their turn by a second one as the log takes them (see
// answers); and, once it follows a log, one that asks its core.Follower for pages and
// writes them. All write through the same conn, which blocks: a slow reader is not
// asked for more and is not read from, and costs no memory. One watchdog looks after
// the heartbeats, deadlines and stalled writes of all sockets.
//
// No rule about who may do what is here; those are core's. Listening, TLS and time
// limits of HTTP are internal/server's.
package gatewayserver

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
)

// Options say what a Server works with.
type Options struct {
	Core *core.Service
	// Limits counts what callers do, at all doors and in core; nil for one with the published rates.
	Limits   *limits.Limiter
	Identity *identity.Authenticator
	// ServiceDID and PublicURL name this service; they are asked on every use, so
	// that they may follow a port that is bound late.
	ServiceDID func() string
	PublicURL  func() string
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics

	// PingInterval is how often a silent socket is asked for a sign of life (0: 30 s),
	// PingMisses how many unanswered questions it survives.
	PingInterval time.Duration
	PingMisses   int
	// HandshakeTimeout is how long a new socket may take to start its session (0: 30 s).
	HandshakeTimeout time.Duration
	// StreamPing is how often an SSE stream carries a comment (0: 15 s).
	StreamPing time.Duration
	// Heartbeat bounds the time in which nothing is written to a socket or stream (0: 25 s).
	Heartbeat time.Duration
	// WriteTimeout is how long the network may take for doors.WriteBytesMax (0: 30 s).
	WriteTimeout time.Duration
	// TrustedProxies are believed in what they say of a client's address.
	TrustedProxies doors.Proxies
	// Intake bounds what requests hold in memory; nil for one of its own.
	Intake *doors.Intake
}

const (
	pingIntervalDefault     = 30 * time.Second
	handshakeTimeoutDefault = 30 * time.Second
	writeTimeoutDefault     = 30 * time.Second
	streamPingDefault       = 15 * time.Second // gateway v1, 4
	heartbeatDefault        = 25 * time.Second // gateway decision 15
)

// Server is the door. It is safe for concurrent use.
type Server struct {
	core     *core.Service
	limits   *limits.Limiter
	identity *identity.Authenticator
	did      func() string
	url      func() string
	logger   *slog.Logger
	metrics  *metrics
	mux      *http.ServeMux
	proxies  doors.Proxies

	pingInterval     time.Duration
	pingMisses       int
	handshakeTimeout time.Duration
	writeTimeout     time.Duration
	streamPing       time.Duration
	heartbeat        time.Duration
	silenceMax       int64 // ms; the watchdog looks late, so it is less than the heartbeat
	answersIdle      time.Duration

	clock *doors.Clock // moved by the watchdog

	ctx  context.Context // ends what sockets ask of core
	stop context.CancelFunc

	connections *doors.Registry[connection]
	intake      *doors.Intake
}

// New makes a Server and starts its watchdog. Shutdown ends both.
func New(o Options) *Server {
	s := &Server{
		core: o.Core, limits: o.Limits, identity: o.Identity, did: o.ServiceDID, url: o.PublicURL,
		logger:           o.Logger,
		metrics:          newMetrics(o.Registerer),
		mux:              http.NewServeMux(),
		proxies:          o.TrustedProxies,
		pingInterval:     orDefault(o.PingInterval, pingIntervalDefault),
		pingMisses:       o.PingMisses,
		handshakeTimeout: orDefault(o.HandshakeTimeout, handshakeTimeoutDefault),
		writeTimeout:     orDefault(o.WriteTimeout, writeTimeoutDefault),
		streamPing:       orDefault(o.StreamPing, streamPingDefault),
		heartbeat:        orDefault(o.Heartbeat, heartbeatDefault),
		answersIdle:      answersIdleDefault,
		clock:            doors.NewClock(),
	}
	s.streamPing = min(s.streamPing, s.heartbeat)
	s.silenceMax = (s.heartbeat * 4 / 5).Milliseconds()
	if s.limits == nil {
		s.limits = limits.New(limits.Default(), time.Now)
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.connections = doors.NewRegistry[connection](accountConnectionsMax, refuseConnections)
	if s.intake = o.Intake; s.intake == nil {
		s.intake = doors.NewIntake()
	}

	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /v1/ws", s.serveSocket)
	s.mux.HandleFunc("GET /v1/sse", s.serveStream)
	public(s, "POST /v1/session/start", s.startSession)
	s.mux.HandleFunc("POST /v1/session/resume", s.resumeSession)
	query(s, "GET /v1/session/list", s.listSessions)
	loose(s, "POST /v1/session/logout", s.logout)
	loose(s, "POST /v1/session/logout_all", s.logoutAll)
	command(s, "POST /v1/session/revoke", s.revoke)
	s.mux.HandleFunc("GET /v1/gateways/resolve", s.resolveGateway)
	s.mux.HandleFunc("POST /v1/inbox", s.inbox)
	s.mux.HandleFunc("GET /v1/records", s.record)
	bulky(s, "GET /v1/device-events", 3*deviceEventsBytesMax, s.deviceEvents)
	query(s, "GET /v1/conversations", s.conversations)
	query(s, "GET /v1/rooms/members", s.members)
	bulky(s, "GET /v1/groupinfo", core.GroupInfoAnswerBytes, s.groupInfo)
	command(s, "POST /v1/rooms/create", s.createRoom)
	command(s, "POST /v1/rooms/invite", s.invite)
	command(s, "POST /v1/rooms/remove", s.remove)
	command(s, "POST /v1/rooms/leave", s.leaveRoom)
	command(s, "POST /v1/dms/create", s.createDM)
	command(s, "POST /v1/keypackages", s.publishKeyPackages)
	command(s, "POST /v1/keypackages/fetch", s.fetchKeyPackages)
	command(s, "POST /v1/keypackages/rotate", s.rotateKeyPackages)

	// Sessions that end elsewhere are cut off at once.
	s.connections.Watch(s.clock, min(s.pingInterval, s.streamPing, s.heartbeat), s.identity.Ends())
	return s
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Shutdown closes every socket with 1001 and ends every stream, after a drain frame
// for those that know it, and waits for them; when ctx ends first, what is left is cut
// off. Sockets and streams that come later are refused. Other HTTP calls under way are
// not touched.
func (s *Server) Shutdown(ctx context.Context) error {
	open := s.connections.Close()
	for _, c := range open {
		s.connections.Running.Go(func() { c.drain(reconnectAfter(len(open))) })
	}
	inTime := s.connections.Drain(ctx, s.stop)
	s.stop()
	if !inTime {
		return errors.New("sockets were cut off: they did not close in time")
	}
	return nil
}

// reconnectAfter spreads the return of n sockets over n/2 ms, so that they do not
// all start again at once.
func reconnectAfter(n int) gateway.Drain {
	return gateway.Drain{ReconnectAfterMS: 100 + rand.Int64N(int64(n)/2+1)}
}

// ServeHTTP answers /v1/… and /healthz, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.intake.Count(w, r, s.proxies.AddressOf(r))()
	s.mux.ServeHTTP(w, r)
}
