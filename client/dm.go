package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"

	"waxwing.im/waxwing/mls"
)

const groupIDBytes = 32

// dmID returns the identifier of the direct conversation of two accounts, the same for both of
// them and through each door of the server: the group_id in hex, SHA-256("waxwing dm v1" NUL
// smaller DID NUL larger DID).
func dmID(a, b string) string {
	sum := sha256.Sum256([]byte("waxwing dm v1\x00" + min(a, b) + "\x00" + max(a, b)))
	return hex.EncodeToString(sum[:])
}

// oldDMID returns the name of earlier versions for the direct conversation of two accounts:
// "dm_" and the first 32 characters of the base64url of the same hash. Its group_id is
// arbitrary. Homes and servers have such conversations, which keep that name.
func oldDMID(a, b string) string {
	sum, _ := hex.DecodeString(dmID(a, b))
	return "dm_" + base64.RawURLEncoding.EncodeToString(sum)[:32]
}

// isGroupID reports whether id has the form of ids made by this package: a group_id in
// lower-case hex.
func isGroupID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == groupIDBytes && hex.EncodeToString(raw) == id
}

// accountBytesMax is the longest account identifier of the gateway protocol.
const accountBytesMax = 512

// checkAccount reports whether did can name an account: an invalid one would wait for key
// packages for ever.
func checkAccount(did string) error {
	if len(did) > accountBytesMax {
		return fmt.Errorf("%w: longer than %d bytes", ErrAccount, accountBytesMax)
	}
	if err := checkDID(did); err != nil {
		return fmt.Errorf("%w: %w", ErrAccount, err)
	}
	return nil
}

// StartDM returns the direct conversation with the account did, and starts it if there is none.
// It does not wait for the network: messages may be sent at once and stay in the outbox until
// both are in the group. If both accounts start one they end up in the same conversation. The
// error wraps ErrAccount if did is not a DID, and is ErrTaken if other accounts use the ID of
// this conversation.
func (c *Client) StartDM(ctx context.Context, did string) (conversation string, err error) {
	if err := checkAccount(did); err != nil {
		return "", fmt.Errorf("start a direct conversation: %w", err)
	}
	if did == c.account.DID() {
		return "", errors.New("start a direct conversation: cannot be with the own account")
	}
	id := dmID(c.account.DID(), did)
	err = c.db.update(ctx, func(tx *tx) error {
		old := tx.conversation(oldDMID(c.account.DID(), did))
		if old != nil && old.phase != Removed {
			id = old.id
		}
		conv := tx.conversation(id)
		switch {
		case conv == nil:
			tx.addConversation(id, Creating, conversationInfo{Kind: DM, Peer: did, Introduce: introduceLater}, c.now())
		case conv.group != nil && (conv.info.Kind != DM || conv.info.Peer != did):
			return ErrTaken // others have made a room of this name, and added us
		case conv.phase == Removed && conv.group == nil && conv.info.Kind == DM:
			conv.setPhase(Creating) // creating it has failed before
		case conv.phase == Joined && conv.group != nil && !hasAccount(conv.group, did): // the peer had left
			return c.keeper.want(conv, []string{did})
		case conv.phase == Waiting && conv.info.Waiting.GaveUp:
			conv.askAgain()
		case conv.info.Peer == "": // learned from the server, which did not name the peer
			conv.editInfo().Kind, conv.editInfo().Peer = DM, did
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	c.wake(id)
	return id, nil
}

// CreateRoom makes a room and invites accounts into it. Like StartDM it does not wait for the
// network, nor does the room wait for its members: an account without a key package enters
// later, and cannot read earlier messages. The error wraps ErrAccount if a member is not a DID.
func (c *Client) CreateRoom(ctx context.Context, members ...string) (conversation string, err error) {
	group := make([]byte, groupIDBytes)
	rand.Read(group)
	id := hex.EncodeToString(group)
	err = c.db.update(ctx, func(tx *tx) error {
		conv := tx.addConversation(id, Creating, conversationInfo{Kind: Room, Introduce: introduceLater}, c.now())
		return c.keeper.want(conv, members)
	})
	if err != nil {
		return "", err
	}
	c.wake(id)
	return id, nil
}

// want adds accounts to the list of those to be added.
func (k keeper) want(conv *conversation, accounts []string) error {
	for _, account := range accounts {
		if err := checkAccount(account); err != nil {
			return fmt.Errorf("invite: %w", err)
		}
		info := conv.editInfo()
		info.Unwanted = slices.DeleteFunc(info.Unwanted, func(a string) bool { return a == account })
		known := account == k.c.account.DID() ||
			conv.group != nil && hasAccount(conv.group, account) && !slices.Contains(info.Missing, account)
		for _, w := range conv.info.Wanted {
			known = known || w.Account == account
		}
		if !known {
			info.Wanted = append(info.Wanted, wanted{Account: account, Add: true})
		}
	}
	return nil
}

// create makes a conversation on the server, and then its group here. After a crash it runs
// again from the beginning: the server reports a conversation that exists.
func (e errands) create(ctx context.Context, by service, id string) error {
	conv, err := e.c.snapshot(ctx, id)
	if err != nil || conv == nil || conv.phase != Creating {
		return err
	}
	peer := ""
	if conv.info.Kind == DM {
		peer = conv.info.Peer
	}
	err = by.create(ctx, id, peer)
	role := RoleOwner
	if errors.Is(err, errExists) {
		if role, err = e.roleIn(ctx, by, id); err != nil {
			return err
		}
	}
	if err != nil {
		if r := asRefusal(err); r != nil && !r.mayPass() && r.Code != codeUnauthorized {
			return e.giveUp(ctx, id, err)
		}
		return fmt.Errorf("create conversation: %w", err)
	}
	return e.created(ctx, id, role)
}

// created continues with a conversation that exists on the server: its owner makes the group,
// other members wait for the Welcome.
func (e errands) created(ctx context.Context, id, role string) error {
	if role == "" {
		// The id is in use by others. They can only block it, not read along.
		return e.giveUp(ctx, id, ErrTaken)
	}
	return e.c.db.edit(ctx, id, func(_ *tx, conv *conversation) error {
		if conv.phase != Creating {
			return nil // a Welcome was faster
		}
		if role != "owner" {
			conv.setPhase(Waiting)
			return nil
		}
		return e.c.keeper.createGroup(conv)
	})
}

// createGroup makes the MLS group of a conversation that we own, with this device alone.
func (k keeper) createGroup(conv *conversation) error {
	groupID, err := hex.DecodeString(conv.id)
	if conv.info.Kind == DM && conv.id == oldDMID(k.c.account.DID(), conv.info.Peer) {
		groupID, err = make([]byte, groupIDBytes), nil
		rand.Read(groupID)
	}
	if err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	group, err := mls.NewGroup(groupSuite, groupID, k.c.identity, mls.GroupOptions{Hook: k.c.authority.credentialHook, Now: k.c.now, Padding: mls.PadBuckets, Limits: k.c.authority.limits()})
	if err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	conv.setGroup(group)
	conv.setPhase(Founding)
	conv.editInfo().Role, conv.editInfo().Managers = RoleOwner, map[string]string{k.c.account.DID(): RoleOwner}
	if conv.info.Kind == DM {
		conv.editInfo().Wanted = []wanted{{Account: conv.info.Peer}}
	}
	return nil
}

// giveUp ends a conversation that cannot be made.
func (e errands) giveUp(ctx context.Context, id string, why error) error {
	return e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error {
		if conv.phase != Creating {
			return nil
		}
		conv.setPhase(Removed)
		conv.editInfo().Problem = why.Error()
		now := e.c.now()
		if err := tx.problem(id, now, why); err != nil {
			return err
		}
		return tx.refuseAll(id, now, problemCode(why), why.Error())
	})
}

// roleIn returns the account's role in a conversation on the server, "" if it is not in it.
func (e errands) roleIn(ctx context.Context, by service, id string) (string, error) {
	for page, err := range e.pages(ctx, by) {
		at := slices.IndexFunc(page, func(item listed) bool { return item.id == id })
		switch {
		case err != nil:
			return "", err
		case at >= 0:
			return page[at].role, nil
		}
	}
	return "", nil
}

// listPagesMax bounds the pages of a list, so that an endless one does no harm. The rest of a
// longer one is ignored.
const listPagesMax = 1024

// pages yields the server's list of conversations, page by page.
func (e errands) pages(ctx context.Context, by service) iter.Seq2[[]listed, error] {
	return func(yield func([]listed, error) bool) {
		cursor := ""
		for range listPagesMax {
			page, next, err := by.conversations(ctx, cursor)
			if err != nil {
				yield(nil, fmt.Errorf("list conversations: %w", err))
				return
			}
			isEmpty := len(page) == 0
			page = slices.DeleteFunc(page, func(item listed) bool { return !isConversationID(item.id) })
			if !yield(page, nil) || next == "" || isEmpty {
				return
			}
			cursor = next
		}
	}
}

// learnConversations adds the conversations that the server lists and this device does not
// know: their Welcome is on its way or about to be sent. It compares the members of the others,
// and returns the conversations with members that have to be requested.
func (e errands) learnConversations(ctx context.Context, by service) (unclear []string, err error) {
	before, err := e.snapshots(ctx)
	if err != nil {
		return nil, err
	}
	for page, err := range e.pages(ctx, by) {
		var some []string
		if err == nil {
			some, err = e.learnList(ctx, page, before)
		}
		if err != nil {
			return unclear, err
		}
		unclear = append(unclear, some...)
	}
	return unclear, nil
}

// snapshots returns all conversations by id, as committed and read-only.
func (e errands) snapshots(ctx context.Context) (map[string]*conversation, error) {
	all, err := e.c.db.conversations(ctx)
	byID := map[string]*conversation{}
	for _, conv := range all {
		byID[conv.id] = conv
	}
	return byID, err
}

// learnList applies a list of conversations that was requested while their states were as in
// before. A conversation that has ended here since was still active when the server answered:
// the list does not restore it.
func (e errands) learnList(ctx context.Context, list []listed, before map[string]*conversation) (unclear []string, err error) {
	err = e.c.db.update(ctx, func(tx *tx) error {
		unclear = nil
		for _, item := range list {
			conv := tx.conversation(item.id)
			was := before[item.id]
			if was == nil {
				was = &conversation{phase: Removed}
			}
			if conv != nil && conv.phase == Removed && (was.phase != Removed || was.epoch() != conv.epoch()) {
				continue
			}
			conv = e.c.keeper.learnConversation(tx, item.id)
			if title, _ := cleanText(item.title, titleRunesMax, titleBytesMax); title != conv.info.ServerTitle {
				conv.editInfo().ServerTitle = title
			}
			if conv.phase == Waiting && conv.info.Waiting == (waiting{}) && item.isEmpty {
				conv.editInfo().Waiting.Tries = 1 // an empty one has no group: others go first
			}
			if len(item.accounts) == 0 || !e.c.keeper.applyRoster(conv, roster{item.accounts, item.role, was.epoch(), was.rosterChanges}) {
				unclear = append(unclear, conv.id)
			} else if len(item.roles) > 0 && conv.phase == Joined && conv.info.Managers == nil {
				if err := conv.listRoles(tx, e.c.account.DID(), item.roles, e.c.now()); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return unclear, err
}

// learnConversation returns the conversation of that ID after the server has reported that this
// account is in it; nil if the ID is invalid.
func (k keeper) learnConversation(tx *tx, id string) *conversation {
	conv := tx.conversation(id)
	switch {
	case !isConversationID(id):
		return nil
	case conv == nil:
		conv = tx.addConversation(id, Waiting, conversationInfo{Kind: Room}, k.c.now()) // until its group shows the kind
	case conv.phase == Removed && conv.group != nil:
		conv.setPhase(Joined) // a member again, with the group that it never left
	case conv.phase == Removed && conv.nextSeq == 1:
		conv.setPhase(Waiting) // a member again before this device was in the group
	default:
		return conv
	}
	tx.wake(id)
	return conv
}
