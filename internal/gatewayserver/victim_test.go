package gatewayserver

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
)

// strangersRooms returns the number of rooms that a stranger makes around a victim: in the full
// suite more than a stream follows.
func strangersRooms() int {
	if os.Getenv("WAXWING_FULL") != "" {
		return logs.StreamConversationsMax + 4
	}
	return 100
}

// TestVictimOfManyRooms: a stranger has made rooms around ann, with names as long as they
// may be. Her streams open, many at a time, and bring what is said in a room of before and
// in one that she enters now; her list comes; and what others send is not held up.
func TestVictimOfManyRooms(t *testing.T) {
	onBoth(t, func(t *testing.T, url_ string) {
		w := newWorldOn(t, url_)
		w.start("ann", gateway.Features...)
		w.start("bob")
		bob := ds.Caller{Account: ds.AccountID(w.person("bob").did), Device: "phone"}
		w.later.Store(1)
		w.call2(t, "bob", "/v1/rooms/create", w.fill(`{"conv_id":"friends","members":["$ann"]}`))
		w.call2(t, "bob", "/v1/rooms/create", `{"conv_id":"quiet","members":[]}`)
		w.later.Store(2)
		count := strangersRooms()
		w.rooms("eve", "ann", count, func(i int) ds.ConversationID {
			return ds.ConversationID(fmt.Sprintf("%0*d", ds.IDBytesMax, i))
		})
		w.later.Store(3)
		send := func(conversation string, n int) time.Duration {
			begun := time.Now()
			_, err := w.core.Apply(context.Background(), bob, core.Send{ID: ds.MessageID(fmt.Sprint(n)), ConversationID: ds.ConversationID(conversation), Body: []byte("e")})
			must(t, err)
			return time.Since(begun)
		}
		send("friends", 1) // so it is active again
		var quiet, loud []time.Duration
		for n := range 200 {
			quiet = append(quiet, send("quiet", n))
		}

		const streams = 16
		var reading []*events
		var opening sync.WaitGroup
		var mu sync.Mutex // guards reading
		begun, stop := time.Now(), make(chan struct{})
		opening.Go(func() {
			for n := 1000; ; n++ {
				select {
				case <-stop:
					return
				default:
					loud = append(loud, send("quiet", n))
				}
			}
		})
		var opened sync.WaitGroup
		for range streams {
			opened.Go(func() {
				e, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?all=1&from_seq=2", "")
				if e == nil {
					t.Error(status, answer)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				reading = append(reading, e)
			})
		}
		opened.Wait()
		t.Logf("%d streams over %d rooms were opened in %v", streams, count, time.Since(begun))
		seen, query := 0, url.Values{}
		for {
			page, _ := w.list("ann", query)
			seen += len(page.Items)
			if page.NextCursor == "" {
				break
			}
			query.Set("cursor", page.NextCursor)
		}
		close(stop)
		opening.Wait()
		if seen != count+1 {
			t.Errorf("the list has %d of %d conversations", seen, count+1)
		}
		t.Logf("all of it took %v; a send of others took %v quietly, %v meanwhile (p99)", time.Since(begun), p99(quiet), p99(loud))
		heap := liveHeap()
		t.Logf("%d MiB live", heap>>20)
		if heap > 256<<20 {
			t.Errorf("%d MiB are live", heap>>20)
		}

		send("friends", 2)
		for _, e := range reading {
			one, _ := e.next(t)
			if count > logs.StreamConversationsMax {
				if one.event != gateway.TypeStreamStarted || !strings.HasSuffix(one.data, `"body":{"more":true}}`) {
					t.Errorf("the first item is %+v", one)
				}
				one, _ = e.next(t)
			}
			for one.event == gateway.TypeCaughtUp {
				one, _ = e.next(t)
			}
			if one.event != gateway.TypeEvent || !strings.Contains(one.data, `"conv_id":"friends","seq":2`) {
				t.Errorf("got %+v", one)
			}
		}
	})
}

func p99(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)*99/100]
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestStreamsLeaveOut: where an account's limits do not let a stream begin with all of its
// conversations, it begins with the most recently active ones, and says so.
func TestStreamsLeaveOut(t *testing.T) {
	onBoth(t, func(t *testing.T, url_ string) {
		w := newWorldOn(t, url_, limited(t, limits.Streams+"=164/m"))
		w.start("ann", gateway.FeatureDevice)
		w.start("bob")
		id := func(i int) ds.ConversationID { return ds.ConversationID(fmt.Sprintf("c%02d", i)) }
		for i := range 100 {
			w.later.Store(int64(i))
			w.rooms(ds.AccountID(w.person("bob").did), "ann", 1, func(int) ds.ConversationID { return id(i) })
		}
		w.later.Store(1000)
		send := func(i, n int) {
			_, err := w.core.Apply(context.Background(), ds.Caller{Account: ds.AccountID(w.person("bob").did), Device: "phone"}, core.Send{ID: ds.MessageID(fmt.Sprint(n)), ConversationID: id(i), Body: []byte("e")})
			must(t, err)
		}
		e, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?all=1", "") // with all of them
		if e == nil {
			t.Fatal(status, answer)
		}
		e.stop()
		send(3, 1)
		e, status, answer = openEvents(t, w.http.URL, w.person("ann").session, "?all=1", "")
		if e == nil {
			t.Fatal(status, answer)
		}
		first, _ := e.next(t)
		if want := `{"v":1,"t":"stream.started","body":{"more":true}}`; first.event != gateway.TypeStreamStarted || first.data != want || first.id == "" {
			t.Errorf("got %+v, want %s", first, want)
		}
		send(4, 2)  // not active of late, so it is not followed
		send(99, 3) // the youngest
		got := map[string]bool{}
		for range 2 {
			one, _ := e.next(t)
			got[one.data[strings.Index(one.data, `"conv_id"`):strings.Index(one.data, `,"msg_id"`)]] = true
		}
		if !got[`"conv_id":"c03","seq":1`] || !got[`"conv_id":"c99","seq":1`] {
			t.Errorf("got %v", got)
		}
		e.stop()
		if _, status, answer := openEvents(t, w.http.URL, w.person("ann").session, "?all=1", ""); status != 429 || !strings.Contains(answer, `"rate_limited"`) {
			t.Errorf("beyond its limit: %d %s", status, answer)
		}
		w.later.Store(time.Minute.Milliseconds())
		e, status, answer = openEvents(t, w.http.URL, w.start("ann").session, "?all=1", "")
		if e == nil {
			t.Fatal(status, answer)
		}
		got = map[string]bool{} // without features nothing is said of what is left out
		for range 3 {
			one, _ := e.next(t)
			got[one.data[strings.Index(one.data, `"conv_id"`):strings.Index(one.data, `,"msg_id"`)]] = true
		}
		if !got[`"conv_id":"c04","seq":1`] {
			t.Errorf("the next connection does not follow what became active: %v", got)
		}
	})
}
