package client

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// The bounds of a title, as it is kept.
const (
	titleRunesMax = 128
	titleBytesMax = 512
)

// title is the title of a room. At orders titles: it is the place in the log of the message that
// has set it.
type title struct {
	Text string `json:"text,omitempty"`
	At   int64  `json:"at"`
}

// claim holds what a member has said about a room while its role was not known. Claims
// are judged when the server has listed the roles.
type claim struct {
	By      Member      `json:"by"`
	Seq     int64       `json:"seq"`
	Time    time.Time   `json:"time"`
	Content roomContent `json:"content"`
}

// claimsMax bounds the claims of a conversation. Only the last of an account counts.
const claimsMax = 16

// SetTitle gives a room a title, "" for none. It is sent as an encrypted message, in its turn, so
// that the server does not learn it, and takes effect when the log has it (EventTitle); an
// EventRefused reports that the server has refused it. Members accept it from the owner and the
// admins only, as far as they know the roles: these are the server's. The last one in the log
// counts. A device that adds others sends it again for them.
//
// The error wraps ErrName if the text has control characters or is longer than 128 characters or
// 512 bytes, and ErrRole if this account is known to be neither the owner nor an admin.
func (c *Client) SetTitle(ctx context.Context, room, text string) error {
	text, err := checkText(text, titleRunesMax, titleBytesMax)
	if err != nil {
		return err
	}
	return c.change(ctx, room, func(tx *tx, conv *conversation) error {
		switch {
		case conv.info.Kind == DM:
			return ErrDirect
		case conv.phase == Removed || conv.phase == Waiting || conv.info.Leave != nil:
			return ErrNoGroup
		case conv.info.Role == RoleMember:
			return ErrRole
		}
		return c.keeper.addContent(tx, conv, contentRoom, roomContent{Title: &text})
	})
}

// isFrom reports whether a member may say what it says about the room: it is the owner or an admin
// or, if it only repeats a title, a device of this account.
func (c *conversation) isFrom(managers map[string]string, by Member, content *roomContent, self string) bool {
	return mayManage(managers[by.Account]) || content.Of > 0 && content.Roles == nil && by.Account == self && by.Verified
}

// addClaim keeps what a member says until the server has listed the roles.
func (c *conversation) addClaim(e Event, content roomContent) {
	if content.Title != nil {
		text, _ := cleanText(*content.Title, titleRunesMax, titleBytesMax)
		content.Title = &text
	}
	content.Roles = slices.DeleteFunc(content.Roles, func(r RoleChange) bool { return !hasAccount(c.group, r.Account) })
	info := c.editInfo()
	info.Claims = slices.DeleteFunc(info.Claims, func(other claim) bool {
		return other.By.Account == e.From.Account && (other.Content.Title != nil) == (content.Title != nil)
	})
	info.Claims = append(info.Claims, claim{e.From, e.Seq, e.Time, content})
	if len(info.Claims) > claimsMax {
		info.Claims = slices.Delete(info.Claims, 0, 1)
	}
	c.askRoles()
}

// askRoles has the session request the roles.
func (c *conversation) askRoles() {
	c.editInfo().RolesDue = true
	c.rosterChanges++ // a list that was requested before may be older
}

// settleClaims applies the claims of members that may make them by the roles that the server has
// listed, before these take effect, and drops the others.
func (c *conversation) settleClaims(tx *tx, self string, managers map[string]string) error {
	if len(c.info.Claims) == 0 {
		return nil
	}
	claims := slices.SortedFunc(slices.Values(c.info.Claims), func(a, b claim) int { return cmp.Compare(a.Seq, b.Seq) })
	c.editInfo().Claims = nil
	for _, of := range claims {
		e := Event{Conversation: c.id, Seq: of.Seq, Time: of.Time, By: of.By}
		if !c.isFrom(managers, of.By, &of.Content, self) {
			continue
		}
		var err error
		if of.Content.Title != nil {
			err = c.setTitle(tx, e, nil, *of.Content.Title, of.Content.Of)
		} else {
			err = c.confirmRoles(tx, self, e, of.Content.Roles, managers)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setTitle applies a title of e.By, unless a later one was applied. of is the place of the message
// that a repetition repeats, or 0. digest is that of the message, nil if it is in the history at
// another place.
func (c *conversation) setTitle(tx *tx, e Event, digest *digest, text string, of int64) error {
	at := e.Seq
	if of > 0 {
		at = min(of, e.Seq-1)
		e.By = Member{} // who has set it is not known for certain
	}
	if c.info.Kind == DM || at <= c.info.Title.At {
		return nil
	}
	before := c.info.Title.Text
	text, _ = cleanText(text, titleRunesMax, titleBytesMax)
	c.editInfo().Title = title{text, at}
	if text == before {
		return nil
	}
	e.Type, e.Title = EventTitle, text
	if of > 0 {
		return tx.report(e)
	}
	return tx.saveChange(c, e, digest)
}

// repeatTitle records that the title is to be sent again, for members that were added.
func (c *conversation) repeatTitle() {
	if c.info.Title.Text != "" {
		c.editInfo().TitleDue = true
	}
}

// isFirstDevice reports whether this device was the first of its account in the group: of several
// only that one repeats what a further one has missed.
func (c *conversation) isFirstDevice(self string) bool {
	for _, leaf := range c.before.Members() {
		if string(leaf.Credential) == self {
			return leaf.Index == c.before.OwnLeaf().Index
		}
	}
	return false
}

// sendTitle puts the title into the outbox if it is to be sent again.
func sendTitle(k keeper, tx *tx, conv *conversation) error {
	if !conv.info.TitleDue || conv.phase != Joined {
		return nil
	}
	err := k.addContent(tx, conv, contentRoom, roomContent{Title: &conv.info.Title.Text, Of: conv.info.Title.At})
	if errors.Is(err, ErrOutboxFull) {
		return nil // it stays due
	}
	if err == nil {
		conv.editInfo().TitleDue = false
	}
	return err
}
