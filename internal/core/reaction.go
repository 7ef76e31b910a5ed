package core

import (
	"context"
	"slices"
	"unicode"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Reaction is a word of the caller's about a message, or its taking that back.
type Reaction struct {
	ConversationID ds.ConversationID
	MessageID      ds.MessageID
	Reaction       string
	Remove         bool
}

// React puts a reaction to a message, or takes it back, and tells every reader of the
// conversation by a control record, which it returns. Refusals: invalid_request (bad
// reaction; already there), forbidden, rate_limited, limit_exceeded, not_found (no such
// message; no such reaction).
func (s *Service) React(ctx context.Context, who ds.Caller, in Reaction) (ds.Record, error) {
	if err := CheckIDs(in.ConversationID, in.MessageID); err != nil {
		return ds.Record{}, err
	}
	if !isReaction(in.Reaction) {
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "a reaction has 1 to %d bytes", reactionBytesMax).Because(ds.BadReaction)
	}
	key := store.ReactionKey{Conversation: in.ConversationID, MessageID: in.MessageID, Account: who.Account}
	r := &request{conversation: in.ConversationID, who: who, message: in.MessageID, reactions: &key, bytes: reactionBytes}
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		r.record, err = s.decideReaction(c, who, in, nowMS)
		return err
	}
	if err := s.submit(ctx, r); err != nil {
		return ds.Record{}, err
	}
	return r.record, nil
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

// decideReaction is the rule of React. It changes c only when it accepts.
func (s *Service) decideReaction(c *conversation, who ds.Caller, in Reaction, nowMS int64) (ds.Record, error) {
	if _, _, err := c.admit(who, ""); err != nil {
		return ds.Record{}, err
	}
	if r := s.charge(c, limits.Sends, who); r != nil {
		return ds.Record{}, r
	}
	if err := c.isHome(); err != nil {
		return ds.Record{}, err
	}
	if target, ok := c.answers[in.MessageID]; !ok || target.Kind != ds.App {
		return ds.Record{}, ds.Refuse(ds.NotFound, "no such message").Because(ds.NoMessage)
	}
	key := store.ReactionKey{Conversation: c.head.ID, MessageID: in.MessageID, Account: who.Account}
	said := c.reactions[key]
	at := slices.Index(said, in.Reaction)
	switch {
	case in.Remove && at < 0:
		return ds.Record{}, ds.Refuse(ds.NotFound, "no such reaction").Because(ds.NoReaction)
	case in.Remove:
		c.reactions[key] = slices.Delete(slices.Clone(said), at, at+1)
	case at >= 0:
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "the reaction is there already").Because(ds.AlreadyDone)
	case len(said) >= reactionsMax:
		return ds.Record{}, ds.Refuse(ds.LimitExceeded, "an account has at most %d reactions to a message", reactionsMax)
	default:
		if r := s.chargeBytes(c, who, reactionBytes); r != nil {
			return ds.Record{}, r
		}
		c.reactions[key] = append(slices.Clip(said), in.Reaction)
	}
	c.out.Reactions = append(c.out.Reactions, store.Reaction{ReactionKey: key, Reaction: in.Reaction, Removed: in.Remove})
	return c.note(ds.ReactionEvent, ds.Reaction{Account: who.Account, MessageID: in.MessageID, Reaction: in.Reaction, Removed: in.Remove}, nowMS), nil
}

// loadReactions reads the reactions that the rules of a batch look at. There are none in
// most batches, and then it asks nothing.
func loadReactions(tx *store.Tx, batch []*request, conversations map[ds.ConversationID]*conversation) error {
	var keys []store.ReactionKey
	for _, r := range batch {
		if r.reactions == nil {
			continue
		}
		c := conversations[r.conversation]
		if c.reactions == nil { // also of one that this batch may yet create
			c.reactions = map[store.ReactionKey][]string{}
		}
		if c.exists && !slices.Contains(keys, *r.reactions) {
			keys = append(keys, *r.reactions)
		}
	}
	found, err := tx.Reactions(keys)
	for key, said := range found {
		conversations[key.Conversation].reactions[key] = said
	}
	return err
}
