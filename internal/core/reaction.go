package core

import (
	"slices"
	"unicode"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// Reaction is an Op that adds a reaction of the caller to a message, or removes it, by a
// control record, which is its result. Refusals: also invalid_request (bad reaction; already
// present), limit_exceeded, not_found (no such message; no such reaction).
type Reaction struct {
	ConversationID ds.ConversationID
	MessageID      ds.MessageID
	Reaction       string
	Remove         bool
}

func (in Reaction) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in Reaction) check(a *action) error {
	if err := CheckIDs(in.ConversationID, in.MessageID); err != nil {
		return err
	}
	if !isReaction(in.Reaction) {
		return ds.Refuse(ds.InvalidRequest, "a reaction has 1 to %d bytes", reactionBytesMax).Because(ds.BadReaction)
	}
	a.needs, a.bytes = logs.Needs{Message: in.MessageID, Reactions: true}, reactionBytes
	return nil
}

func (Reaction) limits() []string { return []string{limits.Sends} }

func (Reaction) may(*logs.Conversation, *action, int64) error { return nil }

// key returns the key of the caller's reactions to the message.
func (in Reaction) key(a *action) store.ReactionKey {
	return store.ReactionKey{Conversation: in.ConversationID, MessageID: in.MessageID, Account: a.who.Account}
}

func (in Reaction) judge(c *logs.Conversation, a *action) (verdict, error) {
	if target, ok := c.Answers[in.MessageID]; !ok || target.Kind != ds.App {
		return verdict{}, ds.Refuse(ds.NotFound, "no such message").Because(ds.NoMessage)
	}
	said := c.Reactions[in.key(a)]
	isThere := slices.Contains(said, in.Reaction)
	switch {
	case in.Remove && !isThere:
		return verdict{}, ds.Refuse(ds.NotFound, "no such reaction").Because(ds.NoReaction)
	case in.Remove:
		return verdict{}, nil
	case isThere:
		return verdict{}, ds.Refuse(ds.InvalidRequest, "the reaction is there already").Because(ds.AlreadyDone)
	case len(said) >= reactionsMax:
		return verdict{}, ds.Refuse(ds.LimitExceeded, "an account has at most %d reactions to a message", reactionsMax)
	}
	return verdict{bytes: reactionBytes}, nil
}

func (in Reaction) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	key := in.key(a)
	said := c.Reactions[key]
	if at := slices.Index(said, in.Reaction); in.Remove {
		c.Reactions[key] = slices.Delete(slices.Clone(said), at, at+1)
	} else {
		c.Reactions[key] = append(slices.Clip(said), in.Reaction)
	}
	c.Out.Reactions = append(c.Out.Reactions, store.Reaction{ReactionKey: key, Reaction: in.Reaction, Removed: in.Remove})
	return Result{Record: c.Note(ds.ReactionEvent, ds.Reaction{Account: a.who.Account, MessageID: in.MessageID, Reaction: in.Reaction, Removed: in.Remove}, nowMS)}
}

func isReaction(text string) bool {
	if text == "" || len(text) > reactionBytesMax {
		return false
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return false
		}
	}
	return true
}
