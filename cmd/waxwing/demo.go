package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/server"
)

const (
	demoTimeout   = 20 * time.Second
	demoReturns   = 10 // forced disconnects after which clients must have reconnected
	demoCutEvery  = 100 * time.Millisecond
	demoTyping    = 80 * time.Millisecond
	demoRestartAt = 3 // number of the cut that is the server's crash
)

// demoLines are the messages of the three people, in turn. Each is long enough that its bytes
// cannot occur by chance.
var demoLines = []string{
	"Ann, the rowan berries are ripe at last.",
	"Then the waxwings will not be long in coming.",
	"Last winter they stripped the whole tree in one morning.",
	"I would like to see that. Shall I bring the telescope?",
	"Bring the telescope, and bring cake.",
	"Cake it is. The line keeps breaking, can you read me?",
	"Every word. I only see you go offline all the time.",
	"My tram is in a tunnel, that is why.",
	"Is it true that the server was down just now?",
	"It was. Nothing got lost on my side.",
	"Nor on mine, and nothing came twice.",
	"Saturday at nine, then, under the rowan tree.",
}

type demoCommand struct {
	Keep string `placeholder:"DIR" help:"Keep the server's files, its log and what went over the network in this new directory. By default they are removed."`
}

// Help returns the text below the flags.
func (demoCommand) Help() string {
	return "Everything is real: the server, its database, the network, MLS. The exit code says whether all checks held."
}

// person is one of the three: a client and its received messages.
type person struct {
	name   string
	client *client.Client

	mu   sync.Mutex // guards seen and news
	seen []client.Event
	news chan struct{} // closed when there are new messages
}

// stage holds the parts of a running demo.
type stage struct {
	dir    string
	log    *safeBuffer
	wire   *wire
	config server.Config
	server *server.Server
	people []*person
	room   string
	cuts   int
}

// Run plays the story and checks it.
func (c *demoCommand) Run(ctx context.Context, std streams) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	dir := c.Keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "waxwing-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	began := time.Now()
	s := &stage{dir: dir, log: &safeBuffer{}}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.raise(ctx); err != nil {
		return err
	}
	fmt.Fprintf(std.out, "One server, %s, and three people in one room. Their messages:\n\n", s.server.DID())
	err = s.play(ctx)
	if c.Keep != "" {
		err = errors.Join(err, s.keep())
	}
	if err != nil {
		return fmt.Errorf("the story did not finish: %w", err)
	}
	findings := s.check(ctx)
	s.printTable(std.out)
	fmt.Fprintf(std.out, "\n%d connections were broken by force and the server was stopped dead and started again, in %.1f s.\n"+
		"The clients came back %d times.\n\n", s.cuts, time.Since(began).Seconds(), s.returns())
	for _, f := range findings {
		fmt.Fprintln(std.out, f)
		if f.err != nil {
			err = errors.Join(err, f.err)
		}
	}
	return err
}

// raise starts the server behind the bad network, and the people.
func (s *stage) raise(ctx context.Context) (err error) {
	if s.wire, err = newWire(); err != nil {
		return err
	}
	s.config = server.DefaultConfig(filepath.Join(s.dir, "server"))
	s.config.PublicURL = strings.Replace(s.wire.url(), "127.0.0.1", "localhost", 1)
	s.config.LogTo, s.config.LogLevel = s.log, "debug"
	if s.server, err = server.Start(ctx, s.config); err != nil {
		return err
	}
	// The port stays the same over the restart.
	s.config.Listen = strings.TrimPrefix(s.server.URL(), "http://")
	s.wire.relayTo(s.config.Listen)
	for _, name := range []string{"ann", "bob", "cleo"} {
		account, err := client.NewAccount()
		if err != nil {
			return err
		}
		key := make([]byte, 32)
		rand.Read(key)
		sdk, err := client.Open(ctx, client.Options{
			Dir: filepath.Join(s.dir, name), StorageKey: key, Server: s.wire.url(), Account: account,
			Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("person", name),
		})
		if err != nil {
			return fmt.Errorf("open the client of %s: %w", name, err)
		}
		p := &person{name: name, client: sdk, news: make(chan struct{})}
		s.people = append(s.people, p)
	}
	return nil
}

// play lets the three talk while the network keeps breaking, until all have received all
// messages.
func (s *stage) play(ctx context.Context) error {
	ann, others := s.people[0], s.people[1:]
	var err error
	s.room, err = ann.client.CreateRoom(ctx, others[0].client.Self().Account, others[1].client.Self().Account)
	if err != nil {
		return fmt.Errorf("create the room: %w", err)
	}
	playing, stop := context.WithCancel(ctx)
	defer stop()
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	joined := make(chan struct{}, len(s.people))
	for _, p := range s.people {
		background.Go(func() { p.watch(playing, s.room, len(s.people), joined) })
	}
	for range s.people {
		if err := receive(ctx, joined, "not everybody is in the room"); err != nil {
			return err
		}
	}
	trouble := make(chan error, 1)
	background.Go(func() { trouble <- s.makeTrouble(playing) })
	for i, line := range demoLines {
		speaker := s.people[(i+1)%len(s.people)]
		if i > 0 { // a person answers only after reading the message before
			if err := speaker.wait(ctx, demoLines[i-1]); err != nil {
				return err
			}
		}
		if err := pause(ctx, demoTyping); err != nil {
			return err
		}
		if _, err := speaker.client.Send(ctx, s.room, []byte(line)); err != nil {
			return fmt.Errorf("%s: %w", speaker.name, err)
		}
	}
	if err := <-trouble; err != nil {
		return err
	}
	for _, p := range s.people {
		for _, line := range demoLines {
			if err := p.wait(ctx, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// watch records the person's messages, and closes joined when all are in the room.
func (p *person) watch(ctx context.Context, room string, people int, joined chan<- struct{}) {
	isTogether := false
	for event, err := range p.client.Events(ctx, 0) {
		if err != nil {
			return
		}
		p.mu.Lock()
		p.seen = append(p.seen, event)
		close(p.news)
		p.news = make(chan struct{})
		p.mu.Unlock()
		if conversation, err := p.client.Conversation(ctx, room); err == nil && !isTogether && len(conversation.Members) == people {
			isTogether = true
			joined <- struct{}{}
		}
	}
}

// wait returns when the person has received a message with that text.
func (p *person) wait(ctx context.Context, text string) error {
	for {
		p.mu.Lock()
		news := p.news
		hasSeen := slices.ContainsFunc(p.seen, func(e client.Event) bool {
			return e.Type == client.EventMessage && string(e.Text) == text
		})
		p.mu.Unlock()
		if hasSeen {
			return nil
		}
		if err := receive(ctx, news, fmt.Sprintf("%s does not get %q", p.name, text)); err != nil {
			return err
		}
	}
}

// makeTrouble breaks all connections repeatedly, each time when all have reconnected; one of
// the cuts is a crash of the server.
func (s *stage) makeTrouble(ctx context.Context) error {
	for round := 0; round <= demoRestartAt || s.returns() < demoReturns; round++ {
		for _, p := range s.people {
			if err := p.client.WaitOnline(ctx); err != nil {
				return fmt.Errorf("%s does not come back: %w", p.name, err)
			}
		}
		if err := pause(ctx, demoCutEvery); err != nil {
			return err
		}
		s.cuts += s.wire.cutAll()
		if round == demoRestartAt {
			if err := s.restart(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// returns counts the clients' reconnects.
func (s *stage) returns() int64 {
	var n int64
	for _, p := range s.people {
		n += max(0, p.client.Stats().Connects-1)
	}
	return n
}

func (s *stage) restart(ctx context.Context) error {
	atOnce, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.server.Shutdown(atOnce); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	if err := pause(ctx, demoCutEvery); err != nil {
		return err
	}
	var err error
	s.server, err = server.Start(ctx, s.config)
	return err
}

// close ends everything. It may be called at any stage.
func (s *stage) close() error {
	var errs []error
	for _, p := range s.people {
		errs = append(errs, p.client.Close())
	}
	s.people = nil
	if s.wire != nil {
		s.wire.close()
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}

// keep writes the data that is only in memory to files.
func (s *stage) keep() error {
	if err := os.WriteFile(filepath.Join(s.dir, "log"), s.log.bytes(), 0o600); err != nil {
		return err
	}
	raw, frames := s.wire.carried()
	for name, pieces := range map[string][][]byte{"network": raw, "frames": frames} {
		file, err := os.OpenFile(filepath.Join(s.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		for _, piece := range pieces {
			if _, err = file.Write(append(piece, '\n')); err != nil {
				break
			}
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func receive(ctx context.Context, from <-chan struct{}, otherwise string) error {
	select {
	case <-from:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", otherwise, ctx.Err())
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// safeBuffer is a log in memory.
type safeBuffer struct {
	mu   sync.Mutex // guards text
	text []byte
}

var _ io.Writer = (*safeBuffer)(nil)

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p...)
	return len(p), nil
}

func (b *safeBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.text...)
}
