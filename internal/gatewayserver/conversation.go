package gatewayserver

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
)

// membersInline is the most members that an item in the list of conversations names.
const membersInline = 20

var statusOK = &gateway.Status{Status: "ok"}

// conversationID checks an identifier in a query: core refuses one that
// cannot exist like one that does not.
func conversationID(s string) (ds.ConversationID, error) {
	if !ds.IsValidID(s) {
		return "", ds.Refuse(ds.InvalidRequest, "conv_id must be 1 to %d bytes of UTF-8 without NUL", ds.IDBytesMax)
	}
	return ds.ConversationID(s), nil
}

func accounts(names []string) []ds.AccountID {
	ids := make([]ds.AccountID, len(names))
	for i, name := range names {
		ids[i] = ds.AccountID(name)
	}
	return ids
}

// rooms holds the calls about conversations and their members.
type rooms struct {
	core *core.Service
	did  func() string // of this service
}

// ok applies an operation that returns no data.
func (o rooms) ok(ctx context.Context, who identity.Session, op core.Op) (any, error) {
	_, err := o.core.Apply(ctx, who.Caller, op)
	return statusOK, err
}

func (o rooms) createRoom(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return o.ok(ctx, who, core.Create{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (o rooms) invite(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return o.ok(ctx, who, core.Invite{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (o rooms) remove(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return o.ok(ctx, who, core.Remove{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (o rooms) promote(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return o.ok(ctx, who, core.SetAdmins{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (o rooms) demote(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return o.ok(ctx, who, core.SetAdmins{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members), Take: true})
}

func (o rooms) leaveRoom(ctx context.Context, who identity.Session, in *gateway.LeaveRoom) (any, error) {
	leave := core.Leave{ConversationID: ds.ConversationID(in.ConvID)}
	if in.NewOwner != nil {
		if !ds.IsValidAccount(*in.NewOwner) {
			return nil, ds.Refuse(ds.InvalidRequest, "new_owner: not 1 to %d bytes of text", ds.AccountBytesMax)
		}
		leave.NewOwner = ds.AccountID(*in.NewOwner)
	}
	return o.ok(ctx, who, leave)
}

// createDM creates a conversation of two. Without an id it makes one.
func (o rooms) createDM(ctx context.Context, who identity.Session, in *gateway.CreateDM) (any, error) {
	peer := ds.AccountID(strings.TrimSpace(in.PeerUserID))
	switch {
	case peer == "" || !ds.IsValidAccount(string(peer)):
		return nil, ds.Refuse(ds.InvalidRequest, "peer_user_id must be 1 to 512 bytes of UTF-8 without NUL")
	case peer == who.Account:
		return nil, ds.Refuse(ds.InvalidRequest, "peer_user_id is the caller")
	}
	var id ds.ConversationID
	if in.ConvID != nil {
		id = ds.ConversationID(*in.ConvID)
	}
	if id == "" {
		var random [12]byte
		_, _ = rand.Read(random[:]) // never fails (crypto/rand)
		id = ds.ConversationID("dm_" + base64.RawURLEncoding.EncodeToString(random[:]))
	}
	if !isDMID(id) {
		return nil, ds.Refuse(ds.InvalidRequest, "invalid conv_id")
	}
	if _, err := o.core.Apply(ctx, who.Caller, core.Create{ConversationID: id, Accounts: []ds.AccountID{peer}, IsDM: true}); err != nil {
		return nil, err
	}
	return &gateway.DMCreated{Status: "ok", ConvID: string(id)}, nil
}

// isDMID checks the stricter alphabet of dms/create.
func isDMID(id ds.ConversationID) bool {
	for _, r := range string(id) {
		if r == utf8.RuneError || r != '_' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return ds.IsValidID(string(id))
}

func (o rooms) members(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	id, err := conversationID(q.Get("conv_id"))
	if err != nil {
		return nil, err
	}
	members, err := o.core.Members(ctx, who.Caller, id)
	if err != nil {
		return nil, err
	}
	out := &gateway.MemberList{ConvID: string(id), Members: make([]gateway.Member, len(members))}
	for i, m := range members {
		out.Members[i] = gateway.Member{UserID: string(m.Account), Role: roleOf(m.Role)}
	}
	return out, nil
}

// roleOf returns the name of a role in this protocol, which has no moderators.
func roleOf(role ds.Role) string {
	if role == ds.Moderator {
		role = ds.Plain
	}
	return string(role)
}

func (o rooms) groupInfo(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	id, err := conversationID(q.Get("conv_id"))
	if err != nil {
		return nil, err
	}
	info, head, err := o.core.GroupInfo(ctx, who.Caller, id)
	if err != nil {
		return nil, err
	}
	return &gateway.GroupInfo{ConvID: string(id), Epoch: head.Epoch, GroupInfo: base64.StdEncoding.EncodeToString(info)}, nil
}

func (o rooms) conversations(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	after, limit, err := parseList(q)
	if err != nil {
		return nil, err
	}
	summaries, more, err := o.core.Conversations(ctx, who.Caller, after, limit)
	if err != nil {
		return nil, err
	}
	out := &gateway.ConversationList{Items: make([]gateway.Conversation, len(summaries))}
	for i := range summaries {
		out.Items[i] = o.conversation(who.Account, &summaries[i])
	}
	if more {
		last := &summaries[len(summaries)-1]
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.CreatedMS, 10) + " " + string(last.ID)))
	}
	return out, nil
}

// parseList reads the cursor and the limit of a page of a list.
func parseList(q url.Values) (after core.ListPlace, limit int, err error) {
	limit = core.ConversationsMax
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > core.ConversationsMax {
			return after, 0, ds.Refuse(ds.InvalidRequest, "limit: not 1 to %d", core.ConversationsMax)
		}
	}
	text := q.Get("cursor")
	if text == "" {
		return after, limit, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	created, id, isPair := strings.Cut(string(raw), " ")
	ms, notNumber := strconv.ParseInt(created, 10, 64)
	if err != nil || !isPair || notNumber != nil || !ds.IsValidID(id) {
		return after, 0, ds.Refuse(ds.InvalidRequest, "cursor: not one of this list")
	}
	return core.ListPlace{CreatedMS: ms, ID: ds.ConversationID(id)}, limit, nil
}

func (o rooms) conversation(reader ds.AccountID, c *ds.Summary) gateway.Conversation {
	out := gateway.Conversation{
		ConvID:      string(c.ID),
		Role:        roleOf(c.Role),
		CreatedAtMS: c.CreatedMS,
		HomeGateway: homeOf(c.Home, o.did()),
		MemberCount: c.Members,
		DisplayName: string(c.ID),
	}
	if c.Members <= membersInline {
		for _, member := range c.MemberList {
			out.Members = append(out.Members, string(member))
		}
		slices.Sort(out.Members)
	}
	if peer := slices.IndexFunc(c.MemberList, func(m ds.AccountID) bool { return m != reader }); c.Members == 2 && peer >= 0 {
		out.DisplayName = "DM with " + string(c.MemberList[peer])
	}
	if c.Seq > 0 {
		out.EarliestSeq, out.LatestSeq, out.LatestTSMS = &c.EarliestSeq, &c.Seq, &c.LatestMS
		out.UnreadCount = c.Seq - c.EarliestSeq + 1 // all that is retained: there are no read marks yet
	}
	return out
}

// homeOf returns the name of the service that orders a log; "" stands for this one, own.
func homeOf(home, own string) string {
	if home == "" {
		return own
	}
	return home
}
