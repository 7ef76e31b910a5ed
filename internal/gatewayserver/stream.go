package gatewayserver

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/logs"
)

// stream is one answer to GET /v1/sse: the events of a socket, for clients behind a network
// that blocks WebSockets. The goroutine of the request reads pages and writes them; the
// watchdog does the rest.
type stream struct {
	server   *Server
	session  identity.Session
	follower *logs.Follower
	detach   func()
	ended    <-chan struct{} // of the session
	ctx      context.Context
	cancel   context.CancelFunc
	out      *doors.EventWriter
	cause    atomic.Pointer[string] // why the stream ended; the first counts
	nextPing int64                  // the watchdog's

	// The rest belongs to the goroutine of the request.
	did       string
	all       bool              // new conversations are followed too
	device    bool              // device events are sent
	following map[ds.LogID]bool // conversations
	position  *logs.Position
	isRestart bool   // the id to resume from is unknown or too old
	more      bool   // there are conversations that are not followed
	items     []byte // not written yet
}

// serveStream checks session, request, membership and history, in this order. After that there
// is nothing left to refuse.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) {
	who, err := s.authenticate(r)
	if err != nil {
		s.answer(w, r, who.Meter, nil, err)
		return
	}
	c, err := s.openStream(r, who)
	if r.Header.Get("Last-Event-ID") != "" {
		s.metrics.resume(transportSSE, err)
	}
	if err != nil {
		s.answer(w, r, who.Meter, nil, err)
		return
	}
	c.out = doors.NewEventWriter(w, s.clock)
	if !s.admit(c) {
		c.close()
		s.answer(w, r, who.Meter, nil, ds.Unavailable(errDraining))
		return
	}
	defer func() {
		c.close()        // may wait for a write, which the watchdog ends while it knows the stream
		c.end(causePeer) // unless it was something else
		s.ended(c)
		s.forget(c)
	}()
	s.metrics.request(r.Pattern, nil)
	s.writeUsage(w, who.Meter)
	if !c.out.Begin() || r.Method == http.MethodHead || !c.out.Write(openComment) {
		return
	}
	c.run()
}

// openStream opens the stream of a request and follows its logs.
func (s *Server) openStream(r *http.Request, who identity.Session) (*stream, error) {
	q, err := parseStream(r.URL.RawQuery, who)
	if err != nil {
		return nil, err
	}
	resumed, isRestart, err := s.resumedFrom(r, who)
	if err != nil {
		return nil, err
	}
	if err := s.connections.Enter(who.Account); err != nil {
		return nil, err
	}
	c := &stream{server: s, session: who, did: s.did(), all: q.all, device: q.device, following: map[ds.LogID]bool{},
		position: s.logs.Streams.NewPosition(who.Caller), isRestart: isRestart,
		follower: s.logs.NewFollower(who.Caller), detach: func() { s.connections.Leave(who.Account) }, nextPing: s.clock.Now() + s.streamPing.Milliseconds()}
	c.ctx, c.cancel = context.WithCancel(r.Context())
	c.follower.BodyMax, c.follower.Cut = bodyBytesMax(who), c.cut
	if err := c.follow(q, resumed); err != nil {
		c.close()
		return nil, endOfFollow(err)
	}
	// A row is stored first, so that ids can be made while the database is unavailable later;
	// if it cannot be stored, the request can still be refused.
	if r.Method != http.MethodHead {
		if err := c.position.Open(c.ctx); err != nil {
			c.close()
			return nil, err
		}
	}
	detach := s.identity.Attach(who)
	c.detach = func() { detach(); s.connections.Leave(who.Account) }
	c.ended = s.identity.Ended(who)
	return c, nil
}

// resumedFrom returns the positions of the stream behind the event that the request names;
// nil where it names none, or one that is not known any more.
func (s *Server) resumedFrom(r *http.Request, who identity.Session) (resumed *logs.Resumed, isRestart bool, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return nil, false, nil
	}
	id, err := parseID(text)
	if err != nil {
		return nil, false, err
	}
	if id.stream != 0 {
		resumed, err = s.logs.Streams.Resume(r.Context(), who.Caller, id.stream, id.moves)
		if ds.CodeOf(err) == ds.InvalidRequest {
			err = errNotAnID
		}
	}
	return resumed, resumed == nil, err
}

// follow begins to read the logs of the stream. Where it is resumed, a conversation
// that was lost since is omitted.
func (c *stream) follow(q streamQuery, resumed *logs.Resumed) error {
	if q.device || q.all {
		// Before the list of conversations is read, so that none is missed in between.
		log, start := ds.AccountLog(c.session.Account), logs.Start{From: logs.AtHead}
		if q.device {
			start.From = logs.Origin{} // the cursor
			if next, _ := resumed.Of(log); next > 0 {
				start.From = logs.AfterPos(next - 1)
			}
		}
		begun, err := c.follower.Follow(c.ctx, start)
		if err != nil {
			return err
		}
		if q.device {
			c.position.Add(log, begun[0].Pos+1)
		}
	}
	starts, named := make([]logs.Start, 0, len(q.conversations)), map[ds.ConversationID]bool{}
	for i, id := range q.conversations {
		start := logs.Start{Conversation: id, From: logs.FromSeq(q.from(i))}
		if next, _ := resumed.Of(ds.ConversationLog(id)); next > 0 {
			start.From, start.MayBeLost = logs.FromSeq(next), true
		}
		starts, named[id] = append(starts, start), true
	}
	if len(starts) > 0 || !q.all {
		if err := c.server.core.TakeStream(c.session.ID, c.session.Caller, len(starts)); err != nil {
			return err
		}
	}
	if q.all {
		chosen, err := c.server.core.SelectConversations(c.ctx, c.session.ID, c.session.Caller)
		if err != nil {
			return err
		}
		c.more = chosen.More
		for _, id := range chosen.Conversations {
			if !named[id] && len(starts) < logs.StreamConversationsMax {
				start := logs.Start{Conversation: id, From: logs.FromSeq(q.from(0)), MayBeLost: true, MayBePruned: true}
				if next, _ := resumed.Of(ds.ConversationLog(id)); next > 0 {
					start.From = logs.FromSeq(next)
				}
				starts = append(starts, start)
			}
		}
	}
	if err := c.begin(starts); err != nil {
		return err
	}
	if c.isDone() {
		return ds.Refuse(ds.Forbidden, "not a member")
	}
	return nil
}

// begin follows conversations and enters them into the position.
func (c *stream) begin(starts []logs.Start) error {
	begun, err := c.follower.Follow(c.ctx, starts...)
	if err != nil {
		return err
	}
	for i, b := range begun {
		if !b.IsLost {
			log := ds.ConversationLog(starts[i].Conversation)
			c.position.Add(log, b.Seq)
			c.following[log] = true
		}
	}
	return nil
}

// isDone reports whether the stream follows no log any more.
func (c *stream) isDone() bool { return len(c.following) == 0 && !c.device && !c.all }

// close releases all that openStream acquired.
func (c *stream) close() {
	c.cancel()
	c.follower.Close()
	c.position.Close()
	c.detach()
	if c.out != nil {
		c.out.Close()
	}
}

// cut ends a stream that takes too long over a page while others wait for the room.
func (c *stream) cut() {
	c.end(causeStalled)
	c.Abort()
}

// end sets the cause of the end of the stream; the first call counts.
func (c *stream) end(cause string) { c.cause.CompareAndSwap(nil, &cause) }

func (c *stream) transport() string { return transportSSE }
func (c *stream) ending() string    { return *c.cause.Load() }

func (c *stream) hasEnded() bool {
	select {
	case <-c.ended:
		return true
	default:
		return false
	}
}

// run asks for pages and writes them until the stream ends. A panic ends the stream, not other
// connections.
func (c *stream) run() {
	defer func() {
		if reason := recover(); reason != nil {
			c.server.logger.Error("panic on a stream", "reason", reason, "stack", string(debug.Stack()))
			c.end(causeFault)
		}
	}()
	if err := c.tellStart(); err != nil {
		return
	}
	for {
		page, err := c.follower.Next(c.ctx)
		if err == nil && c.hasEnded() {
			c.end(causeSession)
			return
		}
		if err == nil {
			err = c.writePage(&page)
		}
		switch {
		case err == nil:
		case errors.Is(err, errStreamDone):
			c.end(causeRevoked)
			return
		case errors.Is(err, errStreamFull):
			c.end(causeRenewed)
			return
		case c.ctx.Err() != nil, errors.Is(err, logs.ErrClosed), errors.Is(err, errWrite):
			return
		default:
			c.server.logger.Error("stream", "err", err)
			c.end(causeFault)
			return
		}
	}
}

// tellStart sends, as the first item, that the stream could not be resumed and begins again,
// and to sessions with any feature that it does not follow all of the account's
// conversations.
func (c *stream) tellStart() error {
	start := gateway.StreamStarted{Restarted: c.isRestart, More: c.more && len(c.session.Features) > 0}
	if !start.Restarted && !start.More {
		return nil
	}
	for i := range c.position.Len() {
		log, next := c.position.Log(i)
		if id := log.Conversation(); start.Restarted && id != "" && len(start.Cursors) < startsMax {
			start.Cursors = append(start.Cursors, gateway.Cursor{ConvID: string(id), NextSeq: next})
		}
	}
	if err := c.event(gateway.TypeStreamStarted, &start); err != nil {
		return err
	}
	return c.flush()
}

// startsMax bounds the cursors in the first item of a stream that begins again: it is shorter
// than 1 MiB.
const startsMax = 1000

var (
	errStreamDone = errors.New("the stream has lost all it followed")
	errStreamFull = errors.New("the stream has entered too many conversations, and is to be resumed")
	errWrite      = errors.New("the connection is broken")
)

func (c *stream) writePage(page *logs.Page) error {
	var err error
	if page.Log.Conversation() != "" {
		err = c.writeConversation(page)
	} else {
		err = c.writeDevice(page)
	}
	if err != nil {
		return err
	}
	if len(page.Records) == 0 && c.follower.IsBusy() {
		return nil // thousands of conversations may catch up at once: their items are written together
	}
	return c.flush()
}

func (c *stream) writeConversation(page *logs.Page) error {
	id := page.Log.Conversation()
	event := newEventFrame(id, homeOf(page.Home, c.server.did()), c.did, c.session)
	for i := range page.Records {
		r := &page.Records[i]
		if r.Seq == 0 {
			if roster := rosterOf(id, r, c.session); roster != nil {
				if err := c.item(gateway.TypeRoster, fitted(gateway.TypeRoster, roster, c.session)); err != nil {
					return err
				}
			}
			continue
		}
		c.advance(page.Log, r.Seq+1)
		frame := c.open(gateway.TypeEvent)
		if shared, isShared := event.shared(page, i); isShared {
			frame = append(frame, shared...)
		} else {
			frame = event.fit(frame, r)
		}
		if err := c.finish(frame); err != nil {
			return err
		}
	}
	if page.CaughtUp && c.session.Has(gateway.FeatureMarker) {
		if err := c.event(gateway.TypeCaughtUp, &gateway.CaughtUp{ConvID: string(id), Seq: page.Head}); err != nil {
			return err
		}
	}
	if page.Ended != nil {
		return c.lose(page)
	}
	return nil
}

// lose removes a conversation, and ends the stream when it was the only one. Sessions with any
// feature receive an error that names it.
func (c *stream) lose(page *logs.Page) error {
	delete(c.following, page.Log)
	if c.all { // the account may have been invited again already
		if err := c.join(page.Log.Conversation()); err != nil || c.following[page.Log] {
			return err
		}
	}
	if c.isDone() {
		return errors.Join(c.flush(), errStreamDone)
	}
	if len(c.session.Features) == 0 {
		return nil
	}
	return c.event(gateway.TypeError, endOfPage(page, c.session))
}

func (c *stream) writeDevice(page *logs.Page) error {
	for i := range page.Records {
		r, e := &page.Records[i], &page.Events[i]
		if frameType, body := deviceEvent(r, e); c.device && frameType != "" {
			c.advance(page.Log, r.Pos+1)
			if err := c.item(frameType, fitted(frameType, body, c.session)); err != nil {
				return err
			}
		}
		if c.all && r.Kind == ds.MembersEvent && slices.Contains(e.Add, c.session.Account) {
			if err := c.join(e.ConversationID); err != nil {
				return err
			}
		}
	}
	return nil
}

// join follows a conversation that the account has entered while the stream runs: on
// from where the stream was in it before, or else from the device's cursor.
func (c *stream) join(id ds.ConversationID) error {
	log := ds.ConversationLog(id)
	if c.following[log] || len(c.following) >= logs.StreamConversationsMax {
		return nil
	}
	if c.position.IsFull() {
		return errStreamFull
	}
	start := logs.Start{Conversation: id, From: logs.FromSeq(c.position.Of(log)), MayBeLost: true, MayBePruned: true}
	return c.retry(func() error { return c.begin([]logs.Start{start}) })
}

// event adds a frame of ours as an item.
func (c *stream) event(frameType string, body any) error {
	return c.item(frameType, frameOf(frameType, nil, body))
}

// item adds a frame as an item.
func (c *stream) item(frameType string, frame []byte) error {
	return c.finish(append(c.open(frameType), frame...))
}

// open begins an item; the caller appends its data.
func (c *stream) open(frameType string) []byte {
	items := append(c.items, "event: "...)
	items = append(items, frameType...)
	return append(items, "\ndata: "...)
}

// advance notes that all of a log before next was sent.
func (c *stream) advance(log ds.LogID, next int64) {
	if i, ok := c.position.Index(log); ok {
		c.position.Advance(i, next)
	}
}

// finish ends an item with the id of the position behind it. The id is omitted while it cannot
// be made: a client that is cut off then resumes from the last id and receives the later items
// again. Frames hold no line breaks: JSON escapes them.
func (c *stream) finish(items []byte) error {
	withID, ok := appendID(append(items, idField...), c.position)
	if !ok {
		isSaved, err := c.position.Save(c.ctx)
		if err != nil {
			return err
		}
		if isSaved {
			withID, ok = appendID(append(items, idField...), c.position)
		}
	}
	if !ok {
		withID = items
	}
	c.items = append(withID, "\n\n"...)
	if len(c.items) >= doors.WriteBytesMax {
		return c.flush()
	}
	return nil
}

const idField = "\nid: "

const (
	retryMin = 50 * time.Millisecond
	retryMax = 2 * time.Second
)

// retry repeats do while its error is a fault that may pass, as the follower does.
func (c *stream) retry(do func() error) error {
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		err := do()
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

func (c *stream) flush() error {
	if len(c.items) == 0 {
		return nil
	}
	ok := c.out.Write(c.items)
	if c.items = c.items[:0]; cap(c.items) > 4*doors.WriteBytesMax { // one long message must not stay in memory
		c.items = nil
	}
	if !ok {
		return errWrite
	}
	return nil
}
