package logs

import (
	"sync"

	"waxwing.im/waxwing/internal/ds"
)

// AnnouncementKind is the subject of an announcement.
type AnnouncementKind uint8

// The kinds of announcements.
const (
	Typing    AnnouncementKind = iota + 1 // the account types, or has stopped
	Ephemeral                             // a message that is not stored
	Read                                  // the account has read messages
)

// Announcement is a notice to the members of a conversation who listen on this node. It is not
// stored: absent or slow listeners miss it.
type Announcement struct {
	Kind      AnnouncementKind
	IsTyping  bool         // Typing
	MessageID ds.MessageID // Ephemeral: its id; Read: the last one read, or "" for everything
	Epoch     int64        // Ephemeral
	Body      []byte       // Ephemeral; must not be changed afterwards

	// The sender, the time, and the head at which it was seen to be a member. A listener gets
	// the announcement once it has read up to there, so that none gets one after the record
	// that ended its own stay.
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

// announce passes an announcement to the listeners of log. Followers that are not at its pos
// yet read up to it first.
func (w *wakes) announce(log ds.LogID, a *Announcement) {
	s := w.shard(log)
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.logs[log] {
		if f.owner.listener.add(f, a) && f.pos.Load() < a.Pos {
			f.owner.enqueue(f, a.Pos)
		}
	}
}

// The bounds of the announcements that wait for one listener, and of the bytes of their bodies.
const (
	announcementsMax     = 64
	announcementBytesMax = 1 << 20
)

// Listener receives the announcements of the conversations that a Follower reads. They are
// state and not history: they wait in a queue of their own, which merges and drops, and are
// returned as far as the follower has read their conversation.
//
// One goroutine calls Take, that of the follower's Next.
type Listener struct {
	follower *Follower
	ready    chan struct{} // holds a token while Take may have something

	mu      sync.Mutex
	waiting []waitingAnnouncement // mu guards it
}

// waitingAnnouncement is an announcement that waits for the reader of a log.
type waitingAnnouncement struct {
	one *follow
	a   *Announcement
}

// Listen returns the listener of a follower. It is called before the first Follow.
func (f *Follower) Listen() *Listener {
	f.listener = &Listener{follower: f, ready: make(chan struct{}, 1)}
	return f.listener
}

// Ready returns the channel that has a token while Take may have something. Take may have
// something after each page of the follower, too.
func (l *Listener) Ready() <-chan struct{} { return l.ready }

// add queues an announcement and reports whether it did. It replaces an earlier one of the
// same account and kind, except Ephemeral; a full queue drops the oldest.
func (l *Listener) add(one *follow, a *Announcement) bool {
	if l == nil || a.Kind == Typing && a.Account == l.follower.who.Account {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.follower.isReading(one) {
		return false
	}
	bytes := len(a.Body)
	kept := l.waiting[:0]
	for _, h := range l.waiting {
		if h.one == one && h.a.Kind == a.Kind && a.Kind != Ephemeral && h.a.Account == a.Account {
			continue
		}
		kept, bytes = append(kept, h), bytes+len(h.a.Body)
	}
	clear(l.waiting[len(kept):])
	dropped := 0
	for len(kept) > dropped && (len(kept)-dropped >= announcementsMax || bytes > announcementBytesMax) {
		bytes -= len(kept[dropped].a.Body)
		dropped++
	}
	if dropped > 0 {
		l.follower.engine.metrics.announcementsDropped.Add(float64(dropped))
		kept = append(kept[:0], kept[dropped:]...)
	}
	l.waiting = append(kept, waitingAnnouncement{one, a})
	wakeUp(l.ready)
	return true
}

// Take returns the announcements of one conversation, as far as the follower has read it; no
// announcements if there are none.
func (l *Listener) Take() (ds.ConversationID, []Announcement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var log ds.LogID
	var list []Announcement
	kept := l.waiting[:0]
	for _, h := range l.waiting {
		switch {
		case !l.follower.isReading(h.one): // it has ended
		case (log == "" || log == h.one.log) && h.one.pos.Load() >= h.a.Pos:
			log, list = h.one.log, append(list, *h.a)
		default:
			kept = append(kept, h)
		}
	}
	clear(l.waiting[len(kept):])
	if l.waiting = kept; len(kept) > 0 && len(list) > 0 {
		wakeUp(l.ready) // the rest may be of another log
	}
	return log.Conversation(), list
}
