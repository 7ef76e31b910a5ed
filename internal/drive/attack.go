package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
)

const (
	largestEnv   = 262144 // characters of a message that the gateway takes
	largestFrame = 1 << 20
	// writePatience is the time after which a write to a server that does not read is given up.
	writePatience = 2 * time.Second
	dripPace      = 50 * time.Millisecond
)

// Attack holds connections of strangers open at a server until Calm. Its methods begin an attack and
// return while it lasts. They are safe for concurrent use.
type Attack struct {
	server *Process
	life   context.Context

	cut, refused atomic.Int64 // connections that the server has ended; those that it told to try again

	mu      sync.Mutex // guards the rest
	running sync.WaitGroup
	closers []func()
}

// NewAttack prepares attacks on a server, which end with ctx.
func NewAttack(ctx context.Context, server *Process) *Attack {
	return &Attack{server: server, life: ctx}
}

// Calm ends everything that is open.
func (a *Attack) Calm() {
	a.mu.Lock()
	closers := a.closers
	a.closers = nil
	a.mu.Unlock()
	for _, end := range closers {
		end()
	}
	a.running.Wait()
}

// Cut returns how many connections the server has ended since the last call.
func (a *Attack) Cut() int64 { return a.cut.Swap(0) }

// Refused returns how many of them were told to try again since the last call.
func (a *Attack) Refused() int64 { return a.refused.Swap(0) }

// until calls end at Calm.
func (a *Attack) until(end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closers = append(a.closers, end)
}

// Stranger signs an attacker in.
func (a *Attack) Stranger(key *identity.AccountKey, device string) (*Caller, error) {
	caller, err := SignIn(a.life, a.server.URL, a.server.DID, key, device)
	if err != nil {
		return nil, err
	}
	// What it does is not to open connections: where it does, an attack dials by itself.
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	caller.http.Transport = transport
	a.until(transport.CloseIdleConnections)
	return caller, nil
}

// Narrow opens a socket, with a session of its own, on a network that holds little of what is
// not read.
func (a *Attack) Narrow(key *identity.AccountKey, device string) (*websocket.Conn, error) {
	token, err := authToken(key, a.server.DID)
	if err != nil {
		return nil, err
	}
	ws, _, err := websocket.Dial(a.life, "ws://"+a.server.Address()+"/v1/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dialNarrow}}})
	if err != nil {
		return nil, err
	}
	a.until(func() { _ = ws.CloseNow() })
	if err := a.Say(ws, gateway.TypeSessionStart, &gateway.Start{AuthToken: token, DeviceID: device}); err != nil {
		return nil, err
	}
	_, answer, err := ws.Read(a.life)
	if err != nil {
		return nil, err
	}
	if frame, err := gateway.DecodeFrame(answer); err != nil || frame.Type != gateway.TypeReady {
		return nil, fmt.Errorf("session.start is answered %.200s: %w", answer, err)
	}
	return ws, nil
}

func dialNarrow(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	return conn, err
}

// Say writes a frame and reads nothing.
func (a *Attack) Say(ws *websocket.Conn, frameType string, body any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID("1"), body)
	if err != nil {
		return err
	}
	return ws.Write(a.life, websocket.MessageText, frame)
}

// Post sends a frame through the inbox and ignores what it is answered.
func (a *Attack) Post(caller *Caller, frameType, id string, body any) error {
	frame, err := gateway.EncodeFrame(frameType, gateway.StringID(id), body)
	if err != nil {
		return err
	}
	var answer json.RawMessage
	return caller.Post(a.life, "/v1/inbox", json.RawMessage(frame), &answer)
}

// Together runs do for 0 to n-1, some at a time, and returns the first error.
func (a *Attack) Together(n, atATime int, do func(i int) error) error {
	var running sync.WaitGroup
	turns := make(chan int)
	failed := make(chan error, n)
	for range atATime {
		running.Go(func() {
			for i := range turns {
				if err := do(i); err != nil {
					failed <- fmt.Errorf("%d: %w", i, err)
				}
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// Open opens a stream that only the network reads.
func (a *Attack) Open(caller *Caller, query string, dial func(context.Context, string, string) (net.Conn, error)) (*http.Response, error) {
	request, err := http.NewRequestWithContext(a.life, http.MethodGet, a.server.URL+"/v1/sse?"+query, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+caller.token)
	answer, err := (&http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	a.until(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return answer, nil
}

// Large makes a room of messages that are as large as they may be.
func (a *Attack) Large(caller *Caller, room string, messages int) error {
	if err := caller.CreateRoom(a.life, room, nil); err != nil {
		return err
	}
	for i := range messages {
		if err := a.Post(caller, gateway.TypeSend, "1", &gateway.Send{ConvID: room, MsgID: fmt.Sprint(i), Env: strings.Repeat("x", largestEnv)}); err != nil {
			return err
		}
	}
	return nil
}

// UnreadStreams opens streams of large messages, from the first one on, whose other end reads
// nothing.
func (a *Attack) UnreadStreams(caller *Caller, room string, n int) error {
	return a.Together(n, 8, func(int) error {
		_, err := a.Open(caller, "conv_id="+room+"&from_seq=1", dialNarrow)
		return err
	})
}

// UnreadSockets opens sockets that do as UnreadStreams.
func (a *Attack) UnreadSockets(key *identity.AccountKey, room string, n int) error {
	return a.Together(n, 8, func(i int) error {
		ws, err := a.Narrow(key, fmt.Sprint("reader-", i))
		if err != nil {
			return err
		}
		first := int64(1)
		return a.Say(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: room, FromSeq: &first})
	})
}

// UnreadAnswers opens sockets that send frame again and again, and read no answer. It returns
// when the network is full, or all is written, with the number of frames that were taken.
func (a *Attack) UnreadAnswers(key *identity.AccountKey, room string, n int, frame []byte) (taken int64, err error) {
	ctx, stop := context.WithCancel(a.life)
	a.until(stop)
	var written atomic.Int64
	for i := range n {
		ws, err := a.Narrow(key, fmt.Sprint("sender-", i))
		if err != nil {
			return 0, err
		}
		first := int64(1)
		if err := a.Say(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: room, FromSeq: &first}); err != nil {
			return 0, err
		}
		a.running.Go(func() {
			for range 64 {
				if ws.Write(ctx, websocket.MessageText, frame) != nil {
					return
				}
				written.Add(1)
			}
		})
	}
	for last := int64(-1); written.Load() != last && ctx.Err() == nil; pause(ctx, writePatience) {
		last = written.Load()
	}
	return written.Load(), nil
}

// LongFrame returns a frame whose message id, or whose own id, is as long as it may be.
func LongFrame(room string, isOwn bool) []byte {
	id, msgID := `"1"`, strings.Repeat("m", largestFrame-300)
	if isOwn {
		id, msgID = `"`+strings.Repeat("i", largestFrame-300)+`"`, "m"
	}
	return fmt.Appendf(nil, `{"v":1,"t":"conv.send","id":%s,"body":{"conv_id":%q,"msg_id":%q,"env":"x"}}`, id, room, msgID)
}

// dial opens a connection that is watched: Cut counts its end.
func (a *Attack) dial(text string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(a.life, "tcp", a.server.Address())
	if err != nil {
		return nil, err
	}
	var ours atomic.Bool
	a.until(func() {
		ours.Store(true)
		conn.Close()
	})
	a.running.Go(func() {
		answer, _ := io.ReadAll(io.LimitReader(conn, 4<<10)) // to its end, whichever that is
		if !ours.Load() {
			a.cut.Add(1)
		}
		if bytes.Contains(answer, []byte(" 503 ")) || bytes.Contains(answer, []byte(" 429 ")) {
			a.refused.Add(1)
		}
		conn.Close()
	})
	_ = conn.SetWriteDeadline(time.Now().Add(writePatience)) // one that is refused may not be read
	if _, err := io.WriteString(conn, text); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return conn, nil // refused, which is counted
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// UnfinishedBodies sends requests whose bodies are as long as they may be and come to their end
// slowly, without their last byte.
func (a *Attack) UnfinishedBodies(n int) error {
	const piece, pace, rest = 8 << 10, 100 * time.Millisecond, 400 << 10
	head := fmt.Sprintf("POST /v1/session/start HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", a.server.Address(), largestFrame)
	text := head + strings.Repeat(" ", largestFrame-rest)
	return a.Together(n, 32, func(int) error {
		conn, err := a.dial(text)
		if err != nil {
			return err
		}
		a.running.Go(func() {
			for range rest/piece - 1 {
				if _, err := io.WriteString(conn, text[len(text)-piece:]); err != nil {
					return
				}
				pause(a.life, pace)
			}
		})
		return nil
	})
}

// Silent opens connections on which no request comes.
func (a *Attack) Silent(n int) error {
	return a.Together(n, 16, func(int) error {
		_, err := a.dial("")
		return err
	})
}

// Dripping opens connections on which text comes, and then a letter now and then for ever: of a
// header, or of a body.
func (a *Attack) Dripping(n int, text string) error {
	return a.Together(n, 16, func(int) error {
		conn, err := a.dial(text)
		if err != nil {
			return err
		}
		a.running.Go(func() {
			for a.life.Err() == nil {
				if _, err := io.WriteString(conn, "x"); err != nil {
					return
				}
				pause(a.life, dripPace)
			}
		})
		return nil
	})
}

// Nameless opens sockets on which no session is started.
func (a *Attack) Nameless(n int) error {
	return a.Together(n, 16, func(int) error {
		ws, _, err := websocket.Dial(a.life, "ws://"+a.server.Address()+"/v1/ws", nil)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(a.life)
		a.until(stop)
		a.running.Go(func() {
			defer ws.CloseNow()
			if _, _, err := ws.Read(ctx); ctx.Err() == nil && err != nil {
				a.cut.Add(1)
			}
		})
		return nil
	})
}

// Subscribing subscribes to a room from its first message on, again and again on each of n
// sockets, until Calm. refused counts the refusals by the limit.
func (a *Attack) Subscribing(key *identity.AccountKey, room string, n int) (refused *atomic.Int64, err error) {
	ctx, stop := context.WithCancel(a.life)
	a.until(stop)
	refused = &atomic.Int64{}
	for i := range n {
		ws, err := a.Narrow(key, fmt.Sprint("subscriber-", i))
		if err != nil {
			return nil, err
		}
		ws.SetReadLimit(-1)
		a.running.Go(func() {
			for {
				_, data, err := ws.Read(ctx)
				if err != nil {
					return
				}
				if bytes.Contains(data, []byte(gateway.CodeRateLimited)) {
					refused.Add(1)
				}
			}
		})
		a.running.Go(func() {
			first := int64(1)
			for ctx.Err() == nil {
				if a.Say(ws, gateway.TypeSubscribe, &gateway.Subscribe{ConvID: room, FromSeq: &first}) != nil {
					return
				}
				pause(ctx, time.Millisecond)
			}
		})
	}
	return refused, nil
}
