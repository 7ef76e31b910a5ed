package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

const (
	// keysBytesMax bounds the parsed keys of did:key issuers that are cached: decompressing a
	// key costs half as much as verifying a signature.
	keysBytesMax = 16 << 20
	// keyBytes is the approximate size of a parsed key.
	keyBytes = 1 << 10
)

// keyCache caches keys by their did:key.
type keyCache struct{ memory[publicKey] }

func newKeyCache() *keyCache {
	return &keyCache{memory[publicKey]{bytesMax: keysBytesMax, size: func(publicKey) int { return keyBytes }}}
}

func (c *keyCache) parse(did string) (publicKey, error) {
	if key, ok := c.get(did); ok {
		return key, nil
	}
	key, err := parseDIDKey(did)
	if err == nil {
		c.put(strings.Clone(did), key)
	}
	return key, err
}

// issuers finds the key of one token's issuer and verifies the token with it: did:key keys, and
// keys of documents.
type issuers struct {
	a         *Authenticator
	fragments []string // of the methods that may sign
	address   string   // for which lookups are counted
	// take counts a token for the address before any costly step. Its error refuses every token
	// of the address except those of accounts that were here before.
	take func() error

	isPenalised bool // take has refused
	isKnown     bool // the issuer was here before, as far as checked
	found       found
}

func (i *issuers) count() error { return i.take() }

// begin decides whether a token that names the issuer is verified at all. reason is the fault
// of its claims. The checks are in the order of their cost.
func (i *issuers) begin(ctx context.Context, issuer ds.AccountID, reason error) error {
	if err := i.a.checkIssuer(i.address, issuer); err != nil {
		return err
	}
	penalty := i.count()
	if penalty == nil {
		return nil
	}
	if reason != nil {
		return penalty
	}
	isKnown, err := i.a.wasHere(ctx, issuer, penalty)
	switch {
	case err != nil:
		return err
	case !isKnown:
		return penalty
	}
	i.isPenalised, i.isKnown = true, true
	return nil
}

// verify checks the signature of a token. An issuer may have changed its keys since its
// document was fetched.
func (i *issuers) verify(ctx context.Context, u unverified, issuer string) error {
	key, err := i.key(ctx, issuer, u.kid)
	if err == nil {
		err = i.check(ctx, u, key)
	}
	if !errors.Is(err, errSignature) && !errors.Is(err, errKeyID) && !errors.Is(err, errAlgorithm) && !errors.Is(err, errNoKey) {
		return err
	}
	newer, newerErr := i.newerKey(ctx, issuer, u.kid)
	switch {
	case newerErr == nil:
		return i.check(ctx, u, newer)
	case ds.CodeOf(newerErr) != "":
		return newerErr
	case i.found.isStale:
		// The current key could not be fetched: that is not a verdict.
		return ds.UnavailableFor(fmt.Errorf("the document is too old to decide: %w", err), documentFailedLife)
	}
	return err
}

// check verifies the signature with a key. For a penalised address few signatures are verified
// at a time.
func (i *issuers) check(ctx context.Context, u unverified, key publicKey) error {
	if i.isPenalised {
		leave, err := i.a.signatures.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
	}
	return u.verify(key)
}

func (i *issuers) key(ctx context.Context, issuer, kid string) (publicKey, error) {
	if strings.HasPrefix(issuer, didKeyPrefix) {
		return i.ownKey(issuer, kid)
	}
	if i.a.o.Resolver == nil {
		return publicKey{}, errIssuer
	}
	var err error
	i.found, err = i.a.o.Resolver.document(ctx, issuer, i.asker(issuer))
	if err != nil {
		return publicKey{}, resolveError(err)
	}
	return i.found.document.key(kid, i.fragments)
}

func (i *issuers) newerKey(ctx context.Context, issuer, kid string) (publicKey, error) {
	if i.found.document == nil || i.found.isNew {
		return publicKey{}, errIssuer
	}
	newer, err := i.a.o.Resolver.refresh(ctx, issuer, i.found.document, i.asker(issuer))
	if err != nil {
		return publicKey{}, resolveError(err)
	}
	if newer == nil {
		return publicKey{}, errIssuer
	}
	i.found = found{document: newer, isNew: true}
	return newer.key(kid, i.fragments)
}

// ownKey returns the key that a did:key encodes.
func (i *issuers) ownKey(issuer, kid string) (publicKey, error) {
	key, err := i.a.keys.parse(issuer)
	if err != nil {
		return publicKey{}, fmt.Errorf("%w: %w", errIssuer, err)
	}
	// A did:key has one method, named after the key. Signers that use one name for the key of
	// any DID write "#atproto".
	multibase := strings.TrimPrefix(issuer, didKeyPrefix)
	if kid != "" && kid != keyAccount && kid != "#"+multibase && kid != issuer+"#"+multibase {
		return publicKey{}, errKeyID
	}
	return key, nil
}

// asker returns an asker that counts a lookup caused by a stranger for the address. Lookups for
// accounts that were here before are few: each at most once in the life of a document.
func (i *issuers) asker(issuer string) asker {
	return asker{address: i.address, isKnown: i.isKnown, count: func(ctx context.Context) (bool, error) {
		if i.isKnown {
			return true, nil
		}
		refused := i.a.take(limits.AddressLookups, i.address)
		if refused == nil {
			return i.a.admitted.isRemembered(ds.AccountID(issuer)), nil
		}
		isKnown, err := i.a.wasHere(ctx, ds.AccountID(issuer), refused)
		if err == nil && !isKnown {
			err = refused
		}
		return isKnown, err
	}}
}

// resolveError turns a resolver's error into a reason to refuse a token, or into a temporary
// fault if a host could not be reached. A limit and the end of the caller's context are
// returned unchanged.
func resolveError(err error) error {
	var unresolved *ResolveError
	switch {
	case !errors.As(err, &unresolved):
		if ds.CodeOf(err) != "" {
			return err
		}
		return ds.Unavailable(err)
	case unresolved.Kind == ResolveFailed:
		return ds.UnavailableFor(unresolved, unresolved.RetryAfter)
	}
	return fmt.Errorf("%w: %w", errIssuer, unresolved)
}
