package client

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls/wire"
)

// xrpcLog is the state of one conversation on a link. The link's mu guards it.
type xrpcLog struct {
	follow *xrpcFollow    // nil if the session does not read it
	due    membershipHint // set when a reader has to look at it
	later  membershipHint // set when it becomes due only after a wait
	isBusy bool           // a reader is looking at it
	polls  int            // requests for an invitation in a row without one
	marked int            // the number of its last mark
}

// xrpcFollow is the state of reading one conversation's log for the session.
type xrpcFollow struct {
	since  int64 // the last event that was passed on; belongs to the active reader
	isLive bool  // caughtUp was sent to the session
}

// membershipHint is the server's information on whether our account is in a conversation; 0 is
// none.
type membershipHint int

const (
	hintNotMember membershipHint = 1 // not in the server's list
	hintUnknown   membershipHint = 2
	hintMember    membershipHint = 3 // the server has reported it
)

// xrpcPage is the number of messages per request. An answer that is too long is requested again
// in smaller parts.
const xrpcPage = 50

// xrpcHashes bounds the key packages named in one request for a Welcome, so that the URL stays
// within the limits of proxies.
const xrpcHashes = 64

// xrpcLogsMax bounds the conversations that are not read: a server can name any number.
const xrpcLogsMax = 1 << 16

// xrpcAgain is the wait before a conversation is looked at again when the server could not
// answer.
const xrpcAgain = time.Second

func (l *xrpcLink) follow(id string, from int64) { l.setFollow(id, &xrpcFollow{since: from - 1}) }

// pollWelcome ends following, and looks for an invitation to return.
func (l *xrpcLink) pollWelcome(id string) { l.setFollow(id, nil) }

func (l *xrpcLink) setFollow(id string, f *xrpcFollow) {
	l.mu.Lock()
	if l.logs[id] == nil {
		l.logs[id] = &xrpcLog{}
	}
	l.logs[id].follow = f
	l.sort(id, l.logs[id])
	l.mu.Unlock()
	l.mark(id, hintUnknown)
}

// sort puts a conversation whose state has changed among those that are due, unless a reader is
// looking at it; mu is held.
func (l *xrpcLink) sort(id string, c *xrpcLog) {
	delete(l.free, id)
	delete(l.paced, id)
	switch {
	case c.due == 0 || c.isBusy:
	case c.follow != nil || c.due == hintNotMember:
		l.free[id] = c
	default:
		l.paced[id] = c
	}
}

// mark makes a conversation due, unless the server has imposed a wait.
func (l *xrpcLink) mark(id string, hint membershipHint) {
	if !isConversationID(id) {
		return
	}
	l.mu.Lock()
	defer ring(l.woken)
	defer l.mu.Unlock()
	c := l.logs[id]
	if c == nil {
		if len(l.logs) >= xrpcLogsMax {
			maps.DeleteFunc(l.logs, func(_ string, c *xrpcLog) bool {
				return c.follow == nil && c.due == 0 && c.later == 0 && !c.isBusy
			})
		}
		if len(l.logs) >= xrpcLogsMax {
			return // the next connection reads the whole list
		}
		c = &xrpcLog{}
		l.logs[id] = c
	}
	l.marks++
	c.marked = l.marks
	if c.later != 0 && c.follow == nil {
		c.later = max(c.later, hint)
	} else {
		c.due = max(c.due, hint)
		l.sort(id, c)
	}
}

// markAll makes all conversations due that the session reads.
func (l *xrpcLink) markAll() {
	l.mu.Lock()
	for id, c := range l.logs {
		if c.follow != nil {
			c.due = max(c.due, hintUnknown)
			l.sort(id, c)
		}
	}
	l.mu.Unlock()
	ring(l.woken)
}

// markLater is mark after a wait. Until then no reader looks at the conversation: each has one
// wait, for any number of events.
func (l *xrpcLink) markLater(id string, c *xrpcLog, hint membershipHint, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	isWaiting := c.later != 0
	c.later = max(c.later, hint)
	if isWaiting {
		return
	}
	l.tasks.Go(func() {
		if !pause(l.ctx, wait) {
			return
		}
		l.mu.Lock()
		hint := c.later
		c.later = 0
		l.mu.Unlock()
		l.mark(id, hint)
	})
}

// takeDue returns a conversation that is due and not busy; c is nil if there is none. Logs are
// read at once. Requests for invitations are paced, since anyone can add us to any number of
// conversations: those with fewer requests, and marked later, go first.
func (l *xrpcLink) takeDue() (id string, c *xrpcLog, f *xrpcFollow, hint membershipHint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c = range l.free {
		break
	}
	if c == nil && len(l.paced) > 0 {
		if wait := l.d.c.welcomePace.take(); wait > 0 {
			l.wakeReader(wait)
			return "", nil, nil, 0
		}
		for other, o := range l.paced {
			if c == nil || o.isBefore(c) {
				id, c = other, o
			}
		}
	}
	if c == nil {
		return "", nil, nil, 0
	}
	hint = c.due
	c.due, c.isBusy = 0, true
	l.sort(id, c)
	ring(l.woken) // there may be more
	return id, c, c.follow, hint
}

func (c *xrpcLog) isBefore(other *xrpcLog) bool {
	return cmp.Or(cmp.Compare(c.polls, other.polls), cmp.Compare(other.marked, c.marked)) < 0
}

// wakeReader wakes a reader after a wait, once; mu is held.
func (l *xrpcLink) wakeReader(wait time.Duration) {
	if l.isPaced {
		return
	}
	l.isPaced = true
	l.tasks.Go(func() {
		pause(l.ctx, wait)
		l.mu.Lock()
		l.isPaced = false
		l.mu.Unlock()
		ring(l.woken)
	})
}

// countPoll counts a request for an invitation; one that has found it does not count.
func (l *xrpcLink) countPoll(c *xrpcLog, hasFound bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.polls++
	if hasFound {
		c.polls = 0
		l.d.c.welcomePace.giveBack()
	}
}

// read is a worker: it looks at due conversations.
func (l *xrpcLink) read() {
	l.each(l.woken, func() {
		id, c, f, hint := l.takeDue()
		switch {
		case c == nil:
			return
		case f != nil:
			l.readLog(id, c, f)
		default:
			l.findWelcome(id, c, hint)
		}
		l.release(id, c)
	})
}

// isFollowed reports whether f is still the session's current follow of a conversation.
func (l *xrpcLink) isFollowed(c *xrpcLog, f *xrpcFollow) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.follow == f
}

// readLog passes on the events of a log after the last one that was passed on.
func (l *xrpcLink) readLog(id string, c *xrpcLog, f *xrpcFollow) {
	for l.isFollowed(c, f) {
		page, isLast, err := l.d.page(l.ctx, id, f.since)
		if err != nil {
			l.refuseFollow(id, c, f, err)
			return
		}
		for i := range page {
			if !l.isFollowed(c, f) || !l.deliver(messageOf(&page[i])) {
				return
			}
			f.since = page[i].Seq
		}
		if isLast {
			break
		}
	}
	if !f.isLive && l.isFollowed(c, f) {
		f.isLive = true
		l.deliver(caughtUp{id, f.since})
	}
}

// pass passes on the message of an event, if it is the session's next one and no reader is busy
// with the log. If it returns false the log has to be read.
func (l *xrpcLink) pass(m *xrpc.MessageView) bool {
	l.mu.Lock()
	c := l.logs[m.ConvoID]
	var f *xrpcFollow
	if c != nil && !c.isBusy && c.follow != nil && c.follow.isLive {
		f = c.follow
	}
	isOld := f != nil && m.Seq <= f.since
	isNext := f != nil && c.due == 0 && m.Seq == f.since+1
	if isNext {
		c.isBusy = true // reserves f, too
	}
	l.mu.Unlock()
	if !isNext {
		return isOld
	}
	if l.deliver(messageOf(m)) {
		f.since = m.Seq
	}
	l.release(m.ConvoID, c)
	return true
}

// release lets other readers look at a conversation.
func (l *xrpcLink) release(id string, c *xrpcLog) {
	l.mu.Lock()
	c.isBusy = false
	l.sort(id, c)
	isDue := c.due != 0
	l.mu.Unlock()
	if isDue {
		ring(l.woken)
	}
}

// xrpcEchoWait is the wait for the event of a message of our own.
const xrpcEchoWait = time.Second

// expect reads a log if no event delivers the message that the server has put there at seq.
func (l *xrpcLink) expect(id string, seq int64) {
	if seq == 0 {
		l.mark(id, hintUnknown) // a commit: its place is not known
		return
	}
	l.tasks.Go(func() {
		if !pause(l.ctx, xrpcEchoWait) {
			return
		}
		l.mu.Lock()
		c := l.logs[id]
		isThere := c == nil || c.follow == nil || !c.isBusy && c.follow.since >= seq
		l.mu.Unlock()
		if !isThere {
			l.mark(id, hintUnknown)
		}
	})
}

func pruned(earliest int64) *Refusal {
	return &Refusal{Code: codePruned, Message: "messages were deleted", EarliestSeq: earliest, LatestSeq: earliest, Index: -1}
}

// refuseFollow reports to the session that a log cannot be read.
func (l *xrpcLink) refuseFollow(id string, c *xrpcLog, f *xrpcFollow, err error) {
	r := asRefusal(err)
	switch {
	case r == nil || r.Code == codeUnauthorized:
		l.fail(err)
		return
	case r.Code == codePruned && r.EarliestSeq == 0:
		out, _, err := l.d.messages(l.ctx, id, 0)
		if err != nil || len(out.Messages) == 0 {
			r.Code = codeUnavailable // the earliest seq is unknown
			break
		}
		r = pruned(out.Messages[0].Seq)
	}
	l.mu.Lock()
	isFollowed := c.follow == f
	if isFollowed {
		c.follow = nil
	}
	l.mu.Unlock()
	if isFollowed {
		l.deliver(followEnded{id, r})
	}
}

// page returns the next part of a log after since, and whether it is the last. If the message
// after since is gone that is a refusal with the place of the first available one.
func (d *xrpcDoor) page(ctx context.Context, id string, since int64) (page []xrpc.MessageView, isLast bool, err error) {
	out, isLast, err := d.messages(ctx, id, since)
	if err != nil {
		return nil, false, err
	}
	page = out.Messages
	switch {
	case len(page) > 0 && page[0].Seq > since+1:
		return nil, false, pruned(page[0].Seq)
	case len(page) == 0 && hasGaps(&out) && out.GapInfo.TotalMessages > since && out.GapInfo.TotalMessages < xrpcSeqMax:
		return nil, false, pruned(out.GapInfo.TotalMessages + 1)
	}
	return page, isLast, nil
}

// hasGaps reports whether the server has declared requested messages as gone.
func hasGaps(out *xrpc.GetMessagesOutput) bool { return out.GapInfo != nil && out.GapInfo.HasGaps }

// xrpcSeqMax is above every seq that a log can reach.
const xrpcSeqMax = 1 << 53

// inPlace returns the number of leading messages that continue the log of id after since
// without a gap. A missing message counts as gone only if the server declares it.
func inPlace(out *xrpc.GetMessagesOutput, id string, since int64) int {
	next := since + 1
	if hasGaps(out) && len(out.Messages) > 0 {
		next = max(next, out.Messages[0].Seq)
	}
	for i := range out.Messages {
		if m := &out.Messages[i]; m.ConvoID != id || m.Seq != next+int64(i) || m.Seq >= xrpcSeqMax {
			return i
		}
	}
	return len(out.Messages)
}

// invalidAnswer returns the error for the session of an answer that is invalid without being a
// refusal: it asks again later.
func invalidAnswer(what string) *Refusal {
	return &Refusal{Code: codeUnavailable, Message: "invalid answer: " + what, Index: -1}
}

// messages requests the messages after since, in parts of acceptable length. It returns those
// that continue the log without a gap.
func (d *xrpcDoor) messages(ctx context.Context, id string, since int64) (out xrpc.GetMessagesOutput, isLast bool, err error) {
	for limit := xrpc.Natural(xrpcPage); ; limit /= 2 {
		from := xrpc.Natural(max(since, 0))
		out, err = query[xrpc.GetMessagesOutput](ctx, d, xrpc.GetMessages, &xrpc.GetMessagesParams{ConvoID: id, Limit: &limit, SinceSeq: &from})
		if errors.Is(err, errAnswerTooLong) && limit > 1 {
			continue
		}
		if errors.Is(err, errAnswerTooLong) {
			err = invalidAnswer(err.Error())
		}
		if err != nil {
			return out, false, err
		}
		isLast = len(out.Messages) < int(limit)
		if out.GapInfo != nil && len(out.Messages) > 0 { // a page may also end because of its length
			isLast = out.Messages[len(out.Messages)-1].Seq >= out.GapInfo.TotalMessages
		}
		if n := inPlace(&out, id, int64(from)); n < len(out.Messages) {
			if n == 0 {
				return out, false, invalidAnswer("not the next messages of the log")
			}
			out.Messages, isLast = out.Messages[:n], false
		}
		return out, isLast, nil
	}
}

// messageOf converts a message for the session. XRPC does not distinguish proposals from other
// messages, so only commits have a kind of their own.
func messageOf(m *xrpc.MessageView) *logMessage {
	out := &logMessage{conversation: m.ConvoID, id: m.ID, seq: m.Seq, message: m.Ciphertext, epoch: &m.Epoch}
	if out.message == nil {
		out.message = []byte{}
	}
	if m.MessageType == "commit" {
		out.kind = kindCommit
	}
	return out
}

// findWelcome looks for an invitation into a conversation that the session does not read.
func (l *xrpcLink) findWelcome(id string, c *xrpcLog, hint membershipHint) {
	conv, err := l.d.c.snapshot(l.ctx, id)
	if err != nil {
		l.fail(err)
		return
	}
	switch {
	case conv != nil && (conv.isLive() || conv.phase == Creating):
		if hint != hintNotMember {
			l.d.c.welcomePace.giveBack()
		}
		return
	case hint == hintNotMember:
		if conv != nil && conv.phase == Waiting { // it will not come any more
			l.deliverMembership(id, false)
		}
		return
	}
	w, err := l.requestWelcome(id)
	l.countPoll(c, w != nil)
	r := asRefusal(err)
	switch {
	case err != nil && r == nil || r != nil && r.Code == codeUnauthorized:
		l.fail(err)
	case r != nil && r.mayPass():
		l.markLater(id, c, hint, max(r.RetryAfter, xrpcAgain))
	case r != nil && r.Code == codeForbidden:
		if conv != nil {
			l.deliverMembership(id, false)
		}
	case w != nil:
		l.deliver(w)
	case conv == nil, hint == hintMember && conv.phase == Removed:
		// New, or a member again without having left the group.
		l.deliverMembership(id, true)
	}
}

// deliverMembership reports to the session whether our account is in a conversation.
func (l *xrpcLink) deliverMembership(id string, isIn bool) {
	m := membership{conversation: id}
	if self := []string{l.d.c.account.DID()}; isIn {
		m.add = self
	} else {
		m.remove = self
	}
	l.deliver(m)
}

// requestWelcome requests a Welcome that one of our key packages opens; nil if there is none.
func (l *xrpcLink) requestWelcome(id string) (*welcome, error) {
	refs, err := read(l.ctx, l.d.c.db, func(tx *tx) ([]string, error) { return tx.KeyPackages.Refs() })
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(refs, xrpcHashes) {
		state, err := query[xrpc.GetGroupStateOutput](l.ctx, l.d, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: id, Include: "welcome", KeyPackageHashes: part})
		if r := asRefusal(err); r != nil && r.Code == codeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ref := refOf(state.Welcome.Data, part); ref != "" {
			return l.welcomeFrom(id, ref, state.Welcome.Data)
		}
	}
	return nil, nil
}

// refOf returns the one of our key packages that a Welcome is made for.
func refOf(welcome []byte, ours []string) string {
	var m wire.Message
	if len(welcome) == 0 || wire.Unmarshal(welcome, &m) != nil || m.Welcome == nil {
		return ""
	}
	for i := range m.Welcome.Secrets {
		if ref := hex.EncodeToString(m.Welcome.Secrets[i].NewMember); slices.Contains(ours, ref) {
			return ref
		}
	}
	return ""
}

// welcomeFrom converts a Welcome to the gateway's form. The joiner's first seq has to be looked
// up: it follows the commit that has opened the Welcome's epoch.
func (l *xrpcLink) welcomeFrom(id, ref string, raw []byte) (*welcome, error) {
	w := &welcome{Conversation: id, KeyPackageRef: ref, Message: raw, ID: ref}
	if err := l.d.c.db.update(l.ctx, func(tx *tx) error {
		group, err := l.d.c.keeper.openWelcome(tx, w)
		if err == nil {
			w.Epoch = int64(group.Epoch())
			return nil
		}
		if errors.Is(err, ErrStorageKey) {
			return err
		}
		return nil // the session reports the fault
	}); err != nil {
		return nil, err
	}
	seq, err := l.d.seqOfCommit(l.ctx, id, w.Epoch)
	if err != nil {
		return nil, err
	}
	w.NextSeq = seq + 1
	if seq == 0 {
		// The group was founded with us in it, or that commit is gone.
		out, _, err := l.d.messages(l.ctx, id, 0)
		if err != nil {
			return nil, err
		}
		if len(out.Messages) > 0 {
			w.NextSeq = out.Messages[0].Seq
		}
	}
	return w, nil
}
