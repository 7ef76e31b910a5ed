package client

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls/wire"
)

// xrpcFollow is the state of reading one conversation's log for the session.
type xrpcFollow struct {
	since  int64 // the last event that was passed on; belongs to the active reader
	isLive bool  // caughtUp was sent to the session
}

// xrpcPage is the number of messages per request. An answer that is too long is requested again
// in smaller parts.
const xrpcPage = 50

// xrpcHashes bounds the key packages named in one request for a Welcome, so that the URL stays
// within the limits of proxies.
const xrpcHashes = 64

// looksMax bounds the conversations to look at: a server can name any number.
const looksMax = 1 << 16

// xrpcAgain is the wait before a conversation is looked at again when the server could not
// answer.
const xrpcAgain = time.Second

func (l *xrpcLink) follow(id string, from int64) {
	l.mu.Lock()
	l.follows[id] = &xrpcFollow{since: from - 1}
	l.mu.Unlock()
	l.mark(id, dueMaybe)
}

// look ends following, and looks for an invitation to return.
func (l *xrpcLink) look(id string) {
	l.mu.Lock()
	delete(l.follows, id)
	l.mu.Unlock()
	l.mark(id, dueMaybe)
}

// mark lets a reader look at a conversation, unless the server has imposed a wait.
func (l *xrpcLink) mark(id string, how dueFor) {
	if !isConversationID(id) {
		return
	}
	l.mu.Lock()
	defer ring(l.woken)
	defer l.mu.Unlock()
	if l.follows[id] == nil {
		if _, isDue := l.due[id]; !isDue && len(l.due)+len(l.paused) >= looksMax {
			return // the next connection reads the whole list
		}
		if len(l.looks) >= looksMax {
			clear(l.looks)
		}
		l.wakes++
		l.looks[id] = looking{l.looks[id].inVain, l.wakes}
	}
	if later, isLater := l.paused[id]; isLater && l.follows[id] == nil {
		l.paused[id] = max(later, how)
	} else {
		l.due[id] = max(l.due[id], how)
	}
}

func (l *xrpcLink) wakeAll() {
	l.mu.Lock()
	for id := range l.follows {
		l.due[id] = max(l.due[id], dueMaybe)
	}
	l.mu.Unlock()
	ring(l.woken)
}

// wakeLater is mark after a wait. Until then no reader looks at the conversation: each has one
// wait, for any number of events.
func (l *xrpcLink) wakeLater(id string, how dueFor, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	later, isLater := l.paused[id]
	l.paused[id] = max(later, how)
	if isLater {
		return
	}
	l.tasks.Go(func() {
		if !pause(l.ctx, wait) {
			return
		}
		l.mu.Lock()
		how := l.paused[id]
		delete(l.paused, id)
		l.mu.Unlock()
		l.mark(id, how)
	})
}

// takeDue returns a conversation that is due and not busy. Logs are read at once. Looking for
// invitations is paced, since anyone can make us look at any number of conversations: those
// with fewer looks, and woken later, go first.
func (l *xrpcLink) takeDue() (id string, how dueFor, f *xrpcFollow, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, what := range l.due {
		switch {
		case l.busy[other]:
		case l.follows[other] != nil || what == dueOut: // dueOut asks nothing
			id, ok = other, true
		case id == "" || l.isBefore(other, id):
			id = other
		}
		if ok {
			break
		}
	}
	if id == "" {
		return "", 0, nil, false
	}
	if !ok {
		if wait := l.d.c.lookPace.take(); wait > 0 {
			l.wakeReader(wait)
			return "", 0, nil, false
		}
	}
	how = l.due[id]
	delete(l.due, id)
	l.busy[id] = true
	if len(l.due) > 0 {
		ring(l.woken)
	}
	return id, how, l.follows[id], true
}

// isBefore reports which of two conversations is looked at first; mu is held.
func (l *xrpcLink) isBefore(id, other string) bool {
	a, b := l.looks[id], l.looks[other]
	if a.inVain != b.inVain {
		return a.inVain < b.inVain
	}
	return a.woken > b.woken
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

// looked counts a look; one that has found an invitation does not count.
func (l *xrpcLink) looked(id string, hasFound bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if hasFound {
		delete(l.looks, id)
		l.d.c.lookPace.giveBack()
		return
	}
	l.looks[id] = looking{l.looks[id].inVain + 1, l.looks[id].woken}
}

// read is a worker: it looks at due conversations.
func (l *xrpcLink) read() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.woken:
		}
		id, how, f, ok := l.takeDue()
		if !ok {
			continue
		}
		if f != nil {
			l.readLog(id, f)
		} else {
			l.lookAt(id, how)
		}
		l.release(id)
	}
}

// isFollowed reports whether f is still the session's current follow of the conversation.
func (l *xrpcLink) isFollowed(id string, f *xrpcFollow) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows[id] == f
}

// readLog passes on the events of a log after the last one that was passed on.
func (l *xrpcLink) readLog(id string, f *xrpcFollow) {
	for l.isFollowed(id, f) {
		page, isLast, err := l.d.page(l.ctx, id, f.since)
		if err != nil {
			l.refuseFollow(id, f, err)
			return
		}
		for i := range page {
			if !l.isFollowed(id, f) || !l.deliver(messageOf(&page[i])) {
				return
			}
			f.since = page[i].Seq
		}
		if isLast {
			break
		}
	}
	if !f.isLive && l.isFollowed(id, f) {
		f.isLive = true
		l.deliver(caughtUp{id, f.since})
	}
}

// pass passes on the message of an event, if it is the session's next one and no reader is busy
// with the log. If it returns false the log has to be read.
func (l *xrpcLink) pass(m *xrpc.MessageView) bool {
	l.mu.Lock()
	f := l.follows[m.ConvoID]
	_, isDue := l.due[m.ConvoID]
	isOurs := f != nil && !l.busy[m.ConvoID] && f.isLive
	isOld := isOurs && m.Seq <= f.since
	isNext := isOurs && !isDue && m.Seq == f.since+1
	if isNext {
		l.busy[m.ConvoID] = true // reserves f, too
	}
	l.mu.Unlock()
	if !isNext {
		return isOld
	}
	if l.deliver(messageOf(m)) {
		f.since = m.Seq
	}
	l.release(m.ConvoID)
	return true
}

// release lets other readers look at a conversation.
func (l *xrpcLink) release(id string) {
	l.mu.Lock()
	delete(l.busy, id)
	isDue := len(l.due) > 0
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
		l.mark(id, dueMaybe) // a commit: its place is not known
		return
	}
	l.tasks.Go(func() {
		if !pause(l.ctx, xrpcEchoWait) {
			return
		}
		l.mu.Lock()
		f := l.follows[id]
		isThere := f == nil || !l.busy[id] && f.since >= seq
		l.mu.Unlock()
		if !isThere {
			l.mark(id, dueMaybe)
		}
	})
}

func pruned(earliest int64) *Refusal {
	return &Refusal{Code: codePruned, Message: "the messages are gone", EarliestSeq: earliest, LatestSeq: earliest, Index: -1}
}

// refuseFollow reports to the session that a log cannot be read.
func (l *xrpcLink) refuseFollow(id string, f *xrpcFollow, err error) {
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
	isFollowed := l.follows[id] == f
	if isFollowed {
		delete(l.follows, id)
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

// wrongAnswer returns the error for the session of an answer that is invalid without being a
// refusal: it asks again later.
func wrongAnswer(what string) *Refusal {
	return &Refusal{Code: codeUnavailable, Message: "the server's answer is wrong: " + what, Index: -1}
}

// messages requests the messages after since, in parts of acceptable length. It returns those
// that continue the log without a gap.
func (d *xrpcDoor) messages(ctx context.Context, id string, since int64) (out xrpc.GetMessagesOutput, isLast bool, err error) {
	for limit := xrpc.Natural(xrpcPage); ; limit /= 2 {
		from := xrpc.Natural(max(since, 0))
		out = xrpc.GetMessagesOutput{}
		err = d.ask(ctx, xrpc.GetMessages, &xrpc.GetMessagesParams{ConvoID: id, Limit: &limit, SinceSeq: &from}, &out)
		if errors.Is(err, errAnswerTooLong) && limit > 1 {
			continue
		}
		if errors.Is(err, errAnswerTooLong) {
			err = wrongAnswer(err.Error())
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
				return out, false, wrongAnswer("it is not what comes next in the log")
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

// lookAt looks for an invitation into a conversation that the session does not read.
func (l *xrpcLink) lookAt(id string, how dueFor) {
	conv, err := l.d.c.snapshot(l.ctx, id)
	if err != nil {
		l.fail(err)
		return
	}
	switch {
	case conv != nil && (conv.isLive() || conv.phase == Creating):
		if how != dueOut {
			l.d.c.lookPace.giveBack()
		}
		return
	case how == dueOut:
		if conv != nil && conv.phase == Waiting { // it will not come any more
			l.tellMembership(id, false)
		}
		return
	}
	w, err := l.findWelcome(id)
	l.looked(id, w != nil)
	r := asRefusal(err)
	switch {
	case err != nil && r == nil || r != nil && r.Code == codeUnauthorized:
		l.fail(err)
	case r != nil && r.mayPass():
		l.wakeLater(id, how, max(r.RetryAfter, xrpcAgain))
	case r != nil && r.Code == codeForbidden:
		if conv != nil {
			l.tellMembership(id, false)
		}
	case w != nil:
		l.deliver(w)
	case conv == nil, how == dueMember && conv.phase == Removed:
		// New, or a member again without having left the group.
		l.tellMembership(id, true)
	}
}

// tellMembership reports to the session whether our account is in a conversation.
func (l *xrpcLink) tellMembership(id string, isIn bool) {
	m := membership{conversation: id}
	if self := []string{l.d.c.account.DID()}; isIn {
		m.add = self
	} else {
		m.remove = self
	}
	l.deliver(m)
}

// findWelcome requests a Welcome that one of our key packages opens; nil if there is none.
func (l *xrpcLink) findWelcome(id string) (*welcome, error) {
	var refs []string
	if err := l.d.c.db.update(l.ctx, func(tx *tx) (err error) {
		refs, err = tx.KeyPackages.Refs()
		return err
	}); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(refs, xrpcHashes) {
		var state xrpc.GetGroupStateOutput
		err := l.d.ask(l.ctx, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: id, Include: "welcome", KeyPackageHashes: part}, &state)
		if r := asRefusal(err); r != nil && r.Code == codeNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ref := refOf(state.Welcome.Data, part); ref != "" {
			return l.openable(id, ref, state.Welcome.Data)
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

// openable converts a Welcome to the gateway's form. The joiner's first seq has to be looked
// up: it follows the commit that has opened the Welcome's epoch.
func (l *xrpcLink) openable(id, ref string, raw []byte) (*welcome, error) {
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
