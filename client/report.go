package client

import (
	"fmt"
	"time"
)

// reportInterval is how often a conversation's authenticator is reported at most: of
// epochs that follow each other quickly the last is enough, since it depends on all.
const reportInterval = 5 * time.Second

// reportEpoch tells the server which group this device is in, by a value that says
// nothing else. If another member reports another one for the same epoch the server
// says so: the log was shown to them differently, or one of them is at fault.
func (s *session) reportEpoch(conv *conversation, sub *subscription) {
	epoch := conv.epoch()
	if conv.phase != Joined || epoch == sub.reported || !sub.report.isReady() {
		return
	}
	sub.reported, sub.report = epoch, retry{at: time.Now().Add(reportInterval)}
	s.wire.report(report{reportAuthenticator, conv.id, epoch, conv.group.EpochAuthenticator()})
}

// reportRefused deals with the answer to a report.
func (b *batch) reportRefused(m reportRefused) error {
	if m.refusal.Code != codeEpochConflict {
		b.s.c.log.Debug("the server declines a report", "err", m.refusal)
		return nil
	}
	conv, err := b.tx.conversation(m.conversation)
	if err != nil || conv == nil || conv.phase != Joined {
		return err
	}
	return b.tx.report(Event{Type: EventFork, Conversation: m.conversation, Time: b.s.c.now(), Code: problemFork,
		Problem: fmt.Sprintf("the server says that members have different epoch authenticators in epoch %s", m.epoch)})
}
