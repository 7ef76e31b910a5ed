package client

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"waxwing.im/waxwing/mls"
)

// lastResorts are the refs of the last-resort packages in a home, those that were used and
// those that were not.
func (p *person) lastResorts() (used, fresh []string) {
	p.w.t.Helper()
	for _, k := range p.packages() {
		switch {
		case k.LastResort && k.IsUsed:
			used = append(used, k.Ref)
		case k.LastResort && k.IsPublished:
			fresh = append(fresh, k.Ref)
		}
	}
	return used, fresh
}

// TestLastResortIsReplaced: a last-resort package that was used has a successor on the
// server at once. Welcomes by the old one are taken for seven days, over restarts too, and
// then its private keys are gone, although the client is connected at that time.
func TestLastResortIsReplaced(t *testing.T) {
	for _, door := range []string{"gateway", "xrpc"} {
		t.Run(door, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBubble(t)
				w.overXRPC = func(name string) bool { return door == "xrpc" && name == "ann" }
				people := w.people("ann", "bob", "cid", "dee", "eve")
				ann, bob := people[0], people[1]
				time.Sleep(10 * time.Second)
				old, fresh := ann.lastResorts()
				if len(old) != 0 || len(fresh) != 1 {
					t.Fatalf("at first: used %v, fresh %v", old, fresh)
				}
				first := fresh[0]
				// Others have fetched the package before it is used.
				invited := map[*person]fetchedPackage{}
				for _, p := range people[1:] {
					invited[p] = p.drains(ann)
				}
				for p, f := range invited {
					if f.Ref != first {
						t.Fatalf("%s has %s, want %s", p.name, f.Ref, first)
					}
				}
				for _, p := range people[2:] {
					p.close()
				}
				bob.invitesBy(invited[bob], ann)
				time.Sleep(time.Minute)
				old, fresh = ann.lastResorts()
				if len(old) != 1 || old[0] != first || len(fresh) != 1 || fresh[0] == first {
					t.Fatalf("after its use: used %v, fresh %v", old, fresh)
				}
				if again := bob.drains(ann); again.Ref != fresh[0] {
					t.Errorf("the server still gives out %s, not %s", again.Ref, fresh[0])
				}
				bob.close()
				ann.close()
				w.away(3 * 24 * time.Hour)
				ann.open()
				people[2].open()
				people[2].invitesBy(invited[people[2]], ann)
				people[2].close()
				ann.close()
				w.away(4*24*time.Hour - 30*time.Minute)
				ann.open()
				time.Sleep(20 * time.Minute)
				people[3].open()
				people[3].invitesBy(invited[people[3]], ann)
				people[3].close()
				time.Sleep(20 * time.Minute)
				if used, fresh := ann.lastResorts(); len(used) != 0 || len(fresh) != 1 {
					t.Errorf("after seven days: used %v, fresh %v", used, fresh)
				}
				if door == "gateway" { // over XRPC nothing asks for a Welcome by it any more
					eve := people[4]
					eve.open()
					room := eve.roomBy(invited[eve], ann)
					ann.next("the Welcome of before", func(e Event) bool {
						return e.Type == EventProblem && e.Conversation == room && errors.Is(e.Err(), ErrWelcome)
					})
				}
				for _, p := range people {
					p.close()
				}
				w.stopServer()
			})
		})
	}
}

// drains fetches packages of another account until it gets a last-resort one.
func (p *person) drains(of *person) fetchedPackage {
	p.w.t.Helper()
	_, fresh := of.lastResorts()
	for range 100 {
		list, refused, err := p.errands.fetchKeyPackages(p.w.ctx, p.calls(), of.did())
		if err != nil || refused != nil || len(list) != 1 {
			p.w.t.Fatalf("%s fetches %v, %v, %v", p.name, list, refused, err)
		}
		for _, ref := range fresh {
			if list[0].Ref == ref {
				return list[0]
			}
		}
	}
	p.w.t.Fatal("the last resort never comes")
	return fetchedPackage{}
}

// roomBy makes a room to which another account is invited by a package that was fetched
// before.
func (p *person) roomBy(f fetchedPackage, whom *person) string {
	p.w.t.Helper()
	room, err := p.CreateRoom(p.w.ctx)
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.says(room, "first")
	p.reads("first")
	if err := p.change(p.w.ctx, room, func(_ *tx, conv *conversation) error {
		info := conv.editInfo()
		info.Wanted = append(info.Wanted, wanted{Account: whom.did(), Add: true, Packages: []fetchedPackage{f}})
		return nil
	}); err != nil {
		p.w.t.Fatal(err)
	}
	return room
}

func (p *person) invitesBy(f fetchedPackage, whom *person) {
	p.w.t.Helper()
	room := p.roomBy(f, whom)
	whom.next("the room of "+p.name, func(e Event) bool { return e.Type == EventJoined && e.Conversation == room })
	p.says(room, "hello from "+p.name)
	whom.reads("hello from " + p.name)
}

// TestGroupInUse: a Welcome into a group whose id another conversation has changes nothing.
func TestGroupInUse(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "eve")
	ann, bob, eve := people[0], people[1], people[2]
	room := w.room(ann, bob)
	before := ann.must(room)
	// eve is a friend of the server's: it founds a group under the id of that room.
	f := eve.drainsOne(ann)
	conv := &conversation{id: room, info: conversationInfo{Kind: Room}}
	if err := eve.keeper.createGroup(conv); err != nil {
		t.Fatal(err)
	}
	conv.info.Wanted = []wanted{{Account: ann.did(), Packages: []fetchedPackage{f}}}
	if err := eve.db.update(w.ctx, func(tx *tx) error { return eve.keeper.makeCommit(tx, conv) }); err != nil {
		t.Fatal(err)
	}
	invitation := conv.pending.commit.Welcome()
	for _, id := range []string{"another name", "dm_" + room[:32]} {
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			return ann.keeper.applyWelcome(tx, &welcome{Conversation: id, KeyPackageRef: f.Ref, Message: invitation, NextSeq: 1, Pos: 1 << 40})
		}); err != nil {
			t.Fatal(err)
		}
		e := ann.next("the refusal", func(e Event) bool { return e.Type == EventProblem && e.Conversation == id })
		if !errors.Is(e.Err(), ErrGroupInUse) {
			t.Errorf("ann learns %v", e.Err())
		}
		if _, err := ann.Conversation(w.ctx, id); !errors.Is(err, ErrUnknownConversation) {
			t.Errorf("there is a conversation %q: %v", id, err)
		}
	}
	if after := ann.must(room); after.Epoch != before.Epoch || len(after.Members) != len(before.Members) || after.NextSeq != before.NextSeq {
		t.Errorf("the room was %+v and is %+v", before, after)
	}
	bob.says(room, "still here")
	ann.reads("still here")
	w.agree(room, ann, bob)
}

// TestGroupNamesAreNotTaken: a stranger that invites into a group with the id of a direct
// conversation, under another name, does not keep the two out of it.
func TestGroupNamesAreNotTaken(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "eve")
	ann, bob, eve := people[0], people[1], people[2]
	dm := dmID(ann.did(), bob.did())
	f := eve.drainsOne(ann)
	conv := &conversation{id: dm, info: conversationInfo{Kind: Room}}
	if err := eve.keeper.createGroup(conv); err != nil {
		t.Fatal(err)
	}
	conv.info.Wanted = []wanted{{Account: ann.did(), Packages: []fetchedPackage{f}}}
	if err := eve.db.update(w.ctx, func(tx *tx) error { return eve.keeper.makeCommit(tx, conv) }); err != nil {
		t.Fatal(err)
	}
	party := &welcome{Conversation: "party", KeyPackageRef: f.Ref, Message: conv.pending.commit.Welcome(), NextSeq: 1, Pos: 1 << 40}
	if err := ann.db.update(w.ctx, func(tx *tx) error { return ann.keeper.applyWelcome(tx, party) }); err != nil {
		t.Fatal(err)
	}
	ann.next("the party", func(e Event) bool { return e.Type == EventJoined && e.Conversation == "party" })
	id, err := bob.StartDM(w.ctx, ann.did())
	if err != nil || id != dm {
		t.Fatal(id, err)
	}
	bob.says(dm, "hello ann")
	ann.reads("hello ann")
}

// TestGroupsAboutToBeEntered: an external commit that waits for its place in the log counts
// as a group in use, for Welcomes and for other external commits.
func TestGroupsAboutToBeEntered(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(bob)
	group := bob.must(room)
	info, err := bob.snapshot(w.ctx, room)
	if err != nil || group.Epoch == 0 {
		t.Fatal(group, err)
	}
	raw, err := info.group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	w.stopServer() // which would refuse the commits
	entry := func() *pendingCommit {
		commit, err := mls.JoinExternal(raw, ann.identity, mls.ExternalJoinOptions{Hook: ann.authority.credentialHook})
		if err != nil {
			t.Fatal(err)
		}
		return &pendingCommit{MessageID: newMessageID(), commit: commit}
	}
	for _, id := range []string{"one", "two"} {
		if err := ann.db.update(w.ctx, func(tx *tx) error {
			tx.addConversation(id, Waiting, conversationInfo{Kind: Room}, ann.now())
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		seen, err := ann.snapshot(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if err := ann.errands.keepEntry(w.ctx, seen, entry(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if one, two := ann.must("one"), ann.must("two"); one.Phase != Joining || two.Phase == Joining {
		t.Errorf("the first is %v and the second %v", one.Phase, two.Phase)
	}
	all := []*conversation{{id: "one", pending: entry()}}
	if !inUse(all, "three")(info.group.ID()) || inUse(all, "one")(info.group.ID()) {
		t.Error("a commit that waits does not count")
	}
}

// drainsOne fetches one package of another account, once it has published some.
func (p *person) drainsOne(of *person) (f fetchedPackage) {
	p.w.t.Helper()
	if err := p.WaitOnline(p.w.ctx); err != nil {
		p.w.t.Fatal(err)
	}
	p.w.eventually(of.name+" has published", func() bool {
		list, refused, err := p.errands.fetchKeyPackages(p.w.ctx, p.calls(), of.did())
		if err != nil || refused != nil {
			p.w.t.Fatalf("%s fetches %v, %v, %v", p.name, list, refused, err)
		}
		if len(list) > 0 {
			f = list[0]
		}
		return len(list) > 0
	})
	return f
}
