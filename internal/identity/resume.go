package identity

import (
	"context"
	"errors"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// ResumeSession continues a session under a new resume token, the successor, and slides its
// expiry. The session token stays the same. Until the successor is presented, or for
// predecessorFor after Answered, the presented token keeps giving the same answer: a lost
// answer does not lock the client out, and there is never more than one successor, whatever the
// number of callers and nodes. An invalid token is refused with ds.ResumeFailed.
//
// admit is called with the account of a valid token before the token is used up; its refusal is
// the answer. It runs within a transaction, so it must neither block nor call the store. nil
// admits every account.
func (a *Authenticator) ResumeSession(ctx context.Context, resumeToken string, admit func(ds.AccountID) error) (Ready, error) {
	presented, ok := parseSecret(resumePrefix, resumeToken)
	if !ok {
		return Ready{}, refusedResume()
	}
	r := &resumption{presented: presented, hash: presented.hash(resumePrefix), admit: admit}
	if err := a.writer.do(ctx, &job{resume: r}); err != nil {
		return Ready{}, err
	}
	return r.ready, nil
}

func refusedResume() error {
	return ds.Refuse(ds.ResumeFailed, "resume token invalid or expired")
}

// resumption is a presented resume token and its answer.
type resumption struct {
	presented secret
	hash      [32]byte
	ready     Ready

	admit   func(ds.AccountID) error
	isAsked bool  // admit was called: once, however often the transaction runs
	refused error // the result of admit
}

func (r *resumption) admission(account ds.AccountID) error {
	if r.admit != nil && !r.isAsked {
		r.isAsked, r.refused = true, r.admit(account)
	}
	return r.refused
}

// resumeTries bounds how often a resume reads again a row that another node has changed in
// between: once for a rotation, once for the end of the predecessor.
const resumeTries = 4

// errResumeRace is the error if the row kept changing.
var errResumeRace = errors.New("identity: too many concurrent resumes of the session")

// applyResumes answers the resumes among the jobs, or refuses them.
func (a *Authenticator) applyResumes(tx *store.Tx, jobs []*job) error {
	for range resumeTries {
		if len(jobs) == 0 {
			return nil
		}
		hashes := make([][32]byte, len(jobs))
		for i, j := range jobs {
			hashes[i] = j.resume.hash
		}
		rows, err := tx.Sessions.ByResume(hashes)
		if err != nil {
			return err
		}
		now := a.o.Now()
		nowMS, expiresMS := now.UnixMilli(), now.Add(a.o.SessionTTL).UnixMilli()
		rotating, repeating := a.sortResumes(rows, jobs, nowMS)
		for hash := range rows {
			row := rows[hash]
			row.LastSeenMS, row.ExpiresMS = nowMS, expiresMS
			rows[hash] = row
		}
		again, err := a.repeat(tx, rows, repeating)
		if err != nil {
			return err
		}
		lost, err := a.rotate(tx, rows, rotating, nowMS, expiresMS)
		if err != nil {
			return err
		}
		jobs = append(again, lost...)
	}
	for _, j := range jobs {
		j.err = ds.Unavailable(errResumeRace)
	}
	return nil
}

// sortResumes finds each job's session and sorts the job into those that present its resume
// token and those that present the predecessor; a job without a live session, or that is not
// admitted, is refused.
func (a *Authenticator) sortResumes(rows map[[32]byte]store.Session, jobs []*job, nowMS int64) (rotating, repeating map[[32]byte][]*job) {
	rotating, repeating = map[[32]byte][]*job{}, map[[32]byte][]*job{}
	current, previous := map[[32]byte][32]byte{}, map[[32]byte][32]byte{}
	for hash, row := range rows {
		if !a.isAlive(row, nowMS) {
			continue
		}
		current[[32]byte(row.ResumeHash)] = hash
		if row.PreviousHash != nil && (row.PreviousUntilMS == 0 || row.PreviousUntilMS > nowMS) {
			previous[[32]byte(row.PreviousHash)] = hash
		}
	}
	for _, j := range jobs {
		hash, isCurrent := current[j.resume.hash]
		if !isCurrent {
			var isPrevious bool
			if hash, isPrevious = previous[j.resume.hash]; !isPrevious {
				j.err = refusedResume()
				continue
			}
		}
		if j.err = j.resume.admission(rows[hash].Device.Account); j.err != nil {
			continue
		}
		if isCurrent {
			rotating[hash] = append(rotating[hash], j)
		} else {
			repeating[hash] = append(repeating[hash], j)
		}
	}
	return rotating, repeating
}

// rotate makes one successor for each session's resume token, however many jobs present it, and
// returns the jobs of sessions that another node changed first.
func (a *Authenticator) rotate(tx *store.Tx, rows map[[32]byte]store.Session, rotating map[[32]byte][]*job, nowMS, expiresMS int64) (lost []*job, err error) {
	rotations := make([]store.Rotation, 0, len(rotating))
	for hash, jobs := range rotating {
		rotation, ready, err := successor(rows[hash], jobs[0].resume.presented)
		if err != nil {
			return nil, err
		}
		rotations = append(rotations, rotation)
		for _, j := range jobs {
			j.resume.ready = ready
		}
	}
	done, err := tx.Sessions.Rotate(rotations, nowMS, expiresMS)
	if err != nil {
		return nil, err
	}
	for hash, jobs := range rotating {
		if !done[hash] {
			lost = append(lost, jobs...)
		}
	}
	return lost, nil
}

// successor makes the successor of the resume token of a row.
func successor(row store.Session, presented secret) (store.Rotation, Ready, error) {
	if len(row.ResumeSealed) < currentBytes {
		return store.Rotation{}, Ready{}, errSealed
	}
	opened, err := openSealed(presented, row.Hash, row.ResumeSealed[:currentBytes], 1)
	if err != nil {
		return store.Rotation{}, Ready{}, err
	}
	session, resume := opened[0], newSecret()
	current, err := sealFor(resume, row.Hash, session)
	if err != nil {
		return store.Rotation{}, Ready{}, err
	}
	previous, err := sealFor(presented, row.Hash, session, resume)
	if err != nil {
		return store.Rotation{}, Ready{}, err
	}
	rotation := store.Rotation{Session: row, ResumeHash: resume.hash(resumePrefix), ResumeSealed: append(current, previous...)}
	return rotation, asReady(row, session, resume), nil
}

// repeat gives predecessors the same answer again, and returns the jobs of predecessors that
// have expired in between. If the successor is presented in the same batch, that came after.
func (a *Authenticator) repeat(tx *store.Tx, rows map[[32]byte]store.Session, repeating map[[32]byte][]*job) (again []*job, err error) {
	for hash, jobs := range repeating {
		row := rows[hash]
		if len(row.ResumeSealed) != sealedBytesMax {
			return nil, errSealed
		}
		opened, err := openSealed(jobs[0].resume.presented, row.Hash, row.ResumeSealed[currentBytes:], 2)
		if err != nil {
			return nil, err
		}
		ok, err := tx.Sessions.Repeat(row, row.LastSeenMS, row.ExpiresMS)
		if err != nil {
			return nil, err
		}
		if !ok {
			again = append(again, jobs...)
			continue
		}
		for _, j := range jobs {
			j.resume.ready = asReady(row, opened[0], opened[1])
		}
	}
	return again, nil
}

func asReady(row store.Session, session, resume secret) Ready {
	return Ready{
		Session:      asSession(row),
		SessionToken: session.text(sessionPrefix),
		ResumeToken:  resume.text(resumePrefix),
		FromResume:   true,
	}
}

// predecessorFor is the time for which a resume token is accepted after the answer with its
// successor was written.
const predecessorFor = time.Minute

// Answered records that ready was written to the client: the token that was resumed with
// expires predecessorFor later. A later frame or call of the client proves nothing, because it
// may have been sent before the answer arrived. For a session that was started, or has been
// resumed again since, Answered does nothing.
func (a *Authenticator) Answered(ctx context.Context, ready Ready) error {
	if !ready.FromResume {
		return nil
	}
	session, isSession := parseSecret(sessionPrefix, ready.SessionToken)
	resume, isResume := parseSecret(resumePrefix, ready.ResumeToken)
	if !isSession || !isResume {
		return errors.New("identity: not an answer to a start or a resume")
	}
	return a.writer.do(ctx, &job{answered: &store.Successor{Hash: session.hash(sessionPrefix), ResumeHash: resume.hash(resumePrefix)}})
}
