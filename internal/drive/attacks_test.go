package drive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/testsize"
)

const streamPatience = 30 * time.Second // for a message to reach a stream

// rooms makes n rooms with a victim in them, as strangers who each keep to their limits.
func (a *attack) rooms(victim string, n int) (creators []*Caller) {
	a.t.Helper()
	const each = 900 // of the 1 000 that an account may make in an hour
	for i := range (n + each - 1) / each {
		_, caller := a.stranger(fmt.Sprint("stranger-", i), "first")
		creators = append(creators, caller)
	}
	a.must(a.Together(n, 4*len(creators), func(i int) error {
		return creators[i%len(creators)].CreateRoom(a.ctx, fmt.Sprint("room-", i), []string{victim})
	}))
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
	a.must(a.Post(victim, gateway.TypeSend, "1", &gateway.Send{ConvID: "of-friends", MsgID: "before", Env: "x"}))
	answer, err := a.Open(victim, "all=1", nil)
	if err != nil {
		t.Fatalf("the victim's stream: %v", err)
	}
	defer time.AfterFunc(streamPatience, func() { answer.Body.Close() }).Stop()
	a.must(a.Post(victim, gateway.TypeSend, "1", &gateway.Send{ConvID: "of-friends", MsgID: "heard", Env: "x"}))
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
				if a.Post(creators[room%len(creators)], gateway.TypeSend, "1", &gateway.Send{ConvID: fmt.Sprint("room-", room), MsgID: fmt.Sprint(i, "-", n), Env: "x"}) == nil {
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

// TestAttackOverlappingReaders: readers of a long log, some of which always read, while
// others write.
func TestAttackOverlappingReaders(t *testing.T) {
	const readers, perSecond = 8, 300
	seconds := testsize.Of(5, 60)
	a := newAttack(t)
	key, caller := a.stranger("mallory", "first")
	a.must(caller.CreateRoom(a.ctx, "long", nil))
	for i := range 40 {
		a.must(a.Post(caller, gateway.TypeSend, "1", &gateway.Send{ConvID: "long", MsgID: fmt.Sprint("before-", i), Env: strings.Repeat("x", largestEnv/8)}))
	}
	ctx, stop := context.WithCancel(a.ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for range readers {
		running.Go(func() {
			for ctx.Err() == nil {
				answer, err := a.Open(caller, "conv_id=long&from_seq=1", nil)
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
		ws, err := a.Narrow(key, fmt.Sprint("sender-", i))
		a.must(err)
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				select {
				case <-ctx.Done():
					return
				case <-ticks.C:
				}
				send := &gateway.Send{ConvID: "long", MsgID: fmt.Sprint(i, "-", n), Env: strings.Repeat("x", 1024)}
				if err := a.Say(ws, gateway.TypeSend, send); err != nil {
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
