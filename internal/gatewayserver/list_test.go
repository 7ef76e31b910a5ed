package gatewayserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// rooms makes conversations of which name is a member, by another account.
func (w *world) rooms(by ds.AccountID, name string, count int, id func(i int) ds.ConversationID, others ...ds.AccountID) {
	w.t.Helper()
	members := append([]ds.AccountID{ds.AccountID(w.person(name).did)}, others...)
	var making sync.WaitGroup
	for part := range 64 {
		making.Go(func() {
			for i := part; i < count; i += 64 {
				if err := w.apply(ds.Caller{Account: by, Device: "phone"}, core.Create{ConversationID: id(i), Accounts: members}); err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	making.Wait()
}

// list reads a page of the conversations of name.
func (w *world) list(name string, query url.Values) (page gateway.ConversationList, bytes int) {
	w.t.Helper()
	status, answer, _ := w.call(name, "GET", "/v1/conversations?"+query.Encode(), "")
	if status != 200 {
		w.t.Fatal(status, answer)
	}
	must(w.t, json.Unmarshal([]byte(answer), &page))
	return page, len(answer)
}

// TestListsAreLimited: each page counts against the limit of the account.
func TestListsAreLimited(t *testing.T) {
	w := newWorld(t, limited(t, "conversation_lists=2/1m"))
	w.start("ann")
	for i, want := range []int{200, 200, 429} {
		if status, answer, _ := w.call("ann", "GET", "/v1/conversations", ""); status != want {
			t.Errorf("call %d: %d %s", i, status, answer)
		}
	}
}

// TestListIsPaged: pages make up the whole list, in its order, whatever comes in between.
func TestListIsPaged(t *testing.T) {
	onBoth(t, func(t *testing.T, url_ string) {
		w := newWorldOn(t, url_)
		w.start("ann")
		const count = 25
		for i := range count {
			w.later.Store(int64(i / 3)) // some are made in one millisecond
			w.rooms("eve", "ann", 1, func(int) ds.ConversationID { return ds.ConversationID(fmt.Sprintf("c%02d", count-i)) })
		}
		whole, _ := w.list("ann", url.Values{})
		if len(whole.Items) != count || whole.NextCursor != "" {
			t.Fatalf("%d items, cursor %q", len(whole.Items), whole.NextCursor)
		}
		var got []string
		query := url.Values{"limit": {"7"}}
		for pages := 1; ; pages++ {
			page, _ := w.list("ann", query)
			for _, item := range page.Items {
				if fmt.Sprint(item.Members) != fmt.Sprintf("[%s eve]", w.person("ann").did) {
					t.Errorf("members of %s: %v", item.ConvID, item.Members)
				}
				got = append(got, item.ConvID)
			}
			if page.NextCursor == "" {
				if pages != 4 {
					t.Errorf("%d pages", pages)
				}
				break
			}
			query.Set("cursor", page.NextCursor)
			w.later.Store(1000)
			if pages == 2 {
				w.rooms("eve", "ann", 1, func(int) ds.ConversationID { return "later" })
			}
		}
		want := []string{}
		for _, item := range whole.Items {
			want = append(want, item.ConvID)
		}
		if fmt.Sprint(got) != fmt.Sprint(append(want, "later")) {
			t.Errorf("pages have %v\nwant %v", got, want)
		}
		for _, bad := range []string{"limit=0", "limit=1001", "limit=-1", "limit=x", "cursor=x", "cursor=AAAA", "cursor=MSA"} {
			if status, answer, _ := w.call("ann", "GET", "/v1/conversations?"+bad, ""); status != 400 {
				t.Errorf("%s: %d %s", bad, status, answer)
			}
		}
	})
}

// TestReadyIsShort: a device that has acknowledged more conversations than a frame has room
// for, with names as strangers may choose them, still gets a session.
func TestReadyIsShort(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	const count = 1300
	id := func(i int) ds.ConversationID {
		return ds.ConversationID(strings.Repeat("\x01", ds.IDBytesMax-4) + fmt.Sprintf("%04d", i))
	}
	w.rooms("eve", "ann", count, id)
	ann := ds.Caller{Account: ds.AccountID(w.person("ann").did), Device: "phone"}
	for i := range count {
		w.later.Store(int64(i))
		must(t, w.logs.Acknowledge(context.Background(), ann, ds.ConversationLog(id(i)), 0))
		if i%500 == 0 {
			must(t, w.logs.FlushCursors(context.Background(), ann.AsDevice()))
		}
	}
	must(t, w.logs.Acknowledge(context.Background(), ann, ds.AccountLog(ann.Account), 7))
	must(t, w.logs.FlushCursors(context.Background(), ann.AsDevice()))
	status, answer, _ := w.call("", "POST", "/v1/session/start", fmt.Sprintf(`{"auth_token":"%s","device_id":"phone","features":["device"]}`, w.token("ann")))
	var ready gateway.Ready
	must(t, json.Unmarshal([]byte(answer), &ready))
	if status != 200 || len(answer) > 1<<20 || len(ready.Cursors) < 1000 || ready.DeviceNextPos == nil || *ready.DeviceNextPos != 8 {
		t.Errorf("status %d, %d bytes, %d cursors, device at %v", status, len(answer), len(ready.Cursors), ready.DeviceNextPos)
	}
}

// TestListsAreShort: a page has a bound in bytes, with the longest names in the form in
// which JSON makes most of them, and another in items; all of them make up the list.
func TestListsAreShort(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	long := func(kind string, i, length int) string {
		return strings.Repeat("\x01", length-8) + fmt.Sprintf("%s%06d", kind, i)
	}
	members := make([]ds.AccountID, 18)
	for i := range members {
		members[i] = ds.AccountID(long("us", i, ds.AccountBytesMax))
	}
	const count = 1100
	w.rooms(ds.AccountID(long("by", 0, ds.AccountBytesMax)), "ann", 200, func(i int) ds.ConversationID { return ds.ConversationID(long("id", i, ds.IDBytesMax)) }, members...)
	w.rooms(ds.AccountID(long("by", 0, ds.AccountBytesMax)), "ann", count-200, func(i int) ds.ConversationID { return ds.ConversationID(long("dm", i, ds.IDBytesMax)) })
	const answerBytesMax = 16 << 20 // of the SDK
	query, seen, longest := url.Values{}, map[string]bool{}, 0
	for {
		page, bytes := w.list("ann", query)
		for _, item := range page.Items {
			seen[item.ConvID] = true
		}
		longest = max(longest, bytes)
		if bytes > answerBytesMax || len(page.Items) > core.ConversationsMax {
			t.Fatalf("a page of %d bytes and %d items", bytes, len(page.Items))
		}
		if page.NextCursor == "" {
			break
		}
		query.Set("cursor", page.NextCursor)
	}
	if len(seen) != count || longest < answerBytesMax/4 {
		t.Errorf("%d of %d conversations, the longest page has %d bytes", len(seen), count, longest)
	}
}
