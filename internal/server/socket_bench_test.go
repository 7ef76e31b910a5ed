package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
)

// benchServer runs the whole service on PostgreSQL with fsync on, without limits.
func benchServer(b *testing.B) *server.Server {
	c := server.DefaultConfig(b.TempDir())
	c.Database = pgtest.Start(b, pgtest.Options{Fsync: true}).Database(b)
	c.Limit = []string{"all=off"}
	c.LogTo = io.Discard
	s, err := server.Start(context.Background(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

// benchSocket is a WebSocket with a session of its own device, as cheap as a load
// generator on the same cores has to be: it looks into frames, it does not parse them.
type benchSocket struct {
	ws    *websocket.Conn
	token string // of the session
}

func dial(s *server.Server, key *identity.AccountKey, device string) (*benchSocket, error) {
	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: "im.waxwing.session.start", IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.URL(), "http")+"/v1/ws", nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(1 << 24)
	c := &benchSocket{ws: ws}
	frame := fmt.Sprintf(`{"v":1,"t":"session.start","id":"1","body":{"auth_token":%q,"device_id":%q}}`, token, device)
	if err := c.write(frame); err != nil {
		return nil, err
	}
	_, data, err := ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	var ready struct {
		T    string
		Body gateway.Ready
	}
	if err := json.Unmarshal(data, &ready); err != nil || ready.T != gateway.TypeReady {
		return nil, fmt.Errorf("session: %s %w", data, err)
	}
	c.token = ready.Body.SessionToken
	return c, nil
}

func (c *benchSocket) write(frame string) error {
	return c.ws.Write(context.Background(), websocket.MessageText, []byte(frame))
}

func (c *benchSocket) room(s *server.Server, id string) error {
	request, err := http.NewRequest("POST", s.URL()+"/v1/rooms/create", strings.NewReader(fmt.Sprintf(`{"conv_id":%q}`, id)))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if answer, _ := io.ReadAll(response.Body); response.StatusCode != 200 {
		return fmt.Errorf("create: %s", answer)
	}
	return nil
}

func benchKey(b *testing.B) *identity.AccountKey {
	key, err := identity.DeriveAccountKey([]byte("bench"), "ann", identity.ES256)
	if err != nil {
		b.Fatal(err)
	}
	return key
}

const benchEnvBytes = 512

// BenchmarkSocketAppends: sockets with conversations of their own, each with so many
// messages under way, 10 seconds. It reports durable appends per second.
func BenchmarkSocketAppends(b *testing.B) {
	for _, load := range []struct{ sockets, underWay int }{{256, 1}, {256, 4}, {64, 16}} {
		b.Run(fmt.Sprintf("%dx%d", load.sockets, load.underWay), func(b *testing.B) { socketAppends(b, load.sockets, load.underWay) })
	}
}

func socketAppends(b *testing.B, n, underWay int) {
	s, key := benchServer(b), benchKey(b)
	sockets := make([]*benchSocket, n)
	var opening errgroup.Group
	opening.SetLimit(16)
	for i := range sockets {
		opening.Go(func() (err error) {
			if sockets[i], err = dial(s, key, fmt.Sprint("device-", i)); err != nil {
				return err
			}
			return sockets[i].room(s, fmt.Sprint("room-", i))
		})
	}
	if err := opening.Wait(); err != nil {
		b.Fatal(err)
	}
	var acked atomic.Int64
	b.ResetTimer()
	started, deadline := time.Now(), time.Now().Add(benchSeconds())
	var running errgroup.Group
	for i, c := range sockets {
		running.Go(func() error {
			defer c.ws.CloseNow()
			return c.sendUntil(deadline, fmt.Sprint("room-", i), underWay, &acked)
		})
	}
	if err := running.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(acked.Load())/time.Since(started).Seconds(), "appends/s")
	b.ReportMetric(0, "ns/op")
}

// sendUntil keeps so many messages under way until the deadline, and then reads the
// answers that are still owed. An answer out of turn is an error.
func (c *benchSocket) sendUntil(deadline time.Time, room string, underWay int, acked *atomic.Int64) error {
	env := strings.Repeat("x", benchEnvBytes)
	sent := 0
	for answered := 0; ; answered++ {
		for sent < answered+underWay && time.Now().Before(deadline) {
			if err := c.write(fmt.Sprintf(`{"v":1,"t":"conv.send","id":"%d","body":{"conv_id":"%s","msg_id":"m%d","env":"%s"}}`, sent, room, sent, env)); err != nil {
				return err
			}
			sent++
		}
		if answered == sent {
			return nil
		}
		_, data, err := c.ws.Read(context.Background())
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(data, fmt.Appendf(nil, `{"v":1,"t":"conv.acked","id":"%d",`, answered)) {
			return fmt.Errorf("answer %d: %s", answered, data)
		}
		acked.Add(1)
	}
}

// BenchmarkFanOut: 1 000 sockets of one account in one room, every event acknowledged by
// all but the 32 that send. It reports deliveries per second, counted when the events are
// read by the sockets.
func BenchmarkFanOut(b *testing.B) {
	s, key := benchServer(b), benchKey(b)
	readers := make([]*benchSocket, 968)
	senders := make([]*benchSocket, 32)
	for i := range senders {
		var err error
		if senders[i], err = dial(s, key, fmt.Sprint("sender-", i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := senders[0].room(s, "hall"); err != nil {
		b.Fatal(err)
	}
	var opening errgroup.Group
	opening.SetLimit(16)
	for i := range readers {
		opening.Go(func() (err error) {
			if readers[i], err = dial(s, key, fmt.Sprint("device-", i)); err != nil {
				return err
			}
			return readers[i].write(`{"v":1,"t":"conv.subscribe","body":{"conv_id":"hall","from_seq":1}}`)
		})
	}
	if err := opening.Wait(); err != nil {
		b.Fatal(err)
	}
	var delivered atomic.Int64
	var isOver atomic.Bool
	var reading sync.WaitGroup
	positions := make([]atomic.Int64, len(readers))
	for i, c := range readers {
		reading.Go(func() {
			defer c.ws.CloseNow()
			if err := c.readAndAck("hall", func(seq int64) {
				delivered.Add(1)
				positions[i].Store(seq)
			}); err != nil && !isOver.Load() {
				b.Errorf("socket %d: %v", i, err)
			}
		})
	}
	env := strings.Repeat("x", benchEnvBytes)
	b.ResetTimer()
	started, deadline := time.Now(), time.Now().Add(benchSeconds())
	var next, lowest atomic.Int64
	var sending errgroup.Group
	for _, c := range senders {
		sending.Go(func() error {
			defer c.ws.CloseNow()
			for n := next.Add(1); time.Now().Before(deadline); n = next.Add(1) {
				for lowest.Load() < n-benchUnderWay && time.Now().Before(deadline) { // the slowest reader sets the pace: nothing is measured into a queue
					time.Sleep(time.Millisecond)
					least := n
					for i := range positions {
						least = min(least, positions[i].Load())
					}
					lowest.Store(least)
				}
				if err := c.write(fmt.Sprintf(`{"v":1,"t":"conv.send","id":"%d","body":{"conv_id":"hall","msg_id":"m%d","env":"%s"}}`, n, n, env)); err != nil {
					return err
				}
				if _, _, err := c.ws.Read(context.Background()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := sending.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(delivered.Load())/time.Since(started).Seconds(), "deliveries/s")
	b.ReportMetric(0, "ns/op")
	isOver.Store(true)
	for _, c := range readers {
		c.ws.CloseNow()
	}
	reading.Wait()
}

// readAndAck reads events from the first on, tells of each and acknowledges it, until
// the socket ends. It reads without a context: a thousand readers that share one would
// measure its lock.
func (c *benchSocket) readAndAck(room string, tell func(seq int64)) error {
	ctx, event, frame := context.Background(), make([]byte, 0, 2048), make([]byte, 0, 128)
	for seq := int64(1); ; seq++ {
		_, in, err := c.ws.Reader(ctx)
		if err != nil {
			return err
		}
		event = event[:0]
		for err == nil {
			event = slices.Grow(event, 512)
			var n int
			n, err = in.Read(event[len(event):cap(event)])
			event = event[:len(event)+n]
		}
		if err != io.EOF {
			return err
		}
		frame = strconv.AppendInt(append(frame[:0], `"seq":`...), seq, 10)
		if !bytes.Contains(event, frame) {
			return fmt.Errorf("want seq %d: %.120s", seq, event)
		}
		tell(seq)
		frame = append(append(append(frame[:0], `{"v":1,"t":"conv.ack","body":{"conv_id":"`...), room...), `","seq":`...)
		frame = append(strconv.AppendInt(frame, seq, 10), "}}"...)
		if err := c.ws.Write(ctx, websocket.MessageText, frame); err != nil {
			return err
		}
	}
}

// benchUnderWay is the number of messages that may be under way to the slowest reader.
const benchUnderWay = 256
