package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// TestSafetyNumber: the format is fixed, both sides of a pair read the same number, and
// no two accounts have one in common.
func TestSafetyNumber(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	const want = "00609 68595 26648 87192 71818 77214 86602 74165 48829 75655 99767 73053"
	if got := safetyNumber("did:example:ann").String(); got != want {
		t.Errorf("the number of did:example:ann is %s", got)
	}
	if got, err := ParseSafetyNumber("\t" + strings.ReplaceAll(want, " ", "-") + "\n"); err != nil || got.String() != want {
		t.Errorf("parsed as %s, %v", got, err)
	}
	for _, bad := range []string{"", "12345", strings.Repeat("1", 59) + "x", strings.Repeat("1", 61)} {
		if _, err := ParseSafetyNumber(bad); err == nil {
			t.Errorf("%q is taken for one", bad)
		}
	}
	of := func(p *person, account string) SafetyNumber {
		n, err := p.SafetyNumber(w.ctx, account)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if !of(ann, ann.did()).Equal(of(bob, ann.did())) || of(ann, ann.did()).Equal(of(ann, bob.did())) {
		t.Error("the numbers of accounts are not theirs")
	}
	mine, err := ann.SharedSafetyNumber(w.ctx, bob.did())
	theirs, err2 := bob.SharedSafetyNumber(w.ctx, ann.did())
	if err != nil || err2 != nil || !mine.Equal(theirs) || mine.Equal(of(ann, bob.did())) {
		t.Errorf("the pair reads %s and %s, %v, %v", mine, theirs, err, err2)
	}
	if _, err := ann.SafetyNumber(w.ctx, "bob"); !errors.Is(err, ErrAccount) {
		t.Error(err)
	}
	if _, err := ann.SafetyNumber(w.ctx, "did:web:bob.example"); !errors.Is(err, ErrUnknownDevices) {
		t.Error(err)
	}
	if typed, err := ParseSafetyNumber(want); err != nil || ann.Verify(w.ctx, typed) == nil {
		t.Error("a number that somebody has typed verifies somebody")
	}
}

// TestVerify: who has compared the number sees it on members and messages, until they
// take it back, and over a restart.
func TestVerify(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	isTrusted := func() bool {
		for _, m := range ann.must(room).Members {
			if m.Account == bob.did() {
				return m.Trusted
			}
		}
		t.Fatal("bob is not there")
		return false
	}
	bob.says(room, "one")
	if e := ann.reads("one"); e.From.Trusted || isTrusted() {
		t.Error("trusted before")
	}
	number, err := ann.SharedSafetyNumber(w.ctx, bob.did())
	if err == nil {
		err = ann.Verify(w.ctx, number)
	}
	if err != nil {
		t.Fatal(err)
	}
	ann.close()
	ann.open()
	bob.says(room, "two")
	if e := ann.reads("two"); !e.From.Trusted || !isTrusted() {
		t.Error("not trusted after")
	}
	trust, err := ann.Trust(w.ctx, bob.did())
	if err != nil || !trust.Verified || trust.Since.IsZero() || len(trust.Devices) != 1 || len(trust.Unpinned) != 0 {
		t.Errorf("%+v, %v", trust, err)
	}
	if err := ann.Unverify(w.ctx, bob.did()); err != nil {
		t.Fatal(err)
	}
	if history, err := ann.History(w.ctx, room, 0, 0); err != nil || isTrusted() || history[0].From.Trusted {
		t.Errorf("still trusted: %v", err)
	}
}

// TestPinnedDevices: an account that cannot vouch for its devices is trusted in those
// that were in the number that was compared, and a key that comes later is an event.
func TestPinnedDevices(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	const web = "did:web:web.example"
	meet := func(devices ...string) {
		t.Helper()
		var members []Member
		for _, f := range devices {
			members = append(members, Member{Account: web, Fingerprint: f})
		}
		if err := ann.db.update(w.ctx, func(tx *tx) error { return tx.meet("c", members, time.Now()) }); err != nil {
			t.Fatal(err)
		}
	}
	meet("aa", "cc")
	before, err := ann.SafetyNumber(w.ctx, web)
	if err != nil {
		t.Fatal(err)
	}
	// While people read the number to each other the server brings in another device.
	meet("aa", "bb")
	if err := ann.Verify(w.ctx, before); err != nil {
		t.Fatal(err)
	}
	ann.nextType(EventKeyChange) // of cc
	e := ann.nextType(EventKeyChange)
	if e.From.Fingerprint != "bb" || e.From.Trusted || !errors.Is(e.Err(), ErrKeyChanged) {
		t.Errorf("ann is told %+v", e)
	}
	trust, err := ann.Trust(w.ctx, web)
	if err != nil || !trust.Verified || len(trust.Unpinned) != 1 || trust.Unpinned[0].Fingerprint != "bb" {
		t.Errorf("%+v, %v", trust, err)
	}
	if after, err := ann.SafetyNumber(w.ctx, web); err != nil || after.Equal(before) {
		t.Errorf("the number stays %s, %v", after, err)
	}
}

// TestSearch: the local history is found by words, conversation, sender and time.
func TestSearch(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob", "cid")
	ann, bob, cid := people[0], people[1], people[2]
	room, dm := w.room(ann, bob, cid), ann.dm(bob)
	for i, text := range []string{"The Waxwing is a bird", "so is the wren", "a waxwing\tcarries its SEAL"} {
		p := people[i]
		p.says(room, text)
		ann.reads(text)
	}
	ann.says(dm, "waxwings in winter")
	ann.reads("waxwings in winter")
	order := func(want ...string) {
		t.Helper()
		all, err := ann.Conversations(w.ctx)
		if err != nil || len(all) != 2 || all[0].ID != want[0] || all[1].ID != want[1] || all[0].LastTime.Before(all[1].LastTime) {
			t.Errorf("%+v, %v", all, err)
		}
	}
	order(dm, room)
	bob.says(room, "late in the room")
	ann.reads("late in the room")
	order(room, dm)
	for _, row := range []struct {
		query Query
		want  []string
	}{
		{Query{Text: "waxwing", Conversation: room}, []string{"a waxwing\tcarries its SEAL", "The Waxwing is a bird"}},
		{Query{Text: "waxwing seal"}, []string{"a waxwing\tcarries its SEAL"}},
		{Query{Text: "WREN", From: bob.did()}, []string{"so is the wren"}},
		{Query{Text: "wren", From: cid.did()}, nil},
		{Query{Text: "i", Limit: 1, Conversation: room}, []string{"late in the room"}},
		{Query{Text: "winter"}, []string{"waxwings in winter"}},
		{Query{Text: "waxwing"}, []string{"waxwings in winter", "a waxwing\tcarries its SEAL", "The Waxwing is a bird"}},
		{Query{Text: "i", Limit: 3}, []string{"late in the room", "waxwings in winter", "a waxwing\tcarries its SEAL"}},
		{Query{Text: "waxwing", Before: time.Now().Add(-time.Hour)}, nil},
		{Query{Text: "waxwing", After: time.Now().Add(time.Hour)}, nil},
		{Query{Text: "nothing of the kind"}, nil},
	} {
		found, err := ann.Search(w.ctx, row.query)
		var got []string
		for _, e := range found {
			got = append(got, string(e.Text))
		}
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%+v: %q, %v", row.query, got, err)
		}
	}
}

// TestUnread counts what others have said and was not marked, over pages and restarts.
func TestUnread(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	for i := range 4 {
		bob.says(room, fmt.Sprint("b", i))
	}
	ann.says(room, "a")
	third := int64(0)
	for i := range 4 {
		if e := ann.reads(fmt.Sprint("b", i)); i == 2 {
			third = e.Seq
		}
	}
	ann.close()
	ann.open()
	if c := ann.must(room); c.Unread != 4 || c.ReadSeq != 0 {
		t.Errorf("%d unread behind %d", c.Unread, c.ReadSeq)
	}
	for _, row := range []struct {
		seq    int64
		unread int
	}{{third, 1}, {third - 1, 1}, {0, 0}, {1 << 40, 0}} {
		if err := ann.MarkRead(w.ctx, room, row.seq); err != nil {
			t.Fatal(err)
		}
		if c := ann.must(room); c.Unread != row.unread {
			t.Errorf("read up to %d: %d unread", row.seq, c.Unread)
		}
	}
	if err := ann.MarkRead(w.ctx, "elsewhere", 0); !errors.Is(err, ErrUnknownConversation) {
		t.Error(err)
	}
}

// TestForkIsReported: where another member is in another group the one who reports
// later is told.
func TestForkIsReported(t *testing.T) {
	w := newWorld(t)
	people := w.people("ann", "bob")
	ann, bob := people[0], people[1]
	room := w.room(ann, bob)
	session := bob.session()
	bob.close()
	ann.net.setDown(true)
	epoch := int64(ann.must(room).Epoch)
	if err := ann.Refresh(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	middle := newMiddleman(w)
	middle.toClient = func(frame gateway.Frame) bool {
		var e gateway.Event
		if frame.Type == gateway.TypeEvent && frame.Decode(&e) == nil && *e.Epoch == epoch+1 {
			// Before ann can say what she sees, somebody else says what he does not.
			err := bob.callAs(session, gateway.Report{Kind: gateway.ReportEpochAuthenticator, ConvID: room, Epoch: epoch + 1,
				EpochAuthenticator: base64.StdEncoding.EncodeToString([]byte("another group"))})
			if err != nil {
				t.Error(err)
			}
		}
		return true
	}
	ann.close()
	ann.options.Server = middle.server.URL
	ann.net.setDown(false)
	ann.open()
	if e := ann.nextType(EventFork); e.Conversation != room || !errors.Is(e.Err(), ErrFork) {
		t.Errorf("ann is told %+v", e)
	}
}

// callAs sends a report with a session of the person's, whose own client is closed.
func (p *person) callAs(session string, report gateway.Report) error {
	base, err := url.Parse(p.w.url)
	if err != nil {
		return err
	}
	calls := gatewayCalls{base: base, client: &http.Client{}, token: session}
	defer calls.client.CloseIdleConnections()
	_, err = calls.post(p.w.ctx, gateway.TypeReport, report)
	return err
}
