package core

import (
	"context"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

func TestTickets(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		now := time.UnixMilli(1_800_000_000_000)
		w := newWorld(t, url, func(o *setup) { o.Now = func() time.Time { return now } })
		w.room("c1", "ann", "ben")
		ctx := context.Background()
		for _, ids := range [][]ds.ConversationID{{"c1", "c2"}, {"c2"}, {""}} {
			if _, err := w.service.IssueTicket(ctx, who("ann"), ids); ds.CodeOf(err) != ds.Forbidden {
				t.Errorf("%q: %v", ids, err)
			}
		}
		ticket, err := w.service.IssueTicket(ctx, who("ann"), []ds.ConversationID{"c1"})
		if err != nil {
			t.Fatal(err)
		}
		pass, err := w.service.RedeemTicket(ctx, ticket.Text)
		if err != nil || pass.Who.Account != "ann" || len(pass.Conversations) != 1 || pass.Conversations[0] != "c1" {
			t.Errorf("got %v, %v", pass, err)
		}
		if _, err := w.service.RedeemTicket(ctx, ticket.Text); ds.CodeOf(err) != ds.Unauthorized {
			t.Errorf("again: %v", err)
		}
		late, err := w.service.IssueTicket(ctx, who("ann"), nil)
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(ticketLifetime)
		if _, err := w.service.RedeemTicket(ctx, late.Text); ds.CodeOf(err) != ds.Unauthorized {
			t.Errorf("too late: %v", err)
		}
	})
}
