package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// NewGroup is a conversation that begins with an MLS group, which its creator has made
// already, perhaps with members.
type NewGroup struct {
	ID      ds.ConversationID // the group id in hex
	Suite   string            // its name, kept as it is
	Members []ds.AccountID    // the creator counts once, listed or not
	// Welcome is stored once for all whom it is for. It need not be an MLS message.
	Welcome []byte
	// Packages are the key packages that it was made with, as far as the creator says it.
	Packages []UsedPackage
	// GroupInfo is of the group's epoch, or nil; MLSMessage or GroupInfo.
	GroupInfo []byte
	// Epoch is the one that the creator's group is in; nil: that of GroupInfo, else 0.
	Epoch              *int64
	Title, Description string
	Invite             bool // make a code that invites
}

// CreateGroup opens a conversation that is bound to its group from the start and does
// not record senders, or answers for one that is there already: created says which. Of
// a conversation that the caller is no member of, and of a group that belongs to
// another conversation, it says no more than that. inviteCode is set if one was asked
// for. Refusals: invalid_request (NoKeyPackage, BadGroupInfo, Taken, TooManyMembers),
// forbidden, for a code that the caller may not make; rate_limited.
func (s *Service) CreateGroup(ctx context.Context, who ds.Caller, g NewGroup) (created bool, inviteCode string, err error) {
	b, err := checkNewGroup(who, g)
	if err != nil {
		return false, "", err
	}
	// Whether what the Welcome is for is known does not matter to one that is there.
	if b.to, b.refused = s.newGroupRecipients(ctx, who, g, b.members); b.refused != nil && ds.CodeOf(b.refused) == "" {
		return false, "", b.refused
	}
	if g.Invite {
		inviteCode, b.inviteHash = newCode()
	}
	r := &request{conversation: g.ID, who: who,
		bytes: len(g.Welcome) + len(g.GroupInfo) + len(g.Suite) + len(g.Title) + len(g.Description) + 2*nameBytes(b.members) + recipientBytes(b.to) + packageNameBytes(g.Packages)}
	isNew := false // of the rule alone, unless it has succeeded: it may run after a caller who has gone
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		isNew, err = s.decideNewGroup(c, who, b, nowMS)
		return err
	}
	err = s.submit(ctx, r)
	if errors.Is(err, refuseGroupUsed) {
		err = refuseExists
	}
	if err != nil {
		return false, "", err
	}
	return isNew, inviteCode, nil
}

// packageNameBytes is what a list of key packages keeps alive.
func packageNameBytes(list []UsedPackage) int {
	n := 0
	for _, p := range list {
		n += requestNameBytes + len(p.Account) + len(p.Ref)
	}
	return n
}

// newGroup is a checked NewGroup.
type newGroup struct {
	NewGroup
	groupID    []byte
	epoch      int64
	members    []ds.AccountID // the creator first
	to         []Recipient
	refused    error // what is wrong with the Welcome, unless the conversation is there
	welcomeID  string
	inviteHash []byte
}

// checkNewGroup looks at the request alone.
func checkNewGroup(who ds.Caller, g NewGroup) (b newGroup, err error) {
	b = newGroup{NewGroup: g, welcomeID: rand.Text()}
	if b.groupID, err = hex.DecodeString(string(g.ID)); err != nil || len(b.groupID) == 0 || !ds.IsValidID(string(g.ID)) {
		return b, ds.Refuse(ds.InvalidRequest, "groupId must be up to %d characters of hex", ds.IDBytesMax)
	}
	if err := checkAccounts(g.Members); err != nil {
		return b, err
	}
	b.members = distinct(append([]ds.AccountID{who.Account}, g.Members...))
	switch {
	case len(b.members) > RuleMembersMax:
		return b, ds.Refuse(ds.InvalidRequest, "a conversation begins with at most %d members", RuleMembersMax).Because(ds.TooManyMembers)
	case len(g.Suite) > suiteBytesMax:
		return b, ds.Refuse(ds.InvalidRequest, "the name of the cipher suite is too long")
	case len(g.Title) > titleBytesMax || len(g.Description) > descriptionBytesMax:
		return b, ds.Refuse(ds.InvalidRequest, "name or description too long")
	case strings.ContainsRune(g.Title+g.Description+g.Suite, 0):
		return b, ds.Refuse(ds.InvalidRequest, "a text with NUL")
	case len(g.Welcome) > blobBytesMax || len(g.GroupInfo) > blobBytesMax:
		return b, ds.Refuse(ds.InvalidRequest, "welcome or group_info too large")
	case len(g.Packages) > recipientsMax:
		return b, ds.Refuse(ds.InvalidRequest, "too many key packages")
	}
	if len(g.GroupInfo) > 0 {
		info, err := readGroupInfo(g.GroupInfo)
		if err != nil || string(info.Context.GroupID) != string(b.groupID) || info.Context.Epoch > math.MaxInt64-1 {
			return b, ds.Refuse(ds.InvalidRequest, "groupInfo is not an MLS GroupInfo of this group")
		}
		b.epoch = int64(info.Context.Epoch)
		if g.Epoch != nil && *g.Epoch != b.epoch {
			return b, ds.Refuse(ds.InvalidRequest, "groupInfo is not of currentEpoch")
		}
	}
	if g.Epoch != nil {
		b.epoch = *g.Epoch
	}
	if b.epoch < 0 || b.epoch > math.MaxInt64-1 {
		return b, ds.Refuse(ds.InvalidRequest, "no such epoch")
	}
	return b, nil
}

// newGroupRecipients says whom the Welcome of a new conversation is for: the devices of
// the key packages that the creator names, and of those that an MLS Welcome names. What
// cannot be told by them is for any device of the members that have none yet.
func (s *Service) newGroupRecipients(ctx context.Context, who ds.Caller, g NewGroup, members []ds.AccountID) ([]Recipient, error) {
	refs := welcomeRefs(g.Welcome)
	if len(refs) > recipientsMax {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for too many devices")
	}
	asked := slices.Clone(refs)
	for _, p := range g.Packages {
		asked = append(asked, strings.ToLower(p.Ref))
	}
	var owners map[string]ds.Device
	if len(asked) > 0 {
		if err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
			owners, err = tx.PackageOwners(asked)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return recipientsOfNew(who.Account, g, refs, owners, members)
}

// recipientsOfNew is newGroupRecipients once the owners of key packages are known.
func recipientsOfNew(creator ds.AccountID, g NewGroup, refs []string, owners map[string]ds.Device, members []ds.AccountID) ([]Recipient, error) {
	isMember := make(map[ds.AccountID]bool, len(members))
	for _, account := range members {
		isMember[account] = true
	}
	var list []Recipient
	named, found := map[string]bool{}, map[ds.AccountID]bool{creator: true}
	for _, p := range g.Packages {
		ref := strings.ToLower(p.Ref)
		device, isKnown := owners[ref]
		switch {
		case !isKnown || device.Account != p.Account:
			return nil, ds.Refuse(ds.InvalidRequest, "%s has published no key package %.64s", p.Account, p.Ref).Because(ds.NoKeyPackage)
		case !isMember[p.Account]:
			return nil, ds.Refuse(ds.InvalidRequest, "a key package is of no member")
		case !named[ref]:
			named[ref], found[p.Account] = true, true
			list = append(list, Recipient{Device: device, KeyPackageRef: ref})
		}
	}
	if len(g.Welcome) == 0 {
		return list, nil
	}
	isPlain := len(refs) > 0 // it says itself whom it is for
	for _, ref := range refs {
		switch device, isKnown := owners[ref]; {
		case named[ref]:
		case isKnown && isMember[device.Account]:
			found[device.Account] = true
			list = append(list, Recipient{Device: device, KeyPackageRef: ref})
		default:
			isPlain = false
		}
	}
	for _, account := range members {
		if !isPlain && !found[account] {
			list = append(list, Recipient{Device: ds.Device{Account: account}})
		}
	}
	return list, nil
}

// decideNewGroup is the rule of CreateGroup. It changes c only when it accepts.
func (s *Service) decideNewGroup(c *conversation, who ds.Caller, b newGroup, nowMS int64) (created bool, err error) {
	if c.isMember(who.Account) {
		return false, c.anew(who.Account, b)
	}
	if r := s.chargeAccount(c, limits.RoomCreates, who); r != nil {
		return false, r
	}
	if c.exists {
		return false, refuseExists
	}
	if b.refused != nil {
		return false, b.refused
	}
	if r := s.chargeBytes(c, who, c.enteringBytes(b.members)+len(b.Welcome)+len(b.GroupInfo)+len(b.Title)+len(b.Description)); r != nil {
		return false, r
	}
	c.open(b.ID, nowMS)
	c.head.GroupID, c.head.Generation, c.head.Epoch = b.groupID, 1, b.epoch
	c.changeMembers(who.Account, b.members, nil, nowMS)
	c.out.Details = append(c.out.Details, store.NewDetails{Conversation: b.ID, Creator: who.Account, Suite: b.Suite, Title: b.Title, Description: b.Description})
	if len(b.GroupInfo) > 0 {
		c.out.Infos = append(c.out.Infos, store.GroupInfo{Conversation: b.ID, Pos: c.head.Pos, Epoch: b.epoch, Body: b.GroupInfo})
		c.infoEpoch = b.epoch
	}
	if len(b.Welcome) > 0 {
		c.out.Welcomes = append(c.out.Welcomes, store.Welcome{ID: b.welcomeID, Conversation: b.ID, Pos: c.head.Pos,
			Body: b.Welcome, ExpiresMS: nowMS + welcomeLifetime.Milliseconds()})
		c.welcome(b.welcomeID, b.to, 1)
	}
	if used := enteredBy(b.to); len(used.Packages) > 0 {
		used.Conversation, used.By = b.ID, who.Account
		c.out.Entered = append(c.out.Entered, used)
	}
	c.invite(who.Account, b)
	return true, nil
}

// anew is what comes of creating a conversation that a member finds there.
func (c *conversation) anew(account ds.AccountID, b newGroup) error {
	if b.inviteHash != nil && !c.mayMakeInvite(account) {
		return refuseRights
	}
	c.invite(account, b)
	return nil
}

func (c *conversation) invite(by ds.AccountID, b newGroup) {
	if b.inviteHash != nil {
		c.out.Invites = append(c.out.Invites, store.ConversationInvite{CodeHash: b.inviteHash, Conversation: c.head.ID, By: by})
	}
}
