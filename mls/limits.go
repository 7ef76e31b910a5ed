package mls

import (
	"time"

	"waxwing.im/waxwing/mls/schedule"
)

// Limits bound what a group keeps, and what a message may cost. Zero stands for
// the default; what is above the ceiling counts as the ceiling.
type Limits struct {
	// PastEpochs is for how many past epochs late application messages still open
	// and resumption keys are known. Default HistoryEpochs, ceiling 1 000.
	PastEpochs int
	// Jump is by how many generations a message may be ahead of its sender's last
	// one that we saw. Default 1 000, ceiling 100 000.
	Jump int
	// SkippedKeys is how many keys of messages that have not arrived are kept for
	// each sender; the oldest go first. Default 1 000, ceiling 100 000.
	SkippedKeys int
	// Proposals is how many proposals one epoch takes. Default 1 000, ceiling 100 000.
	// When they are too many, or too large, the sender of most of them loses its last
	// one, so that no sender can push out the proposals of others.
	Proposals int
	// SenderProposals is how many of them may be of one sender. Default 100, ceiling 100 000.
	SenderProposals int
	// ProposalBytes is how many bytes they may take. Default 2 MiB, ceiling 256 MiB.
	ProposalBytes int
	// Lifetime is the longest lifetime of KeyPackages that are added, by us or by others.
	// Default LifetimeMax. It must be the same for all members of a group: who has less
	// refuses commits that the others follow. RFC 9420, section 7.2.
	Lifetime time.Duration
}

// HistoryEpochs is the default of Limits.PastEpochs.
const HistoryEpochs = 5

// pastEpochsCeiling is the most past epochs that a group keeps.
const pastEpochsCeiling = 1000

// The bounds of what waits for a commit.
const (
	proposalsDefault       = 1000
	senderProposalsDefault = 100
	proposalsCeiling       = 100_000
	proposalBytesDefault   = 2 << 20
	proposalBytesCeiling   = 256 << 20
)

// effective fills in defaults and ceilings.
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

// settings are what the application decides about a group; they are not saved.
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
