package prove

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
)

// drain lets one caller, and then many, take all packages of an account.
func (p *packages) drain() error {
	p.Step("draining pools")
	const byOne, byMany = 100, 680
	victims, err := p.joinAll("victim", 3)
	if err != nil {
		return err
	}
	for i, n := range []int{byOne, freeMax - 1, byMany} {
		if err := p.stock(victims[i], n); err != nil {
			return err
		}
	}
	one, err := p.join("drainer")
	if err != nil {
		return err
	}
	var mu sync.Mutex
	refusals, waits := 0, 0 // claims refused by a limit; those that say how long to wait
	limited := func(err error) error {
		if refusedWith(err, http.StatusTooManyRequests) {
			mu.Lock()
			defer mu.Unlock()
			if refusals++; err.(*status).wait != "" {
				waits++
			}
			return nil
		}
		return err
	}
	began := time.Now()
	got, gotXRPC := 0, 0
	for range 10 {
		texts, err := p.fetch(one, victims[0].key.DID(), 10)
		if err := limited(err); err != nil {
			return err
		}
		got += len(texts)
	}
	for range claimsOfCaller + 10 {
		texts, err := p.get(one, victims[1].key.DID())
		if err := limited(err); err != nil {
			return err
		}
		gotXRPC += len(texts)
	}
	seconds := time.Since(began).Seconds()
	p.AtMost("packages that one caller took, both doors together", float64(got+gotXRPC), claimsOfCaller+10+seconds*claimsOfCaller/60, "")
	p.AtLeast("packages that one caller took at first", float64(got), claimsOfCaller, "")

	many, err := p.joinAll("drainer", claimsOfTarget/10+12)
	if err != nil {
		return err
	}
	began, got = time.Now(), 0
	err = each(len(many), func(i int) error {
		texts, err := p.fetch(many[i], victims[2].key.DID(), 10)
		mu.Lock()
		got += len(texts)
		mu.Unlock()
		return limited(err)
	})
	if err != nil {
		return err
	}
	seconds = time.Since(began).Seconds()
	left, err := p.available(victims[2])
	if err != nil {
		return err
	}
	p.Did("One caller tried to drain two accounts at both doors, and %d callers one account with %d packages.", len(many), byMany)
	p.AtMost("packages that many callers took of one account", float64(got), claimsOfTarget+10+seconds*claimsOfTarget/60, "")
	p.AtLeast("packages left of that account", float64(left), float64(byMany-claimsOfTarget-10)-seconds*claimsOfTarget/60, "")
	p.AtLeast("claims refused by a limit", float64(refusals), 10, "")
	p.Exactly("refusals that do not say how long to wait", float64(refusals-waits), 0, "")
	return nil
}

// enumerate asks without a good token, and compares the answers for accounts with packages,
// without, and for ones that do not exist.
func (p *packages) enumerate() error {
	p.Step("looking for accounts without a token")
	accounts, err := p.joinAll("known", 2)
	if err != nil {
		return err
	}
	if err := p.stock(accounts[0], 5); err != nil {
		return err
	}
	nobody, err := identity.DeriveAccountKey(fmt.Append(nil, p.Seed), "nobody", identity.ES256)
	if err != nil {
		return err
	}
	other, err := identity.DeriveAccountKey(fmt.Append(nil, p.Seed), "other", identity.ES256)
	if err != nil {
		return err
	}
	now := time.Now()
	// Signed by another key than that of the account which it names.
	forged, err := identity.SignToken(other, identity.Claims{Issuer: accounts[1].key.DID(), Audience: p.server.DID, Method: xrpc.GetKeyPackages, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
	if err != nil {
		return err
	}
	tokens := []string{"", "x", accounts[0].session + "x", forged}
	targets := []string{accounts[0].key.DID(), accounts[1].key.DID(), nobody.DID()}
	questions, differ, told := 0, 0, 0
	for _, token := range tokens {
		for _, ask := range []func(did string) (verb, path string, body []byte){
			func(did string) (string, string, []byte) {
				return http.MethodPost, "/v1/keypackages/fetch", fmt.Appendf(nil, `{"user_id":%q,"count":1}`, did)
			},
			func(did string) (string, string, []byte) {
				return http.MethodPost, "/v1/keypackages/fetch", fmt.Appendf(nil, `{"user_id":%q,"per_device":true}`, did)
			},
			func(did string) (string, string, []byte) {
				return http.MethodGet, "/xrpc/" + xrpc.GetKeyPackages + "?" + url.Values{"dids": {did}}.Encode(), nil
			},
			func(did string) (string, string, []byte) {
				return http.MethodGet, "/xrpc/" + xrpc.GetKeyPackageStatus + "?" + url.Values{"did": {did}}.Encode(), nil
			},
		} {
			var first string
			for i, did := range targets {
				verb, path, body := ask(did)
				shot, err := p.lines.HTTP(p.ctx, p.server.Address(), verb, path, token, body)
				if err != nil {
					return err
				}
				code, err := shot.Fire()
				if err != nil {
					return err
				}
				questions++
				shot.Header.Del("Date")
				answer := fmt.Sprint(code, shot.Header, string(shot.Body))
				if i == 0 {
					first = answer
				}
				if answer != first {
					differ++
				}
				if code != http.StatusUnauthorized || bytes.Contains(shot.Body, []byte("eyPackages\":")) {
					told++
				}
			}
		}
	}
	// A caller with a token sees no difference either between an account without packages and none.
	empty, err := p.strangersView(accounts[0], accounts[1].key.DID())
	if err != nil {
		return err
	}
	unknown, err := p.strangersView(accounts[0], nobody.DID())
	if err != nil {
		return err
	}
	if empty != unknown {
		differ++
	}
	p.Did("%d questions without a good token were asked at both doors: about an account with packages, one without, and one that does not exist.", questions)
	p.Exactly("answers that differ by whether the account exists", float64(differ), 0, "")
	p.Exactly("answers other than 401 without a good token", float64(told), 0, "")
	return nil
}

// strangersView returns what a caller sees of an account, without its name.
func (p *packages) strangersView(who *member, did string) (view string, err error) {
	var raw [2]json.RawMessage
	if err := p.post(who, "/v1/keypackages/fetch", &gateway.FetchKeyPackages{UserID: did, PerDevice: true}, &raw[0]); err != nil {
		return "", err
	}
	if err := p.xrpc(who, xrpc.GetKeyPackages, "?"+url.Values{"dids": {did}}.Encode(), nil, &raw[1]); err != nil {
		return "", err
	}
	return strings.ReplaceAll(fmt.Sprintf("%s %s", raw[0], raw[1]), did, "DID"), nil
}
