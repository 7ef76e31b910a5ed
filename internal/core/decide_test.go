package core

import (
	"encoding/hex"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// table is a conversation in memory, for rules that touch no database. Its owner is
// ann, bob is a plain member, eve left at pos 5 and sue was never there.
func table(change func(*logs.Conversation)) *logs.Conversation {
	c := &logs.Conversation{Exists: true, Out: &store.Batch{},
		Head: ds.Conversation{ID: "c1", Pos: 9, Seq: 7, Term: 1, Members: 2, GroupID: []byte("g"), Generation: 1, Epoch: 8},
		Answers: map[ds.MessageID]store.Answer{
			"old":        {Pos: 4, Seq: 3, Kind: ds.App, Epoch: 6},
			"after-eve":  {Pos: 6, Seq: 5, Kind: ds.App, Epoch: 6},
			"old-commit": {Pos: 7, Seq: 6, Kind: ds.Commit, Epoch: 8},
		},
	}
	c.SetStays("ann", []ds.Interval{{From: 1, Role: ds.Owner}})
	c.SetStays("bob", []ds.Interval{{From: 1, Role: ds.Plain}})
	c.SetStays("eve", []ds.Interval{{From: 2, Until: 5, Role: ds.Plain}})
	if change != nil {
		change(c)
	}
	return c
}

// desert makes everybody of table one who was never there.
func desert(c *logs.Conversation) {
	for _, account := range []ds.AccountID{"ann", "bob", "eve"} {
		c.SetStays(account, nil)
	}
}

func decider(rates limits.Rates) *Service {
	return &Service{limits: limits.New(rates, time.Now), metrics: newMetrics(), now: time.Now}
}

func app(epoch uint64) []byte      { return mlsMessage("g", epoch, wire.ApplicationContent) }
func proposal(epoch uint64) []byte { return mlsMessage("g", epoch, wire.ProposalContent) }

// TestOrderOfDecisions has a row for every step of a decision, each with a request that
// every later step would refuse too.
func TestOrderOfDecisions(t *testing.T) {
	away := func(c *logs.Conversation) { c.Head.Home = "did:web:elsewhere" }
	none := limits.Rates{limits.Sends: {Count: 1, Period: time.Hour}}
	stale := commit("g", 1)
	rows := []struct {
		name, who, message string
		body               []byte
		change             func(*logs.Conversation)
		spent              bool // the caller's rate is used up
		wantSeq            int64
		wantCode           ds.Code
		wantAway           bool
	}{
		{name: "unknown conversation", who: "ann", message: "m", body: stale, spent: true, wantCode: ds.Forbidden,
			change: func(c *logs.Conversation) { c.Exists = false; desert(c); c.Answers = nil }},
		{name: "stranger", who: "sue", message: "m", body: stale, spent: true, change: away, wantCode: ds.Forbidden},
		{name: "stranger asks for an earlier message", who: "sue", message: "old", body: app(8), wantCode: ds.Forbidden},
		{name: "former member asks for one of its time", who: "eve", message: "old", body: app(8), spent: true, change: away, wantSeq: 3},
		{name: "former member asks for a later one", who: "eve", message: "after-eve", body: app(8), wantCode: ds.Forbidden},
		{name: "former member sends", who: "eve", message: "m", body: app(8), spent: true, change: away, wantCode: ds.Forbidden},
		{name: "a repeat comes before the rate", who: "ann", message: "old", body: app(8), spent: true, change: away, wantSeq: 3},
		{name: "a repeat with other bytes keeps its place", who: "bob", message: "old", body: app(1), wantSeq: 3},
		{name: "a repeat of another kind", who: "ann", message: "old-commit", body: app(8), spent: true, wantCode: ds.InvalidRequest},
		{name: "a repeat of a commit from an old epoch", who: "ann", message: "old-commit", body: commit("g", 7), wantSeq: 6},
		{name: "rate before home", who: "ann", message: "m", body: stale, spent: true, change: away, wantCode: ds.RateLimited},
		{name: "home before epoch", who: "ann", message: "m", body: stale, change: away, wantAway: true},
		{name: "epoch", who: "ann", message: "m", body: stale, wantCode: ds.EpochConflict},
		{name: "accepted", who: "ann", message: "m", body: app(8), wantSeq: 8},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := decider(nil)
			if row.spent {
				s = decider(none)
				s.limits.TakeN(nil, limits.Sends, row.who, "c1", 1)
			}
			c := table(row.change)
			before := c.Head
			m := Send{ConversationID: "c1", ID: ds.MessageID(row.message), Body: row.body, Encoding: ds.Base64}
			result, err := s.try(c, who(row.who), m, 1)
			r := result.Record
			if r.Seq != row.wantSeq || ds.CodeOf(err) != row.wantCode || ds.IsUnavailable(err) != row.wantAway {
				t.Errorf("got seq %d, %v", r.Seq, err)
			}
			if err != nil && (c.Head.Pos != before.Pos || c.Head.Epoch != before.Epoch || len(c.Out.Records) > 0) {
				t.Errorf("a refusal changed the conversation: %+v", c.Head)
			}
		})
	}
}

// TestEpochTable has a row for every cell of the table of epochs. The
// conversation is at epoch 8.
func TestEpochTable(t *testing.T) {
	stated := func(epoch int64) func(*Send) {
		return func(m *Send) { m.StatedEpoch, m.StatesEpoch = epoch, true }
	}
	current := func(m *Send) { m.RequireCurrent = true }
	unbound := func(c *logs.Conversation) { c.Head.GroupID, c.Head.Generation, c.Head.Epoch = nil, 0, 0 }
	strict := func(c *logs.Conversation) { c.Head.RefuseOpaque = true }
	both := func(list ...func(*Send)) func(*Send) {
		return func(m *Send) {
			for _, f := range list {
				f(m)
			}
		}
	}
	rows := []struct {
		name      string
		who       string
		body      []byte
		text      bool
		set       func(*Send)
		change    func(*logs.Conversation)
		wantKind  ds.Kind
		wantCode  ds.Code
		wantEpoch int64 // of the record, and the head afterwards
	}{
		{name: "commit of the current epoch", body: commit("g", 8), wantKind: ds.Commit, wantEpoch: 9},
		{name: "commit of a member", who: "bob", body: commit("g", 8), wantKind: ds.Commit, wantEpoch: 9},
		{name: "commit of the epoch before", body: commit("g", 7), wantCode: ds.EpochConflict},
		{name: "commit of the next epoch", body: commit("g", 9), wantCode: ds.EpochConflict},
		{name: "commit of another group", body: commit("h", 8), wantCode: ds.InvalidRequest},
		{name: "proposal of the current epoch", body: proposal(8), wantKind: ds.Proposal, wantEpoch: 8},
		{name: "proposal of the epoch before", body: proposal(7), wantCode: ds.EpochConflict},
		{name: "proposal of the next epoch", body: proposal(9), wantCode: ds.EpochConflict},
		{name: "message of the current epoch", body: app(8), wantKind: ds.App, wantEpoch: 8},
		{name: "message at the window's edge", body: app(3), wantKind: ds.App, wantEpoch: 8},
		{name: "message beyond the window", body: app(2), wantCode: ds.EpochConflict},
		{name: "message of the next epoch", body: app(9), wantCode: ds.EpochConflict},
		{name: "message of another group", body: mlsMessage("h", 8, wire.ApplicationContent), wantCode: ds.InvalidRequest},
		{name: "stated epoch that is the header's", body: app(7), set: stated(7), wantKind: ds.App, wantEpoch: 8},
		{name: "stated epoch that is not the header's", body: app(7), set: stated(8), wantCode: ds.InvalidRequest},
		{name: "equality required and given", body: app(8), set: both(stated(8), current), wantKind: ds.App, wantEpoch: 8},
		{name: "equality required, late", body: app(7), set: both(stated(7), current), wantCode: ds.EpochConflict},
		{name: "opaque, stated late beyond the window", body: []byte("hello"), set: stated(2), wantCode: ds.EpochConflict},
		{name: "opaque, stated within the window", body: []byte("hello"), set: stated(3), wantKind: ds.App, wantEpoch: 8},
		{name: "opaque", body: []byte("hello"), wantKind: ds.App, wantEpoch: 8},
		{name: "opaque where policy refuses it", body: []byte("hello"), change: strict, wantCode: ds.InvalidRequest},
		{name: "cut off message is opaque", body: commit("g", 8)[:len(commit("g", 8))-1], wantKind: ds.App, wantEpoch: 8},
		{name: "message with a tail is opaque", body: append(commit("g", 8), 0), wantKind: ds.App, wantEpoch: 8},
		{name: "text that looks like MLS is opaque", body: commit("g", 8), text: true, wantKind: ds.App, wantEpoch: 8},
		{name: "the owner's commit binds", body: commit("new", 3), change: unbound, wantKind: ds.Commit, wantEpoch: 4},
		{name: "the owner's proposal binds", body: mlsMessage("new", 3, wire.ProposalContent), change: unbound, wantKind: ds.Proposal, wantEpoch: 3},
		{name: "a member's commit before binding is opaque", who: "bob", body: commit("new", 3), change: unbound, wantKind: ds.App, wantEpoch: 0},
		{name: "a message before binding binds nothing", body: app(3), change: unbound, wantKind: ds.App, wantEpoch: 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := table(row.change)
			m := Send{ConversationID: "c1", ID: "m", Body: row.body, Encoding: ds.Base64}
			if row.text {
				m.Encoding = ds.Text
			}
			if row.set != nil {
				row.set(&m)
			}
			if row.who == "" {
				row.who = "ann"
			}
			result, err := decider(nil).try(c, who(row.who), m, 1)
			r := result.Record
			if ds.CodeOf(err) != row.wantCode || r.Kind != row.wantKind {
				t.Fatalf("got %s, %v", r.Kind, err)
			}
			if err == nil && (r.Epoch != row.wantEpoch || c.Head.Epoch != row.wantEpoch) {
				t.Errorf("epoch %d, head %d", r.Epoch, c.Head.Epoch)
			}
		})
	}
}

// welcome is a Welcome for the given KeyPackageRefs.
func welcome(refs ...string) []byte {
	w := &wire.Welcome{CipherSuite: 1, EncryptedGroupInfo: []byte("x")}
	for _, ref := range refs {
		raw, err := hex.DecodeString(ref)
		if err != nil {
			panic(err)
		}
		w.Secrets = append(w.Secrets, wire.EncryptedGroupSecrets{NewMember: raw, Secrets: wire.HPKECiphertext{KEMOutput: []byte("k"), Ciphertext: []byte("c")}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w})
}

func recipient(account, ref string) Recipient {
	return Recipient{Device: who(account).AsDevice(), KeyPackageRef: ref}
}

func groupInfo(group string, epoch uint64) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &wire.GroupInfo{
		Context: wire.GroupContext{Version: wire.MLS10, CipherSuite: 1, GroupID: []byte(group), Epoch: epoch}}})
}

func TestBundle(t *testing.T) {
	unbound := func(c *logs.Conversation) { c.Head.GroupID, c.Head.Epoch = nil, 0 }
	full := func(c *logs.Conversation) { c.Head.Members = membersMax }
	rows := []struct {
		name     string
		who      string
		bundle   Bundle
		change   func(*logs.Conversation)
		wantCode ds.Code
	}{
		{name: "path-only by a member", who: "bob", bundle: Bundle{Commit: commit("g", 8)}},
		{name: "add with welcome", who: "ann", bundle: Bundle{Commit: commit("g", 8), Add: []ds.AccountID{"sue"}, Welcome: welcome("aa"), To: []Recipient{recipient("sue", "aa")}, GroupInfo: groupInfo("g", 9)}},
		{name: "add by a plain member", who: "bob", bundle: Bundle{Commit: commit("g", 8), Add: []ds.AccountID{"sue"}}, wantCode: ds.Forbidden},
		{name: "remove by a plain member", who: "bob", bundle: Bundle{Commit: commit("g", 8), Remove: []ds.AccountID{"ann"}}, wantCode: ds.Forbidden},
		{name: "remove the owner", who: "ann", change: func(c *logs.Conversation) { c.Stays("bob")[0].Role = ds.Owner }, bundle: Bundle{Commit: commit("g", 8), Remove: []ds.AccountID{"bob"}}, wantCode: ds.Forbidden},
		{name: "remove oneself", who: "ann", bundle: Bundle{Commit: commit("g", 8), Remove: []ds.AccountID{"ann"}}, wantCode: ds.InvalidRequest},
		{name: "add beyond the cap", who: "ann", change: full, bundle: Bundle{Commit: commit("g", 8), Add: []ds.AccountID{"sue"}}, wantCode: ds.LimitExceeded},
		{name: "welcome for a stranger", who: "ann", bundle: Bundle{Commit: commit("g", 8), Welcome: welcome("aa"), To: []Recipient{recipient("sue", "aa")}}, wantCode: ds.InvalidRequest},
		{name: "welcome for a member's new device", who: "bob", bundle: Bundle{Commit: commit("g", 8), Welcome: welcome("aa"), To: []Recipient{recipient("ann", "aa")}}},
		{name: "old epoch", who: "ann", bundle: Bundle{Commit: commit("g", 7)}, wantCode: ds.EpochConflict},
		{name: "other group", who: "ann", bundle: Bundle{Commit: commit("h", 8)}, wantCode: ds.InvalidRequest},
		{name: "unbound, by the owner", who: "ann", change: unbound, bundle: Bundle{Commit: commit("h", 0)}},
		{name: "unbound, by a member", who: "bob", change: unbound, bundle: Bundle{Commit: commit("h", 0)}, wantCode: ds.Forbidden},
		{name: "stranger", who: "sue", bundle: Bundle{Commit: commit("g", 8)}, wantCode: ds.Forbidden},
		{name: "repeat", who: "bob", bundle: Bundle{ID: "old-commit", Commit: commit("g", 7)}},
		{name: "repeat of a message", who: "bob", bundle: Bundle{ID: "old", Commit: commit("g", 8)}, wantCode: ds.InvalidRequest},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := table(row.change)
			before := c.Head
			b := row.bundle
			b.ConversationID, b.Encoding = "c1", ds.Base64
			if b.ID == "" {
				b.ID = "m"
			}
			seen, err := checkBundle(b)
			if err != nil {
				t.Fatal(err)
			}
			result, err := decider(nil).try(c, who(row.who), b, 1)
			r := result.Record
			if ds.CodeOf(err) != row.wantCode {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				if c.Head.Pos != before.Pos || c.Head.Epoch != before.Epoch || len(c.Out.Events)+len(c.Out.Records)+len(c.Out.Welcomes) > 0 {
					t.Errorf("a refusal changed something: %+v", c.Out)
				}
				return
			}
			if r.Kind != ds.Commit || b.ID == "m" && (r.Epoch != seen.epoch+1 || c.Head.Committer != who(row.who).AsDevice()) {
				t.Errorf("got %+v", r)
			}
			if welcomes := len(b.To); countEvents(c, ds.WelcomeEvent) != welcomes || countEvents(c, ds.MembersEvent) != len(b.Add)+len(b.Remove) {
				t.Errorf("told %+v", c.Out.Events)
			}
		})
	}
}

func countEvents(c *logs.Conversation, kind ds.Kind) int {
	n := 0
	for _, e := range c.Out.Events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// TestBundleAlone has the refusals that need no conversation.
func TestBundleAlone(t *testing.T) {
	good := commit("g", 8)
	rows := []struct {
		name   string
		bundle Bundle
	}{
		{"no commit", Bundle{}},
		{"application message", Bundle{Commit: app(8)}},
		{"proposal", Bundle{Commit: proposal(8)}},
		{"trailing byte", Bundle{Commit: append(commit("g", 8), 1)}},
		{"cut off", Bundle{Commit: good[:len(good)-1]}},
		{"recipients without welcome", Bundle{Commit: good, To: []Recipient{recipient("sue", "aa")}}},
		{"welcome that is none", Bundle{Commit: good, Welcome: good}},
		{"welcome with a tail", Bundle{Commit: good, Welcome: append(welcome("aa"), 0), To: []Recipient{recipient("sue", "aa")}}},
		{"ref not in the welcome", Bundle{Commit: good, Welcome: welcome("aa"), To: []Recipient{recipient("sue", "bb")}}},
		{"upper-case ref", Bundle{Commit: good, Welcome: welcome("aa"), To: []Recipient{recipient("sue", "AA")}}},
		{"one ref for two devices", Bundle{Commit: good, Welcome: welcome("aa"), To: []Recipient{recipient("sue", "aa"), recipient("tom", "aa")}}},
		{"welcome for more than named", Bundle{Commit: good, Welcome: welcome("aa", "bb"), To: []Recipient{recipient("sue", "aa")}}},
		{"group info of another group", Bundle{Commit: good, GroupInfo: groupInfo("h", 9)}},
		{"group info of the old epoch", Bundle{Commit: good, GroupInfo: groupInfo("g", 8)}},
		{"group info that is none", Bundle{Commit: good, GroupInfo: good}},
		{"added and removed at once", Bundle{Commit: good, Add: []ds.AccountID{"sue"}, Remove: []ds.AccountID{"sue"}}},
		{"empty account", Bundle{Commit: good, Add: []ds.AccountID{""}}},
		{"NUL in an account", Bundle{Commit: good, Remove: []ds.AccountID{"a\x00b"}}},
	}
	for _, row := range rows {
		row.bundle.Encoding = ds.Base64
		if _, err := checkBundle(row.bundle); ds.CodeOf(err) != ds.InvalidRequest {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}
