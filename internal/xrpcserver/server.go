// Package xrpcserver is the AT Protocol door: the XRPC methods under /xrpc that the
// files in lexicons describe, for clients of generation A and B alike, and the lexicons
// themselves.
//
// A handler is a translation: authenticate, decode, ask core, encode. The generic
// wrapper of an endpoint does bodies, limits, authentication, errors and metrics; New
// lists the endpoints, a line each. What of a request shows which generation calls is
// decided by api/xrpc; answers hold what either generation reads.
//
// No rule about who may do what is here; those are core's.
package xrpcserver

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/lexicons"
)

// Options say what a Server works with.
type Options struct {
	Core *core.Service
	// Limits counts what callers do, at all doors and in core; nil for one with the published rates.
	Limits   *limits.Limiter
	Identity *identity.Authenticator
	// ServiceDID and PublicURL name this service; they are asked on every use, so that
	// they may follow a port that is bound late.
	ServiceDID func() string
	PublicURL  func() string
	// Sign signs receipts with the key of ServiceDID; nil: there are no receipts.
	Sign func(content []byte) (signature []byte, err error)
	// Resolver finds other accounts' delivery services; nil for none.
	Resolver   *identity.Resolver
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	// TrustedProxies are believed in what they say of a client's address.
	TrustedProxies doors.Proxies
	// Intake bounds what requests hold in memory; nil for one of its own.
	Intake *doors.Intake
	// Heartbeat bounds the time in which nothing is written to a subscription (0: 25 s), and
	// PongTimeout the time in which a client must give the sign of life that it is asked for
	// (0: 20 s).
	Heartbeat, PongTimeout time.Duration
}

// Server is the door. It is safe for concurrent use.
type Server struct {
	core     *core.Service
	limits   *limits.Limiter
	identity *identity.Authenticator
	resolver *identity.Resolver
	services *identity.DeliveryServices // nil for none
	did      func() string
	url      func() string
	sign     func(content []byte) ([]byte, error) // nil: no receipts
	logger   *slog.Logger
	metrics  *metrics
	mux      *http.ServeMux
	methods  map[string]string // verb by NSID
	proxies  doors.Proxies
	intake   *doors.Intake

	heartbeat, pongTimeout time.Duration
	silenceMax             int64        // ms; the watchdog looks late, so it is less than the heartbeat
	clock                  *doors.Clock // moved by the watchdog
	writeTimeout           atomic.Int64 // ms; tests change it

	ctx  context.Context // ends what subscriptions ask of core
	stop context.CancelFunc

	streams *doors.Registry[*stream]
}

// New makes a Server and starts its watchdog. Shutdown ends both and the subscriptions.
func New(o Options) *Server {
	s := &Server{core: o.Core, limits: o.Limits, identity: o.Identity, resolver: o.Resolver, did: o.ServiceDID, url: o.PublicURL, sign: o.Sign,
		logger: o.Logger, metrics: newMetrics(o.Registerer), mux: http.NewServeMux(), methods: map[string]string{}, proxies: o.TrustedProxies, intake: o.Intake,
		heartbeat: cmp.Or(o.Heartbeat, heartbeatDefault), pongTimeout: cmp.Or(o.PongTimeout, pongTimeout), clock: doors.NewClock()}
	s.writeTimeout.Store(writeTimeout.Milliseconds())
	s.silenceMax = (s.heartbeat * 4 / 5).Milliseconds()
	if o.Resolver != nil {
		s.services = identity.NewDeliveryServices(o.Resolver)
	}
	if s.limits == nil {
		s.limits = limits.New(limits.Default(), time.Now)
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.intake == nil {
		s.intake = doors.NewIntake()
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.streams = doors.NewRegistry[*stream](socketsMax, errSockets)

	s.registerDevices()
	s.registerKeyPackages()
	s.registerConversations()
	s.registerMessages()
	s.registerGroups()
	s.registerSubscriptions()
	s.registerInvites()

	s.registerLexicons()
	s.registerRest()

	s.streams.Watch(s.clock, min(s.heartbeat, s.pongTimeout), nil)
	return s
}

// registerRest answers every other method that has a lexicon with MethodNotImplemented,
// and all others under /xrpc/ like the methods that nobody knows.
func (s *Server) registerRest() {
	known := map[string]bool{}
	for _, endpoint := range lexicons.Endpoints() {
		known[endpoint.NSID] = true
	}
	s.mux.HandleFunc("/xrpc/{nsid}", func(w http.ResponseWriter, r *http.Request) {
		nsid := r.PathValue("nsid")
		err := &Error{http.StatusNotImplemented, xrpc.ErrorMethodNotImplemented, "no such method"}
		if known[nsid] {
			err.Message = "this server does not have the method yet"
		}
		if pattern := s.methods[nsid]; pattern != "" {
			w.Header().Set("Allow", pattern)
			err = &Error{http.StatusMethodNotAllowed, xrpc.ErrorInvalidRequest, "the method is called by " + pattern}
		}
		s.answer(w, r, "other", nil, err)
	})
}

// ServeHTTP answers /xrpc/… and /lexicons/…, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.intake.Count(w, r, s.proxies.AddressOf(r))()
	s.mux.ServeHTTP(w, r)
}

// Shutdown ends every subscription and waits for them; when ctx ends first, what is left
// is cut off. Calls under way are not touched.
func (s *Server) Shutdown(ctx context.Context) error {
	s.streams.Close()
	s.stop()
	if !s.streams.Drain(ctx, func() {}) {
		return ctx.Err()
	}
	return nil
}
