package prove

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
)

var tm005 = Proof{
	ID: "TM-005", Title: "replayed tokens",
	Attack: "A service token is presented many times: at one instant over many connections, at two servers that share a database, " +
		"by HTTP, WebSocket and XRPC; after the server was killed; after used tokens were swept; near its end; for another method; spelled differently. " +
		"Tokens that live too long are tried, and ids of tokens that another account has used.",
	Mitigation: "The id of an accepted token is stored with its issuer, in the shared database and before the answer, for longer than the token lives, which is five minutes at most.",
	Detection:  []string{"waxwing_auth_replays_total"},
	Run:        replayTokens,
}

// What a token is presented with.
const (
	replaysAtOnce = 8 // presentations of one token at one instant
	replayLife    = 5 * time.Minute
	replaySkew    = 30 * time.Second // by which clocks may differ
	nearEnd       = 4 * time.Second  // left of a token that is presented until it has ended
	replayPause   = 5 * time.Second  // between presentations after a kill

	replayLater    = "later"
	replaySpelled  = "other spelling"
	replayRestored = "after a kill and a sweep"

	listMethod = xrpc.Chat + "getConvos"
)

// replays is a run of TM-005.
type replays struct {
	*Run
	ctx   context.Context
	nodes []*Server // of one service
	keys  []*identity.AccountKey
	lines drive.Lines

	refused map[string]float64 // presentations, by what was wrong with them
	again   map[string]int     // used tokens that were accepted, in the same way
}

// usedToken is a token that was accepted.
type usedToken struct {
	text, method string
	ends         time.Time // when its age ends it, with the tolerance for clocks
}

func replayTokens(ctx context.Context, r *Run) error {
	p := &replays{Run: r, ctx: ctx, refused: map[string]float64{}, again: map[string]int{}}
	defer p.lines.Close()
	for _, alg := range identity.Algorithms {
		key, err := identity.DeriveAccountKey(fmt.Append(nil, r.Seed), "account", alg)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, key)
	}
	var err error
	if p.nodes, err = r.ServeNodes(ctx, "--limit", "all=off"); err != nil {
		return err
	}
	for _, attack := range []func() error{p.atOnce, p.sameID, p.otherMethods, p.lifetimes, p.spellings, p.afterSweeps} {
		if err := attack(); err != nil {
			return err
		}
	}
	r.Bars("refused presentations", p.refused)
	for _, node := range p.nodes {
		if err := node.Stop(); err != nil {
			return err
		}
	}
	return nil
}

// claims returns the claims of a token that is good now.
func (p *replays) claims(key *identity.AccountKey, method string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": key.DID(), "aud": p.nodes[0].DID, "lxm": method, "jti": p.id(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
}

// id returns a new id for a token.
func (p *replays) id() string { return fmt.Sprintf("%d-%d", p.Seed, time.Now().UnixNano()) }

// sign signs claims, also ones that no honest account makes.
func sign(key *identity.AccountKey, claims map[string]any) (string, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"typ":"JWT"}`, key.Alg())) + "." + base64.RawURLEncoding.EncodeToString(body)
	signature, err := key.Sign([]byte(text))
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// aim prepares one presentation of a token for a method at a node: by XRPC, or in one of the two
// ways to start a session.
func (p *replays) aim(node *Server, i int, method, token string) (*drive.Shot, error) {
	switch {
	case method != gateway.AuthMethod:
		return p.lines.HTTP(p.ctx, node.Address(), "GET", "/xrpc/"+method, token, nil)
	case i%2 == 0:
		body, err := gateway.Marshal(&gateway.Start{AuthToken: token, DeviceID: "phone"})
		if err != nil {
			return nil, err
		}
		return p.lines.HTTP(p.ctx, node.Address(), "POST", "/v1/session/start", "", body)
	}
	frame, err := gateway.EncodeFrame(gateway.TypeSessionStart, gateway.StringID("1"), &gateway.Start{AuthToken: token, DeviceID: "phone"})
	if err != nil {
		return nil, err
	}
	return drive.FirstFrame(p.ctx, "ws://"+node.Address()+"/v1/ws", frame)
}

// present presents a token once; what names the presentation in the picture.
func (p *replays) present(what string, node *Server, i int, method, token string) (isAccepted bool, err error) {
	shot, err := p.aim(node, i, method, token)
	if err != nil {
		return false, err
	}
	status, err := shot.Fire()
	return p.judge(what, status, err)
}

// judge counts an answer.
func (p *replays) judge(what string, status int, err error) (isAccepted bool, _ error) {
	switch {
	case err != nil:
		return false, fmt.Errorf("%s: %w", what, err)
	case status == 200:
		return true, nil
	case status == 401:
		p.refused[what]++
		return false, nil
	}
	return false, fmt.Errorf("%s: status %d, want 200 or 401", what, status)
}

// atOnce presents each token several times at one instant, over all nodes.
func (p *replays) atOnce() error {
	tokens := Size(p.Run, 60, 3000)
	before, err := p.replaysCounted()
	if err != nil {
		return err
	}
	line := p.Plot("one token, presented at one instant: until the last answer", "ms", fmt.Sprintf("%d presentations", replaysAtOnce))
	never, twice, overlapped, refused := 0, 0, 0, 0
	for n := range tokens {
		p.At(n, tokens, "presenting each token %d times at one instant", replaysAtOnce)
		method := []string{gateway.AuthMethod, listMethod}[n%2]
		token, err := sign(p.keys[n%len(p.keys)], p.claims(p.keys[n%len(p.keys)], method))
		if err != nil {
			return err
		}
		shots := make([]*drive.Shot, replaysAtOnce)
		for i := range shots {
			if shots[i], err = p.aim(p.nodes[i%len(p.nodes)], i/len(p.nodes), method, token); err != nil {
				return err
			}
		}
		drive.Volley(shots)
		accepted := 0
		for _, shot := range shots {
			isAccepted, err := p.judge("at one instant", shot.Status, shot.Err)
			if err != nil {
				return err
			}
			if isAccepted {
				accepted++
			} else {
				refused++
			}
		}
		switch {
		case accepted == 0:
			never++
		case accepted > 1:
			twice++
		}
		fired := slices.MaxFunc(shots, func(a, b *drive.Shot) int { return a.Fired.Compare(b.Fired) }).Fired
		if !slices.MinFunc(shots, func(a, b *drive.Shot) int { return a.Answered.Compare(b.Answered) }).Answered.Before(fired) {
			overlapped++
		}
		line.Add(float64(slices.MaxFunc(shots, func(a, b *drive.Shot) int { return a.Answered.Compare(b.Answered) }).Answered.Sub(fired).Microseconds()) / 1000)
	}
	after, err := p.replaysCounted()
	if err != nil {
		return err
	}
	p.Did("%d tokens were presented %d times each at one instant at %d server(s) on one database: by HTTP and WebSocket for a session, and by XRPC.", tokens, replaysAtOnce, len(p.nodes))
	p.Exactly("tokens accepted more than once at one instant", float64(twice), 0, "")
	p.Exactly("tokens that were never accepted", float64(never), 0, "")
	p.AtLeast("tokens presented everywhere before the first answer", float64(overlapped)/float64(tokens)*100, 50, "%")
	p.Exactly("metric auth_replays_total, less refused presentations", after-before-float64(refused), 0, "")
	return nil
}

// replaysCounted returns what the nodes have counted.
func (p *replays) replaysCounted() (sum float64, err error) {
	for _, node := range p.nodes {
		metrics, err := node.Ops.Metrics(p.ctx)
		if err != nil {
			return 0, err
		}
		n, ok := metrics.Sum("waxwing_auth_replays_total")
		if !ok {
			return 0, errors.New("the server has no metric waxwing_auth_replays_total")
		}
		sum += n
	}
	return sum, nil
}

// sameID lets several accounts use the same ids: each has its own.
func (p *replays) sameID() error {
	ids := Size(p.Run, 10, 300)
	denied := 0
	for n := range ids {
		p.At(n, ids, "using one id in tokens of several accounts")
		id := p.id()
		method := []string{gateway.AuthMethod, listMethod}[n%2]
		for i, key := range p.keys {
			claims := p.claims(key, method)
			claims["jti"] = id
			token, err := sign(key, claims)
			if err != nil {
				return err
			}
			isAccepted, err := p.present("id of another account", p.nodes[i%len(p.nodes)], n/2, method, token)
			if err != nil {
				return err
			}
			if !isAccepted {
				denied++
			}
			if err := p.mustRefuse(replayLater, method, token); err != nil {
				return err
			}
		}
	}
	p.Did("%d ids of tokens were used by %d accounts each, and every one of these tokens was presented again.", ids, len(p.keys))
	p.Exactly("tokens refused because another account had used their id", float64(denied), 0, "")
	p.Exactly("used tokens accepted again", float64(p.again[replayLater]), 0, "")
	return nil
}

// mustRefuse presents a used token to each node.
func (p *replays) mustRefuse(what, method, token string) error {
	for i, node := range p.nodes {
		isAccepted, err := p.present(what, node, i, method, token)
		if err != nil {
			return err
		}
		if isAccepted {
			p.again[what]++
		}
	}
	return nil
}

// otherMethods presents tokens for other methods than they name.
func (p *replays) otherMethods() error {
	p.Step("presenting tokens for other methods")
	const lower = xrpc.Chat + "getconvos"
	pairs := []struct {
		named any
		used  string
	}{
		{listMethod, gateway.AuthMethod}, {gateway.AuthMethod, listMethod}, {xrpc.Chat + "getMessages", listMethod}, {lower, listMethod},
		{listMethod + " ", listMethod}, {listMethod + "#x", listMethod}, {"*", listMethod}, {xrpc.Chat + "*", listMethod}, {"", listMethod}, {nil, listMethod},
		{[]string{listMethod}, listMethod}, {"", gateway.AuthMethod}, {nil, gateway.AuthMethod}, {[]string{gateway.AuthMethod}, gateway.AuthMethod},
		{strings.ToUpper(gateway.AuthMethod), gateway.AuthMethod}, {"im.waxwing.session", gateway.AuthMethod},
	}
	accepted := 0
	for n, pair := range pairs {
		claims := p.claims(p.keys[n%len(p.keys)], listMethod)
		if claims["lxm"] = pair.named; pair.named == nil {
			delete(claims, "lxm")
		}
		token, err := sign(p.keys[n%len(p.keys)], claims)
		if err != nil {
			return err
		}
		for i := range 2 {
			isAccepted, err := p.present("other method", p.nodes[0], i, pair.used, token)
			if err != nil {
				return err
			}
			if isAccepted {
				accepted++
			}
		}
	}
	p.Did("%d tokens were presented for another method than the one that they are for.", len(pairs))
	p.Exactly("tokens accepted for another method", float64(accepted), 0, "")
	return nil
}

// lifetimes presents tokens of all ages and lifetimes.
func (p *replays) lifetimes() error {
	p.Step("presenting tokens of all ages")
	tests := []struct {
		name        string
		issued, end any // seconds from now, or another value for the claim
		isGood      bool
	}{
		{"young", 0, 60, true}, {"of five minutes", 0, 300, true}, {"old, with seconds left", -280, 15, true}, {"just ended, within the tolerance for clocks", -60, -15, true},
		{"without iat", nil, 60, true},
		{"of six minutes", 0, 360, false}, {"of an hour", 0, 3600, false}, {"of a year", 0, 31536000, false}, {"for ever", 0, 1 << 39, false},
		{"of six minutes, issued before", -350, 10, false}, {"of an hour, issued before", -3590, 10, false}, {"of an hour, without iat", nil, 3600, false},
		{"without an end", 0, nil, false}, {"end as text", 0, "tomorrow", false}, {"end in a list", 0, []int{1 << 33}, false}, {"end null", 0, json.RawMessage("null"), false},
		{"end beyond all numbers", 0, json.RawMessage("1e400"), false}, {"negative end", 0, json.RawMessage("-1"), false},
		{"ended a minute ago", -120, -60, false}, {"ended an hour ago", -3660, -3600, false}, {"ended, without iat", nil, -60, false},
		{"from the future", 120, 180, false},
	}
	now := time.Now().Unix()
	set := func(claims map[string]any, name string, value any) {
		switch value := value.(type) {
		case nil:
			delete(claims, name)
		case int:
			claims[name] = now + int64(value)
		default:
			claims[name] = value
		}
	}
	var late, denied []string
	for n, test := range tests {
		for i, method := range []string{gateway.AuthMethod, gateway.AuthMethod, listMethod} {
			key := p.keys[(n+i)%len(p.keys)]
			claims := p.claims(key, method)
			set(claims, "iat", test.issued)
			set(claims, "exp", test.end)
			token, err := sign(key, claims)
			if err != nil {
				return err
			}
			isAccepted, err := p.present("out of time", p.nodes[i%len(p.nodes)], i, method, token)
			switch {
			case err != nil:
				return err
			case isAccepted && !test.isGood:
				late = append(late, test.name)
			case !isAccepted && test.isGood:
				denied = append(denied, test.name)
			}
		}
	}
	p.Did("Tokens of %d ages and lifetimes were presented at each door; a token may live five minutes, and clocks may differ by 30 seconds.", len(tests))
	p.Exactly("accepted tokens that live too long or have ended", float64(len(late)), 0, "")
	p.Exactly("refused tokens that are good", float64(len(denied)), 0, "")
	if len(late)+len(denied) > 0 {
		return fmt.Errorf("accepted: %q; refused: %q", late, denied)
	}
	return nil
}
