package core

import (
	"context"
	"slices"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// turns bounds the bytes that pages and answers hold while those who asked for them take
// them in, of all doors together. Little is held without a turn; whoever wants to hold
// more waits for one. Waiting readers are served in the order of what their accounts hold
// already, so that no account keeps others waiting; and while somebody waits, a turn that
// takes long is cut short, so that slow readers keep no fast one waiting.
type turns struct {
	bytes    int64
	patience time.Duration

	mu      sync.Mutex // guards what follows
	free    int64
	held    map[*Turn]struct{}
	account map[ds.AccountID]int64 // bytes held
	queue   []*waitingTurn         // in the order of arrival
}

// Turn is the leave to hold bytes of a page or an answer. The zero value and nil hold none.
type Turn struct {
	of    *turns
	who   ds.AccountID
	bytes int64
	since time.Time
	cut   func()
}

type waitingTurn struct {
	turn    *Turn
	granted chan struct{}
}

func newTurns(bytes int64, patience time.Duration) *turns {
	return &turns{bytes: bytes, patience: patience, free: bytes, held: map[*Turn]struct{}{}, account: map[ds.AccountID]int64{}}
}

// try returns a turn if nobody waits and a quarter of all stays free, else nil.
func (t *turns) try(who ds.AccountID, bytes int64, cut func()) *Turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) > 0 || t.free-bytes < t.bytes/4 {
		return nil
	}
	turn := &Turn{of: t, who: who, bytes: bytes, cut: cut}
	t.grant(turn)
	return turn
}

// take waits for a turn. cut is called, from any goroutine, when the turn has taken long
// and somebody waits; it must make the holder end soon, and must not block.
func (t *turns) take(ctx context.Context, who ds.AccountID, bytes int64, cut func()) (*Turn, error) {
	turn := &Turn{of: t, who: who, bytes: min(bytes, t.bytes), cut: cut}
	t.mu.Lock()
	if len(t.queue) == 0 && turn.bytes <= t.free {
		t.grant(turn)
		t.mu.Unlock()
		return turn, nil
	}
	w := &waitingTurn{turn, make(chan struct{})}
	t.queue = append(t.queue, w)
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

// withdraw ends a wait, also one that was granted meanwhile.
func (t *turns) withdraw(w *waitingTurn) {
	t.mu.Lock()
	if i := slices.Index(t.queue, w); i >= 0 {
		t.queue = slices.Delete(t.queue, i, i+1)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	w.turn.Release()
}

// grant hands out a turn. The caller holds mu.
func (t *turns) grant(turn *Turn) {
	turn.since = time.Now()
	t.free -= turn.bytes
	t.held[turn] = struct{}{}
	t.account[turn.who] += turn.bytes
}

// Release gives the turn back. It may be called again.
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
	t.free += turn.bytes
	if t.account[turn.who] -= turn.bytes; t.account[turn.who] <= 0 {
		delete(t.account, turn.who)
	}
	t.serve()
}

// Shrink gives back all but bytes of the turn.
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
	t.free += turn.bytes - bytes
	t.account[turn.who] -= turn.bytes - bytes
	turn.bytes = bytes
	t.serve()
}

// serve grants turns to those whose accounts hold least, as far as there is room. One
// that does not fit yet is not passed by others. The caller holds mu.
func (t *turns) serve() {
	for len(t.queue) > 0 {
		next := 0
		for i, w := range t.queue {
			if t.account[w.turn.who] < t.account[t.queue[next].turn.who] {
				next = i
			}
		}
		w := t.queue[next]
		if w.turn.bytes > t.free {
			return
		}
		t.queue = slices.Delete(t.queue, next, next+1)
		t.grant(w.turn)
		close(w.granted)
	}
}

// cutShort ends turns that take longer than patience: the oldest of the account that holds
// most, until the first in the queue has room.
func (t *turns) cutShort() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) > 0 {
		now, room := time.Now(), t.free
		held := make([]*Turn, 0, len(t.held))
		for turn := range t.held {
			if now.Sub(turn.since) >= t.patience {
				held = append(held, turn)
			}
		}
		slices.SortFunc(held, func(a, b *Turn) int {
			if d := t.account[b.who] - t.account[a.who]; d != 0 {
				return int(max(-1, min(1, d)))
			}
			return a.since.Compare(b.since)
		})
		for _, turn := range held {
			if room >= t.queue[0].turn.bytes {
				break
			}
			room += turn.bytes
			turn.cut() // with mu held, so that none is cut that was given back
		}
	}
}

// TakeTurn waits for leave to hold an answer of that many bytes, until Release. cut is
// called when others wait and the answer is not taken in: it must make the holder end.
func (s *Service) TakeTurn(ctx context.Context, who ds.AccountID, bytes int64, cut func()) (*Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	turn, err := s.turns.take(ctx, who, bytes, cut)
	if err != nil {
		return nil, ds.Unavailable(err)
	}
	return turn, nil
}
