package core

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
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
}

// CommitBundle puts a commit bundle into the log, or answers where an earlier one
// with the same id stands. Refusals: as Send, and limit_exceeded.
func (s *Service) CommitBundle(ctx context.Context, who ds.Caller, b Bundle) (ds.Record, error) {
	if err := checkIDs(b.ConversationID, b.ID); err != nil {
		return ds.Record{}, err
	}
	seen, err := checkBundle(b)
	if err != nil {
		return ds.Record{}, err
	}
	if seen.refused = s.checkExternalBundle(ctx, who, b, seen); ds.CodeOf(seen.refused) == "" && seen.refused != nil {
		return ds.Record{}, seen.refused
	}
	accounts := slices.Concat(b.Add, b.Remove)
	for _, to := range b.To {
		accounts = append(accounts, to.Device.Account)
	}
	welcomeID := rand.Text()
	r := &request{conversation: b.ConversationID, who: who, messageID: b.ID, accounts: accounts,
		bytes: len(b.Commit) + len(b.Welcome) + len(b.GroupInfo)}
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		r.record, err = s.decideBundle(c, who, b, seen, welcomeID, nowMS)
		return err
	}
	if err := s.submit(ctx, r); err != nil {
		return ds.Record{}, err
	}
	return r.record, nil
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
	refuse := func(sentence string) (sight, error) {
		return sight{}, &ds.Refusal{Code: ds.InvalidRequest, Message: sentence}
	}
	switch {
	case len(b.Commit) > commitBytesMax || len(b.Welcome) > welcomeBytesMax || len(b.GroupInfo) > groupInfoBytesMax:
		return refuse("bundle too large")
	case len(b.Add)+len(b.Remove) > 2*membersMax || len(b.To) > recipientsMax:
		return refuse("too many accounts")
	}
	for _, account := range slices.Concat(b.Add, b.Remove) {
		if !ds.IsValidAccount(string(account)) {
			return refuse("a user_id must be 1 to 512 bytes of UTF-8 without NUL")
		}
	}
	for _, account := range b.Add {
		if slices.Contains(b.Remove, account) {
			return refuse("the same account in add and remove")
		}
	}
	seen := look(b.Commit, b.Encoding)
	if seen.kind != ds.Commit {
		return refuse("commit is not an MLS commit")
	}
	if err := checkWelcome(b); err != nil {
		return sight{}, err
	}
	if b.GroupInfo == nil {
		return seen, nil
	}
	var m wire.Message
	if err := wire.Unmarshal(b.GroupInfo, &m); err != nil || m.GroupInfo == nil {
		return refuse("group_info is not an MLS GroupInfo")
	}
	if g := m.GroupInfo.Context; !bytes.Equal(g.GroupID, seen.group) || g.Epoch != uint64(seen.epoch)+1 {
		return refuse("group_info is not of the epoch that the commit opens")
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
	var m wire.Message
	if err := wire.Unmarshal(b.Welcome, &m); err != nil || m.Welcome == nil {
		return ds.Refuse(ds.InvalidRequest, "welcome is not an MLS Welcome")
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
	answer, isRepeat, err := c.admit(who, b.ID)
	if err != nil {
		return ds.Record{}, err
	}
	if isRepeat {
		if answer.Kind != ds.Commit {
			return ds.Record{}, refuseReused
		}
		s.metrics.duplicates.Inc()
		return recordOf(b.ConversationID, b.ID, answer), nil
	}
	if err := s.takeBundle(c, who, b); err != nil {
		return ds.Record{}, err
	}
	if err := c.mayBundle(who, b); err != nil {
		return ds.Record{}, err
	}
	if err := c.isHome(); err != nil {
		return ds.Record{}, err
	}
	if seen.refused != nil {
		return ds.Record{}, seen.refused
	}
	if c.head.IsBound() {
		if !bytes.Equal(seen.group, c.head.GroupID) {
			return ds.Record{}, refuseGroup
		}
		if seen.epoch != c.head.Epoch {
			s.metrics.commitConflicts.Inc()
			return ds.Record{}, refuseEpoch(c.head.Epoch)
		}
	}
	if r := s.chargeBytes(c, who, len(b.Commit)+len(b.Welcome)+len(b.GroupInfo)+c.enteringBytes(b.Add)); r != nil {
		return ds.Record{}, r
	}
	c.apply(who, seen)
	commit := ds.Record{Kind: ds.Commit, MessageID: b.ID, Encoding: b.Encoding, Body: b.Commit}
	if c.head.RecordSenders {
		commit.Sender = who.AsDevice()
	}
	commit = c.appendMessage(commit, nowMS)
	c.changeMembers(who.Account, b.Add, b.Remove, nowMS)
	if b.Welcome != nil {
		c.out.Welcomes = append(c.out.Welcomes, store.Welcome{ID: welcomeID, Conversation: c.head.ID, Pos: commit.Pos,
			Body: b.Welcome, ExpiresMS: nowMS + welcomeLifetime.Milliseconds()})
	}
	c.welcome(welcomeID, b.To, commit.Seq+1)
	if b.GroupInfo != nil {
		c.out.Infos = append(c.out.Infos, store.GroupInfo{Conversation: c.head.ID, Pos: commit.Pos, Body: b.GroupInfo})
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
	names := []string{LimitSends}
	if len(b.Add) > 0 {
		names = append(names, LimitInvites)
	}
	if len(b.Remove) > 0 {
		names = append(names, LimitRemoves)
	}
	for _, name := range names {
		if r := s.charge(c, name, who); r != nil {
			return r
		}
	}
	return nil
}

// mayBundle is who may commit what: any member a commit that changes no membership,
// owner and admins the others, and only they bind a conversation to its group.
func (c *conversation) mayBundle(who ds.Caller, b Bundle) error {
	manages := c.role(who.Account).MayManage()
	if (len(b.Add) > 0 || len(b.Remove) > 0 || !c.head.IsBound()) && !manages {
		return refuseRights
	}
	if slices.Contains(b.Remove, who.Account) {
		return ds.Refuse(ds.InvalidRequest, "a commit cannot remove its committer")
	}
	for _, account := range b.Remove {
		if c.role(account) == ds.Owner {
			return refuseRights
		}
	}
	if c.head.Members+c.entering(b.Add) > membersMax {
		return refuseMembers
	}
	for _, to := range b.To {
		account := to.Device.Account
		if slices.Contains(b.Remove, account) || !c.isMember(account) && !slices.Contains(b.Add, account) {
			return ds.Refuse(ds.InvalidRequest, "a recipient of the welcome is not a member")
		}
	}
	return nil
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
