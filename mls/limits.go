package mls

import (
	"time"

	"waxwing.im/waxwing/mls/schedule"
)

// Limits bounds the state that a group keeps and the cost of a message. Zero selects the
// default; values above the ceiling are reduced to it.
type Limits struct {
	// PastEpochs is the number of past epochs with keys for late application messages and with
	// resumption keys. Default HistoryEpochs, ceiling 1000.
	PastEpochs int
	// Jump is the number of generations by which a message may be ahead of the last one of its
	// sender that was opened. Default 1000, ceiling 100000. RFC 9420, section 9.1.
	Jump int
	// SkippedKeys is the number of keys that are kept for each sender for messages that have not
	// arrived; the oldest are deleted first. Default 1000, ceiling 100000. RFC 9420, section 9.2.
	SkippedKeys int
	// Proposals is the maximum number of pending proposals in one epoch. Default 1000, ceiling
	// 100000. At this bound and that of ProposalBytes, the last proposal of the sender with the
	// most of them is dropped, so that no sender can displace the proposals of others.
	Proposals int
	// SenderProposals is the maximum number of pending proposals of one sender. Default 100,
	// ceiling 100000.
	SenderProposals int
	// ProposalBytes is the maximum total size of pending proposals. Default 2 MiB, ceiling 256
	// MiB.
	ProposalBytes int
	// Lifetime is the longest lifetime of KeyPackages that are added, by us or by others.
	// Default LifetimeMax. It must be the same for all members of a group: a member with a
	// smaller value refuses commits that the others accept. RFC 9420, section 7.2.
	Lifetime time.Duration
}

// HistoryEpochs is the default of Limits.PastEpochs.
const HistoryEpochs = 5

// pastEpochsCeiling is the highest value of Limits.PastEpochs.
const pastEpochsCeiling = 1000

// The bounds of proposals that wait for a commit.
const (
	proposalsDefault       = 1000
	senderProposalsDefault = 100
	proposalsCeiling       = 100_000
	proposalBytesDefault   = 2 << 20
	proposalBytesCeiling   = 256 << 20
)

// effective returns l with defaults and ceilings applied.
func (l Limits) effective() Limits {
	bound := func(value, standard, ceiling int) int {
		if value <= 0 {
			return standard
		}
		return min(value, ceiling)
	}
	if l.Lifetime <= 0 {
		l.Lifetime = LifetimeMax
	}
	return Limits{
		PastEpochs:  bound(l.PastEpochs, HistoryEpochs, pastEpochsCeiling),
		Jump:        bound(l.Jump, schedule.JumpMax, schedule.Ceiling),
		SkippedKeys: bound(l.SkippedKeys, schedule.SkippedMax, schedule.Ceiling),
		Proposals:   bound(l.Proposals, proposalsDefault, proposalsCeiling),

		SenderProposals: bound(l.SenderProposals, senderProposalsDefault, proposalsCeiling),
		ProposalBytes:   bound(l.ProposalBytes, proposalBytesDefault, proposalBytesCeiling),
		Lifetime:        l.Lifetime,
	}
}

// settings holds the options of a group that are not saved.
type settings struct {
	hook    CredentialHook
	psk     PSKSource
	now     func() time.Time
	padding PaddingPolicy
	limits  Limits
}

func newSettings(hook CredentialHook, psk PSKSource, now func() time.Time, padding PaddingPolicy, limits Limits) settings {
	if now == nil {
		now = time.Now
	}
	return settings{hook: hook, psk: psk, now: now, padding: padding, limits: limits.effective()}
}

// secretTree makes the secret tree of an epoch with size leaves.
func (g *Group) secretTree(size uint32, encryptionSecret []byte) schedule.SecretTree {
	return schedule.NewSecretTree(g.suite, size, encryptionSecret).Limited(g.limits.Jump, g.limits.SkippedKeys)
}
