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
// # What is there
//
// Cipher suites 1, 2 and 3; basic credentials; adding and removing by value; all
// kinds of proposals by reference that change members, keys or extensions; external
// and resumption pre-shared keys; PublicMessages and PrivateMessages; exporter and
// GroupInfo. External commits, external senders, reinitialization and branches are
// refused with [ErrUnsupported]. X.509 credentials decode but no leaf of ours lists
// them, so members who need them are refused.
//
// Subpackages: wire is the codec and all a server needs to read headers;
// keypackage checks published KeyPackages; suite, leaf, tree, schedule and framing
// are the parts of the protocol, for those who build something unusual.
package mls
