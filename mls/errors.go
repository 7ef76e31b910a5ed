package mls

import (
	"errors"
	"fmt"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// What can be wrong with a message, a package or a state. Every error of this
// package wraps one of these, names the section of RFC 9420 whose rule was
// broken, and carries no secret; compare with errors.Is.
var (
	// ErrMalformed: the bytes are not the encoding they should be.
	ErrMalformed = wire.ErrMalformed
	// ErrUnsupported: valid MLS, perhaps, that this package cannot do.
	ErrUnsupported = errors.New("unsupported")
	// ErrUnsupportedSuite: a cipher suite that this package does not have.
	ErrUnsupportedSuite = suite.ErrUnsupported
	// ErrUnexpectedMessage: another kind of MLSMessage is wanted here.
	ErrUnexpectedMessage = errors.New("unexpected kind of message")
	// ErrTooLarge: an argument is larger than a message may be.
	ErrTooLarge = errors.New("too large")

	// ErrWrongGroup: the message belongs to another group.
	ErrWrongGroup = errors.New("message of another group")
	// ErrWrongEpoch: a handshake that is not of the current epoch, or an
	// application message of an epoch whose keys are not there (any more).
	ErrWrongEpoch = errors.New("message of another epoch")
	// ErrOwnMessage: we sent this message. Its content is known to whoever kept
	// it; a commit of ours takes effect with PendingCommit.Apply.
	ErrOwnMessage = errors.New("own message")
	// ErrReplay: the key of this message was used before, or is too old.
	ErrReplay = schedule.ErrUsed
	// ErrTooFarAhead: the message skips more generations than the limit.
	ErrTooFarAhead = schedule.ErrTooFarAhead
	// ErrDecrypt: a ciphertext does not open.
	ErrDecrypt = suite.ErrOpen
	// ErrInvalidKey: bytes that are no key of the cipher suite.
	ErrInvalidKey = suite.ErrKey
	// ErrInvalidSignature: a signature does not verify.
	ErrInvalidSignature = leaf.ErrSignature
	// ErrInvalidTag: a membership or confirmation tag does not verify.
	ErrInvalidTag = framing.ErrTag
	// ErrInvalidMessage: a message that its sender may not send in this form.
	ErrInvalidMessage = errors.New("invalid message")

	// ErrInvalidLeaf: a leaf node breaks a rule.
	ErrInvalidLeaf = leaf.ErrInvalid
	// ErrInvalidTree: a ratchet tree, or an update path, breaks a rule.
	ErrInvalidTree = tree.ErrInvalid
	// ErrInvalidKeyPackage: a KeyPackage breaks a rule.
	ErrInvalidKeyPackage = keypackage.ErrInvalid
	// ErrLifetime: a KeyPackage is expired, not valid yet, or valid for too long.
	ErrLifetime = keypackage.ErrLifetime
	// ErrInvalidExtensions: extensions of a group that cannot be together.
	ErrInvalidExtensions = errors.New("invalid group extensions")
	// ErrInvalidProposal: a proposal, or a list of them, breaks a rule.
	ErrInvalidProposal = errors.New("invalid proposal")
	// ErrUnknownProposal: a commit refers to a proposal that was not received.
	ErrUnknownProposal = errors.New("unknown proposal")
	// ErrUnknownPSK: a message needs a pre-shared key that we do not have.
	ErrUnknownPSK = errors.New("unknown pre-shared key")
	// ErrProposalsPending: a commit must come before the next application message.
	ErrProposalsPending = errors.New("proposals wait for a commit")
	// ErrInvalidCommit: a commit breaks a rule.
	ErrInvalidCommit = errors.New("invalid commit")
	// ErrInvalidWelcome: a Welcome breaks a rule.
	ErrInvalidWelcome = errors.New("invalid welcome")
	// ErrInvalidGroupInfo: a GroupInfo breaks a rule, or nobody can join by it.
	ErrInvalidGroupInfo = errors.New("invalid group info")
	// ErrInvalidSuccessor: a group is not the successor or the branch of another
	// one that it should be.
	ErrInvalidSuccessor = errors.New("invalid successor of a group")
	// ErrGroupInUse: a group is joined whose id is that of one that the caller is in.
	ErrGroupInUse = errors.New("group id is in use")
	// ErrNotForUs: a Welcome does not name the KeyPackage.
	ErrNotForUs = errors.New("welcome for another key package")
	// ErrRefused: the application's CredentialHook refused; its error is wrapped too.
	ErrRefused = errors.New("credential refused")
	// ErrRemoved: we were removed from the group.
	ErrRemoved = errors.New("removed from the group")
	// ErrReinitialized: the group ended and goes on in another one.
	ErrReinitialized = errors.New("group was reinitialized")

	// ErrCorruptState: saved state that cannot be what was saved.
	ErrCorruptState = errors.New("corrupt saved state")
	// ErrNewerState: saved state of a newer version of this package.
	ErrNewerState = errors.New("saved state of a newer version")
)

// broken makes an error of the given kind that says which rule was broken.
func broken(kind error, section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", kind, fmt.Sprintf(format, args...), section)
}

// lookup finds a suite.
func lookup(s Suite) (*suite.Suite, error) {
	found, err := suite.Lookup(uint16(s))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return found, nil
}

// KeyError reports the leaf, or the node of the tree above the leaves, whose public key
// kept a commit from being built. It wraps ErrInvalidKey. A commit that removes the
// leaf can be built.
type KeyError = tree.KeyError
