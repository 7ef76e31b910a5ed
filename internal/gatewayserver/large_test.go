package gatewayserver

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// TestLargeRecords: a message of 10 MiB, which only the AT Protocol door takes, reaches a
// socket whole and in its place, as it is written and again out of the store.
func TestLargeRecords(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url)
		ann := ds.Caller{Account: ds.AccountID(w.person("ann").did)}
		must(t, w.core.CreateRoom(context.Background(), ann, "c", []ds.AccountID{ds.AccountID(w.person("bob").did)}))
		w.join("bob")
		subscribe := `{"v":1,"t":"conv.subscribe","body":{"conv_id":"c","from_seq":1}}`
		w.say("bob", subscribe)
		sizes := []int{100, 10 << 20, 200, 10 << 20, 10 << 20, 300}
		for i, size := range sizes {
			_, err := w.core.Send(context.Background(), ann, core.Message{ConversationID: "c", ID: ds.MessageID(fmt.Sprint("m", i)),
				Body: make([]byte, size), Encoding: ds.Binary, Application: true})
			must(t, err)
		}
		hear := func(how string) {
			for i, size := range sizes {
				frame := w.hear("bob")
				for !strings.Contains(frame, `"t":"conv.event"`) {
					frame = w.hear("bob")
				}
				if !strings.Contains(frame[:min(len(frame), 200)], fmt.Sprintf(`"seq":%d,`, i+1)) || len(frame) < base64.StdEncoding.EncodedLen(size) {
					t.Fatalf("%s: message %d came as %d bytes: %.200s", how, i+1, len(frame), frame)
				}
			}
		}
		hear("live")
		w.person("bob").cut()
		w.join("bob")
		w.say("bob", subscribe)
		hear("out of the store")
	})
}
