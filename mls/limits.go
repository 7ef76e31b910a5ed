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
	Proposals int
}

// HistoryEpochs is the default of Limits.PastEpochs.
const HistoryEpochs = 5

// pastEpochsCeiling is the most past epochs that a group keeps.
const pastEpochsCeiling = 1000

// effective fills in defaults and ceilings.
func (l Limits) effective() Limits {
	bound := func(value, standard, ceiling int) int {
		if value <= 0 {
			return standard
		}
		return min(value, ceiling)
	}
	return Limits{
		PastEpochs:  bound(l.PastEpochs, HistoryEpochs, pastEpochsCeiling),
		Jump:        bound(l.Jump, schedule.JumpMax, schedule.Ceiling),
		SkippedKeys: bound(l.SkippedKeys, schedule.SkippedMax, schedule.Ceiling),
		Proposals:   bound(l.Proposals, 1000, 100_000),
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
