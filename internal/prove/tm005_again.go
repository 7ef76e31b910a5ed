package prove

import (
	"encoding/base64"
	"math/big"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

// replayRounds is how often at least a used token is presented again after the kill.
const replayRounds = 3

// spellings presents a used token in other spellings, which have the same content and signature.
func (p *replays) spellings() error {
	p.Step("spelling used tokens differently")
	count := 0
	for n, key := range p.keys {
		method := []string{gateway.AuthMethod, listMethod}[n%2]
		token, err := sign(key, p.claims(key, method))
		if err != nil {
			return err
		}
		if isAccepted, err := p.present("first", p.nodes[0], 0, method, token); err != nil || !isAccepted {
			p.AtLeast("tokens accepted before they are spelled differently", 0, 1, "")
			return err
		}
		for _, text := range respelled(key, token) {
			count++
			if err := p.mustRefuse(replaySpelled, method, text); err != nil {
				return err
			}
		}
	}
	p.Did("%d other spellings of used tokens were presented.", count)
	p.Exactly("used tokens accepted again in other spellings", float64(p.again[replaySpelled]), 0, "")
	return nil
}

// respelled returns a token in other spellings.
func respelled(key *identity.AccountKey, token string) []string {
	parts := strings.Split(token, ".")
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	texts := []string{
		" " + token, token + " ", token + "=", token + "==",
		token[:len(token)-1] + alphabet[last^1:][:1], // bits that belong to no byte
		parts[0] + "=." + parts[1] + "." + parts[2],
		parts[0] + "." + parts[1] + "=." + parts[2],
		"Bearer " + token,
	}
	if key.Alg() != identity.EdDSA { // the other s with which an ECDSA signature verifies
		order, _ := new(big.Int).SetString(map[string]string{
			identity.ES256:  "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
			identity.ES256K: "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
		}[key.Alg()], 16)
		signature, _ := base64.RawURLEncoding.DecodeString(parts[2]) // our own
		s := new(big.Int).SetBytes(signature[32:])
		s.Sub(order, s).FillBytes(signature[32:])
		texts = append(texts, parts[0]+"."+parts[1]+"."+base64.RawURLEncoding.EncodeToString(signature))
	}
	return texts
}

// afterSweeps presents used tokens again and again until they have ended by their age: after the
// node that had accepted them was killed, and after it has swept, which it does as it starts and
// each minute. In a quick run they are old already when they are used first.
func (p *replays) afterSweeps() error {
	p.Step("killing the server that has just accepted tokens")
	now := time.Now()
	ends := []time.Time{now.Add(nearEnd - replaySkew), now.Add(20 * time.Second), now.Add(replayLife - 10*time.Second)}
	var used []usedToken
	victim := p.nodes[0]
	for n, end := range ends {
		for i, method := range []string{gateway.AuthMethod, listMethod} {
			key := p.keys[(n+i)%len(p.keys)]
			claims := p.claims(key, method)
			claims["iat"], claims["exp"] = min(now.Unix(), end.Add(10*time.Second-replayLife).Unix()), end.Unix()
			token, err := sign(key, claims)
			if err != nil {
				return err
			}
			isAccepted, err := p.present("first", victim, 0, method, token)
			if err != nil {
				return err
			}
			if isAccepted {
				used = append(used, usedToken{token, method, end.Add(replaySkew)})
			}
		}
	}
	p.Exactly("tokens accepted just before the server is killed", float64(len(used)), float64(2*len(ends)), "")
	victim.Kill()
	p.lines.Close() // its connections are gone
	if err := victim.Start(p.ctx); err != nil {
		return err
	}
	until := now.Add(Size(p.Run, nearEnd+time.Second, replayLife+replaySkew+time.Second))
	tried, rounds := 0, 0
	for ; rounds < replayRounds || time.Now().Before(until); rounds++ { // a busy machine starts a server slowly
		left := max(time.Until(until), 0).Round(time.Second)
		p.Step("presenting used tokens again until they have ended, for another %s", left)
		for _, token := range used {
			if err := p.mustRefuse(replayRestored, token.method, token.text); err != nil {
				return err
			}
			tried += len(p.nodes)
		}
		if err := p.Settle(p.ctx, replayPause); err != nil {
			return err
		}
	}
	fresh := 0 // a server that refuses everything accepts nothing again either
	for i, node := range p.nodes {
		token, err := sign(p.keys[0], p.claims(p.keys[0], listMethod))
		if err != nil {
			return err
		}
		isAccepted, err := p.present("first", node, i, listMethod, token)
		if err != nil {
			return err
		}
		if isAccepted {
			fresh++
		}
	}
	p.Exactly("servers that accept a fresh token after the kill", float64(fresh), float64(len(p.nodes)), "")
	p.Did("The server was killed after it had accepted %d tokens with 4 seconds to 5 minutes left, and started again, which sweeps; each was presented %d times more at each server, the last time after the first ones had ended.", len(used), rounds)
	p.AtLeast("presentations after the kill", float64(tried), float64(replayRounds*len(used)*len(p.nodes)), "")
	p.Exactly("used tokens accepted again after a kill and a sweep", float64(p.again[replayRestored]), 0, "")
	return nil
}
