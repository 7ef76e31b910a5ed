package chat

import (
	"context"
	"strings"

	"waxwing.im/waxwing/client"
)

// Search prints the messages of this device's history that q asks for, newest first.
// from and in name the person and the conversation of q; "" for any.
func (t *Terminal) Search(ctx context.Context, q client.Query, from, in string, asJSON bool) error {
	q, err := t.query(ctx, q, from, in)
	if err != nil {
		return err
	}
	hits, err := t.client.Search(ctx, q)
	if err != nil {
		return err
	}
	s := newScreen(t, asJSON)
	s.found(hits)
	return s.err
}

// query adds a person and a conversation to a query, "" for any.
func (t *Terminal) query(ctx context.Context, q client.Query, from, in string) (client.Query, error) {
	var err error
	if from != "" {
		if q.From, err = t.people.person(ctx, from); err != nil {
			return q, err
		}
	}
	if in != "" {
		conv, err := t.find(ctx, in)
		if err != nil {
			return q, err
		}
		q.Conversation = conv.ID
	}
	return q, nil
}

func (t *Terminal) doSearch(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/search takes the words to look for")
	}
	hits, err := t.client.Search(ctx, client.Query{Text: strings.Join(words, " "), Limit: searchHits})
	out := reply{title: "Found: " + strings.Join(words, " "), hits: hits}
	if len(hits) == 0 {
		out.lines = []string{"nothing found"}
	}
	return out, err
}

// searchHits is the number of messages that a search shows.
const searchHits = 200
