package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/testsize"
)

// throws sends bytes that are no MLS message by the server's other door, as the person's
// account.
func (p *person) throws(conversation string, number, size int) {
	p.w.t.Helper()
	conv, err := p.snapshot(p.w.ctx, conversation)
	if err != nil {
		p.w.t.Fatal(err)
	}
	epoch := uint64(0)
	if conv != nil && conv.isLive() {
		epoch = conv.epoch()
	}
	token, err := p.options.Account.serviceToken(p.w.server.DID()+xrpcFragment, xrpc.SendMessage, time.Now())
	if err != nil {
		p.w.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{"convoId": conversation, "msgId": fmt.Sprintf("00000000-0000-4000-8000-%012d", number), "epoch": epoch,
		"paddedSize": size, "ciphertext": map[string]string{"$bytes": base64.StdEncoding.EncodeToString(make([]byte, size))}})
	if err != nil {
		p.w.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(p.w.ctx, "POST", p.w.url+"/xrpc/"+xrpc.SendMessage, bytes.NewReader(body))
	if err != nil {
		p.w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	answer, err := p.http.Do(request)
	if err != nil {
		p.w.t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		p.w.t.Fatalf("%s throws %d bytes: %s %s", p.name, size, answer.Status, text)
	}
}

// TestFramesThatAreTooLong: a member and a stranger send what fits no frame that a client
// takes. Everybody reads on, over sockets and streams, also those who come back later.
func TestFramesThatAreTooLong(t *testing.T) {
	tests := map[string]func(w *world) []*person{
		"websocket": func(w *world) []*person { return w.people("ann", "bob", "eve") },
		"sse": func(w *world) []*person {
			return w.behind(newGate(w, gateStrips), "ann", "bob", "eve")
		},
	}
	for name, meet := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.limit(3 * time.Minute) // so much takes a while to pass on a busy machine
			size := testsize.Of(2*frameBytesMax, 8<<20)
			w.stopServer()
			w.config.MessageBytes = 10 << 20
			w.startServer()
			w.url = w.server.URL()
			people := meet(w)
			ann, bob, eve := people[0], people[1], people[2]
			room := w.room(ann, bob)
			ann.says(room, "before")
			bob.reads("before")
			ann.throws(room, 1, size)
			ann.says(room, "between")
			bob.reads("between")
			if err := eve.call(w.ctx, eve.session(), "/v1/rooms/create", gateway.RoomMembers{ConvID: "trap", Members: []string{bob.did()}}, &gateway.Status{}); err != nil {
				t.Fatal(err)
			}
			eve.throws("trap", 2, size)
			bob.close()
			ann.throws(room, 3, size)
			ann.says(room, "behind")
			bob.open()
			bob.reads("behind")
			bob.tells(room, "still here", ann, bob)
			if got := bob.transcript(room); !slices.Equal(got[len(got)-1:], []string{"still here"}) {
				t.Errorf("bob has %q", got)
			}
		})
	}
}

// slowLine lets the answers of one path come slowly, and counts them.
type slowLine struct {
	inner http.RoundTripper
	path  string
	rate  int // bytes a second
	calls atomic.Int32
}

func (l *slowLine) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.inner.RoundTrip(r)
	if err == nil && r.URL.Path == l.path {
		l.calls.Add(1)
		answer.Body = &slowBody{answer.Body, r.Context(), l.rate}
	}
	return answer, err
}

type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	rate int
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !pause(b.ctx, time.Duration(n)*time.Second/time.Duration(b.rate)) {
		return n, b.ctx.Err()
	}
	return n, err
}

// TestFramesThatAreTooLongForALine: a record that takes minutes to arrive is asked for once,
// and the session goes on behind it.
func TestFramesThatAreTooLongForALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t)
		ann := w.people("ann")[0]
		bob := w.person("bob")
		inner := &http.Transport{DialContext: w.dial}
		t.Cleanup(inner.CloseIdleConnections)
		line := &slowLine{inner: inner, path: "/v1/records", rate: 32 << 10}
		bob.options.HTTPClient = &http.Client{Transport: line}
		bob.open()
		room := w.room(ann, bob)
		ann.says(room, "before")
		bob.reads("before")
		ann.throws(room, 1, 4<<20)
		time.Sleep(10 * time.Second)
		for i := range 2 * eventsAhead {
			ann.says(room, fmt.Sprint("behind ", i))
		}
		bob.says(room, "meanwhile")
		time.Sleep(5 * time.Minute)
		ann.reads("meanwhile")
		bob.reads(fmt.Sprint("behind ", 2*eventsAhead-1))
		if n := line.calls.Load(); n != 1 {
			t.Errorf("the record was asked for %d times", n)
		}
		ann.close()
		bob.close()
		w.stopServer()
	})
}
