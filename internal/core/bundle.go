package core

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// Recipient is one device that a Welcome is for, with the KeyPackage that was used
// to add it.
type Recipient struct {
	Device        ds.Device
	KeyPackageRef string // lower-case hex
}

// UsedPackage is a key package that a Welcome was made for.
type UsedPackage struct {
	Account ds.AccountID
	Ref     string // hex
}

// Bundle is an Op that appends a commit to the log atomically with its consequences: the
// Welcome for the added devices, the GroupInfo of the new epoch, and the accounts that enter
// and leave the conversation. A bundle with a message id that is in the log is answered with
// the existing record. Refusals: also epoch_conflict, limit_exceeded; by reason BadCommit,
// BadGroupInfo, NoKeyPackage, AlreadyMember, NotAllowed, TooManyMembers, LostRace.
type Bundle struct {
	ConversationID ds.ConversationID
	ID             ds.MessageID
	Commit         []byte // MLSMessage
	Welcome        []byte // MLSMessage, or nil
	To             []Recipient
	GroupInfo      []byte // MLSMessage, or nil
	Add, Remove    []ds.AccountID
	Encoding       ds.Encoding
	// ConfirmationTag is that of the epoch that the commit opens (RFC 9420, section 8.1), or
	// nil if the committer does not report it.
	ConfirmationTag []byte

	// ByAccount means that the committer names accounts and key packages, not devices: the
	// recipients of the Welcome are found by its key packages, and To is empty. Add then names
	// new accounts, and members with another device to add to the group; changes that are
	// already in effect need no rights.
	ByAccount bool
	// Packages lists the used key packages with their owners, as far as the committer reports
	// them.
	Packages []UsedPackage
	// Enters means that the committer enters the group by an external commit (RFC 9420,
	// section 12.4.3.2). A former member becomes a member again by it, if the rules of the
	// conversation allow that. Device is then the committer's, by any of its names, or "".
	// Without Enters an external commit is one of a member with a device in the group.
	Enters bool
	Device ds.DeviceID
}

func (b Bundle) place() (ds.ConversationID, ds.MessageID) { return b.ConversationID, b.ID }

func (b Bundle) check(a *action) error {
	if err := CheckIDs(b.ConversationID, b.ID); err != nil {
		return err
	}
	if b.ByAccount && (len(b.Add)+len(b.Remove) > changeAccountsMax || len(b.Packages) > recipientsMax) {
		return ds.Refuse(ds.InvalidRequest, "at most %d accounts in one commit", changeAccountsMax).Because(ds.TooManyMembers)
	}
	var err error
	if a.seen, err = checkBundle(b); err != nil {
		return err
	}
	if err := b.checkByAccount(a.seen); err != nil {
		return err
	}
	a.found = &found{to: b.To, entered: enteredBy(b.To), welcomeID: rand.Text()}
	a.keep(b)
	return nil
}

// checkByAccount checks that the parts of a bundle by account, or of one by which its
// committer enters, are consistent.
func (b Bundle) checkByAccount(seen sight) error {
	switch {
	case !b.ByAccount && !b.Enters:
		return nil
	case seen.external != b.Enters && b.Enters:
		return ds.Refuse(ds.InvalidRequest, "not an external commit").Because(ds.BadCommit)
	case seen.external != b.Enters:
		return ds.Refuse(ds.InvalidRequest, "an external commit is for entering the group by oneself").Because(ds.BadCommit)
	case len(b.Add) > 0 && b.Welcome == nil:
		return ds.Refuse(ds.InvalidRequest, "accounts are added with a welcome")
	case b.Enters && len(b.Add)+len(b.Remove)+len(b.Packages)+len(b.Welcome) > 0:
		return ds.Refuse(ds.InvalidRequest, "an external commit adds and removes no accounts").Because(ds.BadCommit)
	}
	return nil
}

// keep counts the bytes that a bundle keeps alive, and sets the accounts to be loaded.
func (a *action) keep(b Bundle) {
	accounts := slices.Concat(b.Add, b.Remove)
	for _, to := range a.found.to {
		accounts = append(accounts, to.Device.Account)
	}
	a.needs.Accounts = accounts
	a.bytes = len(b.Commit) + len(b.Welcome) + len(b.GroupInfo) + 2*nameBytes(accounts) + recipientBytes(a.found.to)
}

// read validates an external commit, and finds the recipients of a Welcome that names only key
// packages.
func (b Bundle) read(ctx context.Context, a *action) error {
	var err error
	switch s := a.service; {
	case b.Enters:
		if a.found.entry, a.found.entered, err = s.judgeEntry(ctx, a.who, b); a.found.entry != nil {
			a.admits = everMembers
		}
	case b.ByAccount:
		a.found.to, err = s.findRecipients(ctx, b)
		a.found.entered = enteredBy(a.found.to)
		a.keep(b)
	case a.seen.external:
		err = s.checkExternalBundle(ctx, a.who, b)
	}
	if ds.CodeOf(err) == "" {
		return err
	}
	a.refused = err
	return nil
}

// checkExternalBundle does the checks of checkExternal for a bundle: an external commit
// changes no other account's membership.
func (s *Service) checkExternalBundle(ctx context.Context, who ds.Caller, b Bundle) error {
	if len(b.Add)+len(b.Remove)+len(b.To) > 0 {
		return ds.Refuse(ds.InvalidRequest, "an external commit adds and removes no accounts")
	}
	return s.checkExternal(ctx, who, b.ConversationID, b.Commit)
}

// checkBundle checks the bundle alone: sizes, formats, and whether its parts agree as far as a
// server can see.
func checkBundle(b Bundle) (sight, error) {
	refuse := func(sentence string, reason ds.Reason) (sight, error) {
		return sight{}, &ds.Refusal{Code: ds.InvalidRequest, Message: sentence, Reason: reason}
	}
	switch {
	case len(b.Commit) > commitBytesMax || len(b.Welcome) > welcomeBytesMax || len(b.GroupInfo) > groupInfoBytesMax:
		return refuse("bundle too large", "")
	case len(b.ConfirmationTag) > tagBytesMax:
		return refuse("the confirmation tag is too long", "")
	case len(b.Add)+len(b.Remove) > 2*membersMax || len(b.To) > recipientsMax:
		return refuse("too many accounts", ds.TooManyMembers)
	}
	for _, account := range slices.Concat(b.Add, b.Remove) {
		if !ds.IsValidAccount(string(account)) {
			return refuse("a user_id must be 1 to 512 bytes of UTF-8 without NUL", "")
		}
	}
	for _, account := range b.Add {
		if slices.Contains(b.Remove, account) {
			return refuse("the same account in add and remove", "")
		}
	}
	seen := look(b.Commit, b.Encoding)
	if seen.kind != ds.Commit {
		return refuse("commit is not an MLS commit", ds.BadCommit)
	}
	if err := checkWelcome(b); err != nil {
		return sight{}, err
	}
	if b.GroupInfo == nil {
		return seen, nil
	}
	info, err := readGroupInfo(b.GroupInfo)
	if err != nil {
		return refuse("group_info is not an MLS GroupInfo", ds.BadGroupInfo)
	}
	if g := info.Context; !bytes.Equal(g.GroupID, seen.group) || g.Epoch != uint64(seen.epoch)+1 {
		return refuse("group_info is not of the epoch that the commit opens", ds.BadGroupInfo)
	}
	return seen, nil
}

// checkWelcome compares the list of recipients with the Welcome's own.
func checkWelcome(b Bundle) error {
	if b.Welcome == nil {
		if len(b.To) > 0 {
			return ds.Refuse(ds.InvalidRequest, "recipients without a welcome")
		}
		return nil
	}
	if b.ByAccount && readWelcome(b.Welcome) != nil {
		return nil
	}
	var m wire.Message
	if err := wire.Unmarshal(b.Welcome, &m); err != nil || m.Welcome == nil {
		return ds.Refuse(ds.InvalidRequest, "welcome is not an MLS Welcome").Because(ds.BadCommit)
	}
	refs, devices := map[string]bool{}, map[ds.Device]bool{}
	for i := range m.Welcome.Secrets {
		refs[hex.EncodeToString(m.Welcome.Secrets[i].NewMember)] = true
	}
	for _, to := range b.To {
		if !ds.IsValidAccount(string(to.Device.Account)) || !ds.IsValidID(string(to.Device.ID)) {
			return ds.Refuse(ds.InvalidRequest, "a recipient is not a device")
		}
		if to.KeyPackageRef != strings.ToLower(to.KeyPackageRef) || !refs[to.KeyPackageRef] {
			return ds.Refuse(ds.InvalidRequest, "a key_package_ref is not in the welcome")
		}
		if devices[to.Device] {
			return ds.Refuse(ds.InvalidRequest, "a device is named twice")
		}
		devices[to.Device] = true
		delete(refs, to.KeyPackageRef) // one secret is for one device
	}
	if len(refs) > 0 {
		return ds.Refuse(ds.InvalidRequest, "the welcome is for more devices than the recipients named")
	}
	return nil
}

func (b Bundle) limits() []string {
	names := append(make([]string, 0, 3), limits.Sends)
	if len(b.Add) > 0 {
		names = append(names, limits.Invites)
	}
	if len(b.Remove) > 0 {
		names = append(names, limits.Removes)
	}
	return names
}

func (b Bundle) repeat(_ *logs.Conversation, _ *action, answer store.Answer) (Result, bool, error) {
	switch {
	case answer.Pos == 0:
		return Result{}, false, nil
	case answer.Kind != ds.Commit:
		return Result{}, false, refuseReused
	}
	return Result{Record: recordOf(b.ConversationID, b.ID, answer)}, true, nil
}

// judge checks the commit against the group and its epoch, and returns the refusal that was
// found before the queue.
func (b Bundle) judge(c *logs.Conversation, a *action) (verdict, error) {
	if c.Head.IsBound() {
		if !bytes.Equal(a.seen.group, c.Head.GroupID) {
			return verdict{}, refuseGroup.Because(ds.BadCommit)
		}
		if a.seen.epoch != c.Head.Epoch {
			return verdict{}, refuseEpoch(c.Head.Epoch).Because(ds.LostRace)
		}
	}
	return verdict{a.seen, len(b.Commit) + len(b.Welcome) + len(b.GroupInfo) + enteringBytes(c, b.entering(a))}, a.refused
}

// entering lists the accounts that the bundle makes members.
func (b Bundle) entering(a *action) []ds.AccountID {
	if a.found.entry != nil {
		return []ds.AccountID{a.who.Account}
	}
	return b.Add
}

func (b Bundle) do(c *logs.Conversation, a *action, v verdict, nowMS int64) Result {
	who := a.who
	if e := a.found.entry; e != nil { // first, so that the commit is within the stay that it begins
		isHeir := e.isHeir && c.Head.Members == 0
		changeMembers(c, ds.MembershipChange{By: who.Account, Add: b.entering(a)}, nowMS)
		if isHeir {
			changeRole(c, who.Account, who.Account, ds.Owner, nowMS)
		}
	}
	applyMessage(c, who, v.seen)
	c.Head.ConfirmationTag = b.ConfirmationTag
	commit := ds.Record{Kind: ds.Commit, MessageID: b.ID, Encoding: b.Encoding, Body: b.Commit, ConfirmationTag: b.ConfirmationTag}
	if c.Head.RecordSenders && who.Device != "" {
		commit.Sender = who.AsDevice()
	}
	commit = c.AppendMessage(commit, nowMS)
	changeMembers(c, ds.MembershipChange{By: who.Account, Add: b.Add, Remove: b.Remove}, nowMS)
	if b.Welcome != nil {
		c.Out.Welcomes = append(c.Out.Welcomes, store.Welcome{ID: a.found.welcomeID, Conversation: c.Head.ID, Pos: commit.Pos,
			Body: b.Welcome, ExpiresMS: nowMS + welcomeLifetime.Milliseconds()})
	}
	addWelcome(c, a.found.welcomeID, a.found.to, commit.Seq+1)
	noteEntered(c, who.Account, a.found.entered)
	if b.GroupInfo != nil {
		c.Out.Infos = append(c.Out.Infos, store.GroupInfo{Conversation: c.Head.ID, Pos: commit.Pos, Epoch: commit.Epoch, Body: b.GroupInfo})
		c.InfoEpoch = commit.Epoch
	}
	return Result{Record: commit}
}

// noteEntered records the devices and key packages that entered the group.
func noteEntered(c *logs.Conversation, by ds.AccountID, e store.Entered) {
	if len(e.Devices)+len(e.Packages) > 0 {
		e.Conversation, e.By = c.Head.ID, by
		c.Out.Entered = append(c.Out.Entered, e)
	}
}

// addWelcome records the recipients of a Welcome of this batch, and notifies those with a known
// device. The others query for it.
func addWelcome(c *logs.Conversation, id string, to []Recipient, nextSeq int64) {
	for _, r := range to {
		c.Out.Recipients = append(c.Out.Recipients, store.WelcomeRecipient{WelcomeID: id, Conversation: c.Head.ID,
			Account: r.Device.Account, Device: r.Device.ID, KeyPackageRef: r.KeyPackageRef})
		if r.Device.ID != "" {
			c.Notify(r.Device.Account, r.Device.ID, ds.WelcomeEvent, ds.DeviceEvent{WelcomeID: id, KeyPackageRef: r.KeyPackageRef,
				Generation: c.Head.Generation, Epoch: c.Head.Epoch, NextSeq: nextSeq})
		}
	}
}

// may checks the rights of the committer: any member may commit without changing memberships;
// changes depend on its role and the rules of the conversation; only owner and admins may bind
// a conversation to its group.
func (b Bundle) may(c *logs.Conversation, a *action, nowMS int64) error {
	account := a.who.Account
	if a.seen.external && !c.Head.Policy.AllowExternalCommits {
		return refuseRights
	}
	if a.found.entry != nil {
		return mayEnter(c, account, a.found.entry, nowMS)
	}
	if !c.Head.IsBound() && !c.Role(account).MayManage() {
		return refuseRights
	}
	if err := mayChange(c, account, b); err != nil {
		return err
	}
	if err := hasRoom(c, b.Add, b.Remove); err != nil {
		return err
	}
	return b.checkWelcomed(c, a)
}

// checkWelcomed checks that the recipients of the Welcome are present or new members, and that
// the Welcome of a bundle by account is for every added account.
func (b Bundle) checkWelcomed(c *logs.Conversation, a *action) error {
	welcomed := map[ds.AccountID]bool{}
	for _, to := range a.found.to {
		account := to.Device.Account
		welcomed[account] = true
		if slices.Contains(b.Remove, account) || !c.IsMember(account) && !slices.Contains(b.Add, account) {
			return ds.Refuse(ds.InvalidRequest, "a recipient of the welcome is not a member")
		}
	}
	for _, account := range b.Add {
		switch {
		case !b.ByAccount || welcomed[account] || a.refused != nil:
		case c.IsMember(account):
			return ds.Refuse(ds.InvalidRequest, "%s is a member already", account).Because(ds.AlreadyMember)
		default:
			return ds.Refuse(ds.InvalidRequest, "the welcome is for no key package of %s", account).Because(ds.NoKeyPackage)
		}
	}
	return nil
}

// mayChange checks the right of by to change memberships by a commit. With Bundle.ByAccount,
// changes that are already in effect need no rights.
func mayChange(c *logs.Conversation, by ds.AccountID, b Bundle) error {
	if slices.Contains(b.Remove, by) {
		return ds.Refuse(ds.InvalidRequest, "a commit cannot remove its committer")
	}
	adds, removes := len(b.Add) > 0, b.Remove
	if b.ByAccount {
		adds = entering(c, b.Add) > 0
		removes = slices.DeleteFunc(slices.Clone(b.Remove), func(a ds.AccountID) bool { return len(c.Stays(a)) > 0 && !c.IsMember(a) })
	}
	if adds && !mayAdd(c, by) {
		return refuseRights
	}
	for _, account := range removes {
		switch {
		case !mayRemove(c, by, account):
			return refuseRights
		case !c.IsMember(account) && b.ByAccount:
			return ds.Refuse(ds.InvalidRequest, "%s is not a member", account)
		}
	}
	return nil
}

// hasRoom refuses a change by which accounts enter, while others leave, if it exceeds the
// maximum number of members. A change by which none enters is never refused.
func hasRoom(c *logs.Conversation, add, remove []ds.AccountID) error {
	enter := entering(c, add)
	if enter > 0 && c.Head.Members+enter-leaving(c, remove) > memberLimit(c) {
		return refuseMembers(memberLimit(c))
	}
	return nil
}

// memberLimit returns the maximum number of members of the conversation.
func memberLimit(c *logs.Conversation) int64 {
	if n := c.Head.Policy.MaxMembers; n > 0 && n < membersMax {
		return n
	}
	return membersMax
}

// enteringBytes estimates the storage cost of the entry of those accounts of a list that are
// not members yet: the membership, its record, an event for each of them, all with indexes;
// and the same again when they leave.
func enteringBytes(c *logs.Conversation, accounts []ds.AccountID) int {
	fresh, bytes := map[ds.AccountID]bool{}, 0
	for _, account := range accounts {
		if !fresh[account] && !c.IsMember(account) {
			fresh[account] = true
			bytes += memberBytes + memberNames*len(account)
		}
	}
	return bytes
}

// entering counts the distinct accounts of a list that are not members yet.
func entering(c *logs.Conversation, accounts []ds.AccountID) int64 {
	fresh := map[ds.AccountID]bool{}
	for _, account := range accounts {
		if !c.IsMember(account) {
			fresh[account] = true
		}
	}
	return int64(len(fresh))
}

// leaving counts the distinct accounts of a list that are members.
func leaving(c *logs.Conversation, accounts []ds.AccountID) int64 {
	gone := map[ds.AccountID]bool{}
	for _, account := range accounts {
		if c.IsMember(account) {
			gone[account] = true
		}
	}
	return int64(len(gone))
}
