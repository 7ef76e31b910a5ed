package client

import (
	"fmt"
	"time"
)

// reportInterval is the least time between reports of a conversation's authenticator: of epochs
// in quick succession the last suffices, since it depends on all.
const reportInterval = 5 * time.Second

// reportEpoch reports this device's group to the server, by a value that discloses nothing
// else. If another member reports a different one for the same epoch the server announces it:
// it was shown a different log, or one of them is faulty.
func (s *session) reportEpoch(conv *conversation, sub *subscription) {
	epoch := conv.epoch()
	if conv.phase != Joined || epoch == sub.reported || !sub.report.isReady() {
		return
	}
	sub.reported, sub.report = epoch, retry{at: time.Now().Add(reportInterval)}
	s.wire.report(report{reportAuthenticator, conv.id, epoch, conv.group.EpochAuthenticator()})
}

// reportRefused handles the answer to a report.
func (b *batch) reportRefused(m reportRefused) error {
	if m.refusal.Code != codeEpochConflict {
		b.s.c.log.Debug("the server declines a report", "err", m.refusal)
		return nil
	}
	conv := b.tx.conversation(m.conversation)
	if conv == nil || conv.phase != Joined {
		return nil
	}
	return b.tx.report(Event{Type: EventFork, Conversation: m.conversation, Time: b.s.c.now(), Code: problemFork,
		Problem: fmt.Sprintf("members have different epoch authenticators in epoch %s", m.epoch)})
}
