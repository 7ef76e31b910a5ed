package client

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/mls"
)

// stranger is an account with a good certificate whom nobody has invited: a friend
// of the server's.
func stranger(t *testing.T, name string) mls.Identity {
	t.Helper()
	account := testAccount(t, name)
	key, err := mls.NewSignatureKey(groupSuite)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := issueCertificate(account, "laptop", key.Public(), time.Now().Add(certificateLife))
	if err != nil {
		t.Fatal(err)
	}
	return mls.Identity{Credential: []byte(account.DID()), Key: key,
		Extensions: []mls.Extension{{Type: CertificateExtension, Data: certificate}}}
}

// onePackage is one of p's key packages, as anybody may fetch it.
func (p *person) onePackage() (ref string, message []byte) {
	p.w.t.Helper()
	p.w.eventually(p.name+" has key packages", func() bool {
		for _, k := range p.packages() {
			if !k.LastResort {
				ref, message = k.Ref, p.message(k)
			}
		}
		return message != nil
	})
	return ref, message
}

// foundGroup makes a group under a room's id, which somebody else may have taken first.
func foundGroup(t testing.TB, room string, by mls.Identity) *mls.Group {
	t.Helper()
	id, err := hex.DecodeString(room)
	if err != nil {
		t.Fatal(err)
	}
	g, err := mls.NewGroup(groupSuite, id, by, mls.GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// lure is a Welcome by which somebody brings p into a group of theirs that has the
// id of a room.
func (p *person) lure(by mls.Identity, room string) *welcome {
	p.w.t.Helper()
	_, welcome := p.lureInto(foundGroup(p.w.t, room, by), room)
	return welcome
}

// lureInto adds p to a group, and gives it too.
func (p *person) lureInto(g *mls.Group, room string) (*mls.Group, *welcome) {
	p.w.t.Helper()
	ref, message := p.onePackage()
	commit, err := g.Commit(mls.CommitOptions{Add: [][]byte{message}})
	if err != nil {
		p.w.t.Fatal(err)
	}
	return commit.Group(), &welcome{Pos: 1 << 40, Conversation: room, KeyPackageRef: ref, NextSeq: 2, Message: commit.Welcome()}
}

// TestWelcomeIntoOwnRoom: a server cannot slip the group of a friend under a room that
// is being made here, and so get at what waits to be said in it.
func TestWelcomeIntoOwnRoom(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	eve := stranger(t, "eve")
	ann.onePackage() // they are made on the first connection
	ann.net.setDown(true)
	for _, phase := range []Phase{Creating, Founding} {
		room, err := ann.CreateRoom(w.ctx, testAccount(t, "bob").DID())
		if err != nil {
			t.Fatal(err)
		}
		ann.says(room, "for bob's eyes only")
		if phase == Founding {
			if err := ann.errands.created(w.ctx, room, "owner"); err != nil {
				t.Fatal(err)
			}
		}
		welcome := ann.lure(eve, room)
		if err := ann.db.update(w.ctx, func(tx *tx) error { return ann.keeper.applyWelcome(tx, welcome) }); err != nil {
			t.Fatal(err)
		}
		if e := ann.nextType(EventProblem); !strings.Contains(e.Problem, "created by this device") {
			t.Errorf("%s: ann is told %+v", phase, e)
		}
		if c := ann.must(room); c.Phase != phase {
			t.Errorf("%s: ann is %+v", phase, c)
		}
	}
}

// TestBackAmongStrangers: an invitation back into a room does not hand what waits in
// the outbox to people who were not in it when it was written.
func TestBackAmongStrangers(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann := people[0]
	room := w.room(people...)
	ann.net.setDown(true)
	ann.says(room, "for bob's eyes only")
	welcome := ann.lure(stranger(t, "eve"), room)
	if err := ann.db.update(w.ctx, func(tx *tx) error {
		if err := ann.keeper.applyWelcome(tx, welcome); err != nil {
			return err
		}
		conv := tx.conversation(room)
		return ann.keeper.leave(tx, conv, ann.now(), "removed")
	}); err != nil {
		t.Fatal(err)
	}
	ann.joins(room)
	if n, err := ann.Pending(w.ctx); n != 0 || err != nil {
		t.Errorf("%d messages wait to be said to eve, %v", n, err)
	}
	if e := ann.nextType(EventRefused); string(e.Text) != "for bob's eyes only" {
		t.Errorf("ann is told %+v", e)
	}
}

// webIdentity is a device of an account whose DID tells no key.
func webIdentity(t *testing.T) mls.Identity {
	t.Helper()
	key, err := mls.NewSignatureKey(groupSuite)
	if err != nil {
		t.Fatal(err)
	}
	return mls.Identity{Credential: []byte("did:web:bob.example"), Key: key}
}

// TestEntryInAName: the name of a member that cannot vouch for its devices lets nobody
// in by an external commit, unless with the key that the member had.
func TestEntryInAName(t *testing.T) {
	w := newWorld(t)
	bob, other := webIdentity(t), webIdentity(t)
	for i, row := range []struct {
		name           string
		as             mls.Identity
		resync, allows bool
		good           bool
	}{
		{"beside the member", other, false, false, false},
		{"in the member's place", other, true, false, false},
		{"with the member's key", bob, true, false, true},
		{"where that is allowed", other, true, true, true},
	} {
		ann := w.person(fmt.Sprint("ann", i))
		ann.options.AllowUnverified = row.allows
		ann.open()
		ann.onePackage()
		ann.net.setDown(true)
		room := strings.Repeat("ab", groupIDBytes)
		group, welcome := ann.lureInto(foundGroup(t, room, bob), room)
		info, err := group.GroupInfo()
		if err != nil {
			t.Fatal(err)
		}
		p, err := mls.JoinExternal(info, row.as, mls.ExternalJoinOptions{Resync: row.resync})
		if err != nil {
			t.Fatal(err)
		}
		epoch := int64(group.Epoch() + 1)
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			if err := ann.keeper.applyWelcome(tx, welcome); err != nil {
				return err
			}
			_, err := ann.keeper.applyMessage(tx, &logMessage{conversation: room, seq: 2, id: "m", kind: kindCommit, epoch: &epoch,
				message: p.Message()})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		conv, err := ann.snapshot(w.ctx, room)
		if err != nil || (conv.epoch() == uint64(epoch)) != row.good {
			t.Errorf("%s: ann is in epoch %d, %v", row.name, conv.epoch(), err)
		}
		if row.good {
			continue
		}
		e := ann.nextType(EventJoinRefused)
		if e.Seq != 2 || e.From.Account != "did:web:bob.example" || e.From.Fingerprint != fingerprint(other.Key.Public()) || !errors.Is(e.Err(), ErrUncertified) {
			t.Errorf("%s: ann is told %+v", row.name, e)
		}
	}
}

// TestOfferByNobody: the name of an account that cannot vouch for its devices does not
// make a group worth entering; the key of one that was in the group does.
func TestOfferByNobody(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	room := strings.Repeat("ab", groupIDBytes)
	group := func(by mls.Identity, commits int) *mls.Group {
		g := foundGroup(t, room, by)
		_, message := ann.onePackage()
		o := mls.CommitOptions{Add: [][]byte{message}}
		for range commits {
			commit, err := g.Commit(o)
			if err != nil {
				t.Fatal(err)
			}
			g, o = commit.Group(), mls.CommitOptions{}
		}
		return g
	}
	bob := webIdentity(t)
	for _, row := range []struct {
		name string
		by   mls.Identity
		good bool
	}{
		{"by bob's device", bob, true},
		{"by somebody in bob's name", webIdentity(t), false},
	} {
		offered := group(row.by, 3)
		raw, err := offered.GroupInfo()
		if err != nil {
			t.Fatal(err)
		}
		o, err := readOffer(raw)
		if err != nil {
			t.Fatal(err)
		}
		conv := &conversation{id: room, phase: Joined, group: group(bob, 1)}
		if err := ann.authority.checkOffer(w.ctx, conv, o, 3); (err == nil) != row.good {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestOfferByAnotherDevice: a device of a member's that was not in the group is not
// believed by itself, whatever its account vouches for, but where somebody asked for it.
func TestOfferByAnotherDevice(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	then, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	tablet := bob.device("tablet")
	tablet.open()
	tablet.joins(room)
	now, err := tablet.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := now.group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	o := offeredGroup{raw, int64(now.epoch())}
	for _, isAsked := range []bool{false, true} {
		conv := then.clone()
		conv.info.Asked = isAsked
		if _, err := ann.errands.makeEntry(w.ctx, conv, &o); (err == nil) != isAsked || err != nil && !strings.Contains(err.Error(), `device "tablet"`) {
			t.Errorf("asked for: %v: %v", isAsked, err)
		}
	}
}

// TestWayBackToTheRemoved: a log that was rewound does not bring a device back by
// itself to where somebody still was whom it has seen removed.
func TestWayBackToTheRemoved(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(people...)
	then, err := bob.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	ann.remove(room, cid)
	w.eventually("cid is out", func() bool { return len(ann.must(room).Members) == 2 })
	now, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := then.group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	o := offeredGroup{raw, int64(then.epoch())}
	for _, isAsked := range []bool{false, true} {
		conv := now.clone()
		conv.info.Forced, conv.info.Asked = true, isAsked
		if _, err := ann.errands.makeEntry(w.ctx, conv, &o); (err == nil) != isAsked || err != nil && !strings.Contains(err.Error(), "removed since") {
			t.Errorf("asked for: %v: %v", isAsked, err)
		}
	}
}

// TestGhostSpeaks: a member that adds a device in the name of another account, which has not
// certified it, cannot name that account or the room by it.
func TestGhostSpeaks(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	ann.setName("Ann")
	ann.onePackage()
	ann.net.setDown(true)
	bob, room, title, seq := testAccount(t, "bob").DID(), strings.Repeat("ab", groupIDBytes), "ghosts", int64(1)
	group, welcome := ann.lureInto(foundGroup(t, room, stranger(t, "eve")), room)
	if err := ann.db.update(w.ctx, func(tx *tx) error { return ann.keeper.applyWelcome(tx, welcome) }); err != nil {
		t.Fatal(err)
	}
	apply := func(kind string, message []byte) {
		t.Helper()
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			conv := tx.conversation(room)
			conv.editInfo().Managers = map[string]string{bob: RoleOwner}
			seq++
			return ann.keeper.applyForeign(tx, conv, &logMessage{kind: kind}, Event{Conversation: room, Seq: seq, Time: time.Now()}, message)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, account := range []string{bob, ann.did()} {
		key, err := mls.NewSignatureKey(groupSuite)
		if err != nil {
			t.Fatal(err)
		}
		p, err := mls.NewKeyPackage(groupSuite, mls.Identity{Credential: []byte(account), Key: key}, mls.KeyPackageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		commit, err := group.Commit(mls.CommitOptions{Add: [][]byte{p.Message()}})
		if err != nil {
			t.Fatal(err)
		}
		group = commit.Group()
		apply(kindCommit, commit.Message())
		ghost, err := mls.Join(commit.Welcome(), p, mls.JoinOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for of, content := range map[contentType]any{contentProfile: profile{"Eve", namedAtMax - 1}, contentRoom: roomContent{Title: &title}} {
			payload, err := json.Marshal(content)
			if err != nil {
				t.Fatal(err)
			}
			var message []byte
			if message, ghost, err = ghost.Seal(encodeContent(of, payload), nil, mls.SealOptions{}); err != nil {
				t.Fatal(err)
			}
			apply(kindApp, message)
		}
	}
	c := ann.must(room)
	if names := []string{ann.Contacts().Get(bob).Name, ann.Contacts().Get(ann.did()).Name, c.Title}; !slices.Equal(names, []string{"", "Ann", ""}) {
		t.Errorf("bob, ann and the room are called %q", names)
	}
	if len(c.Members) != 4 || ann.Stats().Undecryptable > 0 {
		t.Errorf("%+v, %+v", c.Members, ann.Stats())
	}
}
