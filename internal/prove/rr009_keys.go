package prove

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"waxwing.im/waxwing/mls"
)

const (
	secretBytes = sha256.Size
	keyBytes    = 16 // of AES-128-GCM
)

// keyWatch searches the saved states of a device in a group of two for what they must not hold:
// keys of messages that were sent or opened, and the secrets from which those can be derived. It
// derives them by the formulas of RFC 9420, section 9, from the state that was saved when an
// epoch began: an older copy, put beside the later ones.
type keyWatch struct {
	leaves   map[string]uint32 // of both devices
	epochs   []*watchedEpoch
	searches int
	known    int      // secrets that were searched for
	found    []string // what was there
	unknown  int      // keys that could not be derived
}

// watchedEpoch is an epoch from which a state can have keys.
type watchedEpoch struct {
	number  uint64
	fresh   [][]byte          // what may be its encryption secret
	secret  []byte            // its encryption secret, once it is known
	next    map[uint32]uint32 // of each leaf the generation that is not derived yet
	gone    map[string][]byte // by what it is
	retired bool
}

// expand is ExpandWithLabel of RFC 9420, section 8, for SHA-256.
func expand(secret []byte, label string, context []byte, length int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	label = "MLS 1.0 " + label
	info = append(append(info, byte(len(label))), label...)
	info = append(append(info, byte(len(context))), context...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		panic(err) // a length that SHA-256 does not have
	}
	return out
}

// derive is DeriveTreeSecret of RFC 9420, section 9.
func derive(secret []byte, label string, generation uint32, length int) []byte {
	return expand(secret, label, binary.BigEndian.AppendUint32(nil, generation), length)
}

// ratchet returns the secret of a leaf's node, and those of its application ratchet up to a
// generation.
func ratchet(encryption []byte, leaf, generation uint32) (node []byte, secrets [][]byte) {
	node = expand(encryption, "tree", []byte([]string{"left", "right"}[leaf]), secretBytes)
	secrets = [][]byte{expand(node, "application", nil, secretBytes)}
	for g := range generation {
		secrets = append(secrets, derive(secrets[g], "secret", g, secretBytes))
	}
	return node, secrets
}

// enter notes the state with which an epoch begins. It holds the encryption secret, as
// mls/STATE.md says: behind a zero and its length.
func (w *keyWatch) enter(number uint64, group []byte) {
	e := &watchedEpoch{number: number, next: map[uint32]uint32{}, gone: map[string][]byte{}}
	for at := range max(0, len(group)-secretBytes-1) {
		if group[at] == 0 && group[at+1] == secretBytes {
			e.fresh = append(e.fresh, bytes.Clone(group[at+2:at+2+secretBytes]))
		}
	}
	w.epochs = append(w.epochs, e)
	for _, old := range w.epochs {
		if old.number+mls.HistoryEpochs < number && !old.retired {
			old.retire()
		}
	}
	w.epochs = slices.DeleteFunc(w.epochs, func(e *watchedEpoch) bool { return e.number+mls.HistoryEpochs+1 < number })
}

// retire notes that the epoch is too old for any of its keys.
func (e *watchedEpoch) retire() {
	e.retired = true
	if e.secret == nil {
		return
	}
	for leaf, next := range e.next {
		_, secrets := ratchet(e.secret, leaf, next)
		e.gone[fmt.Sprintf("secret %d of leaf %d", next, leaf)] = secrets[next]
		for g := range next {
			e.gone[fmt.Sprintf("key %d of leaf %d", g, leaf)] = derive(secrets[g], "key", g, keyBytes)
		}
	}
}

// used notes that a key was used, and that the state group has followed.
func (w *keyWatch) used(number uint64, leaf, generation uint32, group []byte) {
	i := slices.IndexFunc(w.epochs, func(e *watchedEpoch) bool { return e.number == number })
	if i < 0 {
		w.unknown++
		return
	}
	e := w.epochs[i]
	if e.secret == nil {
		// The right one of the candidates leads to the secret of the next generation, which
		// the state must hold.
		for _, candidate := range e.fresh {
			if _, secrets := ratchet(candidate, leaf, generation+1); bytes.Contains(group, secrets[generation+1]) {
				e.secret = candidate
			}
		}
		if e.secret == nil {
			w.unknown++
			return
		}
		e.gone["encryption secret"] = e.secret
	}
	node, secrets := ratchet(e.secret, leaf, generation)
	e.gone[fmt.Sprintf("node of leaf %d", leaf)] = node
	for g, secret := range secrets {
		e.gone[fmt.Sprintf("secret %d of leaf %d", g, leaf)] = secret
	}
	e.gone[fmt.Sprintf("key %d of leaf %d", generation, leaf)] = derive(secrets[generation], "key", generation, keyBytes)
	e.next[leaf] = max(e.next[leaf], generation+1)
	w.known++
}

// search looks for everything that must be gone.
func (w *keyWatch) search(s savedMLS) {
	w.searches++
	for _, e := range w.epochs {
		for what, secret := range e.gone {
			for where, state := range map[string][]byte{"group": s.group, "pending commit": s.pending} {
				if bytes.Contains(state, secret) {
					w.found = append(w.found, fmt.Sprintf("the saved %s holds the %s of epoch %d", where, what, e.number))
				}
			}
		}
	}
}
