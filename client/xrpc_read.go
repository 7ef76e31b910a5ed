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

// xrpcFollow is the reading of one conversation's log for the session.
type xrpcFollow struct {
	since  int64 // the last event that was passed on; of the reader who is at it
	isLive bool  // the session was told that this is all there is
}

// xrpcPage is how many messages are asked for at a time. An answer that is too long is
// asked for again in smaller parts.
const xrpcPage = 50

// xrpcHashes is how many key packages are named in one question for a Welcome, so that
// the address stays shorter than what proxies let through.
const xrpcHashes = 64

// looksMax bounds the conversations that are to be looked at: a server can name any number.
const looksMax = 1 << 16

// xrpcAgain is after how long a conversation is looked at again when the server was in
// no state to answer.
const xrpcAgain = time.Second

func (l *xrpcLink) follow(id string, from int64) {
	l.mu.Lock()
	l.follows[id] = &xrpcFollow{since: from - 1}
	l.mu.Unlock()
	l.mark(id, dueMaybe)
}

// look ends that, and looks for an invitation back.
func (l *xrpcLink) look(id string) {
	l.mu.Lock()
	delete(l.follows, id)
	l.mu.Unlock()
	l.mark(id, dueMaybe)
}

// mark lets a reader look at a conversation, unless the server has said to come later.
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

// wakeLater is mark after a while. Until then no reader looks, whatever happens: one wait
// for each conversation, however many events there are.
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

// takeDue is a conversation that nobody looks at and somebody should. Logs are read at
// once. Looking for invitations is paced, since anybody can have us look in as many
// places as they like: those that were looked at less often, and woken later, go first.
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

// isBefore says which of two conversations is looked at first; mu is held.
func (l *xrpcLink) isBefore(id, other string) bool {
	a, b := l.looks[id], l.looks[other]
	if a.inVain != b.inVain {
		return a.inVain < b.inVain
	}
	return a.woken > b.woken
}

// wakeReader wakes a reader after a while, once; mu is held.
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

// looked counts a look; one that has found an invitation costs nothing.
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

// read is one of those who look at conversations.
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

// isFollowed says whether f is still what the session wants to be read.
func (l *xrpcLink) isFollowed(id string, f *xrpcFollow) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows[id] == f
}

// readLog passes on what a log has behind what was passed on before.
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

// pass passes on a message that an event has brought, if it is what the session waits for
// and nobody is reading the log. False is for what the log has to be read for.
func (l *xrpcLink) pass(m *xrpc.MessageView) bool {
	l.mu.Lock()
	f := l.follows[m.ConvoID]
	_, isDue := l.due[m.ConvoID]
	isOurs := f != nil && !l.busy[m.ConvoID] && f.isLive
	isOld := isOurs && m.Seq <= f.since
	isNext := isOurs && !isDue && m.Seq == f.since+1
	if isNext {
		l.busy[m.ConvoID] = true // which also keeps f to us
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

// release lets others look at a conversation.
func (l *xrpcLink) release(id string) {
	l.mu.Lock()
	delete(l.busy, id)
	isDue := len(l.due) > 0
	l.mu.Unlock()
	if isDue {
		ring(l.woken)
	}
}

// xrpcEchoWait is how long the event of a message of our own is waited for.
const xrpcEchoWait = time.Second

// expect reads a log if no event brings what the server has put there at seq.
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

// refuseFollow tells the session that a log cannot be read.
func (l *xrpcLink) refuseFollow(id string, f *xrpcFollow, err error) {
	r := asRefusal(err)
	switch {
	case r == nil || r.Code == codeUnauthorized:
		l.fail(err)
		return
	case r.Code == codePruned && r.EarliestSeq == 0:
		out, _, err := l.d.messages(l.ctx, id, 0)
		if err != nil || len(out.Messages) == 0 {
			r.Code = codeUnavailable // there is nothing to tell it by
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

// page is the next part of a log behind since, and whether it is the last. Where the
// message after since is gone that is a refusal, which says what the first one is.
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

// hasGaps says whether the server has said that messages which were asked for are gone.
func hasGaps(out *xrpc.GetMessagesOutput) bool { return out.GapInfo != nil && out.GapInfo.HasGaps }

// xrpcSeqMax is above every seq that a log can come to.
const xrpcSeqMax = 1 << 53

// inPlace is how many of the messages are what stands in the log of id behind since.
// Nothing is taken to be gone because it is not among them, unless the server says so.
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

// wrongAnswer is how the session is told of an answer that is no refusal and cannot be: it
// asks again later.
func wrongAnswer(what string) *Refusal {
	return &Refusal{Code: codeUnavailable, Message: "the server's answer is wrong: " + what, Index: -1}
}

// messages asks for what stands behind since, in parts that are not too long. It gives
// what is in its place, as far as that goes.
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
		if out.GapInfo != nil && len(out.Messages) > 0 { // a page may also end because it is long
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

// messageOf is a message as the session reads it. XRPC does not tell proposals from what
// else is no commit, so that only a commit is called by its name.
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
		if conv != nil && conv.phase == Waiting { // for what will not come
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
		// New, or in it again, when nobody had to let us into the group again.
		l.tellMembership(id, true)
	}
}

// tellMembership tells the session that our account is in a conversation or is not.
func (l *xrpcLink) tellMembership(id string, isIn bool) {
	m := membership{conversation: id}
	if self := []string{l.d.c.account.DID()}; isIn {
		m.add = self
	} else {
		m.remove = self
	}
	l.deliver(m)
}

// findWelcome asks for a Welcome that one of our key packages opens; nil if there is
// none.
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

// refOf is the key package that a Welcome is made for, of those that are ours.
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

// openable is a Welcome as the gateway shows it. Where the joiner begins to read it must
// find out: behind the commit that has opened the Welcome's epoch.
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
		return nil // the session says what is wrong with it
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
