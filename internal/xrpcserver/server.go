// Package xrpcserver is the AT Protocol door: the XRPC methods under /xrpc that the
// files in lexicons describe, for clients of generation A and B alike.
//
// A handler is a translation: authenticate, decode, ask core, encode. The generic
// wrapper of an endpoint does bodies, limits, authentication, errors and metrics; New
// lists the nouns, of which each registers its endpoints, a line each. The generation of a
// request is decided by api/xrpc; answers hold the fields of both generations.
//
// Rules about permissions belong to core.
package xrpcserver

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/lexicons"
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
	// Sign signs receipts with the key of ServiceDID; nil: there are no receipts.
	Sign func(content []byte) (signature []byte, err error)
	// Resolver finds other accounts' delivery services; nil for none.
	Resolver   *identity.Resolver
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
	// TrustedProxies are the proxies that may name the address of a client.
	TrustedProxies doors.Proxies
	// Intake bounds what requests hold in memory; nil for one of its own.
	Intake *doors.Intake
	// Heartbeat bounds the time in which nothing is written to a subscription (0: 25 s), and
	// PongTimeout the time in which a client must answer a ping (0: 20 s).
	Heartbeat, PongTimeout time.Duration
}

// Server is the door. It is safe for concurrent use.
type Server struct {
	core     *core.Service
	logs     *logs.Engine
	limits   *limits.Limiter
	identity *identity.Authenticator
	url      func() string
	logger   *slog.Logger
	metrics  *metrics
	mux      *http.ServeMux
	methods  map[string]string // verb by NSID
	proxies  doors.Proxies
	intake   *doors.Intake

	subscriptions *subscriptions
}

// New makes a Server and starts its watchdog. Shutdown ends both and the subscriptions.
func New(o Options) *Server {
	s := &Server{
		core:     o.Core,
		logs:     o.Logs,
		limits:   o.Limits,
		identity: o.Identity,
		url:      o.PublicURL,
		logger:   o.Logger,
		metrics:  newMetrics(o.Registerer),
		mux:      http.NewServeMux(),
		methods:  map[string]string{},
		proxies:  o.TrustedProxies,
		intake:   o.Intake,
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
	var services *identity.DeliveryServices
	if o.Resolver != nil {
		services = identity.NewDeliveryServices(o.Resolver)
	}
	s.subscriptions = newSubscriptions(s, o.Directory, o.Heartbeat, o.PongTimeout)

	for _, noun := range []interface{ register(*Server) }{
		devices{s.core, o.Directory},
		keyPackages{o.Directory},
		conversations{s.core, o.ServiceDID},
		members{s.core},
		settings{s.core},
		messages{s.core},
		groups{s.core, o.Directory, o.ServiceDID, o.Sign},
		deliveries{s.core, o.ServiceDID, o.PublicURL, services},
		s.subscriptions,
		invites{s.identity, s.proxies},
	} {
		noun.register(s)
	}
	s.registerRest()

	s.subscriptions.watch()
	return s
}

// registerRest answers MethodNotImplemented to every other path under /xrpc/; the message
// distinguishes methods that have a lexicon.
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

// ServeHTTP answers /xrpc/…, and 404 for everything else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.intake.Count(w, r, s.proxies.AddressOf(r))()
	doors.ServeAnyOrigin(s.mux, w, r)
}

// Shutdown ends every subscription and waits for them; when ctx ends first, the rest
// is cut off. Calls under way are not affected.
func (s *Server) Shutdown(ctx context.Context) error { return s.subscriptions.close(ctx) }
