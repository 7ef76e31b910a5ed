package prove

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/hostile"
	"waxwing.im/waxwing/internal/identity"
)

var tm004 = Proof{
	ID: "TM-004", Title: "requests to inner networks",
	Attack: "Strangers make a server call them: by the issuer of a token at both doors, by the account in a request for its delivery service, and by what its document and its record name. " +
		"They name private addresses in every spelling, names that resolve to them, at once or later, redirects, and hosts that answer slowly, without end, compressed, or about others.",
	Mitigation: "One guard makes every outgoing connection: https to public names only, the address is checked as it is dialled, no redirect is followed, and time and bytes of an answer are bounded.",
	Detection:  []string{"waxwing_egress_refused_total"},
	Needs: func() error {
		if runtime.GOOS != "linux" { // SSL_CERT_FILE and all of 127.0.0.0/8
			return errors.New("a system on which a process can be given certificates to trust, and addresses of this machine: Linux")
		}
		return nil
	},
	Run: attackInnerNetworks,
}

const (
	outsideAddress = "127.83.0.1" // stands for the public internet
	insideAddress  = "127.0.0.1"  // stands for inner networks, beside those that nothing listens in

	lookupMax    = 8 * time.Second // of a lookup, as documented
	firstByteMax = 3 * time.Second
	lookupSlack  = 4 * time.Second // a busy machine
	answerBytes  = 8 << 20         // 64 KiB, and what the network holds
	callsAtATime = 8
	targetsMin   = 150
)

// outbound is a run of TM-004.
type outbound struct {
	*Run
	ctx     context.Context
	server  *Server
	outside *outside
	names   *hostile.NameServer
	dials   dialLog
	key     *identity.AccountKey
	lines   drive.Lines

	mu      sync.Mutex // guards the rest
	serial  int
	targets int
	given   []string           // endpoints of inner networks in answers
	taken   []string           // hostile documents that were believed
	errs    []error            // unexpected answers
	refused map[string]float64 // by path
}

// path is a way in which a stranger makes the server call something.
type path struct {
	name string
	call func(p *outbound, did string) (isBelieved bool, err error)
}

// documentPaths leads to the document of a DID.
var documentPaths = []path{
	{"token for a session", (*outbound).startSession},
	{"token of an XRPC call", (*outbound).callXRPC},
	{"delivery service of an account", func(p *outbound, did string) (bool, error) {
		endpoint, err := p.resolve(did)
		return endpoint != "", err
	}},
}

func attackInnerNetworks(ctx context.Context, r *Run) error {
	p := &outbound{Run: r, ctx: ctx, refused: map[string]float64{}}
	defer p.lines.Close()
	var err error
	if p.key, err = identity.DeriveAccountKey(fmt.Append(nil, r.Seed), "stranger", identity.ES256K); err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return err
	}
	before, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	if err := p.control(); err != nil {
		return err
	}
	for round := range Size(r, 1, 20) {
		for _, attack := range []func(round int) error{p.badAnswers, p.nameTargets, p.addressTargets, p.urlTargets, p.rebind} {
			if err := attack(round); err != nil {
				return err
			}
		}
	}
	after, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	if err := p.server.Stop(); err != nil {
		return err
	}
	p.judge()
	r.Moved(before, after, `egress_refused_total{reason="address"}`, `egress_refused_total{reason="literal"}`, `egress_refused_total{reason="host"}`,
		`egress_refused_total{reason="redirect"}`, `egress_refused_total{reason="encoding"}`, `egress_refused_total{reason="too_long"}`)
	counts := map[string]float64{}
	for _, reason := range []string{"address", "literal", "host", "port", "redirect", "encoding", "too_long"} {
		n, _ := after.Sum("waxwing_egress_refused_total", fmt.Sprintf("reason=%q", reason))
		counts[reason] = n
	}
	r.Bars("calls refused by the server, by reason", counts)
	return p.problems()
}

// start starts the name server, the hosts outside and inside, and the attacked server.
func (p *outbound) start() (err error) {
	names, end, err := hostile.NewNameServer()
	if err != nil {
		return err
	}
	p.names = names
	p.Cleanup(end)
	if p.outside, err = newOutside(p.Run); err != nil {
		return err
	}
	for _, host := range []string{"directory", "pds", "honest"} {
		names.Set(host+outsideDomain, outsideAddress)
	}
	database, err := p.NewDatabase(p.ctx)
	if err != nil {
		return err
	}
	p.server, err = p.NewServer(database, "--dev", "--egress-resolver", names.Address(), "--egress-allow", outsideAddress,
		"--egress-ports", "443", "--egress-ports", p.outside.port, "--plc-directory", p.outside.url("directory"),
		"--limit", "all=off", "--log-level", "debug", "--log-format", "json")
	if err != nil {
		return err
	}
	p.server.Surroundings = drive.Surroundings{Env: []string{"SSL_CERT_FILE=" + p.outside.certificates}, Log: &p.dials}
	return p.server.Start(p.ctx)
}

// control shows that the paths lead out where they may.
func (p *outbound) control() error {
	p.Step("calling hosts that may be called")
	did := p.web("honest" + outsideDomain)
	p.outside.document(did, p.key, "https://honest.example.org", "")
	believed := 0
	for _, path := range documentPaths {
		isBelieved, err := path.call(p, did)
		if err != nil {
			return fmt.Errorf("an honest account, %s: %w", path.name, err)
		}
		if isBelieved {
			believed++
		}
	}
	account := p.plc()
	p.outside.document(account, p.key, "", p.outside.url("pds"))
	p.outside.record(account, "https://honest.example.org")
	endpoint, err := p.resolve(account)
	if err != nil {
		return err
	}
	if endpoint != "" {
		believed++
	}
	p.Exactly("honest lookups that succeed, by all four paths", float64(believed), float64(len(documentPaths)+1), "")
	return nil
}

// nameTargets lets names resolve to addresses that must not be dialled, by every path.
func (p *outbound) nameTargets(round int) error {
	var jobs []func()
	for i, address := range hostile.Addresses {
		for k, path := range documentPaths {
			host := fmt.Sprintf("n%d-%d-%d%s", round, i, k, outsideDomain)
			p.names.Set(host, address)
			jobs = append(jobs, func() { p.attack(path, p.web(host)) })
		}
		host := fmt.Sprintf("p%d-%d%s", round, i, outsideDomain)
		p.names.Set(host, address)
		jobs = append(jobs, func() { p.attackPDS("https://" + host + ":" + p.outside.port) })
	}
	return p.do("names that resolve to private addresses", jobs)
}

// addressTargets names addresses themselves.
func (p *outbound) addressTargets(round int) error {
	if round > 0 {
		return nil // there is nothing random in it
	}
	var jobs []func()
	for _, text := range hostile.Addresses {
		address := netip.MustParseAddr(text)
		for _, path := range documentPaths {
			if address.Is4() { // a did:web cannot name others
				jobs = append(jobs, func() { p.attack(path, p.web(text)) })
			}
		}
		jobs = append(jobs, func() { p.attackPDS("https://" + netip.AddrPortFrom(address, 443).String()) })
	}
	return p.do("private addresses", jobs)
}

// urlTargets names URLs in documents and records: of a PDS, which is called, and of delivery
// services, which are given to others to be called.
func (p *outbound) urlTargets(round int) error {
	if round > 0 {
		return nil
	}
	var jobs []func()
	for _, target := range hostile.URLs {
		text := strings.TrimSuffix(target.URL, "/")
		if text == "" {
			continue
		}
		jobs = append(jobs,
			func() { p.attackPDS(text) },
			func() {
				account := p.plc()
				p.outside.document(account, p.key, text, "")
				p.attackEndpoint("endpoint in a document", account, text)
			},
			func() {
				account := p.plc()
				p.outside.document(account, p.key, "", p.outside.url("pds"))
				p.outside.record(account, text)
				p.attackEndpoint("endpoint in a record", account, text)
			})
		if u, err := url.Parse(target.URL); err == nil && (target.Reason == "host" || target.Reason == "literal" || target.Reason == "port") {
			for _, path := range documentPaths { // as an issuer; most have no such name
				jobs = append(jobs, func() { p.attack(path, "did:web:"+strings.ReplaceAll(u.Host, ":", "%3A")) })
			}
		}
	}
	return p.do("hostile URLs in documents and records, and their hosts as issuers", jobs)
}

// rebind lets names change: a first answer outside, the next ones inside, and both at once.
func (p *outbound) rebind(round int) error {
	var jobs []func()
	for i := range Size(p.Run, 8, 32) {
		host := fmt.Sprintf("turn%d-%d%s", round, i, outsideDomain)
		inside := []string{insideAddress, "::1", insideAddress + " ::1", "10.0.0.1", "169.254.169.254", outsideAddress + " " + insideAddress, "::ffff:" + insideAddress, "fd00::1"}[i%8]
		p.names.Set(host, outsideAddress, inside)
		path := documentPaths[i%len(documentPaths)]
		jobs = append(jobs, func() {
			for n := range 3 { // each time another document, which is not in the cache
				p.attack(path, p.web(host, fmt.Sprint("d", n)))
			}
		})
	}
	return p.do("names that change their addresses", jobs)
}

// do runs jobs, some at a time.
func (p *outbound) do(what string, jobs []func()) error {
	shuffled := p.Random(uint64(len(jobs))).Perm(len(jobs))
	turns := make(chan func())
	var running sync.WaitGroup
	for range callsAtATime {
		running.Go(func() {
			for job := range turns {
				if p.ctx.Err() == nil {
					job()
				}
			}
		})
	}
	for n, i := range shuffled {
		p.At(n, len(jobs), "attacking by %s", what)
		turns <- jobs[i]
	}
	close(turns)
	running.Wait()
	p.Did("%d targets: %s.", len(jobs), what)
	return context.Cause(p.ctx)
}

// attack calls a path for a DID that must not be believed.
func (p *outbound) attack(to path, did string) {
	isBelieved, err := to.call(p, did)
	p.count(to.name, did, isBelieved, err)
}

// attackPDS names a PDS in the document of an account.
func (p *outbound) attackPDS(endpoint string) {
	account := p.plc()
	p.outside.document(account, p.key, "", endpoint)
	got, err := p.resolve(account)
	p.count("PDS in a document", endpoint, got != "", err)
}

// attackEndpoint looks up an account that names a hostile endpoint, which must not be given out.
func (p *outbound) attackEndpoint(name, account, endpoint string) {
	got, err := p.resolve(account)
	p.count(name, endpoint, false, err)
	if got != "" {
		p.mu.Lock()
		p.given = append(p.given, endpoint)
		p.mu.Unlock()
	}
}

func (p *outbound) count(path, target string, isBelieved bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.targets++
	switch {
	case err != nil:
		p.errs = append(p.errs, fmt.Errorf("%s, %.80q: %w", path, target, err))
	case isBelieved:
		p.taken = append(p.taken, target)
	default:
		p.refused[path]++
	}
}

// web returns the did:web of a host outside, with a path.
func (p *outbound) web(host string, path ...string) string {
	return strings.Join(append([]string{"did:web:" + host + "%3A" + p.outside.port}, path...), ":")
}

// plc returns another did:plc.
func (p *outbound) plc() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	digits := []byte(strings.Repeat("a", 24))
	for i, n := len(digits)-1, p.serial; n > 0; i, n = i-1, n/32 {
		digits[i] = "abcdefghijklmnopqrstuvwxyz234567"[n%32]
	}
	return "did:plc:" + string(digits)
}

// token signs a token of an issuer with the stranger's key.
func (p *outbound) token(issuer, method string) (string, error) {
	now := time.Now()
	return identity.SignToken(p.key, identity.Claims{Issuer: issuer, Audience: p.server.DID, Method: method, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
}

// startSession starts a session as an issuer.
func (p *outbound) startSession(issuer string) (isBelieved bool, err error) {
	token, err := p.token(issuer, gateway.AuthMethod)
	if err != nil {
		return false, err
	}
	body, err := gateway.Marshal(&gateway.Start{AuthToken: token, DeviceID: "phone"})
	if err != nil {
		return false, err
	}
	shot, err := p.lines.HTTP(p.ctx, p.server.Address(), http.MethodPost, "/v1/session/start", "", body)
	return believed(shot, err)
}

// callXRPC calls a method as an issuer.
func (p *outbound) callXRPC(issuer string) (isBelieved bool, err error) {
	token, err := p.token(issuer, listMethod)
	if err != nil {
		return false, err
	}
	shot, err := p.lines.HTTP(p.ctx, p.server.Address(), http.MethodGet, "/xrpc/"+listMethod, token, nil)
	return believed(shot, err)
}

func believed(shot *drive.Shot, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	switch status, err := shot.Fire(); {
	case err != nil:
		return false, err
	case status == http.StatusOK:
		return true, nil
	case status == http.StatusUnauthorized || status == http.StatusServiceUnavailable:
		return false, nil
	default:
		return false, fmt.Errorf("status %d, want 401 or 503", status)
	}
}

// resolve asks for the delivery service of an account; "" is none.
func (p *outbound) resolve(account string) (endpoint string, err error) {
	p.mu.Lock()
	p.serial++
	asker, err := identity.DeriveAccountKey(fmt.Append(nil, p.Seed), fmt.Sprint("asker ", p.serial%64), identity.ES256K) // each is served a few at a time
	p.mu.Unlock()
	if err != nil {
		return "", err
	}
	now := time.Now()
	token, err := identity.SignToken(asker, identity.Claims{Issuer: asker.DID(), Audience: p.server.DID, Method: xrpc.ResolveDeliveryService, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return "", err
	}
	shot, err := p.lines.HTTP(p.ctx, p.server.Address(), http.MethodGet, "/xrpc/"+xrpc.ResolveDeliveryService+"?did="+url.QueryEscape(account), token, nil)
	if err != nil {
		return "", err
	}
	switch status, err := shot.Fire(); {
	case err != nil:
		return "", err
	case status == http.StatusOK:
		return account, nil
	case status == http.StatusNotFound || status == http.StatusBadGateway || status == http.StatusBadRequest:
		return "", nil
	default:
		return "", fmt.Errorf("status %d, want 404 or 502", status)
	}
}

// judge compares what was dialled with what may be.
func (p *outbound) judge() {
	allowed := netip.MustParseAddrPort(outsideAddress + ":" + p.outside.port)
	dials := p.dials.all()
	outside, refused := 0, 0
	var inner []string
	for _, d := range dials {
		switch {
		case d.Refused:
			refused++
		case d.Address == allowed.String():
			outside++
		default:
			inner = append(inner, d.Address)
		}
	}
	p.AtLeast("targets", float64(p.targets), targetsMin, "")
	p.Exactly("connections to addresses that are not public, by the dialler's record", float64(len(inner)), 0, "")
	p.Exactly("connections that listeners in the inner network have seen", float64(p.outside.visits()), 0, "")
	p.AtLeast("addresses that the dialler refused", float64(refused), float64(len(hostile.Addresses)*(len(documentPaths)+1)/2), "") // a machine may lack IPv6
	p.AtLeast("connections to the host that stands for the internet, by the same record", float64(outside), 1, "")
	p.Exactly("hostile documents that were believed", float64(len(p.taken)), 0, "")
	p.Exactly("hostile endpoints that were given to others", float64(len(p.given)), 0, "")
	p.Exactly("unexpected answers", float64(len(p.errs)), 0, "")
	p.Bars("refused targets, by path", p.refused)
	if len(inner) > 0 {
		p.errs = append(p.errs, fmt.Errorf("dialled: %q", inner[:min(len(inner), 20)]))
	}
}

// problems returns the first violations.
func (p *outbound) problems() error {
	errs := p.errs[:min(len(p.errs), 20)]
	if n := len(p.taken); n > 0 {
		errs = append(errs, fmt.Errorf("believed: %.80q", p.taken[:min(n, 20)]))
	}
	if n := len(p.given); n > 0 {
		errs = append(errs, fmt.Errorf("given out: %.80q", p.given[:min(n, 20)]))
	}
	return errors.Join(errs...)
}
