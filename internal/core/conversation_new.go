package core

import (
	"bytes"
	"context"
	"crypto/rand"
	"math"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Create is an Op that opens a conversation. Its owner is the caller. Accounts need not exist;
// duplicates and the caller count once. A conversation that is created with its MLS group is
// bound to it and does not record senders; if it exists already, its members get a success.
// Any other existing conversation is refused. The refusals of a conversation that the caller
// is not a member of, and of a group that belongs to another conversation, reveal only that.
// Refusals: also limit_exceeded; by reason Taken, NoKeyPackage, BadGroupInfo, TooManyMembers.
type Create struct {
	ConversationID ds.ConversationID
	Accounts       []ds.AccountID
	IsDM           bool // counts as a conversation of two

	GroupID []byte // of its MLS group, or nil; the fields below are about the group
	Suite   string // its name, stored unchanged
	// Welcome is stored once for all its recipients. It need not be an MLS message.
	Welcome []byte
	// Packages lists the key packages of the Welcome, as far as the creator reports them.
	Packages []UsedPackage
	// GroupInfo is of the group's epoch, or nil; MLSMessage or GroupInfo.
	GroupInfo []byte
	// Epoch is the current epoch of the creator's group; nil: that of GroupInfo, else 0.
	Epoch              *int64
	Title, Description string
}

func (b Create) place() (ds.ConversationID, ds.MessageID) { return b.ConversationID, "" }

func (b Create) check(a *action) error {
	if err := checkConversationID(b.ConversationID); err != nil {
		return err
	}
	if err := checkAccounts(b.Accounts); err != nil {
		return err
	}
	all := distinct(append([]ds.AccountID{a.who.Account}, b.Accounts...))
	a.admits, a.found = anyone, &found{members: all, welcomeID: rand.Text()}
	if b.GroupID != nil {
		return b.checkGroup(a)
	}
	if len(all) > membersMax {
		return refuseMembers(membersMax)
	}
	a.bytes = nameBytes(all)
	return nil
}

// checkGroup checks the group of a new conversation as far as a server can see it.
func (b Create) checkGroup(a *action) error {
	switch {
	case len(a.found.members) > RuleMembersMax:
		return ds.Refuse(ds.InvalidRequest, "a conversation begins with at most %d members", RuleMembersMax).Because(ds.TooManyMembers)
	case len(b.GroupID) == 0 || len(b.GroupID) > ds.IDBytesMax:
		return ds.Refuse(ds.InvalidRequest, "the group id has 1 to %d bytes", ds.IDBytesMax)
	case len(b.Suite) > suiteBytesMax:
		return ds.Refuse(ds.InvalidRequest, "the name of the cipher suite is too long")
	case len(b.Title) > titleBytesMax || len(b.Description) > descriptionBytesMax:
		return ds.Refuse(ds.InvalidRequest, "name or description too long")
	case strings.ContainsRune(b.Title+b.Description+b.Suite, 0):
		return ds.Refuse(ds.InvalidRequest, "a text with NUL")
	case len(b.Welcome) > blobBytesMax || len(b.GroupInfo) > blobBytesMax:
		return ds.Refuse(ds.InvalidRequest, "welcome or group_info too large")
	case len(b.Packages) > recipientsMax:
		return ds.Refuse(ds.InvalidRequest, "too many key packages")
	}
	var err error
	a.found.epoch, err = b.epoch()
	return err
}

// epoch returns the current epoch of the group of a new conversation.
func (b Create) epoch() (epoch int64, err error) {
	if len(b.GroupInfo) > 0 {
		info, err := readGroupInfo(b.GroupInfo)
		if err != nil || !bytes.Equal(info.Context.GroupID, b.GroupID) || info.Context.Epoch > math.MaxInt64-1 {
			return 0, ds.Refuse(ds.InvalidRequest, "groupInfo is not an MLS GroupInfo of this group")
		}
		epoch = int64(info.Context.Epoch)
		if b.Epoch != nil && *b.Epoch != epoch {
			return 0, ds.Refuse(ds.InvalidRequest, "groupInfo is not of currentEpoch")
		}
	}
	if b.Epoch != nil {
		epoch = *b.Epoch
	}
	if epoch < 0 || epoch > math.MaxInt64-1 {
		return 0, ds.Refuse(ds.InvalidRequest, "no such epoch")
	}
	return epoch, nil
}

// read finds the recipients of the Welcome. Its refusals do not matter if the conversation
// exists already.
func (b Create) read(ctx context.Context, a *action) error {
	if b.GroupID == nil {
		return nil
	}
	to, err := b.findRecipients(ctx, a)
	if err != nil && ds.CodeOf(err) == "" {
		return err
	}
	a.found.to, a.found.entered, a.refused = to, enteredBy(to), err
	a.bytes = len(b.Welcome) + len(b.GroupInfo) + len(b.Suite) + len(b.Title) + len(b.Description) + 2*nameBytes(a.found.members) +
		recipientBytes(to) + packageNameBytes(b.Packages)
	return nil
}

// packageNameBytes returns the bytes that a list of key packages keeps alive.
func packageNameBytes(list []UsedPackage) int {
	n := 0
	for _, p := range list {
		n += requestNameBytes + len(p.Account) + len(p.Ref)
	}
	return n
}

// findRecipients returns the recipients of the Welcome of a new conversation: the devices of
// the key packages that the creator or an MLS Welcome names. If these may not be all, every
// member without a recipient is added, for any of its devices.
func (b Create) findRecipients(ctx context.Context, a *action) ([]Recipient, error) {
	refs := welcomeRefs(b.Welcome)
	if len(refs) > recipientsMax {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for too many devices")
	}
	asked := slices.Clone(refs)
	for _, p := range b.Packages {
		asked = append(asked, strings.ToLower(p.Ref))
	}
	var owners map[string]ds.Device
	if len(asked) > 0 {
		var err error
		if owners, err = store.Get(ctx, a.service.store.Read, func(tx *store.Tx) (map[string]ds.Device, error) { return tx.Packages.Owners(asked) }); err != nil {
			return nil, err
		}
	}
	return recipientsOfNew(a.who.Account, b, refs, owners, a.found.members)
}

// recipientsOfNew does the work of Create.findRecipients once the owners of key packages are
// known.
func recipientsOfNew(creator ds.AccountID, b Create, refs []string, owners map[string]ds.Device, members []ds.AccountID) ([]Recipient, error) {
	isMember := make(map[ds.AccountID]bool, len(members))
	for _, account := range members {
		isMember[account] = true
	}
	var list []Recipient
	named, found := map[string]bool{}, map[ds.AccountID]bool{creator: true}
	for _, p := range b.Packages {
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
	if len(b.Welcome) == 0 {
		return list, nil
	}
	isPlain := len(refs) > 0 // it lists its recipients itself
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

func (b Create) limits() []string {
	if b.IsDM {
		return []string{limits.DMCreates}
	}
	return []string{limits.RoomCreates}
}

// repeat returns success to a member of an existing conversation. Attempts at taken names
// count under limits, except for the caller's own conversation.
func (b Create) repeat(c *logs.Conversation, a *action, _ store.Answer) (Result, bool, error) {
	switch {
	case !c.IsMember(a.who.Account):
		return Result{}, false, nil
	case b.GroupID == nil:
		return Result{}, false, refuseExists
	}
	return Result{}, true, nil
}

func (b Create) may(c *logs.Conversation, a *action, _ int64) error {
	if c.Exists {
		return refuseExists
	}
	return a.refused
}

func (b Create) judge(c *logs.Conversation, a *action) (verdict, error) {
	return verdict{bytes: enteringBytes(c, a.found.members) + len(b.Welcome) + len(b.GroupInfo) + 2*(len(b.Title)+len(b.Description))}, nil // the texts are in the log too
}

func (b Create) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	// The membership record that follows is the first of its log.
	c.Open(ds.Conversation{ID: b.ConversationID, Term: 1, CreatedMS: nowMS, Policy: ds.DefaultPolicy()})
	if b.GroupID == nil {
		c.Head.RecordSenders = a.service.recordSenders
		changeMembers(c, ds.MembershipChange{By: a.who.Account, Add: a.found.members}, nowMS)
		return Result{IsNew: true}
	}
	c.Head.GroupID, c.Head.Generation, c.Head.Epoch = b.GroupID, 1, a.found.epoch
	changeMembers(c, ds.MembershipChange{By: a.who.Account, Add: a.found.members, Settings: b.settings()}, nowMS)
	c.Out.Details = append(c.Out.Details, store.NewDetails{Conversation: b.ConversationID, Creator: a.who.Account, Suite: b.Suite, Title: b.Title, Description: b.Description})
	if len(b.GroupInfo) > 0 {
		c.Out.Infos = append(c.Out.Infos, store.GroupInfo{Conversation: b.ConversationID, Pos: c.Head.Pos, Epoch: a.found.epoch, Body: b.GroupInfo})
		c.InfoEpoch = a.found.epoch
	}
	if len(b.Welcome) > 0 {
		c.Out.Welcomes = append(c.Out.Welcomes, store.Welcome{ID: a.found.welcomeID, Conversation: b.ConversationID, Pos: c.Head.Pos,
			Body: b.Welcome, ExpiresMS: nowMS + welcomeLifetime.Milliseconds()})
		addWelcome(c, a.found.welcomeID, a.found.to, 1)
	}
	noteEntered(c, a.who.Account, a.found.entered)
	return Result{IsNew: true}
}

// settings returns the initial settings of the conversation, or nil for the default ones.
func (b Create) settings() *ds.Settings {
	var s ds.Settings
	if b.Title != "" {
		s.Title = &b.Title
	}
	if b.Description != "" {
		s.Description = &b.Description
	}
	if s == (ds.Settings{}) {
		return nil
	}
	return &s
}
