package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testsize"
)

var errCrash = errors.New("the machine has lost its power")

// crashAt makes a hook that ends the client at the n-th point between two writes,
// and tells whether it came to that.
func crashAt(n int) (hook func(string) error, hasCrashed *atomic.Bool) {
	hasCrashed = new(atomic.Bool)
	seen := 0
	return func(string) error { // called with the database's lock held
		if seen++; seen < n {
			return nil
		}
		hasCrashed.Store(true)
		return errCrash
	}, hasCrashed
}

// TestCrashBetweenAnyTwoWrites plays a first conversation over and over, and stops
// one of the two at each point between two local writes in turn, before and after
// the commit. After a restart the conversation goes on: what Send has accepted is
// there exactly once, in order, on both sides, and both are in the same group.
func TestCrashBetweenAnyTwoWrites(t *testing.T) {
	for _, who := range []string{"founder", "joiner"} {
		t.Run(who, func(t *testing.T) {
			w := newWorld(t)
			step := testsize.Of(5, 1)
			for n := 1; ; n += step {
				w.limit(time.Minute) // for each
				ok := crashScript(w, who, n)
				if !ok {
					t.Logf("%d points", n-1)
					if n < 20 {
						t.Error("that are too few to be true")
					}
					return
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// crashScript plays the conversation once and says whether the crash happened.
func crashScript(w *world, who string, n int) bool {
	w.t.Helper()
	founder, joiner := w.person(fmt.Sprintf("%s-founder-%d", who, n)), w.person(fmt.Sprintf("%s-joiner-%d", who, n))
	defer founder.close()
	defer joiner.close()
	founder.options.KeyPackages, joiner.options.KeyPackages = 1, 1
	victim := map[string]*person{"founder": founder, "joiner": joiner}[who]
	hook, hasCrashed := crashAt(n)
	for _, p := range []*person{joiner, founder} {
		if p != victim {
			p.open()
		} else if err := p.tryOpen(hook); err != nil && !errors.Is(err, errCrash) {
			w.t.Fatal(err)
		}
	}
	revive := func() {
		if victim.Client != nil {
			select {
			case <-victim.closed:
			default:
				return
			}
			victim.close()
		}
		victim.open()
	}
	if victim.Client == nil {
		revive()
	}
	// try does something that the crash may interrupt, until it is done. Whoever
	// waits for the victim gives up now and then, to see whether it lives.
	try := func(do func(ctx context.Context) error) {
		for {
			ctx, cancel := context.WithTimeout(w.ctx, 100*time.Millisecond)
			err := do(ctx)
			cancel()
			switch {
			case err == nil:
				return
			case errors.Is(err, errCrash):
				<-victim.closed
			case w.ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
				w.t.Fatalf("%s crashes at %d: %v", who, n, err)
			}
			revive()
		}
	}
	sure := map[string]bool{}
	say := func(p *person, id, text string) {
		if _, err := p.Send(w.ctx, id, []byte(text)); err == nil {
			sure[text] = true
		} else if !errors.Is(err, errCrash) {
			w.t.Fatalf("%s crashes at %d: %v", who, n, err)
		} else {
			<-victim.closed
			revive()
		}
	}
	var dm string
	try(func(ctx context.Context) (err error) { dm, err = founder.StartDM(ctx, joiner.did()); return err })
	say(founder, dm, "f1")
	say(founder, dm, "f2")
	// reads waits for a text, across the crash.
	reads := func(p *person, text string) {
		try(func(ctx context.Context) error {
			for e, err := range p.Events(ctx, p.last) {
				if err != nil {
					return err
				}
				p.last = e.ID
				if e.Type == EventMessage && string(e.Text) == text {
					return nil
				}
			}
			return nil
		})
	}
	if sure["f2"] {
		reads(joiner, "f2")
	} else {
		say(founder, dm, "f3")
		reads(joiner, "f3")
	}
	say(joiner, dm, "j1")
	if sure["j1"] {
		reads(founder, "j1")
	}
	try(func(ctx context.Context) error { return founder.Flush(ctx) })
	try(func(ctx context.Context) error { return joiner.Flush(ctx) })
	victim.close() // whether or not it has crashed
	happened := hasCrashed.Load()
	victim.open()
	founder.says(dm, "end")
	for _, p := range []*person{founder, joiner} {
		reads(p, "end")
	}
	w.agree(dm, founder, joiner)
	checkTranscripts(w, fmt.Sprintf("%s crashes at %d", who, n), dm, sure, founder, joiner)
	return happened
}

// checkTranscripts checks that people have the same history, with everything in it
// once that must be there, and that their inboxes tell the same.
func checkTranscripts(w *world, what, dm string, sure map[string]bool, people ...*person) {
	w.t.Helper()
	first := people[0].transcript(dm)
	counts := map[string]int{}
	for _, text := range first {
		counts[text]++
	}
	for text := range sure {
		if counts[text] != 1 {
			w.t.Errorf("%s: %q is there %d times", what, text, counts[text])
		}
	}
	byAuthor := map[byte][]string{}
	for _, text := range first {
		byAuthor[text[0]] = append(byAuthor[text[0]], text)
	}
	for _, texts := range byAuthor {
		if !slices.IsSorted(texts) && !strings.HasPrefix(texts[0], "end") {
			w.t.Errorf("%s: out of order: %q", what, texts)
		}
	}
	for _, p := range people {
		if got := p.transcript(dm); !slices.Equal(got, first) {
			w.t.Errorf("%s: %s has %q, %s has %q", what, p.name, got, people[0].name, first)
		}
		var inbox []string
		var seq int64
		for e, err := range p.Events(w.ctx, 0) {
			if err != nil {
				w.t.Fatal(err)
			}
			if e.Type == EventUndecryptable {
				w.t.Errorf("%s: %s cannot read %d: %s", what, p.name, e.Seq, e.Problem)
			}
			if e.Seq > 0 && e.Seq <= seq && e.Type == EventMessage {
				w.t.Errorf("%s: %s is given %d after %d", what, p.name, e.Seq, seq)
			}
			if e.Type != EventMessage {
				continue
			}
			seq = e.Seq
			if inbox = append(inbox, string(e.Text)); string(e.Text) == "end" {
				break
			}
		}
		if !slices.Equal(inbox, first) {
			w.t.Errorf("%s: the inbox of %s tells %q, the history %q", what, p.name, inbox, first)
		}
	}
}
