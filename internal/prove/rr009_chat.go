package prove

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/drive"
)

const (
	chatWindow   = 4 // requests without an answer
	chatLivesMin = 4 // lines of output between start and kill, and as many again at most
	chatLivesMax = 14
	chatStallMax = 15 * time.Second // without a line, for one that is not killed
	chatEndMax   = 15 * time.Second
	refreshEvery = 2 // texts; requests that meet a pending commit are one
)

// chatter is a process of `waxwing chat --json` with a home, which is killed and started again.
type chatter struct {
	r        *Run
	random   *rand.Rand
	name     string
	config   string // directory
	server   string
	account  *client.Account
	peer     *chatter
	conv     string
	texts    int // to send
	killsMin int

	stored    int             // texts that the process has stored
	delivered map[string]bool // own texts that the server has
	read      map[string]int  // texts of the peer
	events    map[int64]string
	kills     int
	errors    []error
}

// chatLine is a line of output.
type chatLine struct {
	Type, Conv, Text, ID, Code, Error, Op string
	OK, Own                               bool
	Event                                 int64
	Req                                   int
}

// newChatter makes a home.
func newChatter(ctx context.Context, r *Run, server, name string, stream uint64) (*chatter, error) {
	c := &chatter{r: r, random: r.Random(stream), name: name, server: server, delivered: map[string]bool{}, read: map[string]int{}, events: map[int64]string{}}
	var err error
	if c.config, err = r.Folder(); err != nil {
		return nil, err
	}
	if c.account, err = client.AccountFromSeed([]byte(c.seed()), name); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	command := c.command(ctx, "init")
	if err := drive.Start(command, func(err error) { ended <- err }); err != nil {
		return nil, err
	}
	return c, <-ended
}

func (c *chatter) seed() string { return "a seed of RR-009 for " + c.name }

func (c *chatter) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, c.r.binary, append([]string{"chat"}, append(args, "--as", c.name, "--server", c.server)...)...)
	command.Env = []string{"WAXWING_CONFIG_HOME=" + c.config, "WAXWING_SEED=" + c.seed()}
	command.WaitDelay = time.Second
	return command
}

// live runs the process once: until visit returns false for a line, or it has printed nothing for
// a while. Then its input is closed, or it is killed at once.
func (c *chatter) live(ctx context.Context, isKilled bool, started func(write func(any)), visit func(chatLine, func(any)) bool) (stalled bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := c.command(ctx, "--json")
	in, input, err := os.Pipe()
	if err != nil {
		return false, err
	}
	output, out, err := os.Pipe()
	if err != nil {
		return false, errors.Join(err, in.Close(), input.Close())
	}
	var log bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = in, out, &log
	ended := make(chan error, 1)
	err = drive.Start(command, func(err error) { ended <- err })
	in.Close()
	out.Close()
	defer output.Close()
	defer input.Close()
	if err != nil {
		return false, err
	}
	write := func(request any) {
		text, err := json.Marshal(request)
		if err == nil {
			_, _ = input.Write(append(text, '\n')) // an error: it has ended, and gets it next time
		}
	}
	started(write)
	watch := time.AfterFunc(chatStallMax, cancel)
	defer watch.Stop()
	going := true
	lines := bufio.NewScanner(output)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line chatLine
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue // cut off by a kill
		}
		if going && line.Type != "state" {
			watch.Reset(chatStallMax)
		}
		if stays := visit(line, write); going && !stays {
			going = false
			watch.Reset(chatEndMax)
			if isKilled {
				time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond)
				_ = command.Process.Kill()
			} else {
				input.Close()
			}
		}
	}
	err = <-ended
	if isKilled || !going && err == nil {
		return false, nil
	}
	return true, fmt.Errorf("%s: the chat ended: %v %.500s", c.name, err, log.Bytes())
}

// take records a line.
func (c *chatter) take(line chatLine) {
	switch {
	case line.Type == "error":
		c.errors = append(c.errors, fmt.Errorf("%s: %s: %s", c.name, line.Code, line.Text))
	case line.Type != "message":
	case c.events[line.Event] == line.Text: // printed again after a kill
	case c.events[line.Event] != "":
		c.errors = append(c.errors, fmt.Errorf("%s: event %d was %q and is %q", c.name, line.Event, c.events[line.Event], line.Text))
	default:
		if c.events[line.Event] = line.Text; line.Own {
			c.delivered[line.Text] = true
		} else {
			c.read[line.Text]++
		}
	}
}

func (c *chatter) text(n int) string { return fmt.Sprintf("%s %d", c.name, n) }

func (c *chatter) hasAll() bool {
	return c.stored == c.texts && len(c.delivered) >= c.texts && len(c.read) >= c.peer.texts
}

// talk sends the texts and reads those of the peer, over kills. Requests without an answer are
// made again after a kill.
func (c *chatter) talk(ctx context.Context, progress func()) error {
	for ctx.Err() == nil {
		isKilled := c.stored < c.texts || c.kills < c.killsMin
		left := chatLivesMin + c.random.IntN(chatLivesMax-chatLivesMin)
		asked := c.stored
		ask := func(write func(any)) {
			for ; asked < min(c.stored+chatWindow, c.texts); asked++ {
				if asked%refreshEvery == 0 {
					write(map[string]any{"op": "refresh", "conv": c.conv})
				}
				write(map[string]any{"op": "send", "conv": c.conv, "text": c.text(asked), "id": c.text(asked), "req": asked + 1})
			}
		}
		_, err := c.live(ctx, isKilled, ask, func(line chatLine, write func(any)) bool {
			c.take(line)
			if line.Type == "answer" && line.Op == "send" {
				if !line.OK {
					c.errors = append(c.errors, fmt.Errorf("%s: %s: %s", c.name, line.Code, line.Error))
				}
				c.stored = max(c.stored, line.Req)
				ask(write)
			}
			progress()
			if left--; isKilled {
				return left > 0 && !(c.hasAll() && c.kills >= c.killsMin)
			}
			return !c.hasAll()
		})
		if err != nil {
			return err
		}
		if !isKilled {
			return nil
		}
		c.kills++
	}
	return context.Cause(ctx)
}

// open opens the home in this process.
func (c *chatter) open(ctx context.Context) (*client.Client, error) {
	var about struct{ Key string }
	var key struct{ Key []byte }
	for _, part := range []struct {
		into any
		path func() string
	}{
		{&about, func() string { return filepath.Join(c.home(), "chat.json") }},
		{&key, func() string { return filepath.Join(c.config, "keys", about.Key) }},
	} {
		text, err := os.ReadFile(part.path())
		if err == nil {
			err = json.Unmarshal(text, part.into)
		}
		if err != nil {
			return nil, err
		}
	}
	return client.Open(ctx, client.Options{Dir: filepath.Join(c.home(), "store"), StorageKey: key.Key, Server: c.server, Account: c.account})
}

func (c *chatter) home() string { return filepath.Join(c.config, "homes", c.name) }

// chatOverKills has a conversation of two processes of chat that are killed, through a server.
func chatOverKills(ctx context.Context, r *Run) error {
	server, err := r.Serve(ctx, "--limit", "all=off")
	if err != nil {
		return err
	}
	var people [2]*chatter
	for i, name := range []string{"ann", "bob"} {
		if people[i], err = newChatter(ctx, r, server.URL, name, uint64(1000+i)); err != nil {
			return err
		}
	}
	r.Step("two processes of chat begin a conversation")
	ann, bob := people[0], people[1]
	ann.peer, bob.peer = bob, ann
	if err := beginChat(ctx, ann, bob); err != nil {
		return err
	}
	texts, kills := Size(r, 40, 500), Size(r, 6, 100)
	var mu sync.Mutex // guards done
	done := 0
	var talking sync.WaitGroup
	failed := make([]error, len(people))
	for i, c := range people {
		c.texts, c.killsMin = texts, kills
		talking.Go(func() {
			failed[i] = c.talk(ctx, func() {
				mu.Lock()
				defer mu.Unlock()
				done++
				r.At(min(c.stored+c.peer.texts-texts, 2*texts), texts, "two processes of chat talk through a server and are killed (%s)", c.name)
			})
		})
	}
	talking.Wait()
	var violations []error
	missing, twice := 0, 0
	for i, c := range people {
		violations = append(append(violations, failed[i]), c.errors...)
		for n := range texts {
			if !c.delivered[c.text(n)] {
				missing++
			}
			switch c.peer.read[c.text(n)] {
			case 0:
				missing++
			case 1:
			default:
				twice++
			}
		}
	}
	metrics, err := server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	failures, _ := metrics.Sum("waxwing_mls_decrypt_failures_total")
	reloads, _ := metrics.Sum("waxwing_mls_state_reloads_total")
	r.Exactly("messages that processes of chat could not decrypt", failures, 0, "")
	r.Exactly("groups that processes of chat had to enter again", reloads, 0, "")
	r.Exactly("texts of processes of chat that did not arrive", float64(missing), 0, "")
	r.Exactly("texts of processes of chat that arrived twice", float64(twice), 0, "")
	r.AtLeast("processes of chat killed", float64(ann.kills+bob.kills), float64(2*kills), "")
	if err := errors.Join(violations...); err != nil {
		return firstOf(violations)
	}
	epoch, err := r.compareHomes(ctx, ann, bob)
	if err != nil {
		return err
	}
	r.AtLeast("commits of processes of chat", float64(epoch), float64(texts/20), "")
	r.Did("Two processes of waxwing chat exchanged %d texts in %d epochs through a server; they were killed %d times with SIGKILL, each between its %d. and %d. line of output.",
		2*texts, epoch, ann.kills+bob.kills, chatLivesMin, chatLivesMax)
	return r.restoreOldHome(ctx, server, ann, bob)
}

// beginChat makes the conversation: what both know of it is in their homes afterwards.
func beginChat(ctx context.Context, ann, bob *chatter) error {
	nothing := func(func(any)) {}
	online, reading := make(chan struct{}), make(chan error, 1)
	isOnline := sync.OnceFunc(func() { close(online) })
	go func() {
		_, err := bob.live(ctx, false, nothing, func(line chatLine, _ func(any)) bool {
			if line.Type == "state" && line.Text == "online" {
				isOnline()
			}
			return line.Text != "hello"
		})
		isOnline()
		reading <- err
	}()
	<-online
	_, err := ann.live(ctx, false, func(write func(any)) {
		write(map[string]any{"op": "send", "to": bob.account.DID(), "text": "hello", "wait": "30s"})
	}, func(line chatLine, _ func(any)) bool {
		if line.Type == "answer" {
			ann.conv, bob.conv = line.Conv, line.Conv
		}
		return line.Type != "answer"
	})
	return errors.Join(err, <-reading)
}

// compareHomes compares the groups in two homes, once both have read the whole log.
func (r *Run) compareHomes(ctx context.Context, ann, bob *chatter) (epoch uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, chatEndMax)
	defer cancel()
	var clients [2]*client.Client
	for i, c := range []*chatter{ann, bob} {
		if clients[i], err = c.open(ctx); err != nil {
			return 0, err
		}
		defer clients[i].Close()
		if _, err := clients[i].Send(ctx, c.conv, []byte("end")); err != nil {
			return 0, err
		}
	}
	var authenticators [2][]byte
	var epochs [2]uint64
	for {
		for i, c := range clients {
			if authenticators[i], epochs[i], err = c.EpochAuthenticator(ctx, ann.conv); err != nil {
				return 0, err
			}
		}
		pending, err := clients[0].Pending(ctx)
		if err != nil {
			return 0, fmt.Errorf("ann is in epoch %d, bob in %d: %w", epochs[0], epochs[1], err)
		}
		if epochs[0] == epochs[1] && pending == 0 {
			break
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return 0, fmt.Errorf("ann is in epoch %d, bob in %d: %w", epochs[0], epochs[1], err)
		}
	}
	forks := 0
	if !bytes.Equal(authenticators[0], authenticators[1]) {
		forks++
	}
	r.Exactly("homes of processes of chat in different groups", float64(forks), 0, "")
	return epochs[0], nil
}

// restoreOldHome puts an older copy of a home back, which must not be done: keys are used again.
// The others and the server notice.
func (r *Run) restoreOldHome(ctx context.Context, server *Server, ann, bob *chatter) error {
	r.Step("an older copy of a home is put back")
	ctx, cancel := context.WithTimeout(ctx, 2*chatEndMax)
	defer cancel()
	before, err := server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	older, err := r.Folder()
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(older, "home"), os.DirFS(ann.home())); err != nil {
		return err
	}
	peer, err := bob.open(ctx)
	if err != nil {
		return err
	}
	defer peer.Close()
	c, err := ann.open(ctx)
	if err != nil {
		return err
	}
	_, epoch, err := c.EpochAuthenticator(ctx, ann.conv)
	for was := epoch; err == nil && epoch == was; {
		if err = errors.Join(c.Refresh(ctx, ann.conv), pause(ctx, 50*time.Millisecond)); err == nil {
			_, epoch, err = c.EpochAuthenticator(ctx, ann.conv)
		}
	}
	if err = errors.Join(err, c.Close(), os.RemoveAll(ann.home()), os.CopyFS(ann.home(), os.DirFS(filepath.Join(older, "home")))); err != nil {
		return err
	}
	if c, err = ann.open(ctx); err != nil {
		return err
	}
	defer c.Close()
	for {
		after, err := server.Ops.Metrics(ctx)
		if err != nil {
			return err
		}
		failures, _ := after.Sum("waxwing_mls_decrypt_failures_total")
		reloads, _ := after.Sum("waxwing_mls_state_reloads_total")
		if failures > 0 && reloads > 0 || pause(ctx, 50*time.Millisecond) != nil {
			r.Moved(before, after, "mls_decrypt_failures_total", "mls_state_reloads_total")
			r.Did("An older copy of a home was put back: the client could not read what it had sent since, entered the group again, and reported both.")
			return nil
		}
	}
}
