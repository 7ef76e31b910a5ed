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

// The kinds of errors in a message, a package, an option or a state. Texts contain no secret.
var (
	// ErrMalformed reports bytes that are not a valid encoding.
	ErrMalformed = wire.ErrMalformed
	// ErrUnsupported reports input that may be valid MLS but that this package does not
	// support.
	ErrUnsupported = errors.New("unsupported")
	// ErrUnsupportedSuite reports a cipher suite that this package does not implement. Errors
	// that wrap it wrap ErrUnsupported too.
	ErrUnsupportedSuite = suite.ErrUnsupported
	// ErrUnexpectedMessage reports an MLSMessage of another kind than the call expects.
	ErrUnexpectedMessage = errors.New("unexpected kind of message")
	// ErrTooLarge reports an argument that is larger than a message may be.
	ErrTooLarge = errors.New("too large")

	// ErrWrongGroup reports a message that belongs to another group.
	ErrWrongGroup = errors.New("message of another group")
	// ErrWrongEpoch reports a handshake message of another epoch than the current one, or an
	// application message of a later epoch, or of one with deleted keys.
	ErrWrongEpoch = errors.New("message of another epoch")
	// ErrOwnMessage reports a message that we sent ourselves. It cannot be opened, so the
	// sender keeps its content; a commit of ours takes effect with PendingCommit.Apply.
	ErrOwnMessage = errors.New("own message")
	// ErrReplay reports a message with a key that was used before, or deleted because of
	// Limits.SkippedKeys.
	ErrReplay = schedule.ErrUsed
	// ErrTooFarAhead reports a message that skips more generations than Limits.Jump.
	ErrTooFarAhead = schedule.ErrTooFarAhead
	// ErrDecrypt reports a ciphertext that does not open.
	ErrDecrypt = suite.ErrOpen
	// ErrInvalidKey reports bytes that are not a key of the cipher suite.
	ErrInvalidKey = suite.ErrKey
	// ErrInvalidSignature reports a signature that does not verify.
	ErrInvalidSignature = leaf.ErrSignature
	// ErrInvalidTag reports a membership or confirmation tag that does not verify.
	ErrInvalidTag = framing.ErrTag
	// ErrInvalidMessage reports a message that its sender may not send in this form.
	ErrInvalidMessage = errors.New("invalid message")

	// ErrInvalidLeaf reports a leaf node that breaks a rule.
	ErrInvalidLeaf = leaf.ErrInvalid
	// ErrInvalidTree reports a ratchet tree, or an update path, that breaks a rule.
	ErrInvalidTree = tree.ErrInvalid
	// ErrInvalidKeyPackage reports a KeyPackage that breaks a rule.
	ErrInvalidKeyPackage = keypackage.ErrInvalid
	// ErrLifetime reports a KeyPackage that is expired, not valid yet, or valid for longer than
	// Limits.Lifetime.
	ErrLifetime = keypackage.ErrLifetime
	// ErrInvalidExtensions reports group extensions that cannot be combined.
	ErrInvalidExtensions = errors.New("invalid group extensions")
	// ErrInvalidProposal reports a proposal, or a list of them, that breaks a rule.
	ErrInvalidProposal = errors.New("invalid proposal")
	// ErrUnknownProposal reports a commit that refers to a proposal that was not received.
	ErrUnknownProposal = errors.New("unknown proposal")
	// ErrUnknownPSK reports a message that needs a pre-shared key that we do not have.
	ErrUnknownPSK = errors.New("unknown pre-shared key")
	// ErrProposalsPending reports that pending proposals must be committed before the next
	// application message.
	ErrProposalsPending = errors.New("proposals wait for a commit")
	// ErrInvalidCommit reports a commit that breaks a rule.
	ErrInvalidCommit = errors.New("invalid commit")
	// ErrInvalidWelcome reports a Welcome that breaks a rule.
	ErrInvalidWelcome = errors.New("invalid welcome")
	// ErrInvalidGroupInfo reports a GroupInfo that breaks a rule, or that does not allow
	// external joins.
	ErrInvalidGroupInfo = errors.New("invalid group info")
	// ErrInvalidSuccessor reports a group that is not the successor or the branch of another
	// one that it should be.
	ErrInvalidSuccessor = errors.New("invalid successor of a group")
	// ErrGroupInUse reports a join of a group with the id of a group that the caller is already
	// in.
	ErrGroupInUse = errors.New("group id is in use")
	// ErrNotForUs reports a Welcome that does not name the KeyPackage.
	ErrNotForUs = errors.New("welcome for another key package")
	// ErrRefused reports that the application's CredentialHook refused; its error is wrapped
	// too.
	ErrRefused = errors.New("credential refused")
	// ErrRemoved reports that we were removed from the group.
	ErrRemoved = errors.New("removed from the group")
	// ErrReinitialized reports that the group ended and continues in another one.
	ErrReinitialized = errors.New("group was reinitialized")

	// ErrCorruptState reports saved state that is damaged or inconsistent.
	ErrCorruptState = errors.New("corrupt saved state")
	// ErrNewerState reports saved state of a newer version of this package.
	ErrNewerState = errors.New("saved state of a newer version")
)

// broken returns an error of the given kind that names the broken rule.
func broken(kind error, section, format string, args ...any) error {
	return fmt.Errorf("%w: %s (RFC 9420, section %s)", kind, fmt.Sprintf(format, args...), section)
}

// lookup returns the implementation of a suite.
func lookup(s Suite) (*suite.Suite, error) {
	found, err := suite.Lookup(uint16(s))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return found, nil
}

// KeyError reports the leaf or the parent node with a public key to which a commit cannot be
// encrypted. It wraps ErrInvalidKey. A commit that removes the leaf can be built.
type KeyError = tree.KeyError
