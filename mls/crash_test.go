package mls

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "repeats a random test of this package; 0 chooses")

// newRandom returns a random source; a failing test prints its seed.
func newRandom(t testing.TB) *rand.Rand {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./mls -run '^%s$' -seed %d", t.Name(), seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// errCrash ends a step at one of its writes.
var errCrash = errors.New("crash")

// disk holds the state that survives a crash of a device: a group, a commit under way, messages
// to send and texts read. A step changes a copy and writes it as a whole.
type disk struct {
	group, pending []byte
	outbox         [][]byte
	said           string // the last text sealed
	read           []string
	offset         int // messages taken from the server's log
}

// device is one end of a conversation, which keeps nothing in memory: it loads
// before every step, saves after it, and may crash at any write.
type device struct {
	t     *testing.T
	name  string
	disk  disk
	crash func() bool
	log   *[]sent // the server's, of all messages in their order
}

// sent is an entry in the server's log.
type sent struct {
	from    string
	message []byte
}

func (d *device) load() (*Group, *PendingCommit) {
	d.t.Helper()
	g, err := LoadGroup(d.disk.group, LoadOptions{Now: testNow})
	if err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
	if d.disk.pending == nil {
		return g, nil
	}
	p, err := LoadPendingCommit(d.disk.pending, LoadOptions{Now: testNow})
	if err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
	return g, p
}

// write replaces the disk's content, or crashes before or after that.
func (d *device) write(next disk) error {
	if d.crash() {
		return errCrash
	}
	d.disk = next
	if d.crash() {
		return errCrash
	}
	return nil
}

// flush sends what is in the outbox. After a crash in the middle a message is sent
// twice, as a retry over a real network would.
func (d *device) flush() error {
	for len(d.disk.outbox) > 0 {
		*d.log = append(*d.log, sent{d.name, d.disk.outbox[0]})
		next := d.disk
		next.outbox = next.outbox[1:]
		if err := d.write(next); err != nil {
			return err
		}
	}
	return nil
}

// say seals text, unless the saved state shows that it did before a crash.
func (d *device) say(text string) error {
	if d.disk.said == text {
		return d.flush()
	}
	g, _ := d.load()
	message, after, err := g.Seal([]byte(text), []byte("aad"), SealOptions{})
	if err != nil {
		d.t.Fatalf("%s seals: %v", d.name, err)
	}
	next := d.disk
	next.group, next.said = save(d.t, after), text
	next.outbox = append(next.outbox[:len(next.outbox):len(next.outbox)], message)
	if err := d.write(next); err != nil {
		return err
	}
	return d.flush()
}

// renew makes a commit and sends it.
func (d *device) renew() error {
	g, pending := d.load()
	if pending == nil {
		p, err := g.Commit(CommitOptions{})
		if err != nil {
			d.t.Fatalf("%s commits: %v", d.name, err)
		}
		next := d.disk
		if next.pending, err = p.MarshalBinary(); err != nil {
			d.t.Fatal(err)
		}
		next.group, next.outbox = save(d.t, p.Base()), append(next.outbox[:len(next.outbox):len(next.outbox)], p.Message())
		if err := d.write(next); err != nil {
			return err
		}
	}
	return d.flush()
}

// receive processes the next entry of the log.
func (d *device) receive() error {
	entry := (*d.log)[d.disk.offset]
	g, pending := d.load()
	next := d.disk
	next.offset++
	switch {
	case entry.from != d.name:
		processed, err := g.Process(entry.message)
		if errors.Is(err, ErrReplay) || errors.Is(err, ErrWrongEpoch) {
			break // sent twice, or a commit that came second
		}
		if err != nil {
			d.t.Fatalf("%s, entry %d: %v", d.name, d.disk.offset, err)
		}
		next.group = save(d.t, processed.Group)
		if processed.Kind == Application {
			next.read = append(next.read[:len(next.read):len(next.read)], string(processed.Plaintext))
		} else {
			next.pending = nil // another member's commit won
		}
	case pending != nil && bytes.Equal(entry.message, pending.Message()):
		applied, err := pending.Apply(g)
		if err != nil {
			d.t.Fatalf("%s applies: %v", d.name, err)
		}
		next.group, next.pending = save(d.t, applied), nil
	}
	return d.write(next)
}

// TestConversationOverCrashes has a conversation of a thousand messages, in which both clients save
// and load at every step and crash between any two writes. Each message must open exactly once.
func TestConversationOverCrashes(t *testing.T) {
	r := newRandom(t)
	w := newWorld(t, testSuite, "ann", "bob")
	var log []sent
	devices := map[string]*device{}
	crashes := 0
	for name, g := range w.groups {
		devices[name] = &device{t: t, name: name, log: &log, disk: disk{group: save(t, g)}, crash: func() bool {
			if r.IntN(6) > 0 {
				return false
			}
			crashes++
			return true
		}}
	}
	// until repeats a step that a crash ended; the step finds out what was done.
	until := func(step func() error) {
		for errors.Is(step(), errCrash) {
		}
	}
	catchUp := func(d *device) {
		for d.disk.offset < len(log) {
			_ = d.receive() // again, if it crashed
		}
	}
	want := map[string]map[string]bool{"ann": {}, "bob": {}}
	const messages = 1000
	for n := range messages {
		from, to := devices["ann"], devices["bob"]
		if r.IntN(2) == 0 {
			from, to = to, from
		}
		text := fmt.Sprint("message ", n)
		until(from.flush)
		until(func() error { return from.say(text) })
		want[to.name][text] = true
		if n%20 == 19 {
			until(from.renew)
			if n%40 == 39 { // a race: only one of the two commits counts
				until(to.renew)
			}
		}
		if r.IntN(3) == 0 {
			catchUp(to)
		}
		if r.IntN(5) == 0 {
			catchUp(from)
		}
	}
	for _, name := range []string{"ann", "bob"} {
		until(devices[name].flush)
	}
	for _, name := range []string{"ann", "bob"} {
		d := devices[name]
		catchUp(d)
		seen := map[string]int{}
		for _, text := range d.disk.read {
			seen[text]++
		}
		for text := range want[name] {
			if seen[text] != 1 {
				t.Errorf("%s read %q %d times", name, text, seen[text])
			}
		}
		// Messages that the server sends again are refused.
		g, _ := d.load()
		for i, entry := range log {
			if processed, err := g.Process(entry.message); err == nil && processed.Kind == Application {
				t.Fatalf("%s reads entry %d twice", name, i)
			}
		}
	}
	ann, _ := devices["ann"].load()
	bob, _ := devices["bob"].load()
	if !bytes.Equal(ann.EpochAuthenticator(), bob.EpochAuthenticator()) {
		t.Errorf("ann is in epoch %d, bob in %d", ann.Epoch(), bob.Epoch())
	}
	t.Logf("%d entries, %d crashes, epoch %d", len(log), crashes, ann.Epoch())
	if crashes < messages/10 || ann.Epoch() < messages/40 {
		t.Error("too little happened")
	}
}
