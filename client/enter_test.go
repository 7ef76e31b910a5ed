package client

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/mls"
)

// device is another device of the person's account, with a home of its own.
func (p *person) device(name string) *person {
	p.w.t.Helper()
	other := p.w.person(p.name)
	other.name, other.options.DeviceID = p.name+"'s "+name, name
	return other
}

// devices are the devices of the person's account in its view of a group.
func (p *person) devices(conversation string) []string {
	p.w.t.Helper()
	var out []string
	for _, m := range p.must(conversation).Members {
		if m.Account == p.did() {
			out = append(out, m.Device)
		}
	}
	slices.Sort(out)
	return out
}

// TestSecondDevice: a new device of an account comes into all of its conversations by
// itself, into those that begin later too, and goes when it is declared lost.
func TestSecondDevice(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room := w.room(ann, bob, cid)
	dm := bob.dm(ann)
	bob.says(dm, "from before")
	ann.reads("from before")
	tablet := ann.device("tablet")
	tablet.open()
	for range 2 {
		if e := tablet.nextType(EventJoined); e.Conversation != room && e.Conversation != dm {
			t.Errorf("it joined %q", e.Conversation)
		}
	}
	if c := tablet.must(dm); c.Kind != DM || c.Peer != bob.did() {
		t.Errorf("the dm is %+v", c)
	}
	w.agree(room, ann, bob, cid, tablet)
	w.agree(dm, ann, bob, tablet)
	tablet.says(dm, "from the tablet")
	for _, p := range []*person{bob, ann} {
		if e := p.reads("from the tablet"); e.Own || e.From.Account != ann.did() || e.From.Device != "tablet" || !e.From.Verified {
			t.Errorf("%s sees %+v", p.name, e)
		}
	}
	if c := ann.must(dm); c.Unread != 1 { // bob's; one's own are read wherever they were written
		t.Errorf("ann has %d unread", c.Unread)
	}
	bob.says(room, "to both of you")
	tablet.reads("to both of you")
	ann.reads("to both of you")
	// A conversation that begins later.
	later := w.room(cid, bob)
	if err := cid.Invite(w.ctx, later, ann.did()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{ann, tablet} {
		p.joins(later)
	}
	w.agree(later, ann, bob, cid, tablet)
	own, err := ann.OwnDevices(w.ctx)
	if err != nil || len(own) != 2 || !own[0].This || own[1].Device != "tablet" || len(own[1].Conversations) != 3 || own[1].Lost {
		t.Errorf("ann's devices are %+v, %v", own, err)
	}
	// Lost: it is taken out everywhere, and nobody can add it again.
	if err := ann.RemoveDevice(w.ctx, "tablet"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{room, dm, later} {
		w.eventually("the tablet is out", func() bool { return slices.Equal(ann.devices(id), []string{"ann-device"}) })
	}
	tablet.nextType(EventRemoved)
	w.agree(room, ann, bob, cid)
	var left gateway.DeviceKeyPackages
	w.eventually("nobody can add it", func() bool {
		err := bob.call(w.ctx, bob.session(), "/v1/keypackages/fetch", gateway.FetchKeyPackages{UserID: ann.did(), PerDevice: true}, &left)
		return err == nil && len(left.Items) == 1 && left.Items[0].DeviceID == "ann-device"
	})
	if own, err = ann.OwnDevices(w.ctx); err != nil || len(own) != 2 || !own[1].Lost || len(own[1].Conversations) != 0 {
		t.Errorf("ann's devices are %+v, %v", own, err)
	}
}

// TestAddDevice: an existing device brings a new one in by its key packages, where it
// does not come by itself.
func TestAddDevice(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	middle := newMiddleman(w)
	middle.answer = func(path string, body []byte) []byte {
		if path == "/v1/groupinfo" {
			return []byte("{}")
		}
		return body
	}
	room := w.room(ann, bob)
	tablet := ann.device("tablet")
	tablet.options.Server = middle.server.URL
	tablet.open()
	w.eventually("the tablet has published", func() bool {
		var published int64
		err := tablet.db.update(w.ctx, func(tx *tx) (err error) { published, err = tx.Counters.Get("published"); return err })
		return err == nil && published > 0
	})
	if err := ann.AddDevice(w.ctx, "no such device"); err != nil {
		t.Fatal(err)
	}
	w.eventually("nothing is left to do", func() bool { return len(ann.must(room).Inviting) == 0 })
	if err := ann.AddDevice(w.ctx, "tablet"); err != nil {
		t.Fatal(err)
	}
	tablet.joins(room)
	w.agree(room, ann, bob, tablet)
	tablet.says(room, "here")
	bob.reads("here")
}

// TestLostHome: a device whose home is gone enters its conversations anew, and takes
// the leaf of its former life out.
func TestLostHome(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	bob.says(room, "before")
	ann.reads("before")
	before := bob.Self().Fingerprint
	bob.close()
	bob.options.Dir = t.TempDir()
	bob.last = 0
	bob.open()
	bob.joins(room)
	w.settles(room, ann, bob)
	if got := ann.must(room).Members; len(got) != 2 {
		t.Errorf("ann sees %+v", got)
	}
	if e := ann.nextType(EventKeyChange); e.From.Account != bob.did() || e.From.Fingerprint == before || !errors.Is(e.Err(), ErrKeyChanged) {
		t.Errorf("ann is told %+v", e)
	}
	bob.says(room, "after")
	ann.reads("after")
	bob.reads("after")
	if got := bob.transcript(room); !slices.Equal(got, []string{"after"}) {
		t.Errorf("bob has %q", got)
	}
}

// TestTooFarBehind: a device to which commits are missing enters the group anew, says
// what it has not read, and delivers what it had to say, once.
func TestTooFarBehind(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	bob.close()
	ann.says(room, "unread")
	guest := w.people("cid")[0]
	if err := ann.Invite(w.ctx, room, guest.did()); err != nil {
		t.Fatal(err)
	}
	guest.joins(room)
	if err := ann.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	head := ann.must(room).NextSeq
	bob.net.setDown(true)
	bob.open()
	// As retention does: the commit is not in the log any more.
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		tx.conversation(room).setNextSeq(head)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bob.net.setDown(false)
	ann.says(room, "trigger")
	bob.says(room, "from far behind")
	ann.reads("from far behind") // cid cannot, if it went out in an epoch before cid was there
	e := bob.nextType(EventRejoined)
	if len(e.Members) != 3 || e.Problem == "" {
		t.Errorf("bob is told %+v", e)
	}
	w.settles(room, ann, bob, guest)
	bob.says(room, "back")
	ann.reads("back")
	if n := len(slices.DeleteFunc(ann.transcript(room), func(s string) bool { return s != "from far behind" })); n != 1 {
		t.Errorf("ann has read it %d times", n)
	}
	if err := bob.Flush(w.ctx); err != nil {
		t.Error(err)
	}
	if s := bob.Stats(); s.Rejoins != 1 {
		t.Errorf("%+v", s)
	}
	// And by hand, although nothing is wrong.
	if err := bob.Rejoin(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	bob.nextType(EventRejoined)
	w.settles(room, ann, bob, guest)
}

// TestWrongOffer: what a server may offer to enter a group by, and what becomes of it.
func TestWrongOffer(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room, other := w.room(ann, bob), w.room(ann, bob, cid)
	group := func(p *person, id string) *conversation {
		conv, err := p.snapshot(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return conv
	}
	offerOf := func(g *mls.Group) offeredGroup {
		raw, err := g.GroupInfo()
		if err != nil {
			t.Fatal(err)
		}
		return offeredGroup{raw, int64(g.Epoch())}
	}
	next := func(g *mls.Group) *mls.Group {
		p, err := g.Commit(mls.CommitOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Group()
	}
	// A group that the server has made up with eve under the room's id, with the real
	// leaf of bob's in it.
	eve := testAccount(t, "eve")
	key, err := mls.NewSignatureKey(groupSuite)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := issueCertificate(eve, "laptop", key.Public(), ann.now().Add(certificateLife))
	if err != nil {
		t.Fatal(err)
	}
	eves, err := mls.NewGroup(groupSuite, group(ann, room).group.ID(), mls.Identity{Credential: []byte(eve.DID()), Key: key,
		Extensions: []mls.Extension{{Type: CertificateExtension, Data: certificate}}}, mls.GroupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	packages, _, err := ann.errands.fetchKeyPackages(w.ctx, ann.calls(), bob.did())
	if err != nil || len(packages) != 1 {
		t.Fatal(packages, err)
	}
	trap, err := eves.Commit(mls.CommitOptions{Add: [][]byte{packages[0].Message}})
	if err != nil {
		t.Fatal(err)
	}
	far := trap.Group()
	for far.Epoch() <= group(bob, room).epoch() {
		far = next(far)
	}
	good := next(group(ann, room).group)
	for _, row := range []struct {
		name  string
		offer offeredGroup
		want  string // in the error; "" for none
	}{
		{"good", offerOf(good), ""},
		{"of the epoch that we are in", offerOf(group(ann, room).group), errNothingToDo.Error()},
		{"of an epoch that the server is not in", offeredGroup{offerOf(good).message, 99}, errWait.Error()},
		{"of another room", offerOf(next(group(ann, other).group)), "unexpected group ID"},
		{"made up with a friend", offerOf(far), "that was not in the group"},
		{"noise", offeredGroup{decoded("AAEABAAB"), 3}, "malformed"},
		{"not base64", offeredGroup{decoded("?"), 3}, "malformed"},
	} {
		_, err := bob.errands.makeEntry(w.ctx, group(bob, room), &row.offer)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	// To somebody who is not in it with any device it is no invitation.
	waiting := &conversation{id: room, phase: Waiting}
	o := offerOf(good)
	if _, err := cid.errands.makeEntry(w.ctx, waiting, &o); !errors.Is(err, errWait) {
		t.Errorf("cid: %v", err)
	}
	// An account that is not in the group comes in by itself: refused by all who are.
	joiner, err := mls.JoinExternal(offerOf(group(ann, room).group).message, mls.Identity{Credential: []byte(eve.DID()), Key: key,
		Extensions: []mls.Extension{{Type: CertificateExtension, Data: certificate}}}, mls.ExternalJoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := bob.must(room)
	epoch := int64(before.Epoch + 1)
	if err := bob.db.update(w.ctx, func(tx *tx) error {
		_, err := bob.keeper.applyMessage(tx, &logMessage{conversation: room, seq: before.NextSeq, id: "eve", kind: kindCommit, epoch: &epoch,
			message: joiner.Message()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if e := bob.nextType(EventJoinRefused); e.From.Account != eve.DID() || !errors.Is(e.Err(), ErrUncertified) || !strings.Contains(e.Problem, "not in the group") {
		t.Errorf("bob is told %+v", e)
	}
	if after := bob.must(room); after.Epoch != before.Epoch || len(after.Members) != len(before.Members) {
		t.Errorf("bob has followed: %+v", after)
	}
}

// TestDressedCommit: a joiner that removes another device, in the name of the account
// or in another's, is refused.
func TestDressedCommit(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	conv, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	info, err := conv.group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	tablet := ann.device("tablet")
	tablet.open()
	for _, row := range []struct {
		name    string
		as      *person
		removes *person
		good    bool
	}{
		{"another device of the account", tablet, ann, false},
		{"another account's", tablet, bob, false},
		{"nobody", tablet, nil, true},
		{"itself", ann, ann, true},
	} {
		options := mls.ExternalJoinOptions{}
		if row.removes != nil {
			options.Resync = true
			options.IsOld = func(l mls.Leaf) bool { return string(l.Credential) == row.removes.did() }
		}
		p, err := mls.JoinExternal(info, row.as.identity, options)
		if err != nil {
			if row.good {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		bobs, err := bob.snapshot(w.ctx, room)
		if err != nil {
			t.Fatal(err)
		}
		processed, err := bobs.group.Process(p.Message())
		if err == nil {
			err = bob.authority.checkJoiner(bobs.group, processed)
		}
		if (err == nil) != row.good {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// TestEnterAsStranger: who is no member any more learns it while it tries to come back.
func TestEnterAsStranger(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(people...)
	bob.net.setDown(true)
	ann.remove(room, bob)
	if err := bob.Rejoin(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	bob.net.setDown(false)
	if e := bob.nextType(EventRemoved); e.Conversation != room {
		t.Errorf("bob is told %+v", e)
	}
	if c := bob.must(room); c.Phase != Removed {
		t.Errorf("bob is %s", c.Phase)
	}
	if err := bob.Rejoin(w.ctx, room); !errors.Is(err, ErrNoGroup) {
		t.Error(err)
	}
}
