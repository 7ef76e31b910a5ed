package client

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// reportPrefix marks the frame ids of reports of epoch authenticators; the epoch and
// the conversation follow.
const reportPrefix = "report:"

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
	s.wire.send(gateway.TypeReport, fmt.Sprintf("%s%d:%s", reportPrefix, epoch, conv.id), gateway.Report{
		Kind: gateway.ReportEpochAuthenticator, ConvID: conv.id, Epoch: int64(epoch),
		EpochAuthenticator: base64.StdEncoding.EncodeToString(conv.group.EpochAuthenticator())})
}

// reportRefused deals with the answer to a report.
func (b *batch) reportRefused(what string, r *Refusal) error {
	epoch, id, _ := strings.Cut(what, ":")
	if r.Code != codeEpochConflict {
		b.s.c.log.Debug("the server declines a report", "err", r)
		return nil
	}
	conv, err := b.tx.conversation(id)
	if err != nil || conv == nil || conv.phase != Joined {
		return err
	}
	return b.tx.report(Event{Type: EventFork, Conversation: id, Time: b.s.c.now(), Code: problemFork,
		Problem: fmt.Sprintf("the server says that members have different epoch authenticators in epoch %s", epoch)})
}
