package logs

import "waxwing.im/waxwing/internal/ds"

// AnnouncementKind is the subject of an announcement.
type AnnouncementKind uint8

// The kinds of announcements.
const (
	Typing    AnnouncementKind = iota + 1 // the account types, or has stopped
	Ephemeral                             // a message that is not stored
	Read                                  // the account has read messages
)

// Announcement is a notice to the members of a conversation who listen on this node. It is not
// stored: absent or slow listeners miss it (design 9).
type Announcement struct {
	Kind      AnnouncementKind
	IsTyping  bool         // Typing
	MessageID ds.MessageID // Ephemeral: its id; Read: the last one read, or "" for everything
	Epoch     int64        // Ephemeral
	Body      []byte       // Ephemeral; must not be changed afterwards

	// The sender, the time, and the head at which it was seen to be a member. A listener gets the announcement once it has read up to there, so that none gets
	// one after the record that ended its own stay.
	Account ds.AccountID
	AtMS    int64
	Pos     int64
	Frames  *Frames // shared by all listeners
}

// Announce passes an announcement to the listeners of a conversation on this node. It must not
// be changed afterwards.
func (e *Engine) Announce(id ds.ConversationID, a *Announcement) {
	e.wakes.announce(ds.ConversationLog(id), a)
}

// announce passes an announcement to the listening followers of log. Those that are not at its
// pos yet read up to it first.
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

// The bounds of the announcements that wait for one listener, and of the bytes of their bodies.
const (
	announcementsMax     = 64
	announcementBytesMax = 1 << 20
)

// heard is an announcement that a follower has queued for a log.
type heard struct {
	one *follow
	a   *Announcement
}

// hear queues an announcement for Next and reports whether it did. It replaces an earlier one
// of the same account and kind, except Ephemeral; a full queue drops the oldest.
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
		f.engine.metrics.announcementsDropped.Add(float64(dropped))
		kept = append(kept[:0], kept[dropped:]...)
	}
	f.heard = append(kept, heard{one, a})
	f.wakeUp()
	return true
}

// takeHeard returns a page of announcements of one log, as far as the log has been read. It
// alternates with the records that are ready.
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
		f.wakeUp() // the rest may be of another log
	}
	f.hasHeard = page.Log != ""
	return page, f.hasHeard
}

// wakeUp makes Next check again. The caller holds mu.
func (f *Follower) wakeUp() {
	select {
	case f.signal <- struct{}{}:
	default:
	}
}
