package server_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
)

const (
	benchAccounts = 64   // each with a keep-alive connection and a conversation of its own
	benchSendsMax = 9000 // a second, that there are tokens for
)

// benchSeconds is for how long -benchtime asks, a little more, so that one run is enough:
// the tokens take as long to make as to use.
func benchSeconds() time.Duration {
	asked, err := time.ParseDuration(flag.Lookup("test.benchtime").Value.String())
	if err != nil {
		asked = 5 * time.Second // it is a number of runs
	}
	return asked + asked/20
}

// BenchmarkSendMessage: 64 accounts send messages of 512 bytes, one after the other on a
// connection each, as fast as they are answered, for the time of the benchmark. Every call has an ES256
// token of its own, signed beforehand and used up. It reports calls per second and how
// long they took.
func BenchmarkSendMessage(b *testing.B) {
	b.Run("postgres", func(b *testing.B) { sendMessages(b, benchServer(b)) })
	b.Run("sqlite", func(b *testing.B) {
		c := server.DefaultConfig(b.TempDir())
		c.Limit, c.LogTo = []string{"all=off"}, io.Discard
		s, err := server.Start(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		sendMessages(b, s)
	})
}

func sendMessages(b *testing.B, s *server.Server) {
	callers := make([]*benchCaller, benchAccounts)
	var opening errgroup.Group
	opening.SetLimit(8)
	for i := range callers {
		opening.Go(func() (err error) {
			callers[i], err = newBenchCaller(s, i)
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		b.Fatal(err)
	}
	for _, c := range callers { // now: the server does not wait long for a first request
		var err error
		if c.conn, err = net.Dial("tcp", c.host); err != nil {
			b.Fatal(err)
		}
		c.in = bufio.NewReader(c.conn)
	}
	b.ResetTimer()
	started, deadline := time.Now(), time.Now().Add(benchSeconds())
	var running errgroup.Group
	for _, c := range callers {
		running.Go(func() error { return c.sendUntil(deadline) })
	}
	if err := running.Wait(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for _, c := range callers {
		took = append(took, c.took...)
		c.conn.Close()
	}
	b.ReportMetric(float64(len(took))/time.Since(started).Seconds(), "sends/s")
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
	b.ReportMetric(0, "ns/op")
}

// benchCaller is an account on a connection: as cheap as a load generator on the same
// cores has to be, it writes requests whole and looks at no more of the answers than
// their status and length.
type benchCaller struct {
	conn   net.Conn
	in     *bufio.Reader
	host   string
	room   string
	tokens []string
	took   []time.Duration
}

// newBenchCaller makes an account with more tokens than it can use in the time.
func newBenchCaller(s *server.Server, n int) (*benchCaller, error) {
	key, err := identity.DeriveAccountKey([]byte("bench"), fmt.Sprint("account-", n), identity.ES256)
	if err != nil {
		return nil, err
	}
	c := &benchCaller{host: strings.TrimPrefix(s.URL(), "http://"), room: fmt.Sprintf("%04x", n)}
	socket, err := dial(s, key, "device")
	if err != nil {
		return nil, err
	}
	defer socket.ws.CloseNow()
	if err := socket.room(s, c.room); err != nil {
		return nil, err
	}
	for range int(benchSeconds().Seconds()*benchSendsMax) / benchAccounts {
		token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID() + identity.MLSService, Method: xrpc.SendMessage,
			IssuedAt: time.Now(), ExpiresAt: time.Now().Add(4 * time.Minute)})
		if err != nil {
			return nil, err
		}
		c.tokens = append(c.tokens, token)
	}
	return c, nil
}

func (c *benchCaller) sendUntil(deadline time.Time) error {
	text := base64.StdEncoding.EncodeToString(make([]byte, 512))
	var request []byte
	for i, token := range c.tokens {
		if !time.Now().Before(deadline) {
			return nil
		}
		body := fmt.Sprintf(`{"convoId":%q,"msgId":"%026d","ciphertext":{"$bytes":%q},"epoch":0,"paddedSize":512}`, c.room, i, text)
		request = fmt.Appendf(request[:0], "POST /xrpc/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			xrpc.SendMessage, c.host, token, len(body), body)
		began := time.Now()
		if _, err := c.conn.Write(request); err != nil {
			return err
		}
		if err := c.answer(); err != nil {
			return err
		}
		c.took = append(c.took, time.Since(began))
	}
	return fmt.Errorf("all %d tokens are used up", len(c.tokens))
}

// answer reads an answer, which has to be good.
func (c *benchCaller) answer() error {
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	isGood := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	length := 0
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
	if !isGood {
		body := make([]byte, length)
		_, _ = io.ReadFull(c.in, body)
		return fmt.Errorf("a call was answered %s", body)
	}
	_, err = c.in.Discard(length)
	return err
}
