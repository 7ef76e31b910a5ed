package xrpcserver

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// output is the connection of a stream, in one of its two forms.
type output interface {
	// event adds an event to the unsent ones, and may send them.
	event(e *sharedEvent, seq int64, cursor []byte) error
	// fail adds the error that ends the stream.
	fail(name, message string) error
	// flush sends all that was added.
	flush() error
	// abort cuts the connection, which ends every call. It does not block.
	abort()
	// check is called by the watchdog periodically. It does not block.
	check(now int64)
}

// stream is one subscription: the loop that asks a logs.Follower for pages and sends
// their records as events. A slow reader holds no backlog in memory: its loop asks for no
// more, and later reads from the store.
type stream struct {
	subscriptions *subscriptions
	who           ds.Caller
	generation    xrpc.Generation
	follower      *logs.Follower
	listener      *logs.Listener
	ctx           context.Context
	cancel        context.CancelFunc
	isAll         bool // new conversations are followed too
	isSingle      bool // cursors are those of the one conversation
	more          bool // the account has conversations that are not followed
	cause         atomic.Pointer[string]

	mu        sync.Mutex // guards the rest, and is held during a write
	out       output
	seq       int64 // of the last event
	following map[ds.ConversationID]bool
	places    places
	reset     []ds.ConversationID // with events lost since the cursor
	isLost    bool                // the cursor as a whole is unknown
	held      []logs.Page         // that wait for the rest of the record of which a part was sent
	rest      []byte              // of the last cursor with an exact one
	cursor    []byte              // scratch
}

// The causes of the end of a stream.
const (
	causePeer     = "peer"     // the client closed, or its network did
	causeProtocol = "protocol" // an invalid frame
	causeDead     = "dead"     // no answer to a ping
	causeStalled  = "stalled"  // a write took too long
	causeLost     = "lost"     // not a member of any followed conversation any more
	causeExpelled = "expelled" // the operator refuses the account
	causeShutdown = "shutdown" // the server stops
	causeFault    = "fault"    // ours
)

var (
	refuseLost = &Error{http.StatusForbidden, "NotMember", "not a member"}
	errWrite   = errors.New("the network is gone")
	errLost    = errors.New("not a member of any followed conversation")
	errFull    = errors.New("the stream has entered too many conversations, and is to be resumed")
)

const (
	joinRetryMin = 50 * time.Millisecond
	joinRetryMax = 2 * time.Second
)

// openStream follows the conversations of a subscription from a cursor or, without one, from
// now on.
func (s *subscriptions) openStream(ctx context.Context, pass core.Pass, cursor string) (*stream, error) {
	c := &stream{places: places{position: s.logs.Streams.NewPosition(pass.Who)},
		subscriptions: s, who: pass.Who, generation: xrpc.Generation(pass.Generation), follower: s.logs.NewFollower(pass.Who),
		isAll: len(pass.Conversations) == 0, isSingle: len(pass.Conversations) == 1, following: map[ds.ConversationID]bool{}}
	c.follower.Former, c.follower.Cut = true, c.cutOff
	c.listener = c.follower.Listen()
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	stop := context.AfterFunc(ctx, c.cancel)
	err := c.follow(pass.Conversations, cursor)
	if err == nil && !c.isSingle {
		// So that every event has a cursor even while the database is unavailable.
		if err = c.places.position.Open(c.ctx); err == nil {
			c.rest, _ = c.places.appendRest(nil)
		}
	}
	stop()
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *stream) close() {
	c.cancel()
	c.follower.Close()
	c.places.position.Close()
}

// cutOff ends a stream that takes too long over a page while others wait for the room. The
// client reconnects with its cursor.
func (c *stream) cutOff() {
	c.end(causeStalled)
	c.cancel()
	c.out.abort()
}

// end sets the cause of the end of the stream; the first call counts.
func (c *stream) end(cause string) { c.cause.CompareAndSwap(nil, &cause) }

// follow begins to read. Conversations that were lost since the cursor are read up to the
// record that ended the stay; those entered since, from the record of the entry.
func (c *stream) follow(ids []ds.ConversationID, cursor string) error {
	var old earlier
	var err error
	if c.isAll {
		// Before the list of conversations is read, so that none is missed in between.
		if _, err := c.follower.Follow(c.ctx, logs.Start{From: logs.AtHead}); err != nil {
			return err
		}
		ids, old, err = c.selection(cursor)
	} else if err = c.subscriptions.core.TakeStream(string(c.who.Account), c.who, len(ids)); err == nil && cursor != "" {
		old, _, err = c.resumed(ids, cursor)
	}
	if err != nil {
		return err
	}
	c.isLost = cursor != "" && old == nil
	list := make([]logs.Start, 0, len(ids))
	for _, id := range ids {
		start := logs.Start{Conversation: id, From: logs.AtHead, MayBeLost: !c.isSingle}
		at, isOld := old[id]
		switch {
		case isOld:
			start.From = logs.AfterPos(at.pos)
		case old != nil && c.isAll && c.more:
			c.reset = append(c.reset, id) // it was entered since, or was not followed
		case old != nil && c.isAll:
			start.From = logs.AtJoin
		}
		if list = append(list, start); at.skip > 0 {
			// Read first, since the others wait for the rest of its record.
			list[0], list[len(list)-1] = list[len(list)-1], list[0]
		}
	}
	if err := c.begin(list, old); err != nil {
		return err
	}
	if len(c.following) == 0 && !c.isAll {
		return refuseLost
	}
	return nil
}

// selection chooses the conversations of a stream without a list: the account's, and those
// that it has lost since the cursor.
func (c *stream) selection(cursor string) (ids []ds.ConversationID, old earlier, err error) {
	chosen, err := c.subscriptions.core.SelectConversations(c.ctx, string(c.who.Account), c.who)
	if err != nil || cursor == "" {
		c.more = chosen.More
		return chosen.Conversations, nil, err
	}
	c.more = chosen.More
	ids = chosen.Conversations
	old, stored, err := c.resumed(ids, cursor)
	if err != nil || old == nil || len(old) == stored.Len() {
		return ids, old, err
	}
	former, err := c.subscriptions.core.FormerConversations(c.ctx, c.who)
	if err != nil {
		return nil, nil, err
	}
	parsed, _ := parsePlaces(cursor)
	for _, id := range former {
		if len(ids) < logs.StreamConversationsMax && old.note(parsed, stored, id) {
			ids = append(ids, id)
		}
	}
	return ids, old, nil
}

// resumed returns the positions of a cursor in these conversations; nil for an unknown
// cursor.
func (c *stream) resumed(ids []ds.ConversationID, cursor string) (earlier, *logs.Resumed, error) {
	old := earlier{}
	if c.isSingle {
		if pos, sub, ok := parseCursor(ids[0], cursor); ok {
			at := earlierSpot{pos: pos, sub: sub}
			if sub >= partSub {
				at.sub, at.skip = 0, int(min(sub-partSub, 1<<20))+1
			}
			old[ids[0]] = at
			return old, nil, nil
		}
	}
	parsed, ok := parsePlaces(cursor)
	if !ok {
		return nil, nil, nil
	}
	stored, err := c.subscriptions.logs.Streams.Resume(c.ctx, c.who, parsed.stream, parsed.moves)
	if ds.CodeOf(err) != "" || err == nil && stored == nil {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		old.note(parsed, stored, id)
	}
	return old, stored, nil
}

// begin follows conversations and enters them into the places.
func (c *stream) begin(list []logs.Start, old earlier) error {
	begun, err := c.follower.Follow(c.ctx, list...)
	if err != nil {
		return err
	}
	for i, b := range begun {
		if b.IsLost {
			continue
		}
		id := list[i].Conversation
		n, at := c.places.add(id, b.Pos)
		c.following[id] = true
		was, isOld := old[id]
		switch {
		case b.IsReset:
			c.reset = append(c.reset, id)
			c.places.advance(n, b.Pos)
		case isOld && was.pos == b.Pos:
			at.sub = was.sub
			// A record that does not exist cannot have been sent in part, and all other pages
			// would wait in memory for its rest.
			if was.skip > 0 && b.Pos < b.Head {
				c.places.sent(n, was.skip)
			}
		}
	}
	return nil
}

// run sends pages until the stream ends, and then the error that ended it. The caller closes
// the output.
func (c *stream) run() {
	defer func() {
		if reason := recover(); reason != nil {
			c.subscriptions.logger.Error("panic on a subscription", "reason", reason, "stack", string(debug.Stack()))
			c.end(causeFault)
		}
	}()
	err := c.write(c.tellReset)
	for err == nil {
		err = c.next()
	}
	switch {
	case errors.Is(err, errLost):
		c.end(causeLost)
		_ = c.write(func() error { return c.out.fail(refuseLost.Name, refuseLost.Message) })
	case errors.Is(err, errFull), c.subscriptions.ctx.Err() != nil, errors.Is(err, logs.ErrClosed):
		c.end(causeShutdown)
	case errors.Is(err, errWrite):
		c.end(causeStalled)
	case c.ctx.Err() != nil:
		c.end(causePeer)
	default:
		c.subscriptions.logger.Error("subscription", "err", err)
		c.end(causeFault)
		_ = c.write(func() error { return c.out.fail(xrpc.ErrorInternal, "internal error") })
	}
}

// next sends the announcements that there are, and then waits for a page or further ones.
// Announcements wait for the rest of a record that was sent in part.
func (c *stream) next() error {
	if c.places.partial == 0 {
		if id, list := c.listener.Take(); len(list) > 0 {
			if err := c.write(func() error { return c.announce(id, list) }); err != nil {
				return err
			}
		}
	}
	page, isPage, err := c.follower.NextOr(c.ctx, c.listener.Ready())
	if err != nil || !isPage {
		return err
	}
	return c.write(func() error { return c.page(&page) })
}

// write calls do, which adds events, and sends them.
func (c *stream) write(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := do()
	return errors.Join(err, c.out.flush())
}

// tellReset sends an info event for each conversation with events lost since the cursor; the
// client has to fetch them with getMessages.
func (c *stream) tellReset() error {
	switch {
	case c.isLost:
		id := ds.ConversationID("")
		if c.isSingle {
			id = c.places.list[0].id
		}
		return c.info(id, &xrpc.InfoEvent{Info: infoCompacted, ConvoID: string(id)})
	default:
		for _, id := range c.reset {
			if !c.following[id] {
				continue
			}
			if err := c.info(id, &xrpc.InfoEvent{Info: infoCompacted, ConvoID: string(id)}); err != nil {
				return err
			}
		}
	}
	return nil
}

const infoCompacted = "compacted"

// info sends an event about the stream itself, or about one conversation of it.
func (c *stream) info(id ds.ConversationID, event *xrpc.InfoEvent) error {
	event.Cursor = noCursor
	shared := c.subscriptions.share(nil, 0, event)
	now := time.Now().UnixMilli()
	if i, ok := c.places.index(id); ok {
		return c.passing(i, now, shared)
	}
	if c.isSingle {
		return c.passing(0, now, shared)
	}
	return c.send(&shared[0], 0, 0, now)
}

func (c *stream) page(page *logs.Page) error {
	id := page.Log.Conversation()
	if id == "" {
		return c.account(page)
	}
	i, _ := c.places.index(id)
	if c.places.partial != 0 && c.places.partial != i+1 {
		c.held = append(c.held, *page)
		return nil
	}
	if err := c.pageOf(i, page); err != nil {
		return err
	}
	for c.places.partial == 0 && len(c.held) > 0 {
		next := c.held[0]
		c.held = c.held[1:]
		i, _ := c.places.index(next.Log.Conversation())
		if err := c.pageOf(i, &next); err != nil {
			return err
		}
	}
	return nil
}

// pageOf sends a page of a conversation.
func (c *stream) pageOf(i int, page *logs.Page) error {
	id := c.places.list[i].id
	for n := range page.Records {
		var frames *logs.Frames
		if page.Frames != nil {
			frames = page.Frames[n]
		}
		if err := c.record(i, &page.Records[n], frames); err != nil {
			return err
		}
	}
	if page.Ended != nil {
		return c.lose(id)
	}
	return nil
}

// announce sends announcements of a conversation.
func (c *stream) announce(id ds.ConversationID, list []logs.Announcement) error {
	i, _ := c.places.index(id)
	for n := range list {
		a := &list[n]
		events := a.Frames.Value(func() any { return c.subscriptions.eventOfAnnouncement(id, a) }).([]sharedEvent)
		if err := c.passing(i, a.AtMS, events); err != nil {
			return err
		}
	}
	return nil
}

// passing sends events that are not in a log. They are dropped where a part of the next
// record was sent before, since they belong behind it.
func (c *stream) passing(i int, atMS int64, events []sharedEvent) error {
	at := &c.places.list[i]
	for n := range events {
		if !events[n].known[c.generation] || at.skip > 0 {
			continue
		}
		at.sub = min(max(atMS, at.sub+1), partSub/2-1)
		if err := c.send(&events[n], at.check, c.places.pos(i), at.sub); err != nil {
			return err
		}
	}
	return nil
}

// record sends the events of a record. The cursor of the last one is behind the record.
func (c *stream) record(i int, r *ds.Record, frames *logs.Frames) error {
	at := &c.places.list[i]
	id, skip, check := at.id, at.skip, at.check
	events := frames.Value(func() any { return c.subscriptions.eventsOf(id, r) }).([]sharedEvent)
	last := -1
	for n := range events {
		if events[n].known[c.generation] {
			last = n
		}
	}
	for n := range events {
		e := &events[n]
		switch {
		case !e.known[c.generation] || e.index < skip:
		case n < last:
			c.places.sent(i, e.index+1)
			if err := c.send(e, check, r.Pos-1, partSub+int64(e.index)); err != nil {
				return err
			}
		default:
			c.places.advance(i, r.Pos)
			if err := c.send(e, check, r.Pos, 0); err != nil {
				return err
			}
		}
	}
	c.places.advance(i, r.Pos) // a record may have no events
	return nil
}

// send gives an event its number and its cursor, and adds it to the output.
func (c *stream) send(e *sharedEvent, check uint16, pos, sub int64) error {
	var rest []byte
	if !c.isSingle {
		if rest = c.restNow(); rest == nil {
			// Without a stored position, an older one is sent: a client that resumes there
			// receives events again, and misses none.
			rest = c.rest
		}
	}
	c.cursor = append(appendCursor(c.cursor[:0], check, pos, sub), rest...)
	c.seq++
	c.subscriptions.metrics.event(e.kind)
	return c.out.event(e, c.seq, c.cursor)
}

// restNow returns the part of a cursor behind the 26 characters; nil while it cannot be made.
func (c *stream) restNow() []byte {
	rest, ok := c.places.appendRest(nil)
	if !ok {
		// An error does not end the stream: events need not wait for the database.
		if isSaved, _ := c.places.position.Save(c.ctx); isSaved {
			rest, ok = c.places.appendRest(nil)
		}
	}
	if !ok {
		return nil
	}
	c.rest = rest
	return rest
}

// account follows the conversations that the account has entered according to a page of its
// log.
func (c *stream) account(page *logs.Page) error {
	for n := range page.Records {
		e := &page.Events[n]
		if page.Records[n].Kind == ds.MembersEvent && slices.Contains(e.Add, c.who.Account) {
			if err := c.join(e.ConversationID); err != nil {
				return err
			}
		}
	}
	return nil
}

// join follows a conversation from the record with which the account entered it, or from the
// stream's position in it.
func (c *stream) join(id ds.ConversationID) error {
	if c.following[id] || len(c.following) >= logs.StreamConversationsMax {
		return nil
	}
	if c.places.position.IsFull() {
		return errFull
	}
	start := logs.Start{Conversation: id, From: logs.AtJoin, MayBeLost: true}
	if i, ok := c.places.index(id); ok {
		start.From = logs.AfterPos(c.places.pos(i))
	}
	for wait := joinRetryMin; ; wait = min(2*wait, joinRetryMax) {
		err := c.begin([]logs.Start{start}, nil)
		if !ds.IsUnavailable(err) || c.ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return c.ctx.Err()
		}
	}
}

// lose removes a conversation, and ends the stream when it was the last.
func (c *stream) lose(id ds.ConversationID) error {
	delete(c.following, id)
	if c.isAll { // the account may have been added again already
		return c.join(id)
	}
	if len(c.following) == 0 {
		return errLost
	}
	return nil
}
