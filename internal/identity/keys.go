package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// keysMax bounds how many keys of did:key issuers are kept parsed: finding the point
// of a compressed key costs half as much as verifying a signature.
const keysMax = 10_000

// keyCache keeps keys by the DIDs that they are. An arbitrary one makes room.
type keyCache struct {
	mu   sync.Mutex // guards keys
	keys map[string]publicKey
}

func (c *keyCache) parse(did string) (publicKey, error) {
	c.mu.Lock()
	key, ok := c.keys[did]
	c.mu.Unlock()
	if ok {
		return key, nil
	}
	key, err := parseDIDKey(did)
	if err != nil {
		return publicKey{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]publicKey{}
	}
	for other := range c.keys {
		if len(c.keys) < keysMax {
			break
		}
		delete(c.keys, other)
	}
	c.keys[did] = key
	return key, nil
}

// issuers is the keyring of one verification: keys that are their own DID, and keys
// of documents.
type issuers struct {
	a         *Authenticator
	preferred []string // fragments, when a token has no kid
	address   string   // whose lookups are counted
	document  *Document
	isFresh   bool // document was fetched for this token
}

func (i *issuers) key(ctx context.Context, issuer, kid string) (publicKey, error) {
	if strings.HasPrefix(issuer, didKeyPrefix) {
		return i.ownKey(issuer, kid)
	}
	if i.a.o.Resolver == nil {
		return publicKey{}, errIssuer
	}
	var err error
	i.document, i.isFresh, err = i.a.o.Resolver.document(ctx, issuer, i.mayFetch)
	if err != nil {
		return publicKey{}, resolveError(err)
	}
	return i.document.key(kid, i.preferred)
}

func (i *issuers) newerKey(ctx context.Context, issuer, kid string) (publicKey, error) {
	if i.document == nil || i.isFresh {
		return publicKey{}, errIssuer
	}
	newer, err := i.a.o.Resolver.refresh(ctx, issuer, i.document, i.mayFetch)
	if err != nil {
		return publicKey{}, resolveError(err)
	}
	if newer == nil {
		return publicKey{}, errIssuer
	}
	return newer.key(kid, i.preferred)
}

// ownKey is the key that a did:key is.
func (i *issuers) ownKey(issuer, kid string) (publicKey, error) {
	key, err := i.a.keys.parse(issuer)
	if err != nil {
		return publicKey{}, fmt.Errorf("%w: %w", errIssuer, err)
	}
	// A did:key has one method, named after the key. "#atproto" is what signers that
	// know one name for the key of any DID write.
	multibase := strings.TrimPrefix(issuer, didKeyPrefix)
	if kid != "" && kid != keyAccount && kid != "#"+multibase && kid != issuer+"#"+multibase {
		return publicKey{}, errKeyID
	}
	return key, nil
}

// mayFetch counts a lookup that a stranger causes.
func (i *issuers) mayFetch() error { return i.a.take(LimitAddressLookups, i.address) }

// resolveError turns what a resolver says into a reason to refuse a token. A limit
// and the caller's own end stay what they are.
func resolveError(err error) error {
	var unresolved *ResolveError
	if errors.As(err, &unresolved) {
		return fmt.Errorf("%w: %w", errIssuer, unresolved)
	}
	if ds.CodeOf(err) != "" {
		return err
	}
	return ds.Unavailable(err)
}
