package identity

import (
	"bytes"
	"context"
	"errors"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// ResumeSession goes on with a session under a new resume token, the successor, and
// slides its expiry. The session token stays the same. Until the successor is
// presented or Confirm is called, the presented token keeps giving the same answer:
// an answer that is lost on the way locks nobody out, and there is never more than
// one successor, whatever the number of callers and nodes. A token that is not good
// is refused with ds.ResumeFailed.
func (a *Authenticator) ResumeSession(ctx context.Context, resumeToken string) (Ready, error) {
	presented, ok := parseSecret(resumePrefix, resumeToken)
	if !ok {
		return Ready{}, refusedResume()
	}
	var ready Ready
	err := a.writer.do(ctx, nil, func(tx *store.Tx) (err error) {
		ready, err = a.resume(tx, presented)
		return err
	})
	if err != nil {
		return Ready{}, err
	}
	return ready, nil
}

func refusedResume() error {
	return ds.Refuse(ds.ResumeFailed, "resume token invalid or expired")
}

// resumeTries bounds how often a resume looks again at a row that another node has
// changed in between: once for a rotation, once for the end of the predecessor.
const resumeTries = 4

// errResumeRace is left when the row never held still.
var errResumeRace = errors.New("identity: the session is resumed by too many at once")

func (a *Authenticator) resume(tx *store.Tx, presented secret) (Ready, error) {
	hash := presented.hash(resumePrefix)
	for range resumeTries {
		row, err := tx.SessionByResume(hash[:])
		if errors.Is(err, store.ErrNotFound) {
			return Ready{}, refusedResume()
		}
		if err != nil {
			return Ready{}, err
		}
		now := a.o.Now()
		if !a.isAlive(row, now.UnixMilli()) {
			return Ready{}, refusedResume()
		}
		step := a.rotate
		if bytes.Equal(row.PreviousHash, hash[:]) {
			step = a.repeat
		}
		row.LastSeenMS, row.ExpiresMS = now.UnixMilli(), now.Add(a.o.SessionTTL).UnixMilli()
		ready, done, err := step(tx, row, presented)
		if err != nil || done {
			return ready, err
		}
	}
	return Ready{}, ds.Unavailable(errResumeRace)
}

// rotate makes the successor of the presented token; done is false if somebody else did.
func (a *Authenticator) rotate(tx *store.Tx, row store.Session, presented secret) (ready Ready, done bool, err error) {
	if len(row.ResumeSealed) < currentBytes {
		return Ready{}, false, errSealed
	}
	opened, err := openSealed(presented, row.Hash, row.ResumeSealed[:currentBytes], 1)
	if err != nil {
		return Ready{}, false, err
	}
	session, successor := opened[0], newSecret()
	current, err := sealFor(successor, row.Hash, session)
	if err != nil {
		return Ready{}, false, err
	}
	previous, err := sealFor(presented, row.Hash, session, successor)
	if err != nil {
		return Ready{}, false, err
	}
	successorHash := successor.hash(resumePrefix)
	done, err = tx.RotateSession(row, successorHash[:], append(current, previous...), row.LastSeenMS, row.ExpiresMS)
	return asReady(row, session, successor), done, err
}

// repeat gives the answer again that the presented token got before; done is false
// if the token has died in between.
func (a *Authenticator) repeat(tx *store.Tx, row store.Session, presented secret) (ready Ready, done bool, err error) {
	if len(row.ResumeSealed) != sealedBytesMax {
		return Ready{}, false, errSealed
	}
	opened, err := openSealed(presented, row.Hash, row.ResumeSealed[currentBytes:], 2)
	if err != nil {
		return Ready{}, false, err
	}
	done, err = tx.RepeatSession(row, row.LastSeenMS, row.ExpiresMS)
	return asReady(row, opened[0], opened[1]), done, err
}

func asReady(row store.Session, session, resume secret) Ready {
	return Ready{
		Session:      asSession(row),
		SessionToken: session.text(sessionPrefix),
		ResumeToken:  resume.text(resumePrefix),
		FromResume:   true,
	}
}

// Confirm says that ready has arrived: a frame came on the socket that was answered
// with it. The token that was resumed with is dead from then on. Confirming what was
// started, or what has been resumed again since, does nothing.
func (a *Authenticator) Confirm(ctx context.Context, ready Ready) error {
	if !ready.FromResume {
		return nil
	}
	session, isSession := parseSecret(sessionPrefix, ready.SessionToken)
	resume, isResume := parseSecret(resumePrefix, ready.ResumeToken)
	if !isSession || !isResume {
		return errors.New("identity: confirm of something that is not an answer")
	}
	hash, resumeHash := session.hash(sessionPrefix), resume.hash(resumePrefix)
	current, err := sealFor(resume, hash[:], session)
	if err != nil {
		return err
	}
	return a.writer.do(ctx, nil, func(tx *store.Tx) error {
		return tx.ForgetPredecessor(hash[:], resumeHash[:], current)
	})
}
