package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

const (
	ticketLifetime         = 30 * time.Second
	ticketConversationsMax = 100
	ticketSize             = 32 // random bytes
)

// Ticket is a credential that opens one subscription, once, within its lifetime.
type Ticket struct {
	Text      string
	ExpiresMS int64
}

// Pass holds the rights that a ticket gives.
type Pass struct {
	Who           ds.Caller
	Generation    int                 // of the API that the account's clients use: 0 unknown, 1 A, 2 B
	Conversations []ds.ConversationID // empty: all of the account
}

// IssueTicket makes a ticket for conversations of the caller, or for all of them. Refusals:
// forbidden if it is not a member of one, invalid_request for too many.
func (s *Service) IssueTicket(ctx context.Context, who ds.Caller, ids []ds.ConversationID) (Ticket, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > ticketConversationsMax {
		return Ticket{}, ds.Refuse(ds.InvalidRequest, "at most %d conversations", ticketConversationsMax)
	}
	for _, id := range ids {
		if !ds.IsValidID(string(id)) {
			return Ticket{}, refuseNotMember
		}
	}
	var secret [ticketSize]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	t := Ticket{Text: base64.RawURLEncoding.EncodeToString(secret[:]), ExpiresMS: s.now().Add(ticketLifetime).UnixMilli()}
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		if len(ids) > 0 {
			n, err := tx.Conversations.CountStays(who.Account, ids)
			if err != nil {
				return err
			}
			if n < len(ids) {
				return refuseNotMember
			}
		}
		return tx.Tickets.Insert(store.Ticket{Hash: sha256.Sum256(secret[:]), Account: who.Account, Conversations: ids, ExpiresMS: t.ExpiresMS})
	})
	return t, err
}

var refuseTicket = ds.Refuse(ds.Unauthorized, "the ticket is none, or used up, or has expired")

// RedeemTicket uses a ticket up. Of concurrent calls, on any node, one succeeds; the others
// are refused (unauthorized), as are expired tickets.
func (s *Service) RedeemTicket(ctx context.Context, text string) (Pass, error) {
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(secret) != ticketSize {
		return Pass{}, refuseTicket
	}
	t, err := store.Get(ctx, s.store.Update, func(tx *store.Tx) (store.Ticket, error) { return tx.Tickets.Take(sha256.Sum256(secret)) })
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Pass{}, refuseTicket
	case err != nil:
		return Pass{}, err
	case t.ExpiresMS <= s.now().UnixMilli():
		return Pass{}, refuseTicket
	}
	return Pass{Who: ds.Caller{Account: t.Account}, Generation: t.Generation, Conversations: t.Conversations}, nil
}
