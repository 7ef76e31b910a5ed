// Package server assembles one running service from its packages: configuration, wiring,
// listeners and shutdown.
//
// Start opens the store, the identity of the service, core and the doors, in the direction of
// their imports, and Close ends them in the opposite one. No decision about a request is made
// here.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/gatewayserver"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/netguard"
	"waxwing.im/waxwing/internal/site"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/xrpcserver"
)

// Limits of the listeners. Those of bodies are in the doors.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = 2 * time.Minute // for a whole request to arrive
	answerTimeout  = 3 * time.Minute // from its head to the end of the answer; streams have bounds of their own
	idleTimeout    = 2 * time.Minute
	headerBytesMax = 64 << 10
	drainTimeout   = 10 * time.Second       // how long Close waits for requests and sockets
	silenceGrace   = 200 * time.Millisecond // for the first request of a connection, at the end
)

// Server is a running service. Its methods are safe for concurrent use.
type Server struct {
	config   Config
	logger   *slog.Logger
	url      string // its address, http://HOST:PORT
	public   string // its public address
	did      string
	metrics  *prometheus.Registry
	store    *store.DB
	guard    *netguard.Guard
	resolver *identity.Resolver
	identity *identity.Authenticator
	limits   *limits.Limiter
	logs     *logs.Engine
	core     *core.Service
	gateway  *gatewayserver.Server
	xrpc     *xrpcserver.Server

	front  *http.Server
	conns  *conns       // of front
	ops    *http.Server // nil if disabled
	opsURL string

	adminServer *http.Server // nil if there is no admin socket
	adminSocket os.FileInfo
	endStats    func() // nil if they are not watched

	draining atomic.Bool
	health   health
	failed   chan error
	closing  sync.Once
	closed   error
}

// Start starts a server and returns when it accepts connections. It runs until Close; ctx
// bounds the start only.
func Start(ctx context.Context, c Config) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Server{config: c, logger: newLogger(c), metrics: prometheus.NewRegistry(), failed: make(chan error, 3)}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if s.config.Dev {
		s.logger.Warn("development mode is on")
	}
	// The directory contains private keys and messages' envelopes: only the owner may read it.
	if err := os.MkdirAll(filepath.Dir(s.config.serviceKeyFile()), 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var err error
	s.store, err = store.Open(ctx, store.Options{URL: s.config.storeURL(), Local: s.config.Now, Logger: s.logger})
	if err != nil {
		return s.config.openError(err)
	}
	key, err := identity.LoadOrCreateServiceKey(s.config.serviceKeyFile())
	if err != nil {
		return fmt.Errorf("service key: %w", err)
	}
	listener := s.config.Listener
	if listener == nil {
		if listener, err = listen(s.config.Listen); err != nil {
			return err
		}
	}
	if err := s.wire(key, listener); err != nil {
		return errors.Join(err, listener.Close())
	}
	if s.config.OpsListen != "" {
		if err := s.serveOps(); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	if err := s.serveAdmin(); err != nil {
		return errors.Join(err, listener.Close())
	}
	refused := prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_accepts_refused_total",
		Help: "Tries to accept a connection for which there was no file descriptor or memory."})
	s.metrics.MustRegister(refused)
	s.serve(s.front, newListener(listener, s.logger, refused))
	s.logger.Info("listening", "version", s.config.Version, "database", s.config.databaseName(), "admission", s.config.admission(),
		"url", s.url, "public_url", s.public, "did", s.did)
	return nil
}

// databaseName returns the URL of the database for the log, without the parts that may hold a
// password.
func (c Config) databaseName() string {
	u, err := url.Parse(c.Database)
	if err != nil || c.Database == "" {
		return c.storeURL()
	}
	name := url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}
	if host := u.Query().Get("host"); u.Host == "" && host != "" {
		name.RawQuery = url.Values{"host": {host}}.Encode()
	}
	return name.String()
}

// openError adds to err which database could not be opened.
func (c Config) openError(err error) error {
	where := "on PostgreSQL"
	if c.Database == "" {
		where = "in " + c.Data
	}
	return fmt.Errorf("open the database %s: %w", where, err)
}

// wire builds core and the doors. The service's name depends on the port, so it is called after
// listening.
func (s *Server) wire(key *identity.ServiceKey, listener net.Listener) error {
	s.url = "http://" + listener.Addr().String()
	s.public = s.config.PublicURL
	if s.public == "" {
		s.public = "http://localhost:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	}
	var err error
	if s.did, err = identity.ServiceDID(s.public); err != nil {
		return err
	}
	document, err := key.Document(s.public)
	if err != nil {
		return err
	}
	rates, err := s.config.rates()
	if err != nil {
		return err
	}
	proxies, err := s.config.proxies()
	if err != nil {
		return err
	}
	s.limits = limits.New(rates, s.store.Now)
	if err := s.newIdentity(); err != nil {
		return err
	}
	s.logs = logs.New(logs.Options{Store: s.store, Now: s.store.Now, Logger: s.logger})
	devices := directory.New(directory.Options{Store: s.store, Now: s.store.Now, Limits: s.limits, Wake: s.logs.WakeAccount, OnlyMLS: s.config.Keypackages == "strict"})
	s.core = core.New(core.Options{
		Store: s.store, Logs: s.logs, Directory: devices, Now: s.store.Now, Logger: s.logger, Limits: s.limits,
		RecordSenders: s.config.RecordSenders, MessageBytes: s.config.MessageBytes,
	})
	s.warnOfFewFiles()
	s.metrics.MustRegister(s.store.Collectors()...)
	s.metrics.MustRegister(s.limits.Collectors()...)
	s.metrics.MustRegister(s.logs.Collectors()...)
	s.metrics.MustRegister(devices.Collectors()...)
	s.metrics.MustRegister(s.core.Collectors()...)
	arriving := doors.NewIntake()
	arriving.Patience = s.config.patience(doors.PatienceDefault)
	s.gateway = gatewayserver.New(gatewayserver.Options{
		Core: s.core, Logs: s.logs, Directory: devices, Limits: s.limits, Identity: s.identity, Logger: s.logger, Registerer: s.metrics,
		ServiceDID: s.DID, PublicURL: func() string { return s.public },
		PingInterval: s.config.PingInterval, PingMisses: s.config.PingMisses, TrustedProxies: proxies, Intake: arriving,
		Heartbeat: s.config.Heartbeat, HandshakeTimeout: s.config.patience(gatewayserver.HandshakeTimeoutDefault), WriteTimeout: s.config.patience(gatewayserver.WriteTimeoutDefault),
	})
	s.xrpc = xrpcserver.New(xrpcserver.Options{
		Core: s.core, Logs: s.logs, Directory: devices, Limits: s.limits, Identity: s.identity, Resolver: s.resolver, Logger: s.logger, Registerer: s.metrics,
		ServiceDID: s.DID, PublicURL: func() string { return s.public }, Sign: key.Sign, TrustedProxies: proxies, Intake: arriving,
		Heartbeat: s.config.Heartbeat,
	})
	mux := http.NewServeMux()
	mux.Handle("/xrpc/", s.xrpc)
	s.serveHealth(mux)
	mux.Handle("/", s.gateway)
	pages := site.New(site.Options{Version: s.config.Version, DID: s.did, Document: document, URL: s.public,
		IsPublic: s.config.PublicURL != "", NeedsInvite: s.config.admission() == identity.AdmissionInvite})
	for _, path := range pages.Paths() {
		mux.Handle(path, pages)
	}
	s.front = s.httpServer(s.timed(doors.AllowAnyOrigin(mux)))
	s.conns = newConns(s.metrics)
	s.front.ConnState = s.conns.note
	return nil
}

func (s *Server) httpServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: s.config.patience(headerTimeout), ReadTimeout: requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytesMax,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug), // faults of clients are not the operator's concern
	}
}

// serve runs a listener until its server is closed; any other end is reported.
func (s *Server) serve(server *http.Server, listener net.Listener) {
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serve %s: %w", listener.Addr(), err)
		}
	}()
}

// URL returns the server's address, as http://HOST:PORT with the actual port.
func (s *Server) URL() string { return s.url }

// OpsURL returns the address of the ops listener, or "".
func (s *Server) OpsURL() string { return s.opsURL }

// DID returns the DID of the service.
func (s *Server) DID() string { return s.did }

// Failed returns a channel with the error of a listener that ended by itself; the server is
// unusable then and should be closed.
func (s *Server) Failed() <-chan error { return s.failed }

// Close drains the server: it accepts no new work, asks its sockets to reconnect elsewhere,
// lets running requests finish for a while, writes buffered cursors and closes the database.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	return s.Shutdown(ctx)
}

// Shutdown does the work of Close with the time to drain given by ctx; requests that still run
// after that are cut off, which is not an error. Only the first call has an effect; others wait
// for it and return its result.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Do(func() { s.closed = s.shutdown(ctx) })
	return s.closed
}

func (s *Server) shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.closeAdmin()
	// New connections are refused first; http.Server does not end sockets, so the gateway ends
	// them while it waits for requests.
	var ended sync.WaitGroup
	if s.front != nil {
		ended.Go(func() {
			// What was sent before the clients could know of the end still arrives meanwhile.
			defer time.AfterFunc(silenceGrace, s.conns.closeSilent).Stop()
			if s.front.Shutdown(ctx) != nil {
				s.front.Close()
			}
		})
	}
	if s.xrpc != nil {
		ended.Go(func() { s.xrpc.Shutdown(ctx) })
	}
	if s.gateway != nil {
		s.gateway.Shutdown(ctx)
	}
	ended.Wait()
	if s.core != nil {
		s.core.Close()
	}
	if s.logs != nil {
		s.logs.Close()
	}
	if s.identity != nil {
		s.identity.Close()
	}
	if s.resolver != nil {
		s.resolver.Close()
	}
	if s.guard != nil {
		s.guard.Close()
	}
	if s.endStats != nil {
		s.endStats()
	}
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	if s.ops != nil {
		s.ops.Close() // last, so that it can be observed until the end
	}
	if s.url != "" {
		s.logger.Info("stopped")
	}
	return err
}

func newLogger(c Config) *slog.Logger {
	if c.LogTo == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(logHandler(c.LogTo, c.LogLevel, c.LogFormat))
}

func logHandler(w io.Writer, level, format string) slog.Handler {
	options := &slog.HandlerOptions{}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err == nil {
		options.Level = least
	}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}
