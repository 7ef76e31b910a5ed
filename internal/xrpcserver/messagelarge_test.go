package xrpcserver

import (
	"fmt"
	"strconv"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

const largest = core.MessageBytesDefault

// TestTooLarge: the largest message is taken, and what is more than a message may be is
// refused, whichever bound it meets.
func TestTooLarge(t *testing.T) {
	w := newWorld(t)
	w.talk("c1", "ann", "bob")
	w.send("ann", message("c1", uuid(1), 0, largest))
	w.call("ann", xrpc.SendMessage, message("c1", uuid(6), 0, largest+8192)).refused("400 MessageTooLarge")
	w.call("ann", xrpc.SendMessage, message("c1", uuid(6), 0, 13<<20)).refused("413 PayloadTooLarge")
	w.call("ann", xrpc.SendEphemeral, object{"convoId": "c1", "ciphertext": blob(filled(largest + 1)), "epoch": 0, "paddedSize": largest + 1}).refused("400 InvalidRequest")
}

// TestLargeMessages: messages of 5 MiB are shown, and a page is never longer
// than a client reads.
func TestLargeMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		w.send("ann", message("c1", uuid(1), 0, 512))
		_, err := w.core.Apply(t.Context(), w.caller("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(uuid(2)), Body: filled(largest), Encoding: ds.Binary, Application: true})
		must(t, err)
		w.send("ann", message("c1", uuid(3), 0, 512))
		w.send("ann", message("c1", uuid(4), 0, 512<<10))
		w.send("ann", message("c1", uuid(5), 0, 1<<20))

		want := [][]int{{512}, {largest}, {512, 512 << 10}, {1 << 20}, nil}
		since := int64(0)
		for i, sizes := range want {
			var page xrpc.GetMessagesOutput
			a := w.do(w.request("bob", xrpc.GetMessages, params("convoId", "c1", "sinceSeq", string('0'+rune(since)))), xrpc.GetMessages)
			a.into(&page)
			if len(a.body) > 16<<20 || len(page.Messages) != len(sizes) {
				t.Fatalf("page %d has %d messages in %d bytes", i, len(page.Messages), len(a.body))
			}
			for j, m := range page.Messages {
				since++
				if len(m.Ciphertext) != sizes[j] || m.Seq != since || m.Ciphertext[sizes[j]-1] != 0xee {
					t.Errorf("page %d: message %d of %d bytes", i, m.Seq, len(m.Ciphertext))
				}
			}
		}
	})
}

// TestPagesFitThroughAPDS: a page of history ends at 7 MiB of JSON, and everything is in one
// of them.
func TestPagesFitThroughAPDS(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const messages, size = 30, 256 << 10
		w.talk("c1", "ann", "bob")
		for i := range messages {
			w.send("ann", message("c1", uuid(i+1), 0, size))
		}
		w.send("ann", message("c1", uuid(messages+1), 0, largest))
		since, pages := int64(0), 0
		for since < messages+1 {
			var page xrpc.GetMessagesOutput
			a := w.do(w.request("bob", xrpc.GetMessages, params("convoId", "c1", "limit", "100", "sinceSeq", strconv.FormatInt(since, 10))), xrpc.GetMessages)
			a.into(&page)
			if len(a.body) > 7<<20 || len(page.Messages) == 0 || page.Messages[0].Seq != since+1 || page.GapInfo.HasGaps {
				t.Fatalf("the page behind %d has %d messages in %d bytes", since, len(page.Messages), len(a.body))
			}
			since, pages = *page.LastSeq, pages+1
		}
		if pages != 3 { // as few as will do: 20 of them in a page, and the large one
			t.Errorf("it took %d pages", pages)
		}
	})
}

// TestStoredBeforeTheBound: messages that were stored when larger ones were taken fit no
// page. They are named as missing, and what stands behind them is read.
func TestStoredBeforeTheBound(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.talk("c1", "ann", "bob")
		before := core.New(core.Options{Store: w.store, Logs: w.logs, Directory: w.directory, Now: w.now, Limits: limits.New(nil, w.now), MessageBytes: 10 << 20})
		for i, size := range []int{512, 6 << 20, 512, 6 << 20, 6 << 20} {
			_, err := before.Apply(t.Context(), w.caller("ann"), core.Send{ConversationID: "c1", ID: ds.MessageID(uuid(i + 1)), Body: filled(size), Encoding: ds.Binary, Application: true})
			must(t, err)
		}
		before.Close()
		for _, step := range []struct{ limit, since, seqs, missing string }{
			{"100", "0", "[1 3]", "[2 4 5]"},
			{"1", "1", "[3]", "[2]"},
			{"1", "3", "[]", "[4 5]"},
		} {
			var page xrpc.GetMessagesOutput
			a := w.do(w.request("bob", xrpc.GetMessages, params("convoId", "c1", "limit", step.limit, "sinceSeq", step.since)), xrpc.GetMessages)
			a.into(&page)
			seqs := []int64{}
			for _, m := range page.Messages {
				seqs = append(seqs, m.Seq)
			}
			if got := fmt.Sprint(seqs); got != step.seqs || fmt.Sprint(page.GapInfo.MissingSeqs) != step.missing || !page.GapInfo.HasGaps || len(a.body) > 7<<20 {
				t.Errorf("behind %s: %s, missing %v", step.since, got, page.GapInfo.MissingSeqs)
			}
		}
	})
}

// FuzzSendMessage holds what is let through to what a stored message may be.
func FuzzSendMessage(f *testing.F) {
	for _, seed := range []string{
		`{"convoId":"c","msgId":"` + ulid + `","ciphertext":{"$bytes":""},"epoch":0,"paddedSize":0,"delivery":"ephemeral"}`,
		`{"convoId":"c","msgId":"` + uuid(1) + `","ciphertext":{"$bytes":"` + text(filled(512)) + `"},"epoch":0,"paddedSize":512}`,
		`{"convoId":"c","msgId":"` + ulid + `","ciphertext":{"$bytes":"-_8="},"epoch":9223372036854775807,"paddedSize":2,"confirmationTag":{"$bytes":"AA"}}`,
	} {
		f.Add([]byte(seed), ulid)
	}
	f.Fuzz(func(t *testing.T, body []byte, cursor string) {
		var in xrpc.SendMessageInput
		if xrpc.Decode(body, &in) == nil && checkMessage(&in, largest) == nil && in.Delivery != deliveryEphemeral {
			n := len(in.Ciphertext)
			if n == 0 || int64(n) != int64(in.PaddedSize) || !isPadded(n) || n > largest || !isMessageID(in.MsgID) || in.Epoch < 0 {
				t.Fatalf("let through: %s", body)
			}
		}
		var mark core.ReadMark
		if !readMark(&mark, "c", cursor) {
			return
		}
		if mark.Seq != nil && *mark.Seq < 0 || mark.Pos != nil && *mark.Pos < 0 || mark.Seq != nil && mark.Pos != nil {
			t.Fatalf("%q says %+v", cursor, mark)
		}
	})
}
