// Package mls is Messaging Layer Security (RFC 9420) for Go: end-to-end encryption
// for groups of two to thousands, whose members come, go, and are away, over a
// server that cannot read.
//
// # How to think about it
//
// A group lives in epochs. In an epoch the members and their keys are fixed, and
// everybody can seal application messages for everybody else. A commit opens the
// next epoch: it may add and remove members, and always gives its sender fresh
// keys. Members agree because they all process the same commits in the same order,
// and of rival commits in one epoch only one: that order is the delivery service's
// business. A member who is added gets a Welcome, made for a KeyPackage that it
// published earlier.
//
// # Values
//
// A [Group] is an immutable value. [Group.Seal], [Group.Commit] and
// [Group.Process] return the group to go on with, and leave the old one as it was.
// So the rules for an application are few:
//
//   - Save the new group together with what it produced (the sealed message, the
//     opened plaintext) in one transaction, then send.
//   - After Commit, save the [PendingCommit] and go on with its Base. When the
//     delivery service delivers the same bytes back, [PendingCommit.Apply] it. When
//     it delivers another commit of that epoch, Process that one and drop yours.
//   - On an error, keep the group you had. Nothing happened.
//
// Keys are forgotten by forgetting values: the group that Process returns cannot
// open the same message again ([ErrReplay]), nor can a saved copy of it. Messages
// may arrive out of order, within [HistoryEpochs] epochs.
//
// # Who is who
//
// MLS proves that a message comes from the owner of a leaf's signature key. That
// this key belongs to somebody is proved by the application, in a
// [CredentialHook], which sees every leaf before it counts. Evidence (a device
// certificate, say) can travel in an extension of the leaf: [Identity.Extensions].
//
// # Examples
//
// Each is a whole program: a direct message, adding and removing members, losing a
// race of commits, saving and loading, and joining by external commit.
//
// # What is there
//
// All of RFC 9420 but what its section 17 leaves to others: cipher suites 1, 2 and
// 3; proposals of every type by value and by reference, from members, external
// senders and new members; external commits and resync; external and resumption
// pre-shared keys; reinitialization and branches; PublicMessages and
// PrivateMessages; trees in the Welcome or beside it; padding policies. X.509
// chains travel, and are the application's to verify.
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
//	12.4.3 welcoming                  PendingCommit.Welcome, Join
//	12.4.3.2 external commits         Group.GroupInfo, JoinExternal, PendingCommit.IsExternal
//	12.4.3.3 ratchet tree             Group.RatchetTree, CommitOptions.TreeOutOfBand
//	13     extensions                 Extension, SetExtensions
//	14     order of commits           PendingCommit.Apply; the delivery service decides
//	15     application messages       Group.Seal, Group.Process
//
// # Cost
//
// A message costs two public-key operations, whatever the size of the group. A
// commit costs a few for each level of the tree, and one for each member that never
// committed; joining verifies one signature for each member. These run on all
// processors. What a message of others may cost is bounded by its size and by
// [Limits]. A Group shares with its predecessors whatever did not change.
//
// # State
//
// State is versioned and documented field by field in STATE.md; it never holds a
// key that was used. It does hold private keys: see [EncryptState].
//
// Subpackages: wire is the codec and all a server needs to read headers;
// keypackage checks published KeyPackages; suite, leaf, tree, schedule and framing
// are the parts of the protocol, for those who build something unusual. All of it
// needs nothing but the standard library and golang.org/x/crypto, and compiles for
// js/wasm.
package mls
