package logs

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// turns bounds the bytes that pages and answers of all doors hold while they are sent. A few
// bytes need no turn; readers wait for one to hold more. They are served in the order of the
// bytes that their accounts hold already, so that no account delays others; and while readers
// wait, a turn that takes long is cut short, so that slow readers do not delay fast ones.
// Among accounts that hold the same, the least recently served is next.
type turns struct {
	bytes    int64
	patience time.Duration

	mu       sync.Mutex // guards what follows
	free     int64
	held     map[*Turn]struct{}
	accounts map[ds.AccountID]*turnLine // those that hold or wait
	lines    turnLines                  // those that wait, as a heap: the next is the first
	arrived  uint64                     // numbers waiting readers
	served   uint64                     // counts those that were served
	looked   time.Time                  // the time of the last check for slow turns
}

// turnLine is an account: the bytes it holds, and its waiting readers, in order of arrival.
type turnLine struct {
	held    int64
	served  uint64 // of turns, when a waiting reader was served last
	waiting []*waitingTurn
	place   int // in turnLines; -1 if none waits
}

// Turn is the permission to hold bytes of a page or an answer. The zero value and nil have
// none.
type Turn struct {
	of    *turns
	who   ds.AccountID
	bytes int64
	since time.Time
	cut   func()
}

type waitingTurn struct {
	turn    *Turn
	number  uint64
	granted chan struct{}
}

func newTurns(bytes int64, patience time.Duration) *turns {
	return &turns{bytes: bytes, patience: patience, free: bytes, held: map[*Turn]struct{}{}, accounts: map[ds.AccountID]*turnLine{}}
}

// try returns a turn if no reader waits and a quarter of all stays free, else nil.
func (t *turns) try(who ds.AccountID, bytes int64, cut func()) *Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) > 0 || t.free-bytes < t.bytes/4 {
		return nil
	}
	turn := &Turn{of: t, who: who, bytes: bytes, cut: cut}
	t.grant(turn)
	return turn
}

// take waits for a turn. cut is called, from any goroutine, when the turn has taken long and
// readers wait; it must make the holder end soon, and must not block.
func (t *turns) take(ctx context.Context, who ds.AccountID, bytes int64, cut func()) (*Turn, error) {
	turn := &Turn{of: t, who: who, bytes: min(bytes, t.bytes), cut: cut}
	t.mu.Lock()
	if len(t.lines) == 0 && turn.bytes <= t.free {
		t.grant(turn)
		t.mu.Unlock()
		return turn, nil
	}
	w := t.wait(turn)
	t.mu.Unlock()
	ticker := time.NewTicker(t.patience)
	defer ticker.Stop()
	for {
		select {
		case <-w.granted:
			return turn, nil
		case <-ctx.Done():
			t.withdraw(w)
			return nil, ctx.Err()
		case <-ticker.C:
			t.cutShort()
		}
	}
}

// line returns that of an account. The caller holds mu, and calls settle when it has changed
// the bytes that the account holds.
func (t *turns) line(who ds.AccountID) *turnLine {
	line := t.accounts[who]
	if line == nil {
		line = &turnLine{place: -1, served: t.served} // as one that was served just now: behind those that wait
		t.accounts[who] = line
	}
	return line
}

// settle moves an account to its place after a change. The caller holds mu.
func (t *turns) settle(who ds.AccountID, line *turnLine) {
	switch {
	case line.place >= 0 && len(line.waiting) == 0:
		heap.Remove(&t.lines, line.place)
	case line.place >= 0:
		heap.Fix(&t.lines, line.place)
	case len(line.waiting) > 0:
		heap.Push(&t.lines, line)
	}
	if line.held <= 0 && len(line.waiting) == 0 {
		delete(t.accounts, who)
	}
}

// wait queues a turn behind the others of its account. The caller holds mu.
func (t *turns) wait(turn *Turn) *waitingTurn {
	t.arrived++
	w := &waitingTurn{turn, t.arrived, make(chan struct{})}
	line := t.line(turn.who)
	line.waiting = append(line.waiting, w)
	t.settle(turn.who, line)
	return w
}

// withdraw ends a wait, even if it was granted meanwhile.
func (t *turns) withdraw(w *waitingTurn) {
	t.mu.Lock()
	line := t.line(w.turn.who)
	i := slices.Index(line.waiting, w)
	if i >= 0 {
		line.waiting = slices.Delete(line.waiting, i, i+1)
	}
	t.settle(w.turn.who, line)
	if i >= 0 {
		t.serve() // others may fit where it did not
	}
	t.mu.Unlock()
	if i < 0 {
		w.turn.Release()
	}
}

// grant starts a turn. The caller holds mu.
func (t *turns) grant(turn *Turn) {
	turn.since = time.Now()
	t.held[turn] = struct{}{}
	t.hold(turn.who, turn.bytes)
}

// hold adds to the bytes that an account holds. The caller holds mu.
func (t *turns) hold(who ds.AccountID, bytes int64) {
	t.free -= bytes
	line := t.line(who)
	line.held += bytes
	t.settle(who, line)
}

// Release ends the turn. It may be called again.
func (turn *Turn) Release() {
	if turn == nil || turn.of == nil {
		return
	}
	t := turn.of
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, isHeld := t.held[turn]; !isHeld {
		return
	}
	delete(t.held, turn)
	t.hold(turn.who, -turn.bytes)
	t.serve()
}

// setAside keeps the turn from being cut short while its holder waits for something else, and
// counts its time from the end of that wait.
func (turn *Turn) setAside(wait func() error) error {
	if turn == nil || turn.of == nil {
		return wait()
	}
	t := turn.of
	set := func(since time.Time) {
		t.mu.Lock()
		defer t.mu.Unlock()
		turn.since = since
	}
	set(time.Now().Add(noPatience))
	defer func() { set(time.Now()) }()
	return wait()
}

// Shrink releases all but bytes of the turn.
func (turn *Turn) Shrink(bytes int64) {
	if turn == nil || turn.of == nil {
		return
	}
	t := turn.of
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, isHeld := t.held[turn]; !isHeld || bytes >= turn.bytes {
		return
	}
	t.hold(turn.who, bytes-turn.bytes)
	turn.bytes = bytes
	t.serve()
}

// isWanted reports whether a reader waits.
func (t *turns) isWanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.lines) > 0
}

// serve grants turns to the readers of the accounts that hold least, as far as there is room.
// A turn that does not fit yet is not overtaken by others. The caller holds mu.
func (t *turns) serve() {
	for len(t.lines) > 0 {
		line := t.lines[0]
		w := line.waiting[0]
		if w.turn.bytes > t.free {
			return
		}
		t.served++
		line.waiting, line.served = slices.Delete(line.waiting, 0, 1), t.served
		t.settle(w.turn.who, line)
		t.grant(w.turn)
		close(w.granted)
	}
}

// cutShort ends turns that take longer than patience: the oldest of the account that holds
// most, until the next one has room. All waiting readers call it; it limits its checks.
func (t *turns) cutShort() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if len(t.lines) == 0 || now.Sub(t.looked) < t.patience/4 {
		return
	}
	t.looked = now
	room, held := t.free, make([]*Turn, 0, len(t.held))
	for turn := range t.held {
		if now.Sub(turn.since) >= t.patience {
			held = append(held, turn)
		}
	}
	slices.SortFunc(held, func(a, b *Turn) int {
		return cmp.Or(cmp.Compare(t.accounts[b.who].held, t.accounts[a.who].held), a.since.Compare(b.since))
	})
	for _, turn := range held {
		if room >= t.lines[0].waiting[0].turn.bytes {
			break
		}
		room += turn.bytes
		turn.cut() // with mu held, so that no released turn is cut
	}
}

// turnLines orders accounts with waiting readers by the bytes they hold, then by when they
// were served, and then by the longest wait. It is a heap.Interface.
type turnLines []*turnLine

func (l turnLines) Len() int { return len(l) }

func (l turnLines) Less(i, j int) bool {
	if l[i].held != l[j].held {
		return l[i].held < l[j].held
	}
	if l[i].served != l[j].served {
		return l[i].served < l[j].served
	}
	return l[i].waiting[0].number < l[j].waiting[0].number
}

func (l turnLines) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

// Push implements heap.Interface.
func (l *turnLines) Push(x any) {
	line := x.(*turnLine)
	line.place = len(*l)
	*l = append(*l, line)
}

// Pop implements heap.Interface.
func (l *turnLines) Pop() any {
	old := *l
	line := old[len(old)-1]
	old[len(old)-1] = nil
	*l, line.place = old[:len(old)-1], -1
	return line
}

// TakeTurn waits for permission to hold an answer of that many bytes, until Release. cut is
// called when others wait and the answer is sent slowly: it must make the holder end.
func (e *Engine) TakeTurn(ctx context.Context, who ds.AccountID, bytes int64, cut func()) (*Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	turn, err := e.turns.take(ctx, who, bytes, cut)
	if err != nil {
		return nil, ds.Unavailable(err)
	}
	return turn, nil
}

// TakeQuery waits until a query over that many conversations may begin, and returns its turn.
// Long queries take turns, so that many streams that begin at once leave the store and the
// processors to others.
func (e *Engine) TakeQuery(ctx context.Context, who ds.AccountID, conversations int) (*Turn, error) {
	if conversations <= QueryFree {
		return nil, nil
	}
	return e.turnOf(ctx, e.beginnings, who)
}

// turnOf waits for one of few turns to use the store and a processor for long.
func (e *Engine) turnOf(ctx context.Context, t *turns, who ds.AccountID) (*Turn, error) {
	turn, err := t.take(ctx, who, 1, func() {})
	if err != nil {
		return nil, ds.Unavailable(err)
	}
	return turn, nil
}
