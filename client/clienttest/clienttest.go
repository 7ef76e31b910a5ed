// Package clienttest starts a whole Waxwing server in the process of a test, for tests of
// programs that use package client:
//
//	func TestBot(t *testing.T) {
//		server := clienttest.NewServer(t)
//		ann := server.Client("ann")
//		options := server.Options("bot")
//		var bot sync.WaitGroup
//		bot.Go(func() { runBot(t.Context(), options) }) // it closes its client at the end
//		t.Cleanup(bot.Wait)
//		dm, err := ann.StartDM(t.Context(), server.Account("bot").DID())
//		…
//	}
//
// The server is the one of waxwing serve, with its database in a temporary directory, open to
// every account and without rate limits. Nothing is imitated: what a test sees is what
// happens.
package clienttest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/memnet"
	"waxwing.im/waxwing/internal/server"
)

// Server is a running server and the homes of its clients. Its methods are for the goroutine of
// the test; an error ends the test.
type Server struct {
	// URL is the address of the server, http://127.0.0.1:PORT. It stays the same when the
	// server is stopped and started.
	URL string

	t        testing.TB
	dir      string
	config   server.Config
	memory   *memnet.Network // nil: TCP
	running  *server.Server  // nil: stopped
	clients  []*client.Client
	patience time.Duration
}

// NewServer starts a server on a free port of the loopback address. It is closed at the end of
// the test, and so are the clients that it has opened. Without a test, as in an Example, t is
// nil: call Close then, and expect a panic where a test would end.
func NewServer(t testing.TB) *Server {
	if t == nil {
		t = example{}
	}
	t.Helper()
	s := &Server{t: t, patience: time.Minute}
	s.begin()
	return s
}

// NewBubbleServer starts a server in a bubble of testing/synctest. Connections to it are made of
// memory, so that the time of the bubble passes while all wait: clients reach it with
// the Dial of Options, and nothing else does.
func NewBubbleServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, memory: &memnet.Network{}, patience: 24 * time.Hour}
	s.begin()
	return s
}

func (s *Server) begin() {
	s.t.Helper()
	s.dir = s.t.TempDir()
	// Too long a path for the admin socket, which would be a real one.
	data := filepath.Join(s.dir, strings.Repeat("x", 110))
	s.must(os.Mkdir(data, 0o700))
	s.config = server.DefaultConfig(data)
	s.config.Limit = []string{"all=off"}
	if s.memory != nil {
		s.config.PingInterval, s.config.Heartbeat = bubblePing, time.Hour
	}
	s.Start()
	s.config.Listen = strings.TrimPrefix(s.URL, "http://")
	s.t.Cleanup(s.Close)
}

// example stands for the test of a server without one.
type example struct{ testing.TB }

func (example) Helper()        {}
func (example) Cleanup(func()) {}
func (example) Fatal(v ...any) { panic(fmt.Sprint(v...)) }
func (e example) TempDir() string {
	dir, err := os.MkdirTemp("", "waxwing-")
	if err != nil {
		e.Fatal(err)
	}
	return dir
}

// bubblePing is the interval of pings in a bubble, where hours pass in no time and each ping
// costs as much as anywhere.
const bubblePing = 10 * time.Minute

// must ends the test on an error.
func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Start starts the server after Stop. It does nothing while the server runs.
func (s *Server) Start() {
	s.t.Helper()
	if s.running != nil {
		return
	}
	if s.memory != nil {
		s.config.Listener = s.memory.Listen()
	}
	var err error
	s.running, err = server.Start(context.Background(), s.config)
	s.must(err)
	s.URL = s.running.URL()
}

// Stop stops the server: clients are offline until Start.
func (s *Server) Stop() {
	s.t.Helper()
	if s.running != nil {
		err := s.running.Close()
		s.running = nil
		s.must(err)
	}
}

// Close closes the clients that the server has opened, stops it and removes all files.
func (s *Server) Close() {
	s.t.Helper()
	for _, c := range s.clients {
		_ = c.Close() // it may be closed already
	}
	s.clients = nil
	s.Stop()
	s.must(os.RemoveAll(s.dir))
}

// Account returns the account with a name, the same one for each call.
func (s *Server) Account(name string) *client.Account {
	s.t.Helper()
	account, err := client.AccountFromSeed([]byte("a seed for tests, which everybody knows"), name)
	s.must(err)
	return account
}

// Options returns the options of a new device of an account, with an empty home. To open the
// device again, as after a crash, use the same options again. The caller closes the client before
// the end of the test.
func (s *Server) Options(name string) client.Options {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.dir, "home-")
	s.must(err)
	o := client.Options{Dir: dir, StorageKey: bytes.Repeat([]byte{1}, client.StorageKeyBytes), Server: s.URL, Account: s.Account(name)}
	if s.memory != nil {
		o.Dial, o.PingInterval = s.memory.Dial, bubblePing
	}
	return o
}

// Client opens a new device of an account.
func (s *Server) Client(name string, with ...client.Option) *client.Client {
	s.t.Helper()
	c, err := client.Open(context.Background(), s.Options(name), with...)
	s.must(err)
	s.clients = append(s.clients, c)
	return c
}

// Await reads and acknowledges events of a client up to one of the type, and returns it; an
// EventMessage may be the delivery of an own message (Own). It waits for a minute, in a bubble for
// a day.
func (s *Server) Await(c *client.Client, want client.EventType) client.Event {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.patience)
	defer cancel()
	for {
		e, err := c.Next(ctx)
		if err == nil {
			err = c.Ack(ctx, e.ID)
		}
		if err != nil {
			s.must(fmt.Errorf("no %s event: %w", want, err))
		}
		if e.Type == want {
			return e
		}
	}
}
