// Package gatewayserver is the realtime door: the WebSocket and the HTTP calls
// under /v1 that api/gateway describes.
//
// A call is decoded, authenticated, handed to core, and its answer encoded; the
// endpoints are the lines of New, the frames those of the table in frames.go. A
// socket has one goroutine that reads requests and answers them in order, except sends,
// which a second one answers once they are durable (see answers); and, once it follows a
// log, one that asks its logs.Follower for pages and writes them. All write through the
// same conn, which blocks: a slow reader is not read from, and holds no backlog in memory.
// One watchdog checks the heartbeats, deadlines and stalled writes of all sockets.
//
// Rules about permissions belong to core; listening, TLS and time limits of HTTP to
// internal/server.
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
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// Options holds the dependencies and settings of a Server.
type Options struct {
	Core      *core.Service
	Logs      *logs.Engine
	Directory *directory.Service
	// Limits counts what callers do, at all doors and in core; nil for one with the published rates.
	Limits   *limits.Limiter
	Identity *identity.Authenticator
	// ServiceDID and PublicURL name this service. They are called on every use, since a port
	// may be bound late.
	ServiceDID func() string
	PublicURL  func() string
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics

	// PingInterval is the time after which a silent socket is sent a ping (0: 30 s), and
	// PingMisses the number of unanswered pings that it survives.
	PingInterval time.Duration
	PingMisses   int
	// HandshakeTimeout bounds the time in which a new socket must start its session (0: 30 s).
	HandshakeTimeout time.Duration
	// StreamPing is the interval of comments in an SSE stream (0: 15 s).
	StreamPing time.Duration
	// Heartbeat bounds the time in which nothing is written to a socket or stream (0: 25 s).
	Heartbeat time.Duration
	// WriteTimeout bounds a write of doors.WriteBytesMax (0: 30 s).
	WriteTimeout time.Duration
	// TrustedProxies are the proxies that may name the address of a client.
	TrustedProxies doors.Proxies
	// Intake bounds what requests hold in memory; nil for one of its own.
	Intake *doors.Intake
}

// The defaults of Options.
const (
	HandshakeTimeoutDefault = 30 * time.Second
	WriteTimeoutDefault     = 30 * time.Second
	pingIntervalDefault     = 30 * time.Second
	streamPingDefault       = 15 * time.Second
	heartbeatDefault        = 25 * time.Second // proxies cut what is silent for a minute
)

// Server is the door. It is safe for concurrent use.
type Server struct {
	core     *core.Service
	logs     *logs.Engine
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

	sessions sessions
	messages messages
	reports  reports

	connections *doors.Registry[connection]
	addresses   *doors.Addresses // of sockets
	intake      *doors.Intake
}

// New makes a Server and starts its watchdog. Shutdown ends both.
func New(o Options) *Server {
	s := &Server{
		core: o.Core, logs: o.Logs, limits: o.Limits, identity: o.Identity, did: o.ServiceDID, url: o.PublicURL,
		logger:           o.Logger,
		metrics:          newMetrics(o.Registerer),
		mux:              http.NewServeMux(),
		proxies:          o.TrustedProxies,
		pingInterval:     orDefault(o.PingInterval, pingIntervalDefault),
		pingMisses:       o.PingMisses,
		handshakeTimeout: orDefault(o.HandshakeTimeout, HandshakeTimeoutDefault),
		writeTimeout:     orDefault(o.WriteTimeout, WriteTimeoutDefault),
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
	s.addresses = doors.NewAddresses()
	if s.intake = o.Intake; s.intake == nil {
		s.intake = doors.NewIntake()
	}

	s.sessions = sessions{s.logs, o.Directory, s.identity, s.limits, s.metrics}
	s.messages = messages{s.core, s.did}
	s.reports = reports{s.core, s.limits, s.metrics}
	rooms, packages := rooms{s.core, s.did}, keyPackages{o.Directory, s.did}

	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /v1/ws", s.serveSocket)
	s.mux.HandleFunc("GET /v1/sse", s.serveStream)
	public(s, "POST /v1/session/start", s.startSession)
	s.mux.HandleFunc("POST /v1/session/resume", s.resumeSession)
	query(s, "GET /v1/session/list", s.sessions.listSessions)
	loose(s, "POST /v1/session/logout", s.sessions.logout)
	loose(s, "POST /v1/session/logout_all", s.sessions.logoutAll)
	command(s, "POST /v1/session/revoke", s.sessions.revoke)
	s.mux.HandleFunc("GET /v1/gateways/resolve", s.resolveGateway)
	inbox{s.logs, s.messages, s.reports}.register(s)
	s.mux.HandleFunc("GET /v1/records", s.record)
	query(s, "GET /v1/conversations", rooms.conversations)
	query(s, "GET /v1/rooms/members", rooms.members)
	bulky(s, "GET /v1/groupinfo", core.GroupInfoAnswerBytes, rooms.groupInfo)
	command(s, "POST /v1/rooms/create", rooms.createRoom)
	command(s, "POST /v1/rooms/invite", rooms.invite)
	command(s, "POST /v1/rooms/remove", rooms.remove)
	command(s, "POST /v1/rooms/promote", rooms.promote)
	command(s, "POST /v1/rooms/demote", rooms.demote)
	command(s, "POST /v1/rooms/leave", rooms.leaveRoom)
	command(s, "POST /v1/dms/create", rooms.createDM)
	command(s, "POST /v1/keypackages", packages.publishKeyPackages)
	command(s, "POST /v1/keypackages/fetch", packages.fetchKeyPackages)
	command(s, "POST /v1/keypackages/rotate", packages.rotateKeyPackages)

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
// for sessions with the feature, and waits for them; when ctx ends first, the rest is cut
// off. Later sockets and streams are refused. Other HTTP calls under way are not affected.
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
	doors.ServeAnyOrigin(s.mux, w, r)
}
