// Package mls implements Messaging Layer Security (RFC 9420): end-to-end encryption
// for groups of two to thousands of members, who join, leave and are offline at any
// time, over a server that cannot read the messages.
//
// # Epochs and commits
//
// The history of a group is a sequence of epochs. In an epoch the members and their keys are
// fixed, and each member can seal application messages for all others. A commit opens the next
// epoch: it may add and remove members, and, unless [CommitOptions.OmitPath] is set, replaces
// the keys of its sender. All members process the same commits in the same order, one in each
// epoch: the delivery service decides that order. A new member joins with a Welcome that is
// encrypted to a KeyPackage, which it published earlier.
//
// An application uses the package like this (error handling left out):
//
//	group, _ := mls.NewGroup(suite, groupID, identity, mls.GroupOptions{Hook: hook})
//
//	// Add a member.
//	pending, _ := group.Commit(mls.CommitOptions{Add: [][]byte{keyPackage}})
//	group = pending.Base()         // save both, then send pending.Message()
//	group, _ = pending.Apply(group) // when the commit has won; then send pending.Welcome()
//
//	// Send a message.
//	message, group, _ := group.Seal(plaintext, nil, mls.SealOptions{})
//
//	// Receive a message of another member.
//	processed, _ := group.Process(received)
//	group = processed.Group // save it together with processed.Plaintext
//
// # Values
//
// A [Group] is an immutable value. [Group.Seal], [Group.Propose], [Group.Commit] and
// [Group.Process] return the group to continue with, and leave the old one unchanged. The rules
// for an application are:
//
//   - Save the new group together with the output (the sealed message, the opened plaintext) in
//     one transaction, then send.
//   - After Commit, save the [PendingCommit] and continue with its Base. When the delivery
//     service delivers the same bytes back, [PendingCommit.Apply] it. When it delivers another
//     commit of that epoch, Process that one and drop yours.
//   - On an error, keep the old group: it is unchanged.
//
// Keys are deleted by dropping values: the group that Process returns cannot open the same
// message again ([ErrReplay]), nor can a saved copy of it. Messages may arrive out of order,
// within [HistoryEpochs] epochs; [Limits] bounds the keys that are kept for them.
//
// All values of this package are safe for concurrent reading, and no method changes its
// receiver, [SignatureKey.UnmarshalBinary] excepted.
//
// # Errors
//
// An error about a message, a package, an option or a state wraps one of the Err variables of
// this package; compare with [errors.Is]. If a rule of RFC 9420 was broken, the text names its
// section. [ChangeErrors] and [KeyError] identify the parts that prevent a commit. Other errors
// are those of the system's random number generator.
//
// # Identities
//
// MLS proves that the owner of a leaf's signature key sent a message. The application must
// verify the identity of that owner, in a [CredentialHook], which is called for every leaf
// before it is accepted. Evidence (a device certificate, for example) can be sent in an
// extension of the leaf: [Identity.Extensions].
//
// # Examples
//
// Each example is a whole program: a direct message, adding and removing members, losing a
// race of commits, saving and loading, and joining by external commit.
//
// # Coverage
//
// The package implements all of RFC 9420, with cipher suites 1, 2 and 3: proposals of every type
// by value and by reference, from members, external senders and new members; external commits
// and resync; external and resumption pre-shared keys; reinitialization and branches;
// PublicMessages and PrivateMessages; ratchet trees in the Welcome or out of band; padding. The
// application verifies X.509 chains. Further suites can be added with suite.Register; proposal
// and credential types of other documents are not supported.
//
//	RFC 9420                          here
//	5.3    credentials                Identity, CredentialHook, CredentialChange, Leaf
//	6      messages                   Group.Process, Processed, wire.ParseHeader
//	6.3    private messages, padding  Group.Seal, SealOptions, PaddingPolicy, PadBuckets
//	7.2    leaf extensions            Identity.Extensions, Identity.Supports, ApplicationID
//	7.3    leaf node validation       checked in Commit, Process, Join, JoinExternal
//	7.9    parent hashes              checked in Process, Join, JoinExternal
//	8.4    pre-shared keys            PSKSource, ExternalPSK, ResumptionPSK
//	8.5    exporter                   Group.Export
//	8.7    epoch authenticator        Group.EpochAuthenticator
//	9      message keys, deletion     Limits, ErrReplay, ErrTooFarAhead
//	10     key packages               NewKeyPackage, LoadKeyPackage, keypackage.Validate
//	11     creating a group           NewGroup
//	11.1   required capabilities      RequiredCapabilities
//	11.2   reinitialization           Reinit, Group.Reinitialized, Group.Successor
//	11.3   branches                   Group.Branch
//	12.1   proposals                  Group.Propose, Change, Group.PendingProposals
//	12.1.8 proposals from outside     ExternalSenders, ExternalProposal, NewMemberProposal
//	12.2   lists of proposals         CommitOptions.Skip; checked in Commit, Process
//	12.4   commits                    Group.Commit, PendingCommit
//	12.4.3 joining                    PendingCommit.Welcome, Join
//	12.4.3.2 external commits         Group.GroupInfo, JoinExternal, PendingCommit.IsExternal
//	12.4.3.3 ratchet tree             Group.RatchetTree, CommitOptions.TreeOutOfBand
//	13     extensions                 Extension, SetExtensions
//	14     order of commits           PendingCommit.Apply; the delivery service decides
//	15     application messages       Group.Seal, Group.Process
//
// # Cost
//
// Sealing a message costs one signature, opening it one verification, for any size of the group.
// A commit costs a few public-key operations for each level of the tree, and one for each member
// that has not committed since it was added; joining verifies one signature for each member.
// These run on all processors. The cost of a message of another member is bounded by its size
// and by [Limits]. A Group shares its unchanged parts with the one that it was made from.
//
// # State
//
// The MarshalBinary methods return versioned state, which STATE.md documents field by field. It
// contains no message key that was used. It contains private keys: see [EncryptState].
//
// # Subpackages
//
// Package wire is the codec; a delivery service needs it to read headers, and package keypackage
// to check published KeyPackages. Packages suite, leaf, tree, schedule and framing implement
// parts of the protocol. All of them depend only on the standard library and
// golang.org/x/crypto, and compile for js/wasm.
package mls
