package prove

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	commitEvery  = 10 // texts
	raceEvery    = 4  // commits: both devices make one in the same epoch
	crashChance  = 6  // one in so many, before and after each write
	lateMax      = 16 // entries of the log by which a text is late
	behindMax    = 16 // entries of the log that a device may lag before it sends
	offeredAgain = 8  // texts that were opened last, after each load
	offerAll     = 50 // texts between two offers of all
)

// savedMLS is the whole state of a device in a group, as it is saved.
type savedMLS struct{ group, pending []byte }

// mlsEngine is an implementation of MLS. Each call loads the state that it is given and returns
// the one to save; nothing else lasts from call to call.
type mlsEngine interface {
	seal(s savedMLS, text []byte) (message []byte, next savedMLS, err error)
	// commit makes fresh keys; next has the commit pending.
	commit(s savedMLS) (message []byte, next savedMLS, err error)
	// apply enters the epoch of the pending commit.
	apply(s savedMLS) (next savedMLS, err error)
	// process opens a text, or enters the epoch of a commit, for which text is "", and drops the
	// pending one.
	process(s savedMLS, message []byte) (text string, next savedMLS, err error)
	// accepts returns how many of the messages the state would process.
	accepts(s savedMLS, messages [][]byte) (int, error)
	authenticator(s savedMLS) (text string, err error)
}

// talkEntry is a message in the log of the delivery service.
type talkEntry struct {
	from       string
	epoch      uint64 // in which it was made
	text       string // "" for a commit
	generation uint32 // of the sender's texts in that epoch
	message    []byte
}

// lateEntry is an entry that reaches a device after those before position due.
type lateEntry struct{ index, due int }

// talkDisk holds what survives a crash of a device. A step changes a copy and writes it as a
// whole.
type talkDisk struct {
	mls    savedMLS
	epoch  uint64
	sealed uint32      // texts in this epoch
	outbox []talkEntry // to send
	said   string      // the last text that was sealed
	commit []byte      // the message of the pending commit
	offset int         // entries taken from the log
	late   []lateEntry
	opened []int // entries
	read   map[string]int
}

// errCrashed ends a step at one of its writes.
var errCrashed = errors.New("crash")

// talk is a conversation of two devices over a log. Neither keeps anything in memory: a device
// loads before each step, saves after it, and may crash before and after each write.
type talk struct {
	random  *rand.Rand
	log     []talkEntry
	devices [2]*talkDevice
	talkTally
	violations []error
}

// talkTally counts what happened.
type talkTally struct {
	texts, epochs, loads, loadsPending, crashes, crashesPending, late int
	offered, replays, failures, forks, notOnce                        int
}

func (t *talkTally) add(o talkTally) {
	t.texts, t.epochs, t.loads, t.loadsPending = t.texts+o.texts, t.epochs+o.epochs, t.loads+o.loads, t.loadsPending+o.loadsPending
	t.crashes, t.crashesPending, t.late = t.crashes+o.crashes, t.crashesPending+o.crashesPending, t.late+o.late
	t.offered, t.replays, t.failures, t.forks, t.notOnce = t.offered+o.offered, t.replays+o.replays, t.failures+o.failures, t.forks+o.forks, t.notOnce+o.notOnce
}

// violate records what must not happen, the first times with its text.
func (t *talk) violate(count *int, by int, format string, args ...any) {
	if *count += by; by > 0 && len(t.violations) < violationsMax {
		t.violations = append(t.violations, fmt.Errorf(format, args...))
	}
}

// talkDevice is one end of a talk.
type talkDevice struct {
	*talk
	name   string
	engine mlsEngine
	disk   talkDisk
	keys   *keyWatch // nil: the saved state is not searched
	size   *Line     // of the saved state
}

// load returns a copy of the disk's content, which a step may change. What was opened last is
// offered to it again.
func (d *talkDevice) load() (talkDisk, error) {
	d.loads++
	if d.disk.commit != nil {
		d.loadsPending++
	}
	next := d.disk
	next.outbox, next.late, next.opened, next.read = slices.Clone(next.outbox), slices.Clone(next.late), slices.Clone(next.opened), maps.Clone(next.read)
	return next, d.offer(next.opened[max(0, len(next.opened)-offeredAgain):]...)
}

// offer offers entries to the saved state that must not accept them.
func (d *talkDevice) offer(indices ...int) error {
	var messages [][]byte
	for _, i := range indices {
		messages = append(messages, d.log[i].message)
	}
	accepted, err := d.engine.accepts(d.disk.mls, messages)
	d.offered += len(messages)
	d.violate(&d.replays, accepted, "%s, loaded, accepts %d of %d messages again", d.name, accepted, len(messages))
	return err
}

// write replaces the disk's content, or crashes before or after that. settled is called when it
// is on the disk.
func (d *talkDevice) write(next talkDisk, settled func()) error {
	if d.crash() {
		return errCrashed
	}
	d.disk = next
	if settled != nil {
		settled()
	}
	d.size.Add(float64(len(next.mls.group)+len(next.mls.pending)) / 1024)
	if d.keys != nil {
		d.keys.search(next.mls)
	}
	if d.crash() {
		return errCrashed
	}
	return nil
}

func (d *talkDevice) crash() bool {
	if d.random.IntN(crashChance) > 0 {
		return false
	}
	d.crashes++
	if d.disk.commit != nil {
		d.crashesPending++
	}
	return true
}

// flush sends the outbox. After a crash between sending and writing a message is sent twice, as
// a retry over a network would.
func (d *talkDevice) flush() error {
	for len(d.disk.outbox) > 0 {
		d.log = append(d.log, d.disk.outbox[0])
		next := d.disk
		next.outbox = slices.Clone(next.outbox[1:])
		if err := d.write(next, nil); err != nil {
			return err
		}
	}
	return nil
}

// say seals text and sends it, unless the disk shows that it was sealed before a crash.
func (d *talkDevice) say(text string) error {
	if d.disk.said == text {
		return d.flush()
	}
	next, err := d.load()
	if err != nil {
		return err
	}
	message, state, err := d.engine.seal(next.mls, []byte(text))
	if err != nil {
		return fmt.Errorf("%s seals: %w", d.name, err)
	}
	e := talkEntry{d.name, next.epoch, text, next.sealed, message}
	next.mls, next.said, next.sealed, next.outbox = state, text, next.sealed+1, append(next.outbox, e)
	if err := d.write(next, d.used(e)); err != nil {
		return err
	}
	return d.flush()
}

// renew makes a commit, unless one is pending, and sends it.
func (d *talkDevice) renew() error {
	if d.disk.commit != nil {
		return d.flush()
	}
	next, err := d.load()
	if err != nil {
		return err
	}
	message, state, err := d.engine.commit(next.mls)
	if err != nil {
		return fmt.Errorf("%s commits: %w", d.name, err)
	}
	next.mls, next.commit, next.outbox = state, message, append(next.outbox, talkEntry{d.name, next.epoch, "", 0, message})
	if err := d.write(next, nil); err != nil {
		return err
	}
	return d.flush()
}

// receive takes a late entry that is due, or the next one of the log.
func (d *talkDevice) receive() error {
	next, err := d.load()
	if err != nil {
		return err
	}
	due := slices.IndexFunc(next.late, func(l lateEntry) bool { return l.due <= next.offset })
	index := next.offset
	if due >= 0 {
		index = next.late[due].index
		next.late = slices.Delete(next.late, due, due+1)
	} else {
		next.offset++
	}
	e := d.log[index]
	switch {
	case e.from == d.name && next.commit != nil && bytes.Equal(e.message, next.commit):
		if next.mls, err = d.engine.apply(next.mls); err != nil {
			d.violate(&d.failures, 1, "%s applies its commit of epoch %d: %v", d.name, e.epoch, err)
			return d.write(next, nil)
		}
		return d.enter(next)
	case e.from == d.name:
		return d.write(next, nil)
	case e.text != "" && next.read[e.text] > 0, e.text == "" && e.epoch != next.epoch:
		// Sent twice, or a commit that lost its race.
		if err := d.offer(index); err != nil {
			return err
		}
		return d.write(next, nil)
	case e.text != "" && due < 0 && d.random.IntN(4) == 0:
		next.late = append(next.late, lateEntry{index, next.offset + 1 + d.random.IntN(lateMax)})
		d.talk.late++
		return d.write(next, nil)
	}
	text, state, err := d.engine.process(next.mls, e.message)
	if err != nil || text != e.text {
		d.violate(&d.failures, 1, "%s opens entry %d, %q of epoch %d, in epoch %d: %q, %v", d.name, index, e.text, e.epoch, next.epoch, text, err)
		return d.write(next, nil)
	}
	if next.mls = state; text == "" {
		return d.enter(next)
	}
	next.opened = append(next.opened, index)
	next.read[text]++
	return d.write(next, d.used(e))
}

// enter writes the state of the epoch after a commit.
func (d *talkDevice) enter(next talkDisk) error {
	next.commit, next.sealed = nil, 0
	next.epoch++
	return d.write(next, func() {
		if d.keys != nil {
			d.keys.enter(next.epoch, next.mls.group)
		}
	})
}

// used returns what notes that a state without the key of e is on the disk.
func (d *talkDevice) used(e talkEntry) func() {
	if d.keys == nil {
		return nil
	}
	return func() { d.keys.used(e.epoch, d.keys.leaves[e.from], e.generation, d.disk.mls.group) }
}

// catchUp receives the log up to an offset, and late entries as they become due.
func (d *talkDevice) catchUp(ctx context.Context, to int) error {
	for d.disk.offset < to {
		if err := d.take(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take receives one entry. After a crash behind the write it is received.
func (d *talkDevice) take(ctx context.Context) error {
	if err := d.receive(); err != nil && !errors.Is(err, errCrashed) {
		return err
	}
	return context.Cause(ctx)
}

// until repeats a step that a crash ended; the step finds out what was done.
func (d *talkDevice) until(ctx context.Context, step func() error) error {
	for {
		if err := step(); !errors.Is(err, errCrashed) || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
	}
}

// run has a conversation of that many texts, in which every device reads all texts of the other
// one. progress is called with the number of texts.
func (t *talk) run(ctx context.Context, texts int, progress func(int)) error {
	for n := range texts {
		progress(n)
		from, to := t.devices[0], t.devices[1]
		if t.random.IntN(2) == 0 {
			from, to = to, from
		}
		err := errors.Join(from.catchUp(ctx, len(t.log)-behindMax), to.catchUp(ctx, len(t.log)-behindMax), from.until(ctx, from.flush))
		if err == nil {
			err = from.until(ctx, func() error { return from.say(fmt.Sprint("text ", n)) })
		}
		if n%commitEvery == commitEvery-1 {
			// Up to date, or the commit would be one of an epoch that is over.
			err = errors.Join(err, from.catchUp(ctx, len(t.log)), to.catchUp(ctx, len(t.log)), from.until(ctx, from.renew))
			if n/commitEvery%raceEvery == 0 {
				err = errors.Join(err, to.until(ctx, to.renew))
			}
		}
		for _, d := range t.devices {
			if t.random.IntN(4) == 0 {
				err = errors.Join(err, d.catchUp(ctx, len(t.log)))
			}
			if n%offerAll == offerAll-1 {
				err = errors.Join(err, d.offer(d.disk.opened...))
			}
		}
		if err != nil {
			return err
		}
	}
	t.texts = texts
	return t.end(ctx)
}

// end delivers all that is left, and compares the two.
func (t *talk) end(ctx context.Context) error {
	var authenticators [2]string
	for _, d := range t.devices {
		if err := d.until(ctx, d.flush); err != nil {
			return err
		}
	}
	for i, d := range t.devices {
		err := d.catchUp(ctx, len(t.log))
		for len(d.disk.late) > 0 && err == nil {
			for k := range d.disk.late {
				d.disk.late[k].due = 0
			}
			err = d.take(ctx)
		}
		if err == nil {
			err = d.offer(d.disk.opened...)
		}
		if err == nil {
			authenticators[i], err = d.engine.authenticator(d.disk.mls)
		}
		if err != nil {
			return err
		}
		for _, e := range t.log {
			if e.from != d.name && e.text != "" && d.disk.read[e.text] != 1 {
				t.violate(&t.notOnce, 1, "%s has read %q %d times", d.name, e.text, d.disk.read[e.text])
			}
		}
	}
	t.epochs = int(t.devices[0].disk.epoch)
	if authenticators[0] != authenticators[1] {
		t.violate(&t.forks, 1, "%s is in epoch %d with the authenticator %.16s, %s in %d with %.16s", t.devices[0].name, t.devices[0].disk.epoch, authenticators[0],
			t.devices[1].name, t.devices[1].disk.epoch, authenticators[1])
	}
	return nil
}
