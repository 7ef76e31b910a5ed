package core

import (
	"bytes"
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// Recipient is one device that a Welcome is for, with the KeyPackage that was used
// to add it.
type Recipient struct {
	Device        ds.Device
	KeyPackageRef string // lower-case hex
}

// Bundle is a commit with all that must become true with it, or not at all: the
// Welcome for those it adds, the GroupInfo of the epoch it opens, and the accounts
// that enter and leave the conversation.
type Bundle struct {
	ConversationID ds.ConversationID
	ID             ds.MessageID
	Commit         []byte // MLSMessage
	Welcome        []byte // MLSMessage, or nil
	To             []Recipient
	GroupInfo      []byte // MLSMessage, or nil
	Add, Remove    []ds.AccountID
	Encoding       ds.Encoding
	// ConfirmationTag is that of the epoch that the commit opens (RFC 9420, section 8.1),
	// where the committer says it; else nil.
	ConfirmationTag []byte

	isLoose bool          // by ChangeGroup: recipients need not be known by device
	entry   *entry        // the committer enters by itself
	entered store.Entered // what became of devices and key packages
}

// CommitBundle puts a commit bundle into the log, or answers where an earlier one
// with the same id stands. Refusals: as Send, and limit_exceeded.
func (s *Service) CommitBundle(ctx context.Context, who ds.Caller, b Bundle) (ds.Record, error) {
	if err := CheckIDs(b.ConversationID, b.ID); err != nil {
		return ds.Record{}, err
	}
	seen, err := checkBundle(b)
	if err != nil {
		return ds.Record{}, err
	}
	if seen.refused = s.checkExternalBundle(ctx, who, b, seen); ds.CodeOf(seen.refused) == "" && seen.refused != nil {
		return ds.Record{}, seen.refused
	}
	b.entered = enteredBy(b.To)
	return s.submitBundle(ctx, who, b, seen)
}

// checkExternalBundle is checkExternal for a bundle: who enters by itself changes
// nobody else's membership. A refusal counts only once it is clear that the bundle is
// no repeat, which is answered by its id.
func (s *Service) checkExternalBundle(ctx context.Context, who ds.Caller, b Bundle, seen sight) error {
	if !seen.external {
		return nil
	}
	if len(b.Add)+len(b.Remove)+len(b.To) > 0 {
		return ds.Refuse(ds.InvalidRequest, "an external commit adds and removes no accounts")
	}
	return s.checkExternal(ctx, who, b.ConversationID, b.Commit)
}

// checkBundle looks at the bundle alone: sizes, forms, and whether its parts say
// the same as far as a server can see.
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

// checkWelcome holds the list of recipients against the Welcome's own.
func checkWelcome(b Bundle) error {
	if b.Welcome == nil {
		if len(b.To) > 0 {
			return ds.Refuse(ds.InvalidRequest, "recipients without a welcome")
		}
		return nil
	}
	if b.isLoose && readWelcome(b.Welcome) != nil {
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

// decideBundle is the rule of CommitBundle. It changes c only when it accepts.
func (s *Service) decideBundle(c *conversation, who ds.Caller, b Bundle, seen sight, welcomeID string, nowMS int64) (ds.Record, error) {
	answer, isRepeat, err := c.admitBundle(who, b)
	if err != nil {
		return ds.Record{}, err
	}
	if isRepeat {
		if answer.Kind != ds.Commit {
			return ds.Record{}, refuseReused
		}
		c.bill.isRepeat = true
		return recordOf(b.ConversationID, b.ID, answer), nil
	}
	if err := s.takeBundle(c, who, b); err != nil {
		return ds.Record{}, err
	}
	if err := c.mayBundle(who, b, seen, nowMS); err != nil {
		return ds.Record{}, err
	}
	if err := c.isHome(); err != nil {
		return ds.Record{}, err
	}
	if c.head.IsBound() {
		if !bytes.Equal(seen.group, c.head.GroupID) {
			return ds.Record{}, refuseGroup.Because(ds.BadCommit)
		}
		if seen.epoch != c.head.Epoch {
			c.bill.lostRace = true
			return ds.Record{}, refuseEpoch(c.head.Epoch).Because(ds.LostRace)
		}
	}
	if seen.refused != nil {
		return ds.Record{}, seen.refused
	}
	add := b.Add
	if b.entry != nil {
		add = []ds.AccountID{who.Account}
	}
	if r := s.chargeBytes(c, who, len(b.Commit)+len(b.Welcome)+len(b.GroupInfo)+c.enteringBytes(add)); r != nil {
		return ds.Record{}, r
	}
	if b.entry != nil { // first, so that the commit is within the stay that it begins
		isHeir := b.entry.isHeir && c.head.Members == 0
		c.changeMembers(who.Account, add, nil, nowMS)
		if isHeir {
			c.changeRole(who.Account, who.Account, ds.Owner, nowMS)
		}
	}
	c.apply(who, seen)
	c.head.ConfirmationTag = b.ConfirmationTag
	commit := ds.Record{Kind: ds.Commit, MessageID: b.ID, Encoding: b.Encoding, Body: b.Commit, ConfirmationTag: b.ConfirmationTag}
	if c.head.RecordSenders && who.Device != "" {
		commit.Sender = who.AsDevice()
	}
	commit = c.appendMessage(commit, nowMS)
	c.changeMembers(who.Account, b.Add, b.Remove, nowMS)
	if b.Welcome != nil {
		c.out.Welcomes = append(c.out.Welcomes, store.Welcome{ID: welcomeID, Conversation: c.head.ID, Pos: commit.Pos,
			Body: b.Welcome, ExpiresMS: nowMS + welcomeLifetime.Milliseconds()})
	}
	c.welcome(welcomeID, b.To, commit.Seq+1)
	if b.entered.Conversation, b.entered.By = c.head.ID, who.Account; len(b.entered.Devices)+len(b.entered.Packages) > 0 {
		c.out.Entered = append(c.out.Entered, b.entered)
	}
	if b.GroupInfo != nil {
		c.out.Infos = append(c.out.Infos, store.GroupInfo{Conversation: c.head.ID, Pos: commit.Pos, Epoch: commit.Epoch, Body: b.GroupInfo})
		c.infoEpoch = commit.Epoch
	}
	return commit, nil
}

// welcome notes whom a Welcome of this batch is for, and tells those of them whose
// device is known that it is there. The others ask for it.
func (c *conversation) welcome(id string, to []Recipient, nextSeq int64) {
	for _, r := range to {
		c.out.Recipients = append(c.out.Recipients, store.WelcomeRecipient{WelcomeID: id, Conversation: c.head.ID,
			Account: r.Device.Account, Device: r.Device.ID, KeyPackageRef: r.KeyPackageRef})
		if r.Device.ID != "" {
			c.tell(r.Device.Account, r.Device.ID, ds.WelcomeEvent, ds.DeviceEvent{WelcomeID: id, KeyPackageRef: r.KeyPackageRef,
				Generation: c.head.Generation, Epoch: c.head.Epoch, NextSeq: nextSeq})
		}
	}
}

func (s *Service) takeBundle(c *conversation, who ds.Caller, b Bundle) error {
	names := []string{limits.Sends}
	if len(b.Add) > 0 {
		names = append(names, limits.Invites)
	}
	if len(b.Remove) > 0 {
		names = append(names, limits.Removes)
	}
	for _, name := range names {
		if r := s.charge(c, name, who); r != nil {
			return r
		}
	}
	return nil
}

// admitBundle is admit, except that who enters by itself need not be a member yet.
func (c *conversation) admitBundle(who ds.Caller, b Bundle) (store.Answer, bool, error) {
	answer, isRepeat, err := c.admit(who, b.ID)
	if err != nil && c.exists && b.entry != nil && len(c.stays(who.Account)) > 0 {
		return store.Answer{}, false, nil
	}
	return answer, isRepeat, err
}

// mayBundle is who may commit what: any member a commit that changes no membership,
// others by their role and the rules of the conversation, and only owner and admins
// bind a conversation to its group.
func (c *conversation) mayBundle(who ds.Caller, b Bundle, seen sight, nowMS int64) error {
	if seen.external && !c.head.Policy.AllowExternalCommits {
		return refuseRights
	}
	if b.entry != nil {
		return c.mayEnter(who.Account, b.entry, nowMS)
	}
	if !c.head.IsBound() && !c.role(who.Account).MayManage() {
		return refuseRights
	}
	if err := c.mayChange(who.Account, b); err != nil {
		return err
	}
	if err := c.hasRoom(b.Add, b.Remove); err != nil {
		return err
	}
	welcomed := map[ds.AccountID]bool{}
	for _, to := range b.To {
		account := to.Device.Account
		welcomed[account] = true
		if slices.Contains(b.Remove, account) || !c.isMember(account) && !slices.Contains(b.Add, account) {
			return ds.Refuse(ds.InvalidRequest, "a recipient of the welcome is not a member")
		}
	}
	for _, account := range b.Add {
		switch {
		case !b.isLoose || welcomed[account] || seen.refused != nil:
		case c.isMember(account):
			return ds.Refuse(ds.InvalidRequest, "%s is a member already", account).Because(ds.AlreadyMember)
		default:
			return ds.Refuse(ds.InvalidRequest, "the welcome is for no key package of %s", account).Because(ds.NoKeyPackage)
		}
	}
	return nil
}

// mayChange is who may change whose membership by a commit. Accounts that already are
// what a commit makes them (ChangeGroup) are nobody's right to change.
func (c *conversation) mayChange(by ds.AccountID, b Bundle) error {
	if slices.Contains(b.Remove, by) {
		return ds.Refuse(ds.InvalidRequest, "a commit cannot remove its committer")
	}
	adds, removes := len(b.Add) > 0, b.Remove
	if b.isLoose {
		adds = c.entering(b.Add) > 0
		removes = slices.DeleteFunc(slices.Clone(b.Remove), func(a ds.AccountID) bool { return len(c.stays(a)) > 0 && !c.isMember(a) })
	}
	if adds && !c.mayAdd(by) {
		return refuseRights
	}
	for _, account := range removes {
		switch {
		case !c.mayRemove(by, account):
			return refuseRights
		case !c.isMember(account) && b.isLoose:
			return ds.Refuse(ds.InvalidRequest, "%s is not a member", account)
		}
	}
	return nil
}

// hasRoom refuses to let the accounts of a list enter, while others leave, where there
// were too many members afterwards. What lets no account enter always has room.
func (c *conversation) hasRoom(add, remove []ds.AccountID) error {
	enter := c.entering(add)
	if enter > 0 && c.head.Members+enter-c.leaving(remove) > c.membersMax() {
		return refuseMembers(c.membersMax())
	}
	return nil
}

// membersMax is how many accounts the conversation may have.
func (c *conversation) membersMax() int64 {
	if n := c.head.Policy.MaxMembers; n > 0 && n < membersMax {
		return n
	}
	return membersMax
}

// enteringBytes is about what it costs to store that the accounts of a list enter which
// are not members yet: the membership, the record that says so, an event for each of
// them, all with indexes; and the same again when they leave.
func (c *conversation) enteringBytes(accounts []ds.AccountID) int {
	fresh, bytes := map[ds.AccountID]bool{}, 0
	for _, account := range accounts {
		if !fresh[account] && !c.isMember(account) {
			fresh[account] = true
			bytes += memberBytes + memberNames*len(account)
		}
	}
	return bytes
}

// entering counts the distinct accounts of a list that are not members yet.
func (c *conversation) entering(accounts []ds.AccountID) int64 {
	fresh := map[ds.AccountID]bool{}
	for _, account := range accounts {
		if !c.isMember(account) {
			fresh[account] = true
		}
	}
	return int64(len(fresh))
}

// leaving counts the distinct accounts of a list that are members.
func (c *conversation) leaving(accounts []ds.AccountID) int64 {
	gone := map[ds.AccountID]bool{}
	for _, account := range accounts {
		if c.isMember(account) {
			gone[account] = true
		}
	}
	return int64(len(gone))
}
