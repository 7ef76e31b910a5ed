package core

import (
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// AnnouncementKind is what an announcement is about.
type AnnouncementKind uint8

// What can be announced.
const (
	Typing    AnnouncementKind = iota + 1 // somebody types, or no longer does
	Ephemeral                             // a message that is not stored
	Read                                  // somebody has read
)

// Announcement is said to those members of a conversation who listen on this node, and
// kept nowhere: whoever is not there or is slow misses it (design 9).
type Announcement struct {
	Kind      AnnouncementKind
	IsTyping  bool         // Typing
	MessageID ds.MessageID // Ephemeral: its id; Read: up to which, or "" for everything
	Epoch     int64        // Ephemeral
	Body      []byte       // Ephemeral; must not be changed afterwards

	// Announce sets the rest: who says it and when, and the head of the conversation at
	// which that account was seen to be a member. A listener is told once it has read up
	// to there, so nobody hears anything behind the record that ended its stay.
	Account ds.AccountID
	AtMS    int64
	Pos     int64
	Frames  *Frames // shared by all who are told
}

// Announce tells the members of a conversation something that stands in no log.
// Refusals: forbidden for who is no member.
func (s *Service) Announce(ctx context.Context, who ds.Caller, id ds.ConversationID, a Announcement) error {
	_, err := s.AnnounceAt(ctx, who, id, a)
	return err
}

// AnnounceAt is Announce, and returns what the members are told.
func (s *Service) AnnounceAt(ctx context.Context, who ds.Caller, id ds.ConversationID, a Announcement) (Announcement, error) {
	if !ds.IsValidID(string(id)) {
		return a, refuseNotMember
	}
	err := s.store.Read(ctx, func(tx *store.Tx) (err error) {
		a.Pos, err = tx.Conversations.Standing(who.Account, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return a, refuseNotMember
	}
	if err != nil {
		return a, err
	}
	a.Account, a.AtMS, a.Frames = who.Account, s.now().UnixMilli(), &Frames{}
	s.wakes.announce(ds.ConversationLog(id), &a)
	return a, nil
}

// announce hands an announcement to the followers of log that listen. Those that are
// not at its pos yet read up to it first.
func (w *wakes) announce(log ds.LogID, a *Announcement) {
	s := w.shard(log)
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.logs[log] {
		if !f.owner.hear(f, a) {
			continue
		}
		if f.pos.Load() < a.Pos {
			f.owner.enqueue(f, a.Pos)
		}
	}
}

// The bounds of what waits for one listener: announcements, and bytes of their bodies.
const (
	announcementsMax     = 64
	announcementBytesMax = 1 << 20
)

// heard is what a follower was told of a log and has not handed out.
type heard struct {
	one *follow
	a   *Announcement
}

// hear keeps an announcement for Next and says whether it did. What the same account has
// said of the same before is replaced; where the room is used up, the oldest is dropped.
func (f *Follower) hear(one *follow, a *Announcement) bool {
	if !f.Listens || a.Kind == Typing && a.Account == f.who.Account {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.logs[one.log] != one {
		return false
	}
	bytes := len(a.Body)
	kept := f.heard[:0]
	for _, h := range f.heard {
		if h.one == one && h.a.Kind == a.Kind && a.Kind != Ephemeral && h.a.Account == a.Account {
			continue
		}
		kept, bytes = append(kept, h), bytes+len(h.a.Body)
	}
	clear(f.heard[len(kept):])
	dropped := 0
	for len(kept) > dropped && (len(kept)-dropped >= announcementsMax || bytes > announcementBytesMax) {
		bytes -= len(kept[dropped].a.Body)
		dropped++
	}
	if dropped > 0 {
		f.s.metrics.announcementsDropped.Add(float64(dropped))
		kept = append(kept[:0], kept[dropped:]...)
	}
	f.heard = append(kept, heard{one, a})
	f.wakeUp()
	return true
}

// takeHeard is a page of what was announced of one log, as far as that is read. It takes
// turns with the records that are ready.
func (f *Follower) takeHeard() (Page, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hasHeard && len(f.ready) > 0 {
		f.hasHeard = false
		return Page{}, false
	}
	var page Page
	kept := f.heard[:0]
	for _, h := range f.heard {
		switch {
		case f.logs[h.one.log] != h.one: // it has ended
		case (page.Log == "" || page.Log == h.one.log) && h.one.pos.Load() >= h.a.Pos:
			page.Log, page.Announcements = h.one.log, append(page.Announcements, *h.a)
		default:
			kept = append(kept, h)
		}
	}
	clear(f.heard[len(kept):])
	if f.heard = kept; len(kept) > 0 && page.Log != "" {
		f.wakeUp() // what is left may be of another log
	}
	f.hasHeard = page.Log != ""
	return page, f.hasHeard
}

// wakeUp makes Next look. The caller holds mu.
func (f *Follower) wakeUp() {
	select {
	case f.signal <- struct{}{}:
	default:
	}
}
