package prove

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/mls"
)

var rr005 = Proof{
	ID: "RR-005", Title: "key packages",
	Attack: "Callers at both doors claim from the same accounts at once, one and many callers drain one account, callers without a token look for accounts, " +
		"and packages are uploaded in floods, malformed, of others, and with an end that comes.",
	Mitigation: "A claim marks its package in the statement that finds it; claims are limited by caller, by target and by pair of both; a last-resort package stays for pools that are empty; uploads are validated, counted and bounded.",
	Detection: []string{"waxwing_key_package_claims_total", "waxwing_key_package_last_resort_total", "waxwing_key_package_pool_low_total",
		"waxwing_key_packages_available", "waxwing_rate_limited_total"},
	Missing: "a reserve that strangers cannot take, claims whose answer can be asked for again, and the push message that tells an owner who is away of a low pool",
	Run:     claimKeyPackages,
}

const (
	packageSuite = mls.X25519_AES128GCM_SHA256_Ed25519
	ownerDevice  = "phone"

	// The limits that shall trigger, as documented.
	claimsOfCaller = 60  // packages a minute
	claimsOfTarget = 600 // packages a minute
	publishesMax   = 60  // a minute, of a device
	freeMax        = 100 // unclaimed packages of an account that XRPC may add to
)

// packages is a run of RR-005.
type packages struct {
	*Run
	ctx    context.Context
	server *Server
	lines  drive.Lines

	mu   sync.Mutex // guards the rest
	made map[string]*madePackage
}

// madePackage is a key package that was published.
type madePackage struct {
	owner      string
	lastResort bool
	given      int // to callers
}

// member is an account with a session.
type member struct {
	key     *identity.AccountKey
	device  string
	session string
	signing mls.SignatureKey
}

// claimed is a claim with what it got.
type claimed struct {
	owner, text  string
	began, ended time.Time
}

func claimKeyPackages(ctx context.Context, r *Run) error {
	p := &packages{Run: r, ctx: ctx, made: map[string]*madePackage{}}
	defer p.lines.Close()
	var err error
	if p.server, err = r.Serve(ctx, "--keypackages", "strict"); err != nil {
		return err
	}
	memory := r.Watch(ctx, p.server)
	before, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	for i, attack := range []func() error{p.atOnce, p.drain, p.enumerate, p.uploads} {
		if err := attack(); err != nil {
			return err
		}
		p.lines.Close() // what idle connections hold is not what claims leave
		if i == 0 {
			if err := memory.Baseline(ctx); err != nil {
				return err
			}
		}
	}
	after, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	r.Moved(before, after, `key_package_claims_total{result="ok"}`, `key_package_claims_total{result="last_resort"}`, `key_package_claims_total{result="refused"}`,
		"key_package_last_resort_total", "key_package_pool_low_total", "key_packages_available_count",
		`rate_limited_total{policy="keypackage_fetches"}`, `rate_limited_total{policy="keypackage_target_fetches"}`)
	if err := memory.Check(ctx); err != nil {
		return err
	}
	return p.server.Stop()
}

// join makes an account with a session.
func (p *packages) join(name string) (*member, error) {
	key, err := identity.DeriveAccountKey(fmt.Append(nil, p.Seed), name, identity.ES256)
	if err != nil {
		return nil, err
	}
	m := &member{key: key}
	if m.signing, err = mls.NewSignatureKey(packageSuite); err != nil {
		return nil, err
	}
	return m, p.start(m, ownerDevice)
}

// start starts a session of a member.
func (p *packages) start(m *member, device string) error {
	now := time.Now()
	token, err := identity.SignToken(m.key, identity.Claims{Issuer: m.key.DID(), Audience: p.server.DID, Method: gateway.AuthMethod, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return err
	}
	var ready gateway.Ready
	if err := p.post(nil, "/v1/session/start", &gateway.Start{AuthToken: token, DeviceID: device, Features: []gateway.Feature{gateway.FeatureDevice}}, &ready); err != nil {
		return err
	}
	m.device, m.session = device, ready.SessionToken
	return nil
}

// joinAll makes n accounts.
func (p *packages) joinAll(name string, n int) ([]*member, error) {
	list := make([]*member, n)
	return list, each(n, func(i int) (err error) {
		list[i], err = p.join(fmt.Sprint(name, " ", i))
		return err
	})
}

// each calls do for 0 to n-1, eight at a time, and returns its errors.
func each(n int, do func(i int) error) error {
	var running sync.WaitGroup
	errs := make([]error, n)
	turns := make(chan int)
	for range 8 {
		running.Go(func() {
			for i := range turns {
				errs[i] = do(i)
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	running.Wait()
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil })...)
}

// status is the error of an answer other than 200.
type status struct {
	code int
	body []byte
	wait string // Retry-After
}

func (s *status) Error() string { return fmt.Sprintf("status %d: %.200s", s.code, s.body) }

// refusedWith reports whether err is an answer with that status.
func refusedWith(err error, code int) bool {
	s, ok := errors.AsType[*status](err)
	return ok && s.code == code
}

// fire sends a request and decodes the answer into out, if that is not nil.
func (p *packages) fire(verb, path, token string, body []byte, out any) error {
	shot, err := p.lines.HTTP(p.ctx, p.server.Address(), verb, path, token, body)
	if err != nil {
		return err
	}
	code, err := shot.Fire()
	switch {
	case err != nil:
		return err
	case code != http.StatusOK:
		return &status{code, shot.Body, shot.Header.Get("Retry-After")}
	case out == nil:
		return nil
	}
	return json.Unmarshal(shot.Body, out)
}

// post calls a path of the gateway.
func (p *packages) post(who *member, path string, in, out any) error {
	body, err := gateway.Marshal(in)
	if err != nil {
		return err
	}
	token := ""
	if who != nil {
		token = who.session
	}
	return p.fire(http.MethodPost, path, token, body, out)
}

// xrpc calls a method; in is nil for a query.
func (p *packages) xrpc(who *member, method, query string, in, out any) error {
	now := time.Now()
	token, err := identity.SignToken(who.key, identity.Claims{Issuer: who.key.DID(), Audience: p.server.DID, Method: method, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return err
	}
	if in == nil {
		return p.fire(http.MethodGet, "/xrpc/"+method+query, token, nil, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return p.fire(http.MethodPost, "/xrpc/"+method, token, body, out)
}

// make makes a key package of an account, and remembers it.
func (p *packages) make(of *member, o mls.KeyPackageOptions) (text string, err error) {
	k, err := mls.NewKeyPackage(packageSuite, mls.Identity{Credential: []byte(of.key.DID()), Key: of.signing}, o)
	if err != nil {
		return "", err
	}
	text = base64.StdEncoding.EncodeToString(k.Message())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made[text] = &madePackage{owner: of.key.DID(), lastResort: o.LastResort}
	return text, nil
}

// stock publishes one-time packages, and one of last resort.
func (p *packages) stock(of *member, n int) error {
	texts := make([]string, n+1)
	for i := range texts {
		var err error
		if texts[i], err = p.make(of, mls.KeyPackageOptions{LastResort: i == n}); err != nil {
			return err
		}
	}
	return p.publish(of, texts...)
}

// publish publishes at the gateway.
func (p *packages) publish(of *member, texts ...string) error {
	return p.post(of, "/v1/keypackages", &gateway.PublishKeyPackages{DeviceID: of.device, KeyPackages: texts}, nil)
}

// fetch claims by the gateway.
func (p *packages) fetch(who *member, owner string, count int64) ([]string, error) {
	var out gateway.KeyPackages
	err := p.post(who, "/v1/keypackages/fetch", &gateway.FetchKeyPackages{UserID: owner, Count: &count}, &out)
	return out.KeyPackages, err
}

// get claims by XRPC, one package of each owner.
func (p *packages) get(who *member, owners ...string) (map[string]string, error) {
	query := url.Values{}
	for _, owner := range owners {
		query.Add("dids", owner)
	}
	var out xrpc.GetKeyPackagesOutput
	if err := p.xrpc(who, xrpc.GetKeyPackages, "?"+query.Encode(), nil, &out); err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, k := range out.KeyPackages {
		texts[k.DID] = base64.StdEncoding.EncodeToString(k.KeyPackage.Data)
	}
	return texts, nil
}

// give counts a package that was given out; unknown ones are an error.
func (p *packages) give(owner, text string) (*madePackage, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.made[text]
	if k == nil || k.owner != owner {
		return nil, fmt.Errorf("a package that %s has not published was given out for it: %.60s", owner, text)
	}
	k.given++
	return k, nil
}

// atOnce lets callers claim from all targets at once, at both doors, more than there are.
func (p *packages) atOnce() error {
	targets, callers, pool := Size(p.Run, 10, 50), Size(p.Run, 40, 500), Size(p.Run, 24, 300)
	p.Step("publishing key packages of %d accounts", targets)
	owners, err := p.joinAll("owner", targets)
	if err != nil {
		return err
	}
	if err := each(targets, func(i int) error { return p.stock(owners[i], pool) }); err != nil {
		return err
	}
	who, err := p.joinAll("caller", callers)
	if err != nil {
		return err
	}
	p.Step("%d callers claim from %d accounts at once", callers, targets)
	line := p.Plot("time of a claim", "ms", "all callers at once")
	var mu sync.Mutex
	var claims []claimed
	orders := make([][]int, callers)
	random := p.Random(5)
	for i := range orders {
		orders[i] = random.Perm(targets)
	}
	errs := make([]error, callers)
	start := make(chan struct{})
	var running sync.WaitGroup
	for i, caller := range who {
		running.Go(func() {
			<-start
			errs[i] = p.claimFromAll(caller, owners, orders[i], i%2 == 0, func(c claimed) {
				line.Add(float64(c.ended.Sub(c.began).Microseconds()) / 1000)
				mu.Lock()
				defer mu.Unlock()
				if claims = append(claims, c); len(claims)%100 == 0 {
					p.At(len(claims), callers*targets, "%d callers claim from %d accounts at once", callers, targets)
				}
			})
		})
	}
	close(start)
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.Did("%d callers at both doors claimed a package from each of %d accounts at once; each account had %d and one of last resort.", callers, targets, pool)
	if err := p.judgeClaims(claims, owners, callers, pool); err != nil {
		return err
	}
	return p.tellOwners(owners)
}

// claimFromAll claims a package of each owner, in an order of the caller's own.
func (p *packages) claimFromAll(caller *member, owners []*member, order []int, isXRPC bool, add func(claimed)) error {
	for chunk := range slices.Chunk(order, 5) {
		var dids []string
		for _, i := range chunk {
			dids = append(dids, owners[i].key.DID())
		}
		if isXRPC {
			began := time.Now()
			texts, err := p.get(caller, dids...)
			if err != nil {
				return err
			}
			for _, did := range dids {
				add(claimed{did, texts[did], began, time.Now()})
			}
			continue
		}
		for _, did := range dids {
			began := time.Now()
			texts, err := p.fetch(caller, did, 1)
			if err != nil {
				return err
			}
			add(claimed{did, strings.Join(texts, " "), began, time.Now()})
		}
	}
	return nil
}

// judgeClaims checks what the callers got.
func (p *packages) judgeClaims(claims []claimed, owners []*member, callers, pool int) error {
	none, early := 0, 0
	oneTime, lastResort := map[string]int{}, map[string]int{}
	emptied := map[string]time.Time{} // the end of the first claim that got the last resort
	slices.SortFunc(claims, func(a, b claimed) int { return a.ended.Compare(b.ended) })
	for _, c := range claims {
		if c.text == "" {
			none++
			continue
		}
		k, err := p.give(c.owner, c.text)
		if err != nil {
			return err
		}
		if k.lastResort {
			if lastResort[c.owner]++; emptied[c.owner].IsZero() {
				emptied[c.owner] = c.ended
			}
			continue
		}
		oneTime[c.owner]++
		if at := emptied[c.owner]; !at.IsZero() && c.began.After(at) {
			early++
		}
	}
	twice, wrong := 0, 0
	for _, k := range p.made {
		if !k.lastResort && k.given > 1 {
			twice++
		}
	}
	for _, owner := range owners {
		if did := owner.key.DID(); oneTime[did] != min(pool, callers) || lastResort[did] != max(callers-pool, 0) {
			wrong++
		}
	}
	p.AtLeast("claims at once", float64(len(claims)), float64(callers*len(owners)), "")
	p.Exactly("packages given to two callers", float64(twice), 0, "")
	p.Exactly("claims that got nothing", float64(none), 0, "")
	p.Exactly("packages that were left when the last resort was given", float64(early), 0, "")
	p.Exactly("accounts of which not every package was given before the last resort", float64(wrong), 0, "")
	return nil
}

// tellOwners checks that every owner was told once that its pool is low, and once that it is
// empty.
func (p *packages) tellOwners(owners []*member) error {
	untold, repeated := 0, 0
	for _, owner := range owners {
		var out gateway.DeviceEvents
		if err := p.fire(http.MethodGet, "/v1/device-events", owner.session, nil, &out); err != nil {
			return err
		}
		told := 0
		for _, event := range out.Events {
			if strings.Contains(string(event), gateway.TypeKeyPackagesLow) {
				told++
			}
		}
		var counts xrpc.GetKeyPackageStatusOutput
		if err := p.xrpc(owner, xrpc.GetKeyPackageStatus, "", nil, &counts); err != nil {
			return err
		}
		if told < 2 || counts.Stats == nil || !counts.Stats.NeedsReplenish {
			untold++
		}
		repeated += max(told-2, 0)
	}
	p.Did("Each owner asked for the events of its device, and for the state of its pool by XRPC.")
	p.Exactly("owners not told that their pool is low, and then empty", float64(untold), 0, "")
	p.Exactly("owners told of that again", float64(repeated), 0, "")
	return nil
}

// available returns how many packages of an account can be claimed.
func (p *packages) available(of *member) (int64, error) {
	var out xrpc.GetKeyPackageStatusOutput
	if err := p.xrpc(of, xrpc.GetKeyPackageStatus, "", nil, &out); err != nil {
		return 0, err
	}
	return cmp.Or(out.Stats, &xrpc.KeyPackageStats{}).Available, nil
}
