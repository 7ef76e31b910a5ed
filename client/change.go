package client

import (
	"crypto/sha256"
	"encoding/json"
	"slices"

	"waxwing.im/waxwing/mls"
)

// saveChange reports e and adds it to the history, between the messages. Its place is that of
// the record with that digest or, if digest is nil, after the last record that was applied. The
// members of a group that this device enters are reported only.
func (t *tx) saveChange(conv *conversation, e Event, digest *[sha256.Size]byte) error {
	kept := e
	var record []byte
	switch {
	case digest != nil:
		record = digest[:]
	case kept.Seq == 0:
		kept.Seq = max(conv.nextSeq-1, 1)
	}
	if e.Type == EventJoined || e.Type == EventRejoined {
		kept.Members = nil
	}
	if err := t.Messages.AddChange(conv.id, kept.Seq, record, kept); err != nil {
		return err
	}
	return t.report(e)
}

// roomContent is the JSON of contentRoom: what a member says about the room.
type roomContent struct {
	Leaving bool         `json:"leaving,omitempty"` // its account is about to leave
	Roles   []RoleChange `json:"roles,omitempty"`   // which it has assigned
	// Title is the title that the member gives the room; with Of, one that it repeats: that of
	// the message with this seq.
	Title *string `json:"title,omitempty"`
	Of    int64   `json:"of,omitempty"`
}

// digest is the digest of a message.
type digest = [sha256.Size]byte

// applyRoomContent applies a content of a member; an own one has its effect before it is sent,
// unless it is a title.
func (k keeper) applyRoomContent(tx *tx, conv *conversation, e Event, of digest, payload []byte) error {
	var c roomContent
	self := k.c.account.DID()
	switch err := json.Unmarshal(payload, &c); {
	case err != nil || conv.phase != Joined || e.Own && c.Title == nil:
	case c.Leaving:
		conv.hasLeft(e.From.Account)
	case c.Title == nil && len(c.Roles) == 0:
	case !conv.isFrom(conv.info.Managers, e.From, &c, self):
		conv.addClaim(e, c)
	case c.Title != nil:
		e.By, e.From = e.From, Member{}
		return conv.setTitle(tx, e, &of, *c.Title, c.Of)
	default:
		return conv.applyRoles(tx, self, e, &of, c.Roles)
	}
	return nil
}

// nameAccounts names the accounts that a commit added to the group or removed from it, beside
// their devices. left are those that had left before it.
func (e *Event) nameAccounts(before, after *mls.Group, left []string) {
	add := func(list *[]string, account string) {
		if !slices.Contains(*list, account) {
			*list = append(*list, account)
		}
	}
	for _, m := range e.Members {
		if !hasAccount(before, m.Account) {
			add(&e.Added, m.Account)
		}
	}
	for _, m := range e.Gone {
		switch {
		case hasAccount(after, m.Account):
		case slices.Contains(left, m.Account):
			add(&e.Left, m.Account)
		default:
			add(&e.Removed, m.Account)
		}
	}
}

// hasLeft records that an account has left the conversation, until it is out of the group.
func (c *conversation) hasLeft(account string) {
	if c.group != nil && hasAccount(c.group, account) && !slices.Contains(c.info.Left, account) {
		info := c.editInfo()
		info.Left = append(info.Left, account)
	}
}

// stays records that an account has not left, or is back.
func (c *conversation) stays(account string) {
	if slices.Contains(c.info.Left, account) {
		info := c.editInfo()
		info.Left = slices.DeleteFunc(info.Left, func(a string) bool { return a == account })
	}
}

// noteLeaving records the accounts that have proposed their own removal, which a commit of
// another member carries out.
func (c *conversation) noteLeaving(proposals []mls.ProposalInfo) {
	for _, p := range proposals {
		if p.Removed != nil && p.SenderKind == mls.SentByMember && p.Sender == p.Removed.Index {
			c.hasLeft(string(p.Removed.Credential))
		}
	}
}
