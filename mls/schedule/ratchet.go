package schedule

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

var (
	// ErrUsed reports a generation with a deleted key: the key was used, or dropped because too
	// many others were skipped.
	ErrUsed = errors.New("message key was used before")
	// ErrTooFarAhead reports a generation that is further ahead than the limit.
	ErrTooFarAhead = errors.New("message key is too far ahead")
)

const (
	// JumpMax is the default number of generations by which a message may be ahead of its
	// sender's last.
	JumpMax = 1000
	// SkippedMax is the default number of skipped keys that one ratchet keeps; the oldest are
	// dropped first.
	SkippedMax = 1000
	// Ceiling is the highest value of either limit.
	Ceiling = 100_000
)

// Kind selects one of a member's two ratchets.
type Kind int

// The two ratchets of a member. RFC 9420, section 9.
const (
	Handshake Kind = iota
	Application
)

// Key is the key and the nonce of one message.
type Key struct {
	Generation uint32
	Key, Nonce []byte
}

// ratchet derives the keys of one member for one kind of message. It is a value; skipped is
// never changed in place. RFC 9420, section 9.1.
type ratchet struct {
	secret  []byte
	next    uint32 // generation that secret derives
	skipped []Key  // by rising generation, all below next
}

// limits bound the work and the memory of a ratchet.
type limits struct {
	jump    uint32
	skipped int
}

// step returns the next key and the ratchet after it.
func (r ratchet) step(s *suite.Suite) (Key, ratchet, error) {
	if r.next == math.MaxUint32 {
		return Key{}, r, fmt.Errorf("%w: the ratchet is exhausted (RFC 9420, section 9.1)", ErrTooFarAhead)
	}
	k := Key{
		Generation: r.next,
		Key:        s.DeriveTreeSecret(r.secret, "key", r.next, s.KeyBytes()),
		Nonce:      s.DeriveTreeSecret(r.secret, "nonce", r.next, suite.NonceBytes),
	}
	r.secret = s.DeriveTreeSecret(r.secret, "secret", r.next, suite.HashBytes)
	r.next++
	return k, r, nil
}

// take derives or finds the key of a generation, and returns a ratchet without it. The caller
// must overwrite the key after use.
func (r ratchet) take(s *suite.Suite, l limits, generation uint32) (Key, ratchet, error) {
	if generation < r.next {
		i, found := slices.BinarySearchFunc(r.skipped, generation, func(k Key, g uint32) int { return int(int64(k.Generation) - int64(g)) })
		if !found {
			return Key{}, r, fmt.Errorf("%w: generation %d (RFC 9420, section 9.2)", ErrUsed, generation)
		}
		k := r.skipped[i]
		k.Key, k.Nonce = bytes.Clone(k.Key), bytes.Clone(k.Nonce)
		r.skipped = slices.Concat(r.skipped[:i], r.skipped[i+1:])
		return k, r, nil
	}
	if generation-r.next > l.jump {
		return Key{}, r, fmt.Errorf("%w: generation %d after %d (RFC 9420, section 9.1)", ErrTooFarAhead, generation, r.next)
	}
	if generation > r.next {
		r.skipped = slices.Clone(r.skipped)
	}
	given := r.next
	for {
		k, next, err := r.step(s)
		if err != nil {
			return Key{}, r, err
		}
		if k.Generation != given { // the first secret belongs to the older value too
			clear(r.secret)
		}
		r = next
		if k.Generation == generation {
			if excess := len(r.skipped) - l.skipped; excess > 0 {
				r.skipped = slices.Clone(r.skipped[excess:])
			}
			return k, r, nil
		}
		r.skipped = append(r.skipped, k)
	}
}

// code visits a ratchet in saved state, and checks its sizes against those of s.
func (r *ratchet) code(c *wire.Coder, s *suite.Suite) {
	c.Bytes(&r.secret)
	c.U32(&r.next)
	wire.Vector(c, &r.skipped, func(c *wire.Coder, k *Key) {
		c.U32(&k.Generation)
		c.Bytes(&k.Key)
		c.Bytes(&k.Nonce)
		if c.Decoding() && (len(k.Key) != s.KeyBytes() || len(k.Nonce) != suite.NonceBytes || k.Generation >= r.next) {
			c.Fail("an invalid skipped key")
		}
	})
	if !c.Decoding() {
		return
	}
	if len(r.secret) != suite.HashBytes || len(r.skipped) > Ceiling {
		c.Fail("an invalid ratchet")
	}
	for i := 1; i < len(r.skipped); i++ {
		if r.skipped[i-1].Generation >= r.skipped[i].Generation {
			c.Fail("skipped keys out of order")
		}
	}
}
