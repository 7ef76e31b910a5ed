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

// membersInline is up to how many members a line in the list of conversations
// names them (gateway v1, 14).
const membersInline = 20

var statusOK = &gateway.Status{Status: "ok"}

// conversationID checks an identifier that comes by itself (gateway decision 11):
// core answers about one that cannot exist as it does about one that does not.
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

// ok applies an operation whose answer is that it was done.
func (s *Server) ok(ctx context.Context, who identity.Session, op core.Op) (any, error) {
	_, err := s.core.Apply(ctx, who.Caller, op)
	return statusOK, err
}

func (s *Server) createRoom(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return s.ok(ctx, who, core.Create{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (s *Server) invite(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return s.ok(ctx, who, core.Invite{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (s *Server) remove(ctx context.Context, who identity.Session, in *gateway.RoomMembers) (any, error) {
	return s.ok(ctx, who, core.Remove{ConversationID: ds.ConversationID(in.ConvID), Accounts: accounts(in.Members)})
}

func (s *Server) leaveRoom(ctx context.Context, who identity.Session, in *gateway.LeaveRoom) (any, error) {
	leave := core.Leave{ConversationID: ds.ConversationID(in.ConvID)}
	if in.NewOwner != nil {
		if !ds.IsValidAccount(*in.NewOwner) {
			return nil, ds.Refuse(ds.InvalidRequest, "new_owner: not 1 to %d bytes of text", ds.AccountBytesMax)
		}
		leave.NewOwner = ds.AccountID(*in.NewOwner)
	}
	return s.ok(ctx, who, leave)
}

// createDM opens a conversation of two. Without an id one is made up.
func (s *Server) createDM(ctx context.Context, who identity.Session, in *gateway.CreateDM) (any, error) {
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
	if _, err := s.core.Apply(ctx, who.Caller, core.Create{ConversationID: id, Accounts: []ds.AccountID{peer}, IsDM: true}); err != nil {
		return nil, err
	}
	return &gateway.DMCreated{Status: "ok", ConvID: string(id)}, nil
}

// isDMID checks the stricter alphabet of dms/create (gateway v1, section 8).
func isDMID(id ds.ConversationID) bool {
	for _, r := range string(id) {
		if r == utf8.RuneError || r != '_' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return ds.IsValidID(string(id))
}

func (s *Server) members(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	id, err := conversationID(q.Get("conv_id"))
	if err != nil {
		return nil, err
	}
	members, err := s.core.Members(ctx, who.Caller, id)
	if err != nil {
		return nil, err
	}
	out := &gateway.MemberList{ConvID: string(id), Members: make([]gateway.Member, len(members))}
	for i, m := range members {
		out.Members[i] = gateway.Member{UserID: string(m.Account), Role: roleOf(m.Role)}
	}
	return out, nil
}

// roleOf is a role by this protocol's names. It has no moderators.
func roleOf(role ds.Role) string {
	if role == ds.Moderator {
		role = ds.Plain
	}
	return string(role)
}

func (s *Server) groupInfo(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	id, err := conversationID(q.Get("conv_id"))
	if err != nil {
		return nil, err
	}
	info, head, err := s.core.GroupInfo(ctx, who.Caller, id)
	if err != nil {
		return nil, err
	}
	return &gateway.GroupInfo{ConvID: string(id), Epoch: head.Epoch, GroupInfo: base64.StdEncoding.EncodeToString(info)}, nil
}

func (s *Server) conversations(ctx context.Context, who identity.Session, q url.Values) (any, error) {
	after, limit, err := parseList(q)
	if err != nil {
		return nil, err
	}
	summaries, more, err := s.core.Conversations(ctx, who.Caller, after, limit)
	if err != nil {
		return nil, err
	}
	out := &gateway.ConversationList{Items: make([]gateway.Conversation, len(summaries))}
	for i := range summaries {
		out.Items[i] = s.conversation(who.Account, &summaries[i])
	}
	if more {
		last := &summaries[len(summaries)-1]
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(last.CreatedMS, 10) + " " + string(last.ID)))
	}
	return out, nil
}

// parseList reads which page of a list is wanted: after what, and of how many at most.
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

func (s *Server) conversation(reader ds.AccountID, c *ds.Summary) gateway.Conversation {
	out := gateway.Conversation{
		ConvID:      string(c.ID),
		Role:        roleOf(c.Role),
		CreatedAtMS: c.CreatedMS,
		HomeGateway: s.homeOf(c.Home),
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
		out.UnreadCount = c.Seq - c.EarliestSeq + 1 // what is retained: nobody marks as read yet
	}
	return out
}

// homeOf is the name of the service that orders a log; "" stands for this one.
func (s *Server) homeOf(home string) string {
	if home == "" {
		return s.did()
	}
	return home
}
