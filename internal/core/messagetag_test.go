package core

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/mls/wire"
)

// TestConfirmationTag: a sender whose group is another one than the committer's is told,
// and nobody else is.
func TestConfirmationTag(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		w.room("c", "ann")
		send := func(id string, tag []byte) error {
			_, err := w.service.Apply(context.Background(), who("ann"), Send{ConversationID: "c", ID: ds.MessageID(id), Body: []byte("x"), Encoding: ds.Binary,
				Application: true, ConfirmationTag: tag})
			return err
		}
		check := func(name string, err error, want ds.Reason) {
			t.Helper()
			var r *ds.Refusal
			if want == "" && err != nil || want != "" && (!errors.As(err, &r) || r.Reason != want || r.Code != ds.EpochConflict) {
				t.Errorf("%s: %v", name, err)
			}
		}
		check("nothing is known yet", send("m1", []byte("tag")), "")
		r := &logs.Request{Conversation: "c", Account: "ann", Rule: ruleFunc(func(c *logs.Conversation, now time.Time) error {
			c.Head.ConfirmationTag = []byte("tag")
			c.Note(ds.SettingsEvent, ds.SettingsChange{By: "ann"}, now.UnixMilli())
			return nil
		})}
		if err := w.logs.Submit(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		check("the same", send("m2", []byte("tag")), "")
		check("unsaid", send("m3", nil), "")
		check("another", send("m4", []byte("gat")), ds.TreeDiverged)
		check("another with an id that was sent", send("m2", []byte("gat")), "")
		if _, err := w.sendMLS("ann", "c", "commit", mlsMessage("g", 0, wire.CommitContent)); err != nil {
			t.Fatal(err)
		}
		check("the next epoch's is not known", send("m5", []byte("gat")), "")
	})
}
