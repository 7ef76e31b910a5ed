package client

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// tokenLife is the lifetime of a service token. It is used within a second; the rest allows for
// clock differences. The server accepts up to 5 minutes.
const tokenLife = 2 * time.Minute

// serviceToken signs a JWT by which the account calls method at the service audience, once: the
// jti is random and the service remembers it.
func (a *Account) serviceToken(audience, method string, now time.Time) (string, error) {
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Method   string `json:"lxm"`
		ID       string `json:"jti"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}{a.did, audience, method, randomID(), now.Unix(), now.Add(tokenLife).Unix()})
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	signature, err := a.sign([]byte(signed))
	if err != nil {
		return "", err
	}
	return signed + "." + encode(signature), nil
}

// newMessageID returns a msg_id for a message or commit: a random UUID (RFC 9562, section 5.4),
// which every door of the server accepts.
func newMessageID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return formatUUID(id)
}

func formatUUID(id [16]byte) string {
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// randomID returns 128 random bits in 22 url-safe characters, such as a jti.
func randomID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(id[:])
}
