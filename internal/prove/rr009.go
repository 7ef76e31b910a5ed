package prove

import (
	"context"
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/mls"
)

const violationsMax = 20 // that a row shows

var rr009 = Proof{
	ID: "RR-009", Title: "state of MLS",
	Attack: "Two devices talk while they load and save their state at every step, crash before and after any write, also with a commit pending, and get messages late, " +
		"twice and after a load once more; the saved state is searched for keys that were used. Two processes of chat, which talk through a server, are killed over and over.",
	Mitigation: "A message and the state without its key are saved as one, before anything is sent or shown; keys are deleted with their use; a commit takes effect when the log shows it.",
	Detection:  []string{"waxwing_mls_decrypt_failures_total", "waxwing_mls_state_reloads_total"},
	Missing:    "conversations with another implementation of MLS",
	Run:        runRR009,
}

func runRR009(ctx context.Context, r *Run) error {
	return errors.Join(talkOverCrashes(ctx, r), chatOverKills(ctx, r))
}

// talkOverCrashes has conversations of two devices of package mls that crash.
func talkOverCrashes(ctx context.Context, r *Run) error {
	const texts = 1000
	talks := Size(r, 1, 20)
	var tally talkTally
	var keys keyWatch
	var violations []error
	for n := range talks {
		t, err := newTalk(r, n)
		if err != nil {
			return err
		}
		step := "two devices talk, load, save and crash"
		if talks > 1 {
			step += fmt.Sprintf(" (conversation %d of %d)", n+1, talks)
		}
		err = t.run(ctx, texts, func(done int) {
			if done%20 == 0 {
				r.At(done, texts, "%s", step)
			}
		})
		tally.add(t.talkTally)
		violations = append(violations, t.violations...)
		for _, d := range t.devices {
			keys.searches, keys.known, keys.unknown, keys.found = keys.searches+d.keys.searches, keys.known+d.keys.known, keys.unknown+d.keys.unknown, append(keys.found, d.keys.found...)
		}
		if err != nil {
			violations = append(violations, err)
			break
		}
	}
	tally.report(r, "")
	r.AtLeast("keys of messages followed in the saved state", float64(keys.known), float64(19*texts*talks/10), "")
	r.Exactly("keys of messages that the search could not derive", float64(keys.unknown), 0, "")
	r.Exactly("used keys found in a saved state", float64(len(keys.found)), 0, "")
	for i, found := range keys.found {
		if i < violationsMax {
			violations = append(violations, errors.New(found))
		}
	}
	r.Did("Conversations of two devices of package mls: %d, with %d texts and %d commits: the state was loaded %d times (%d times with a commit pending) and crashed at %d writes (%d with a commit pending); %d texts came late.",
		talks, tally.texts, tally.epochs, tally.loads, tally.loadsPending, tally.crashes, tally.crashesPending, tally.late)
	r.Did("Messages that had been opened were offered to a loaded state %d times, and %d saved states were searched for %d keys that had been used and for the secrets behind them.", tally.offered, keys.searches, keys.known)
	return firstOf(violations)
}

// firstOf joins the first violations.
func firstOf(violations []error) error {
	return errors.Join(violations[:min(len(violations), violationsMax)]...)
}

// report adds the figures of talks; of is what they were talks of, to go behind each name.
func (t talkTally) report(r *Run, of string) {
	r.Exactly("messages that could not be decrypted"+of, float64(t.failures), 0, "")
	r.Exactly("texts not read exactly once"+of, float64(t.notOnce), 0, "")
	r.Exactly("conversations in which the two ended in different groups"+of, float64(t.forks), 0, "")
	r.Exactly("messages accepted again by a loaded state"+of, float64(t.replays), 0, "")
	r.AtLeast("messages offered again to a loaded state"+of, float64(t.offered), float64(2*t.texts), "")
	r.AtLeast("commits that took effect"+of, float64(t.epochs), float64(t.texts/commitEvery), "")
	r.AtLeast("crashes at a write"+of, float64(t.crashes), float64(t.texts/10), "")
	r.AtLeast("crashes at a write with a commit pending"+of, float64(t.crashesPending), float64(t.texts/100), "")
	r.AtLeast("loads with a commit pending"+of, float64(t.loadsPending), float64(t.texts/20), "")
	r.AtLeast("texts that came late"+of, float64(t.late), float64(t.texts/10), "")
}

// newTalk returns a talk of two devices of package mls, the second one just added by the first.
func newTalk(r *Run, n int) (*talk, error) {
	t := &talk{random: r.Random(uint64(n))}
	ann, bob, err := newPair(ourSuite)
	if err != nil {
		return nil, err
	}
	leaves := map[string]uint32{"ann": ann.OwnLeaf().Index, "bob": bob.OwnLeaf().Index}
	for i, g := range []*mls.Group{ann, bob} {
		state, err := g.MarshalBinary()
		if err != nil {
			return nil, err
		}
		d := &talkDevice{talk: t, name: []string{"ann", "bob"}[i], engine: ourEngine{}, keys: &keyWatch{leaves: leaves},
			disk: talkDisk{mls: savedMLS{group: state}, epoch: g.Epoch(), read: map[string]int{}}}
		d.size = r.Plot("saved state of a device of package mls", "KiB", d.name)
		if n > 0 {
			d.size = r.Plot("saved state of a device of package mls, further conversations", "KiB", d.name)
		}
		d.keys.enter(g.Epoch(), state)
		t.devices[i] = d
	}
	return t, nil
}

const ourSuite = mls.X25519_AES128GCM_SHA256_Ed25519

// newPair returns a group of two, as each of them has it.
func newPair(s mls.Suite) (ann, bob *mls.Group, err error) {
	identities := make([]mls.Identity, 2)
	for i, name := range []string{"ann", "bob"} {
		key, err := mls.NewSignatureKey(s)
		if err != nil {
			return nil, nil, err
		}
		identities[i] = mls.Identity{Credential: []byte("did:ex:" + name), Key: key}
	}
	now := time.Now()
	kp, err := mls.NewKeyPackage(s, identities[1], mls.KeyPackageOptions{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
	if err != nil {
		return nil, nil, err
	}
	if ann, err = mls.NewGroup(s, []byte("RR-009"), identities[0], mls.GroupOptions{}); err != nil {
		return nil, nil, err
	}
	p, err := ann.Commit(mls.CommitOptions{Add: [][]byte{kp.Message()}})
	if err != nil {
		return nil, nil, err
	}
	if ann, err = p.Apply(p.Base()); err != nil {
		return nil, nil, err
	}
	bob, err = mls.Join(p.Welcome(), kp, mls.JoinOptions{})
	return ann, bob, err
}

// ourEngine is package mls.
type ourEngine struct{}

func (ourEngine) load(s savedMLS) (*mls.Group, error) {
	return mls.LoadGroup(s.group, mls.LoadOptions{})
}

// save returns the state of a group, with a pending commit as it was saved.
func (ourEngine) save(g *mls.Group, pending []byte) (s savedMLS, err error) {
	s.pending = pending
	s.group, err = g.MarshalBinary()
	return s, err
}

func (e ourEngine) seal(s savedMLS, text []byte) (message []byte, next savedMLS, err error) {
	g, err := e.load(s)
	if err != nil {
		return nil, s, err
	}
	message, after, err := g.Seal(text, nil, mls.SealOptions{})
	if err != nil {
		return nil, s, err
	}
	next, err = e.save(after, s.pending)
	return message, next, err
}

func (e ourEngine) commit(s savedMLS) (message []byte, next savedMLS, err error) {
	g, err := e.load(s)
	if err != nil {
		return nil, s, err
	}
	p, err := g.Commit(mls.CommitOptions{})
	if err != nil {
		return nil, s, err
	}
	pending, err := p.MarshalBinary()
	if err != nil {
		return nil, s, err
	}
	next, err = e.save(p.Base(), pending)
	return p.Message(), next, err
}

func (e ourEngine) apply(s savedMLS) (next savedMLS, err error) {
	g, err := e.load(s)
	if err != nil {
		return s, err
	}
	p, err := mls.LoadPendingCommit(s.pending, mls.LoadOptions{})
	if err != nil {
		return s, err
	}
	after, err := p.Apply(g)
	if err != nil {
		return s, err
	}
	return e.save(after, nil)
}

func (e ourEngine) process(s savedMLS, message []byte) (text string, next savedMLS, err error) {
	g, err := e.load(s)
	if err != nil {
		return "", s, err
	}
	processed, err := g.Process(message)
	if err != nil {
		return "", s, err
	}
	if processed.Kind != mls.Application {
		next, err = e.save(processed.Group, nil)
		return "", next, err
	}
	next, err = e.save(processed.Group, s.pending)
	return string(processed.Plaintext), next, err
}

func (e ourEngine) accepts(s savedMLS, messages [][]byte) (accepted int, err error) {
	g, err := e.load(s)
	if err != nil {
		return 0, err
	}
	for _, message := range messages {
		if _, err := g.Process(message); err == nil {
			accepted++
		}
	}
	return accepted, nil
}

func (e ourEngine) authenticator(s savedMLS) (text string, err error) {
	g, err := e.load(s)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", g.EpochAuthenticator()), nil
}
