package core

import (
	"time"

	"database/sql"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/mls/wire"
)

// council is table with everybody's role given: "ann:owner bob:admin", in the order in
// which they came.
func council(roles string, change func(*logs.Conversation)) *logs.Conversation {
	c := table(nil)
	desert(c)
	c.SetStays("eve", []ds.Interval{{From: 2, Until: 5, Role: ds.Admin}})
	accounts := []ds.AccountID{"eve"}
	c.Head.Members, c.Head.Policy = 0, ds.DefaultPolicy()
	for i, text := range strings.Fields(roles) {
		name, role, _ := strings.Cut(text, ":")
		c.SetStays(ds.AccountID(name), []ds.Interval{{From: int64(i + 1), Role: ds.Role(role)}})
		accounts = append(accounts, ds.AccountID(name))
		c.Head.Members++
	}
	if change != nil {
		change(c)
	}
	c.Present = map[ds.AccountID]ds.Interval{}
	for _, account := range accounts {
		if stay, isMember := c.Stay(account); isMember {
			c.Present[account] = stay
		}
	}
	return c
}

// rolesOf is what council was made of.
func rolesOf(c *logs.Conversation) string {
	var list []string
	for _, account := range byTenure(c, "") {
		list = append(list, fmt.Sprintf("%s:%s", account, c.Role(account)))
	}
	return strings.Join(list, " ")
}

func reasonOf(err error) ds.Reason {
	if r, ok := err.(*ds.Refusal); ok {
		return r.Reason
	}
	return ""
}

func TestRoleChanges(t *testing.T) {
	const all = "zoe:owner bob:admin cid:moderator dan:member ann:member"
	lax := func(c *logs.Conversation) { c.Head.Policy.PreventRemovingLastAdmin = false }
	tests := []struct {
		name, roles string
		change      func(*logs.Conversation)
		demotes     bool
		by, target  ds.AccountID
		role        ds.Role
		want        string // the roles, or "" where it is refused
		reason      ds.Reason
	}{
		{name: "an admin makes an admin", by: "bob", target: "ann", role: ds.Admin, want: "zoe:owner bob:admin cid:moderator dan:member ann:admin"},
		{name: "a moderator becomes an admin", by: "zoe", target: "cid", role: ds.Admin, want: "zoe:owner bob:admin cid:admin dan:member ann:member"},
		{name: "a moderator makes a moderator", by: "cid", target: "dan", role: ds.Moderator, reason: ds.NotAllowed},
		{name: "a member makes itself one", by: "dan", target: "dan", role: ds.Moderator, reason: ds.NotAllowed},
		{name: "an admin becomes a moderator by promotion", by: "zoe", target: "bob", role: ds.Moderator, reason: ds.AlreadyDone},
		{name: "the owner becomes an admin by promotion", by: "bob", target: "zoe", role: ds.Admin, reason: ds.AlreadyDone},
		{name: "who has left", by: "zoe", target: "eve", role: ds.Admin, reason: ds.TargetNotMember},
		{name: "who has left promotes", by: "eve", target: "ann", role: ds.Admin, reason: ds.NotAllowed},
		{name: "an admin demotes the owner", demotes: true, by: "bob", target: "zoe", role: ds.Admin, want: "zoe:member bob:owner cid:moderator dan:member ann:member"},
		{name: "the owner itself", demotes: true, by: "zoe", target: "zoe", role: ds.Admin, want: "zoe:member bob:owner cid:moderator dan:member ann:member"},
		{name: "the owner demotes an admin", demotes: true, by: "zoe", target: "bob", role: ds.Admin, want: "zoe:owner bob:member cid:moderator dan:member ann:member"},
		{name: "an admin itself", demotes: true, by: "bob", target: "bob", role: ds.Admin, want: "zoe:owner bob:member cid:moderator dan:member ann:member"},
		{name: "a member demotes", demotes: true, by: "dan", target: "bob", role: ds.Admin, reason: ds.NotAllowed},
		{name: "a moderator demotes a moderator", roles: "zoe:owner bob:moderator cid:moderator", demotes: true, by: "cid", target: "bob", role: ds.Moderator, reason: ds.NotAllowed},
		{name: "a moderator itself", demotes: true, by: "cid", target: "cid", role: ds.Moderator, want: "zoe:owner bob:admin cid:member dan:member ann:member"},
		{name: "an admin as a moderator", demotes: true, by: "zoe", target: "bob", role: ds.Moderator},
		{name: "a moderator as an admin", demotes: true, by: "zoe", target: "cid", role: ds.Admin},
		{name: "the only admin", roles: "zoe:owner cid:moderator", demotes: true, by: "zoe", target: "zoe", role: ds.Admin, reason: ds.LastAdmin},
		{name: "the only admin, where the rules allow it", roles: "zoe:owner dan:member cid:moderator", change: lax, demotes: true, by: "zoe", target: "zoe", role: ds.Admin,
			want: "zoe:member dan:owner cid:moderator"},
		{name: "the only member, where the rules allow it", roles: "zoe:owner", change: lax, demotes: true, by: "zoe", target: "zoe", role: ds.Admin, reason: ds.LastAdmin},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.roles == "" {
				test.roles = all
			}
			c := council(test.roles, test.change)
			a := &action{op: ChangeRole{ConversationID: "c1", Account: test.target, Role: test.role, Take: test.demotes}, who: who(string(test.by))}
			err := a.op.may(c, a, 7)
			if err == nil {
				_, err = a.op.judge(c, a)
			}
			if err == nil {
				a.op.do(c, a, verdict{}, 7)
			}
			if (err == nil) != (test.want != "") || reasonOf(err) != test.reason {
				t.Fatalf("got %v", err)
			}
			if err != nil {
				test.want = test.roles
			}
			if got := rolesOf(c); got != test.want {
				t.Errorf("roles %s, want %s", got, test.want)
			}
			if len(c.Out.Roles) != len(c.Out.Records) || err != nil && len(c.Out.Roles) > 0 {
				t.Errorf("%d roles are written with %d records", len(c.Out.Roles), len(c.Out.Records))
			}
		})
	}
}

// TestRights has who may add and remove, by role and by the rules of the conversation.
func TestRights(t *testing.T) {
	const all = "zoe:owner bob:admin cid:moderator dan:member"
	adds := func(c *logs.Conversation) { c.Head.Policy.AllowMemberAdd = true }
	removes := func(c *logs.Conversation) { c.Head.Policy.AllowMemberRemove = true }
	tests := []struct {
		name   string
		change func(*logs.Conversation)
		add    string            // who may add
		remove map[string]string // whom each may remove
	}{
		{"by default", nil, "zoe bob", map[string]string{"zoe": "bob cid dan eve sue", "bob": "bob cid dan eve sue", "cid": "dan eve sue", "dan": "", "eve": "", "sue": ""}},
		{"members may add", adds, "zoe bob cid dan", nil},
		{"members may add, and an admin has to", func(c *logs.Conversation) { adds(c); c.Head.Policy.RequireAdminApproval = true }, "zoe bob", nil},
		{"members may remove", removes, "zoe bob", map[string]string{"zoe": "bob cid dan eve sue", "cid": "dan eve sue", "dan": "dan eve sue", "eve": ""}},
	}
	people := []string{"zoe", "bob", "cid", "dan", "eve", "sue"}
	for _, test := range tests {
		c := council(all, test.change)
		var list []string
		for _, p := range people {
			if mayAdd(c, ds.AccountID(p)) {
				list = append(list, p)
			}
		}
		if got := strings.Join(list, " "); got != test.add {
			t.Errorf("%s: %s may add, want %s", test.name, got, test.add)
		}
		for p, want := range test.remove {
			var list []string
			for _, q := range people {
				if mayRemove(c, ds.AccountID(p), ds.AccountID(q)) {
					list = append(list, q)
				}
			}
			if got := strings.Join(list, " "); got != want {
				t.Errorf("%s: %s may remove %q, want %q", test.name, p, got, want)
			}
		}
	}
}

func TestSetAdmins(t *testing.T) {
	const all = "zoe:owner bob:admin cid:moderator dan:member"
	for _, test := range []struct {
		name, by, accounts string
		take               bool
		want               string // the roles, or "" where it is refused
	}{
		{name: "all", by: "zoe", accounts: "zoe bob cid dan eve dan", want: "zoe:owner bob:admin cid:admin dan:admin"},
		{name: "no account", by: "zoe", want: all},
		{name: "takes", by: "zoe", accounts: "zoe bob cid dan eve bob", take: true, want: "zoe:owner bob:member cid:moderator dan:member"},
		{name: "an admin makes one", by: "bob", accounts: "dan"},
		{name: "an admin itself", by: "bob", accounts: "bob", take: true},
		{name: "a member itself", by: "dan", accounts: "dan"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := council(all, nil)
			op := SetAdmins{ConversationID: "c1", Take: test.take}
			for _, account := range strings.Fields(test.accounts) {
				op.Accounts = append(op.Accounts, ds.AccountID(account))
			}
			a := &action{op: op, who: who(test.by)}
			err := op.may(c, a, 7)
			if err == nil {
				v, _ := op.judge(c, a)
				if op.do(c, a, v, 7); v.bytes < roleBytes*len(c.Out.Roles) || len(c.Out.Roles) == 0 && v.bytes > 0 {
					t.Errorf("%d bytes are counted for %d changes", v.bytes, len(c.Out.Roles))
				}
			}
			if (err == nil) != (test.want != "") {
				t.Fatalf("got %v", err)
			}
			if got := rolesOf(c); err == nil && got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestEndsAreDecided(t *testing.T) {
	const all = "zoe:owner bob:admin cid:moderator dan:member"
	away := func(c *logs.Conversation) { c.Head.Home = "did:web:elsewhere" }
	tests := []struct {
		name, roles string
		change      func(*logs.Conversation)
		who, target string
		handshake   []byte
		want        string // the roles
		epoch       int64
		code        ds.Code
		isAway      bool
	}{
		{name: "a member", who: "dan", target: "dan", want: "zoe:owner bob:admin cid:moderator", epoch: 8},
		{name: "the owner", who: "zoe", target: "zoe", want: "bob:owner cid:moderator dan:member", epoch: 8},
		{name: "the owner without admins", roles: "zoe:owner dan:member cid:moderator", who: "zoe", target: "zoe", want: "dan:owner cid:moderator", epoch: 8},
		{name: "the last", roles: "zoe:owner", who: "zoe", target: "zoe", want: "", epoch: 8},
		{name: "by an admin, with a commit", who: "bob", target: "dan", handshake: commit("g", 8), want: "zoe:owner bob:admin cid:moderator", epoch: 9},
		{name: "the owner with a commit", who: "zoe", target: "zoe", handshake: commit("g", 8), want: "bob:owner cid:moderator dan:member", epoch: 9},
		{name: "a member with a proposal", who: "dan", target: "dan", handshake: proposal(8), want: "zoe:owner bob:admin cid:moderator", epoch: 8},
		{name: "with a commit of a lost epoch", who: "zoe", target: "zoe", handshake: commit("g", 7), code: ds.EpochConflict},
		{name: "with a proposal of a lost epoch", who: "dan", target: "dan", handshake: proposal(7), code: ds.EpochConflict},
		{name: "membership before rights", who: "eve", target: "zoe", code: ds.Forbidden},
		{name: "rights before home", who: "dan", target: "bob", change: away, code: ds.Forbidden},
		{name: "target before home", who: "bob", target: "sue", change: away, code: ds.InvalidRequest},
		{name: "home before epoch", who: "bob", target: "dan", handshake: commit("g", 7), change: away, isAway: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.roles == "" {
				test.roles = all
			}
			c := council(test.roles, test.change)
			before := c.Head
			var id ds.MessageID
			if test.handshake != nil {
				id = "c-1"
			}
			var op Op = Leave{ConversationID: "c1", PassOn: true, Handshake: test.handshake, HandshakeID: id}
			if test.who != test.target {
				op = Remove{ConversationID: "c1", Accounts: []ds.AccountID{ds.AccountID(test.target)}, Strict: true, Handshake: test.handshake, HandshakeID: id}
			}
			result, err := decider(nil).try(c, who(test.who), op, 7)
			epoch := result.Epoch
			if ds.CodeOf(err) != test.code || ds.IsUnavailable(err) != test.isAway || epoch != test.epoch {
				t.Fatalf("epoch %d, %v", epoch, err)
			}
			if err != nil {
				if rolesOf(c) != test.roles || c.Head.Pos != before.Pos || c.Head.Epoch != before.Epoch || len(c.Out.Records)+len(c.Out.Roles) > 0 {
					t.Errorf("a refusal changed the conversation: %s %+v", rolesOf(c), c.Head)
				}
				return
			}
			if got := rolesOf(c); got != test.want || c.Head.Members != before.Members-1 {
				t.Errorf("roles %s, %d members", got, c.Head.Members)
			}
			// The reader's last record is the one that says it: what came with it is before.
			if last := c.Out.Records[len(c.Out.Records)-1]; last.Kind != ds.Membership {
				t.Errorf("the last record is a %s", last.Kind)
			}
			if test.handshake == nil {
				return
			}
			if again, err := decider(nil).try(c, who(test.who), op, 8); err != nil || again.Epoch != epoch {
				t.Errorf("again: epoch %d, %v", again.Epoch, err)
			}
		})
	}
}

func TestGroupInfoIsDecided(t *testing.T) {
	tests := []struct {
		name   string
		who    string
		change func(*logs.Conversation)
		of     wire.GroupContext
		stored int64 // epoch of what is there
		quiet  bool  // the caller says nothing of the epoch
		want   bool
		code   ds.Code
	}{
		{name: "of the current epoch", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 8}, stored: 7, want: true},
		{name: "the first ever", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 8}, stored: -1, want: true},
		{name: "the second of the epoch", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 8}, stored: 8, code: ds.EpochConflict},
		{name: "the second, quietly", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 8}, stored: 8, quiet: true},
		{name: "of an epoch before", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 7}, stored: 6, code: ds.EpochConflict},
		{name: "of an epoch before, quietly", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 7}, stored: 6, quiet: true, code: ds.EpochConflict},
		{name: "of an epoch to come", who: "bob", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 9}, stored: 7, code: ds.EpochConflict},
		{name: "of another group", who: "bob", of: wire.GroupContext{GroupID: []byte("h"), Epoch: 8}, stored: 7, code: ds.InvalidRequest},
		{name: "of a conversation without a group", who: "bob", change: func(c *logs.Conversation) { c.Head.GroupID = nil }, of: wire.GroupContext{Epoch: 8}, code: ds.InvalidRequest},
		{name: "of who has left", who: "eve", of: wire.GroupContext{GroupID: []byte("g"), Epoch: 8}, code: ds.Forbidden},
	}
	for _, test := range tests {
		c := table(test.change)
		c.InfoEpoch = test.stored
		op := GroupInfoUpdate{ConversationID: "c1", GroupInfo: groupInfo(string(test.of.GroupID), test.of.Epoch)}
		if epoch := int64(test.of.Epoch); !test.quiet {
			op.Epoch = &epoch
		}
		result, err := decider(nil).try(c, who(test.who), op, 7)
		stored := result.IsNew
		if stored != test.want || ds.CodeOf(err) != test.code || (len(c.Out.Infos) == 1) != test.want || (len(c.Out.Records) == 1) != test.want {
			t.Errorf("%s: stored %v, %v, %d records", test.name, stored, err, len(c.Out.Records))
		}
		if test.want && (c.InfoEpoch != 8 || c.Out.Infos[0].Epoch != 8 || c.Out.Infos[0].Pos != c.Head.Pos) {
			t.Errorf("%s: %+v", test.name, c.Out.Infos[0])
		}
	}
}

func TestNewGroupIsDecided(t *testing.T) {
	empty := func(c *logs.Conversation) {
		desert(c)
		c.Exists, c.Answers, c.Head = false, nil, ds.Conversation{ID: "c1"}
	}
	tests := []struct {
		name    string
		who     string
		change  func(*logs.Conversation)
		refused error
		want    bool
		reason  ds.Reason
		code    ds.Code
	}{
		{name: "a new one", who: "ann", change: empty, want: true},
		{name: "a new one with a wrong package", who: "ann", change: empty, refused: ds.Refuse(ds.InvalidRequest, "x").Because(ds.NoKeyPackage), code: ds.InvalidRequest, reason: ds.NoKeyPackage},
		{name: "again", who: "ann"},
		{name: "again with what was wrong since", who: "bob", refused: refuseTarget},
		{name: "who has left", who: "eve", code: ds.InvalidRequest, reason: ds.Taken},
		{name: "a stranger", who: "sue", code: ds.InvalidRequest, reason: ds.Taken},
	}
	for _, test := range tests {
		c := table(func(c *logs.Conversation) { c.Head.Policy = ds.DefaultPolicy() })
		if test.change != nil {
			test.change(c)
		}
		op := Create{ConversationID: "c1", GroupID: []byte{0xc1}, Welcome: []byte("w"), GroupInfo: []byte("i")}
		a := &action{service: decider(nil), bill: &bill{}, op: op, who: who(test.who), admits: anyone, refused: test.refused, found: &found{epoch: 3, welcomeID: "w",
			members: []ds.AccountID{ds.AccountID(test.who), "cid"}, to: []Recipient{{Device: ds.Device{Account: "cid"}}}}}
		err := a.Decide(c, time.UnixMilli(7))
		created := a.result.IsNew
		if created != test.want || ds.CodeOf(err) != test.code || reasonOf(err) != test.reason {
			t.Errorf("%s: %v, %v", test.name, created, err)
		}
		written := len(c.Out.Records) + len(c.Out.Stays) + len(c.Out.Welcomes) + len(c.Out.Recipients) + len(c.Out.Infos) + len(c.Out.Details)
		if test.want && (written != 7 || c.Head.Epoch != 3 || c.Head.Generation != 1 || c.Role("ann") != ds.Owner || c.Role("cid") != ds.Plain) || !test.want && written > 0 {
			t.Errorf("%s: %d things are written, head %+v", test.name, written, c.Head)
		}
	}
}

func TestPageOfConversations(t *testing.T) {
	sizes := func(members ...int64) (list []ds.View) {
		for _, n := range members {
			list = append(list, ds.View{Conversation: ds.Conversation{Members: n}})
		}
		return list
	}
	for _, test := range []struct {
		list  []ds.View
		limit int
		want  int
	}{
		{nil, 5, 0}, {sizes(1, 1, 1), 2, 2}, {sizes(1, 1), 2, 2}, {sizes(1), 2, 1},
		{sizes(convosParticipantsMax+1, 1), 5, 1}, // one always
		{sizes(convosParticipantsMax-1, 1, 1), 5, 2},
	} {
		if got := pageOf(test.list, test.limit); got != test.want {
			t.Errorf("of %d with limit %d: %d, want %d", len(test.list), test.limit, got, test.want)
		}
	}
	if !slices.Equal(byTenure(council("b:owner a:member", nil), ""), []ds.AccountID{"b", "a"}) {
		t.Error("who came first does not stand first")
	}
}

// TestManyFormerMembers: a change of roles, and a leaving over XRPC, load those who are
// there and not everybody who ever was; by an index, on both databases.
func TestManyFormerMembers(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const former = 20_000
		w := newWorld(t, url)
		w.room("c1", "ann", "bob", "cid")
		driver, name := databaseOf(url)
		db, err := sql.Open(driver, name)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.Exec(`INSERT INTO intervals (log_id, account, from_pos, until_pos, role)
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT 'c/c1', 'former-' || i, 1, 1, 'member' FROM n`, former); err != nil {
			t.Fatal(err)
		}
		for name, do := range map[string]func() error{
			"promote": func() error {
				return w.apply(who("ann"), ChangeRole{ConversationID: "c1", Account: "bob", Role: ds.Admin})
			},
			"leave": func() error {
				_, err := w.service.Apply(t.Context(), who("cid"), Leave{ConversationID: "c1", PassOn: true})
				return err
			},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := do(); err != nil {
				t.Fatal(name, err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > former*50 {
				t.Errorf("%s: %d bytes were allocated beside %d former members", name, n, former)
			}
		}
		rows := func(explain, set, by string) (plan string) {
			list, err := db.Query(explain+` SELECT log_id, account, from_pos, role FROM intervals`+by+` WHERE log_id `+set+` AND until_pos IS NULL`, "c/c1")
			if err != nil {
				t.Fatal(err)
			}
			defer list.Close()
			for list.Next() {
				columns, _ := list.Columns()
				values := make([]any, len(columns))
				for i := range values {
					values[i] = new(sql.NullString)
				}
				if err := list.Scan(values...); err != nil {
					t.Fatal(err)
				}
				plan += values[len(values)-1].(*sql.NullString).String + "\n"
			}
			return plan
		}
		plan := ""
		if strings.HasPrefix(url, "sqlite:") {
			plan = rows("EXPLAIN QUERY PLAN", "IN (SELECT value FROM json_each(json_array($1)))", " INDEXED BY intervals_now")
		} else {
			if _, err := db.Exec(`ANALYZE intervals`); err != nil {
				t.Fatal(err)
			}
			plan = rows("EXPLAIN", "= ANY(ARRAY[$1]::text[])", "")
		}
		if !strings.Contains(plan, "intervals_now") {
			t.Errorf("the plan is %s", plan)
		}
	})
}
