package drive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testsize"
)

const (
	largestEnv     = 262144 // characters of a message that the gateway takes
	largestFrame   = 1 << 20
	streamPatience = 30 * time.Second // for a message to reach a stream
	writePatience  = 2 * time.Second  // for a peer that reads slowly or not at all
)

// TestAttackReadersThatDoNotRead: sockets and streams of large messages, from the first
// one on, whose other end reads nothing.
func TestAttackReadersThatDoNotRead(t *testing.T) {
	readers := testsize.Of(160, 300)
	for _, kind := range []string{"sockets", "streams"} {
		t.Run(kind, func(t *testing.T) {
			a := newAttack(t)
			key, caller := a.stranger("mallory", "first")
			a.large(caller, 20)
			a.together(readers, 8, func(i int) error {
				if kind == "streams" {
					_, err := a.open(caller, "conv_id=large&from_seq=1", dialNarrow)
					return err
				}
				ws, err := a.narrow(key, fmt.Sprint("reader-", i))
				if err != nil {
					return err
				}
				first := int64(1)
				return a.say(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: "large", FromSeq: &first})
			})
			a.during()
			a.after()
		})
	}
}

// large makes a room of messages that are as large as they may be.
func (a *attack) large(caller *Caller, messages int) {
	a.t.Helper()
	a.must(caller.CreateRoom(a.ctx, "large", nil))
	for i := range messages {
		a.must(a.post(caller, gateway.TypeSend, "1", &gateway.Send{ConvID: "large", MsgID: fmt.Sprint(i), Env: strings.Repeat("x", largestEnv)}))
	}
}

// TestAttackUnreadAnswers: sockets that send the largest identifiers, and read no answer.
func TestAttackUnreadAnswers(t *testing.T) {
	sockets := testsize.Of(6, 40)
	for _, kind := range []string{"message ids", "frame ids"} {
		t.Run(kind, func(t *testing.T) {
			a := newAttack(t)
			key, caller := a.stranger("mallory", "first")
			a.large(caller, 40) // more than networks hold
			id, msgID := `"1"`, strings.Repeat("m", largestFrame-300)
			if kind == "frame ids" {
				id, msgID = `"`+strings.Repeat("i", largestFrame-300)+`"`, "m"
			}
			frame := []byte(fmt.Sprintf(`{"v":1,"t":"conv.send","id":%s,"body":{"conv_id":"large","msg_id":%q,"env":"x"}}`, id, msgID))
			ctx, stop := context.WithCancel(a.ctx)
			var writing sync.WaitGroup
			defer writing.Wait()
			defer stop()
			var written atomic.Int64
			for i := range sockets {
				ws, err := a.narrow(key, fmt.Sprint("sender-", i))
				a.must(err)
				first := int64(1)
				a.must(a.say(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: "large", FromSeq: &first}))
				writing.Go(func() {
					for range 64 {
						if ws.Write(ctx, websocket.MessageText, frame) != nil {
							return
						}
						written.Add(1)
					}
				})
			}
			// A server that reads on has room for it; one that does not is written to until
			// the network is full.
			for last := int64(-1); written.Load() != last; pause(ctx, writePatience) {
				last = written.Load()
			}
			t.Logf("%d frames written", written.Load())
			a.during()
			a.after()
		})
	}
}

// rooms makes n rooms with a victim in them, as strangers who each keep to their limits.
func (a *attack) rooms(victim string, n int) (creators []*Caller) {
	a.t.Helper()
	const each = 900 // of the 1 000 that an account may make in an hour
	for i := range (n + each - 1) / each {
		_, caller := a.stranger(fmt.Sprint("stranger-", i), "first")
		creators = append(creators, caller)
	}
	a.together(n, 4*len(creators), func(i int) error {
		return creators[i%len(creators)].CreateRoom(a.ctx, fmt.Sprint("room-", i), []string{victim})
	})
	return creators
}

// TestAttackRoomsAroundOne: strangers make rooms with a victim in them, who goes on to
// hear of everything.
func TestAttackRoomsAroundOne(t *testing.T) {
	const rooms = 4100
	a := newAttack(t)
	_, victim := a.stranger("victim", "phone")
	a.must(victim.CreateRoom(a.ctx, "of-friends", nil))
	a.rooms(accountKey(t, "victim").DID(), rooms)
	// The stream follows the conversations that are the most recently active.
	a.must(a.post(victim, gateway.TypeSend, "1", &gateway.Send{ConvID: "of-friends", MsgID: "before", Env: "x"}))
	answer, err := a.open(victim, "all=1", nil)
	if err != nil {
		t.Fatalf("the victim's stream: %v", err)
	}
	defer time.AfterFunc(streamPatience, func() { answer.Body.Close() }).Stop()
	a.must(a.post(victim, gateway.TypeSend, "1", &gateway.Send{ConvID: "of-friends", MsgID: "heard", Env: "x"}))
	if err := find(answer.Body, `"msg_id":"heard"`); err != nil {
		t.Errorf("the victim hears nothing: %v", err)
	}
	a.during()
	a.after()
}

// find reads until the text has come.
func find(r io.Reader, text string) error {
	var read []byte
	for piece := make([]byte, 32<<10); ; {
		n, err := r.Read(piece)
		if read = append(read, piece[:n]...); bytes.Contains(read, []byte(text)) {
			return nil
		}
		if err != nil {
			return err
		}
		read = read[max(0, len(read)-len(text)):]
	}
}

// TestAttackStreamsOverManyRooms: streams over everything that are opened again and again
// while something moves in all of it.
func TestAttackStreamsOverManyRooms(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { attackStreamsOverManyRooms(t) })
	t.Run("postgres", func(t *testing.T) { attackStreamsOverManyRooms(t, "--database", pgtest.URL(t)) })
}

func attackStreamsOverManyRooms(t *testing.T, options ...string) {
	rooms, streams := testsize.Of(1024, 4096), testsize.Of(4, 16)
	a := newAttack(t, options...)
	_, mallory := a.stranger("mallory", "first")
	creators := a.rooms(accountKey(t, "mallory").DID(), rooms)
	ctx, stop := context.WithCancel(a.ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var opened, said atomic.Int64
	for i := range streams {
		running.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.process.URL+"/v1/sse?all=1", nil)
				if err != nil {
					t.Error(err)
					return
				}
				request.Header.Set("Authorization", "Bearer "+mallory.token)
				answer, err := http.DefaultClient.Do(request)
				if err != nil {
					continue
				}
				if answer.StatusCode == http.StatusOK {
					opened.Add(1)
					timer := time.AfterFunc(time.Second, func() { answer.Body.Close() })
					_, _ = io.Copy(io.Discard, answer.Body) // until it is closed
					timer.Stop()
				} else {
					pause(ctx, 100*time.Millisecond)
				}
				answer.Body.Close()
			}
		})
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				room := (i + n*streams) % rooms
				if a.post(creators[room%len(creators)], gateway.TypeSend, "1", &gateway.Send{ConvID: fmt.Sprint("room-", room), MsgID: fmt.Sprint(i, "-", n), Env: "x"}) == nil {
					said.Add(1)
				}
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	for opened.Load() < int64(streams) || said.Load() < int64(10*streams) {
		if pause(a.ctx, 50*time.Millisecond); a.ctx.Err() != nil {
			t.Fatalf("%d streams are open and %d messages sent", opened.Load(), said.Load())
		}
	}
	a.during()
	stop()
	running.Wait()
	a.after()
}

// TestAttackUnfinishedBodies: requests whose bodies never end do not keep others from
// being served.
func TestAttackUnfinishedBodies(t *testing.T) {
	const bodies = 262
	a := newAttack(t)
	a.together(bodies, 16, func(int) error {
		conn, err := net.Dial("tcp", a.process.Address())
		if err != nil {
			return err
		}
		a.t.Cleanup(func() { conn.Close() })
		head := fmt.Sprintf("POST /v1/session/start HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", a.process.Address(), largestFrame)
		_ = conn.SetWriteDeadline(time.Now().Add(writePatience)) // one that is refused may not be read
		if _, err := io.WriteString(conn, head+strings.Repeat(" ", largestFrame-1)); err != nil {
			a.t.Logf("a body is not taken: %v", err)
		}
		return nil
	})
	// Others are served, before those bodies run out of time.
	_, late := a.stranger("late", "phone")
	a.must(late.CreateRoom(a.ctx, "late", nil))
	a.must(a.post(a.caller, gateway.TypeSend, "1", &gateway.Send{ConvID: a.room, MsgID: "by-http", Env: strings.Repeat("x", largestEnv)}))
	a.during()
	a.after()
}

// TestAttackOverlappingReaders: readers of a long log, some of which always read, while
// others write.
func TestAttackOverlappingReaders(t *testing.T) {
	const readers, perSecond = 8, 300
	seconds := testsize.Of(5, 60)
	a := newAttack(t)
	key, caller := a.stranger("mallory", "first")
	a.must(caller.CreateRoom(a.ctx, "long", nil))
	for i := range 40 {
		a.must(a.post(caller, gateway.TypeSend, "1", &gateway.Send{ConvID: "long", MsgID: fmt.Sprint("before-", i), Env: strings.Repeat("x", largestEnv/8)}))
	}
	ctx, stop := context.WithCancel(a.ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for range readers {
		running.Go(func() {
			for ctx.Err() == nil {
				answer, err := a.open(caller, "conv_id=long&from_seq=1", nil)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				timer := time.AfterFunc(200*time.Millisecond, func() { answer.Body.Close() })
				for b := make([]byte, 64<<10); err == nil; time.Sleep(5 * time.Millisecond) { // until it is closed
					_, err = io.ReadFull(answer.Body, b)
				}
				timer.Stop()
			}
		})
	}
	var sent atomic.Int64
	ticks := time.NewTicker(time.Second / perSecond)
	defer ticks.Stop()
	const senders = 16
	for i := range senders {
		ws, err := a.narrow(key, fmt.Sprint("sender-", i))
		a.must(err)
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				select {
				case <-ctx.Done():
					return
				case <-ticks.C:
				}
				send := &gateway.Send{ConvID: "long", MsgID: fmt.Sprint(i, "-", n), Env: strings.Repeat("x", 1024)}
				if err := a.say(ws, gateway.TypeSend, send); err != nil {
					t.Errorf("a message: %v", err)
					return
				}
				_, data, err := ws.Read(a.ctx)
				if frame, _ := gateway.DecodeFrame(data); err != nil || frame.Type != gateway.TypeAcked {
					t.Errorf("a message is answered %s, %v", data, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	began := time.Now()
	pause(ctx, time.Duration(seconds)*time.Second)
	a.during()
	t.Logf("%.0f messages a second", float64(sent.Load())/time.Since(began).Seconds())
	stop()
	running.Wait()
	a.after()
}
