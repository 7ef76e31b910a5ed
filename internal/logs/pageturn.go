package logs

import (
	"context"
	"sync"
	"time"
)

// pageTurn is the permission of a reader to hold a page of more than PageFree bytes, and to
// read and encode it. It belongs to the reader's goroutine, except for close.
type pageTurn struct {
	reader *Follower

	work     *Turn // to read and encode the page
	workEnds *time.Timer

	mu     sync.Mutex
	bytes  *Turn // mu guards it and closed
	closed bool
}

// try takes a turn to hold that many bytes of bodies, and reports whether there is one at once.
func (p *pageTurn) try(bytes int64) bool {
	turn := p.reader.engine.turns.try(p.reader.who.Account, TurnFactor*bytes, p.reader.cutOff)
	return turn != nil && p.keep(turn) == nil
}

// take waits for a turn to hold that many bytes of bodies. Nothing is held meanwhile.
func (p *pageTurn) take(ctx context.Context, bytes int64) error {
	p.end()
	turn, err := p.reader.engine.turns.take(ctx, p.reader.who.Account, TurnFactor*bytes, p.reader.cutOff)
	if err != nil {
		return err
	}
	return p.keep(turn)
}

func (p *pageTurn) keep(turn *Turn) error {
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		turn.Release()
		return ErrClosed
	}
	p.bytes = turn
	return nil
}

// begin waits until the reader may read and encode the page. Such readers use at most half of
// the processors: new messages find the other half free. The permission ends with the page, or
// earlier if its peer receives it slowly or the store reads it slowly. The wait for it does not
// count against the turn to hold the page.
func (p *pageTurn) begin(ctx context.Context) error {
	p.mu.Lock()
	bytes := p.bytes
	p.mu.Unlock()
	return bytes.setAside(func() error {
		turn, err := p.reader.engine.turnOf(ctx, p.reader.engine.pages, p.reader.who.Account)
		if err == nil {
			p.work, p.workEnds = turn, time.AfterFunc(pageWork, turn.Release)
		}
		return err
	})
}

// end releases both turns. If others wait to read, that one is released only after as much time
// as it took, for the readers that are not behind.
func (p *pageTurn) end() {
	p.mu.Lock()
	bytes := p.bytes
	p.bytes = nil
	p.mu.Unlock()
	bytes.Release()
	if p.work == nil {
		return
	}
	p.workEnds.Stop()
	if p.reader.engine.pages.isWanted() {
		time.AfterFunc(min(time.Since(p.work.since), pageWork), p.work.Release)
	} else {
		p.work.Release()
	}
	p.work = nil
}

// close releases the turn to hold a page, and refuses others.
func (p *pageTurn) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.bytes.Release()
}
