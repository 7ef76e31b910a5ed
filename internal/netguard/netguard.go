// Package netguard is the only way out of a server: every connection that it makes on behalf of
// a request goes through a Guard.
//
// A name or a URL from outside may point anywhere, also at this machine, its neighbours or a
// cloud's metadata service, and its target may change between a check and its use. So the
// deciding check is on the address that is dialled, at the time it is dialled; the earlier
// checks of the URL only make refusals early and clear. A Guard uses https only, follows no
// redirects, uses no proxy, does not decompress, and bounds the time and the bytes of an
// answer.
//
// The users of a Guard decide which hosts to call and for what purpose. Listening sockets, the
// database and the client SDK are outside its scope.
package netguard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	"github.com/prometheus/client_golang/prometheus"
)

// Limits of every connection. Limits of a call are in Limits.
const (
	dialTimeout     = 5 * time.Second // name resolution included
	tlsTimeout      = 5 * time.Second
	idleTimeout     = 30 * time.Second
	idleConnsMax    = 64
	connsPerHostMax = 16
	headerBytesMax  = 32 << 10
)

// Options configures the destinations that a Guard permits.
type Options struct {
	// Allow lists networks, as 10.0.0.0/8, and addresses that may be dialled although they are
	// not public, and host names that may be used although they do not look like public names.
	// A name does not permit a network.
	Allow []string
	// Hosts, if not empty, lists the only hosts that may be called, with their subdomains.
	Hosts []string
	// Ports that may be called; empty means 443.
	Ports []int
	// LoopbackHTTP permits plain http to this machine, and nowhere else: a setting for tests,
	// which New refuses without Dev.
	LoopbackHTTP, Dev bool
	RootCAs           *x509.CertPool // nil: the system's
	Resolver          *net.Resolver  // nil: the system's
	Logger            *slog.Logger   // nil: discard
	// OnDial is called with every address that is about to be dialled, refused ones included;
	// it proves where connections went. It must be quick and safe for concurrent use.
	OnDial func(Dial)
}

// ResolverAt returns a resolver that asks the name server at address, HOST:PORT, and trusts no
// half of an answer. It returns nil for "".
func ResolverAt(address string) *net.Resolver {
	if address == "" {
		return nil
	}
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// Dial is an attempt to connect.
type Dial struct {
	Address netip.AddrPort
	Refused bool
}

// Guard makes connections to the outside. It is safe for concurrent use.
type Guard struct {
	o        Options
	networks []netip.Prefix
	names    []string // host names of Options.Allow
	hosts    []string
	public   *ssrf.Guardian
	https    *http.Transport
	loopback *http.Transport // nil without LoopbackHTTP
	refused  *prometheus.CounterVec
	// holdBack, if set, ends every dial that would have been made; for tests.
	holdBack error
}

// New returns a Guard.
func New(o Options) (*Guard, error) {
	if o.LoopbackHTTP && !o.Dev {
		return nil, errors.New("netguard: plain http to this machine needs development mode")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if len(o.Ports) == 0 {
		o.Ports = []int{443}
	}
	for _, port := range o.Ports {
		if port < 1 || port > 65535 {
			return nil, fmt.Errorf("netguard: %d is not a port", port)
		}
	}
	g := &Guard{o: o, public: ssrf.New(ssrf.WithAnyPort()), refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "waxwing_egress_refused_total", Help: "Outbound calls that were refused or cut off, by reason.",
	}, []string{"reason"})}
	for _, reason := range Reasons {
		g.refused.WithLabelValues(string(reason))
	}
	var err error
	if g.networks, g.names, err = parseAllow(o.Allow); err != nil {
		return nil, err
	}
	for _, host := range o.Hosts {
		if !IsHostName(host) {
			return nil, fmt.Errorf("netguard: %q is not a host name", host)
		}
		g.hosts = append(g.hosts, lower(host))
	}
	g.https = g.transport(g.checkAddress)
	if o.LoopbackHTTP {
		g.loopback = g.transport(checkLoopback)
	}
	return g, nil
}

// Close ends idle connections.
func (g *Guard) Close() {
	g.https.CloseIdleConnections()
	if g.loopback != nil {
		g.loopback.CloseIdleConnections()
	}
}

// Collectors returns the metrics of the Guard.
func (g *Guard) Collectors() []prometheus.Collector { return []prometheus.Collector{g.refused} }

// AllowsLoopbackHTTP reports whether plain http to this machine is permitted.
func (g *Guard) AllowsLoopbackHTTP() bool { return g.loopback != nil }

// transport returns a transport that connects to addresses that check permits.
func (g *Guard) transport(check func(netip.AddrPort) error) *http.Transport {
	dialer := &net.Dialer{
		Timeout:  dialTimeout,
		Resolver: g.o.Resolver,
		// Control runs after name resolution, once for each address and right before the
		// connection to it: there is nothing left that could change in between.
		Control: func(network, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil || network != "tcp4" && network != "tcp6" {
				err = &Refused{Reason: ReasonAddress}
			} else {
				err = check(to)
			}
			g.o.Logger.Debug("dial", "address", address, "refused", err != nil)
			if g.o.OnDial != nil {
				g.o.OnDial(Dial{Address: to, Refused: err != nil})
			}
			if err != nil {
				return err
			}
			return g.holdBack
		},
	}
	return &http.Transport{
		Proxy:                  nil, // a proxy would choose the destination
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: g.o.RootCAs},
		TLSHandshakeTimeout:    tlsTimeout,
		DisableCompression:     true,
		MaxIdleConns:           idleConnsMax,
		MaxConnsPerHost:        connsPerHostMax,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: headerBytesMax,
	}
}

// checkAddress decides whether an address may be dialled.
func (g *Guard) checkAddress(to netip.AddrPort) error {
	network := "tcp6"
	if to.Addr().Is4() {
		network = "tcp4"
	}
	if g.isAllowed(to.Addr()) {
		return nil
	}
	if g.public.Safe(network, to.String(), nil) != nil || slices.ContainsFunc(alsoDenied, func(p netip.Prefix) bool { return p.Contains(to.Addr()) }) {
		return &Refused{Reason: ReasonAddress}
	}
	return nil
}

// alsoDenied lists addresses from public ranges that have a meaning inside a network.
var alsoDenied = []netip.Prefix{
	netip.MustParsePrefix("168.63.129.16/32"), // a cloud's host agent
}

func (g *Guard) isAllowed(address netip.Addr) bool {
	return slices.ContainsFunc(g.networks, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) })
}

func checkLoopback(to netip.AddrPort) error {
	if !to.Addr().Unmap().IsLoopback() {
		return &Refused{Reason: ReasonAddress}
	}
	return nil
}

// Limits bound one call.
type Limits struct {
	Timeout   time.Duration // of the whole call, body included; 0 means 10 seconds
	FirstByte time.Duration // of Get: until the answer starts; 0 means Timeout
	BodyBytes int64         // of the answer; 0 means 64 KiB
}

const (
	timeoutDefault   = 10 * time.Second
	bodyBytesDefault = 64 << 10
)

func (l Limits) orDefault() Limits {
	if l.Timeout == 0 {
		l.Timeout = timeoutDefault
	}
	if l.BodyBytes == 0 {
		l.BodyBytes = bodyBytesDefault
	}
	return l
}

// Client returns an HTTP client within limits. A redirect, a compressed answer and a body that
// is too long end as *Refused.
func (g *Guard) Client(l Limits) *http.Client {
	l = l.orDefault()
	return &http.Client{
		Transport:     &roundTripper{guard: g, bodyBytes: l.BodyBytes},
		Timeout:       l.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Response is a whole answer.
type Response struct {
	Status      int
	ContentType string
	Body        []byte
}

// Get fetches a URL within limits. Any status is an answer; an error is *Refused or an error of
// the network.
func (g *Guard) Get(ctx context.Context, url, accept string, l Limits) (*Response, error) {
	if _, err := g.CheckURL(url); err != nil {
		return nil, g.count(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inTime := func() bool { return true }
	if l.FirstByte > 0 {
		late := time.AfterFunc(l.FirstByte, cancel)
		defer late.Stop()
		inTime = late.Stop
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, g.count(&Refused{Reason: ReasonURL})
	}
	request.Header.Set("Accept", accept)
	request.Header.Set("User-Agent", "waxwing")
	response, err := g.Client(l).Do(request)
	if err != nil {
		return nil, bare(err)
	}
	defer response.Body.Close()
	if !inTime() { // a host may answer at the moment at which the request is canceled
		return nil, context.DeadlineExceeded
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, bare(err)
	}
	return &Response{response.StatusCode, response.Header.Get("Content-Type"), body}, nil
}

// bare removes the URL from an error: it may be long, and is untrusted input.
func bare(err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// count counts a refusal and returns err.
func (g *Guard) count(err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		g.refused.WithLabelValues(string(refused.Reason)).Inc()
		g.o.Logger.Debug("egress refused", "reason", refused.Reason)
	}
	return err
}
