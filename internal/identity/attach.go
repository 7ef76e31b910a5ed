package identity

import (
	"context"
	"maps"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// revokedFor is longer than the time between looking a session up and attaching to it.
const revokedFor = 5 * time.Minute

// revokedMax bounds the revocations that are remembered for revokedFor, of about 100 bytes
// each. At the bound an arbitrary one is dropped; if its session attaches after all, that ends
// when its expiry is next written.
const revokedMax = 100_000

// attachment holds the sockets and streams of one session in this process.
type attachment struct {
	count  int
	slidMS int64         // time of the last write of the expiry
	ended  chan struct{} // closed once the session is known to be revoked
	isOver bool          // ended is closed
}

// Attach records that a socket or stream of the session is open. Until detach, which may be
// called more than once, the session does not expire: its expiry slides, and is written at most
// once a minute (or a tenth of the lifetime, if that is less).
func (a *Authenticator) Attach(s Session) (detach func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.attached[s.hash]
	if at == nil {
		// An expiry of now + SessionTTL was written when the session was last slid.
		at = &attachment{slidMS: s.ExpiresMS - a.o.SessionTTL.Milliseconds(), ended: make(chan struct{})}
		a.attached[s.hash] = at
		if _, isRevoked := a.revoked[s.hash]; isRevoked {
			at.isOver = true
			close(at.ended)
		} else if a.isSlideDue(at) {
			a.slideSoon(s.hash, at) // its end may be nearer than the next slide
		}
	}
	at.count++
	return sync.OnceFunc(func() { a.detach(s.hash, at) })
}

func (a *Authenticator) detach(hash [32]byte, at *attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at.count--
	if at.count > 0 {
		return
	}
	if a.attached[hash] == at {
		delete(a.attached, hash)
	}
	if a.isSlideDue(at) && !at.isOver {
		a.slideSoon(hash, at) // it lives for SessionTTL from now on
	}
}

// slideSoon writes the expiry of one session without waiting for it. The caller holds mu.
func (a *Authenticator) slideSoon(hash [32]byte, at *attachment) {
	nowMS := a.o.Now().UnixMilli()
	taken := a.writer.later(func(tx *store.Tx) error {
		_, err := tx.Sessions.Extend([][32]byte{hash}, nowMS, nowMS+a.o.SessionTTL.Milliseconds())
		return err
	})
	if taken {
		at.slidMS = nowMS
	}
}

// isSlideDue reports whether the expiry may be written again. The caller holds mu.
func (a *Authenticator) isSlideDue(at *attachment) bool {
	return a.o.Now().UnixMilli()-at.slidMS >= a.slideEvery.Milliseconds()
}

// Ended returns a channel that is closed when this process learns that an attached session is
// revoked: at once if it was revoked here, within PollInterval if on another node. It is nil
// for a session that is not attached.
func (a *Authenticator) Ended(s Session) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := a.attached[s.hash]; at != nil {
		return at.ended
	}
	return nil
}

// Ends returns a channel that holds a token if sessions attached here may have ended since the
// last receive. It is for one receiver, which then checks Ended of its sessions.
func (a *Authenticator) Ends() <-chan struct{} { return a.ends }

func (a *Authenticator) isAttached(hash [32]byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := a.attached[hash]
	return at != nil && !at.isOver
}

// end notifies the holders of these sessions that they are over, and those who attach in the
// next minutes to a session that they looked up before.
func (a *Authenticator) end(hashes [][32]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Now()
	for _, hash := range hashes {
		for other := range a.revoked {
			if len(a.revoked) < revokedMax {
				break
			}
			delete(a.revoked, other)
		}
		a.revoked[hash] = now
		if at := a.attached[hash]; at != nil && !at.isOver {
			at.isOver = true
			close(at.ended)
			select {
			case a.ends <- struct{}{}:
			default:
			}
		}
	}
}

// revokedRowsMax bounds how many revocations one statement reads.
const revokedRowsMax = 10000

// pollRevoked ends what other nodes have ended: the attached sessions that were revoked, and the
// admission of accounts that were expelled. A session that attaches later is covered by the next
// poll.
func (a *Authenticator) pollRevoked(ctx context.Context) error {
	if err := a.pollExpelled(ctx); err != nil {
		return err
	}
	for {
		a.mu.Lock()
		after, isIdle := a.revokedUntil, len(a.attached) == 0
		a.mu.Unlock()
		if isIdle {
			return nil
		}
		revoked, err := store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) ([]store.Revocation, error) {
			return tx.Sessions.RevokedAfter(after, revokedRowsMax)
		})
		if ds.IsUnavailable(err) {
			return nil // logged by the users of the database; every second would be too often
		}
		if err != nil || len(revoked) == 0 {
			return err
		}
		hashes := make([][32]byte, len(revoked))
		for i, r := range revoked {
			hashes[i] = [32]byte(r.Hash)
		}
		a.end(hashes)
		a.mu.Lock()
		a.revokedUntil = revoked[len(revoked)-1]
		a.mu.Unlock()
		if len(revoked) < revokedRowsMax {
			return nil
		}
	}
}

// slide writes the expiry of the attached sessions for which it is due, and finds those that
// were revoked elsewhere.
func (a *Authenticator) slide(ctx context.Context) error {
	due := a.dueSlides()
	for len(due) > 0 {
		chunk := due[:min(len(due), store.SessionBatchMax)]
		due = due[len(chunk):]
		nowMS := a.o.Now().UnixMilli()
		var alive map[[32]byte]bool
		err := a.writer.do(ctx, &job{run: func(tx *store.Tx) (err error) {
			alive, err = tx.Sessions.Extend(chunk, nowMS, nowMS+a.o.SessionTTL.Milliseconds())
			return err
		}})
		if err != nil {
			return err
		}
		var over [][32]byte
		a.mu.Lock()
		for _, hash := range chunk {
			if !alive[hash] {
				over = append(over, hash)
			} else if at := a.attached[hash]; at != nil {
				at.slidMS = nowMS
			}
		}
		a.mu.Unlock()
		a.end(over)
	}
	return nil
}

func (a *Authenticator) dueSlides() [][32]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.revoked, func(_ [32]byte, at time.Time) bool { return a.o.Now().Sub(at) > revokedFor })
	maps.DeleteFunc(a.expelled, func(_ ds.AccountID, at time.Time) bool { return a.o.Now().Sub(at) > revokedFor })
	var due [][32]byte
	for hash, at := range a.attached {
		if !at.isOver && a.isSlideDue(at) {
			due = append(due, hash)
		}
	}
	return due
}
