package xrpcserver

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// conversations holds the methods of conversations as a whole.
type conversations struct {
	core *core.Service
	did  func() string // of this service
}

func (c conversations) register(s *Server) {
	procedure(s, xrpc.CreateConvo, c.createConvo)
	query(s, xrpc.GetConvos, c.getConvos)
}

// convoID checks the id of a conversation to change. An id that cannot exist is refused like
// one that does not.
func convoID(text string) (ds.ConversationID, error) {
	if !ds.IsValidID(text) {
		return "", ds.Refuse(ds.Forbidden, "not a member").Because(ds.NotMember)
	}
	return ds.ConversationID(text), nil
}

func (c conversations) createConvo(ctx context.Context, who ds.Caller, in *xrpc.CreateConvoInput) (*xrpc.CreateConvoOutput, error) {
	if in.Invite != nil {
		return nil, &Error{http.StatusNotImplemented, xrpc.ErrorMethodNotImplemented, "this server does not have invite codes of conversations"}
	}
	create, err := createOf(in)
	if err != nil {
		return nil, err
	}
	if _, err := c.core.Apply(ctx, who, create); err != nil {
		return nil, err
	}
	view, err := c.core.Convo(ctx, who, create.ConversationID)
	if err != nil {
		return nil, err
	}
	return xrpc.NewCreateConvoOutput(c.convoView(&view)), nil
}

// createOf decodes the creation of a conversation together with its group. The id of the
// conversation is the hex form of the group's id.
func createOf(in *xrpc.CreateConvoInput) (core.Create, error) {
	g := core.Create{ConversationID: ds.ConversationID(in.GroupID), Suite: in.CipherSuite, Welcome: in.WelcomeMessage.Data, GroupInfo: in.GroupInfo.Data}
	if _, isKnown := xrpc.SuiteNumber(in.CipherSuite); !isKnown {
		return g, &Error{http.StatusBadRequest, "InvalidCipherSuite", "cipherSuite is not known here"}
	}
	if in.CurrentEpoch != nil {
		epoch := int64(*in.CurrentEpoch)
		g.Epoch = &epoch
	}
	if in.Metadata != nil {
		g.Title, g.Description = in.Metadata.Name, in.Metadata.Description
	}
	for _, did := range in.InitialMembers {
		account, err := accountOf(did)
		if err != nil {
			return g, err
		}
		g.Accounts = append(g.Accounts, account)
	}
	for _, p := range in.KeyPackageHashes {
		account, err := accountOf(p.DID)
		if err != nil {
			return g, err
		}
		g.Packages = append(g.Packages, core.UsedPackage{Account: account, Ref: p.Hash})
	}
	var err error
	if g.GroupID, err = hex.DecodeString(in.GroupID); err != nil || len(g.GroupID) == 0 || !ds.IsValidID(in.GroupID) {
		return g, ds.Refuse(ds.InvalidRequest, "groupId must be up to %d characters of hex", ds.IDBytesMax)
	}
	return g, nil
}

// convoView encodes a conversation for both generations.
func (c conversations) convoView(v *ds.View) xrpc.ConvoView {
	out := xrpc.ConvoView{ConversationID: string(v.ID), GroupID: groupID(v), Creator: string(v.Creator), Epoch: v.Epoch, CipherSuite: v.Suite,
		CreatedAt: xrpc.TimeMS(v.CreatedMS), ConfirmationTag: v.ConfirmationTag, SequencerDID: c.did()}
	if out.CipherSuite == "" { // a gateway client made it
		out.CipherSuite = xrpc.SuiteName(v.SuiteNumber)
	}
	if v.LatestMS > 0 {
		out.LastMessageAt = coarse(v.LatestMS)
	}
	if v.Title != "" || v.Description != "" {
		out.Metadata = &xrpc.Metadata{Name: v.Title, Description: v.Description}
	}
	if v.Generation > 1 {
		resets := v.Generation - 1
		out.ResetGeneration = &resets
	}
	out.Members = make([]xrpc.MemberView, 0, len(v.Participants))
	for i := range v.Participants {
		p := &v.Participants[i]
		if v.Creator == "" && p.Role == ds.Owner {
			out.Creator = string(p.Account)
		}
		// Members in the gateway's conversations may have names that are not DIDs. These
		// clients would refuse the whole answer for one.
		if isDID(string(p.Account)) {
			out.Members = append(out.Members, memberView(p))
		}
	}
	return out
}

// groupID returns the MLS group id in hex, in the spelling of its creator, or the id of the
// conversation where it has no group.
func groupID(v *ds.View) string {
	if text := hex.EncodeToString(v.GroupID); v.IsBound() && !strings.EqualFold(text, string(v.ID)) {
		return text
	}
	return string(v.ID)
}

// waiting maps the filters of getConvos. Members need no acceptance here: a conversation is
// pending until it has reached one of the caller's devices.
var waiting = map[string]core.Waiting{"": core.AnyConvo, "all": core.AnyConvo, "pending": core.WaitingConvo, "requests": core.WaitingConvo,
	"expected": core.WaitingForDevice}

func (c conversations) getConvos(ctx context.Context, who ds.Caller, in *xrpc.GetConvosParams) (*xrpc.GetConvosOutput, error) {
	which, isKnown := waiting[in.Filter]
	if !isKnown {
		return nil, &Error{http.StatusBadRequest, "InvalidFilter", "filter must be all, pending, requests or expected"}
	}
	q := core.ConvosQuery{Waiting: which, Count: in.CountOnly}
	if in.Limit != nil { // else all, as clients rely on
		limit, err := pageLimit(in.Limit)
		if err != nil {
			return nil, err
		}
		q.Limit = limit
	}
	if _, device, isFull := strings.Cut(in.DeviceID, "#"); isFull {
		q.Device = ds.DeviceID(device)
	} else {
		q.Device = ds.DeviceID(in.DeviceID)
	}
	if q.Device != "" && !ds.IsValidID(string(q.Device)) {
		return nil, invalid("deviceId is too long")
	}
	var ok bool
	if q.After, ok = parseConvosCursor(in.Cursor); !ok {
		return nil, &Error{http.StatusBadRequest, "InvalidCursor", "the cursor is not one of ours"}
	}
	list, more, count, err := c.core.Convos(ctx, who, q)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetConvosOutput{PendingCount: &count, RequestCount: &count}
	size := 0
	for i := range list {
		if size += convoBytes(&list[i]); size > answerBytesMax && i > 0 {
			list, more = list[:i], true
			break
		}
		out.Conversations = append(out.Conversations, c.convoView(&list[i]))
	}
	if more {
		out.Cursor = convosCursor(&list[len(list)-1])
	}
	return out, nil
}

// convoBytes bounds the JSON of a conversation, which must fit through a PDS.
func convoBytes(v *ds.View) int {
	const fields, member, escaped = 1 << 10, 400, 6
	size := fields + escaped*(len(v.ID)+len(v.Title)+len(v.Description)) + len(v.Creator)
	for i := range v.Participants {
		size += member + 2*len(v.Participants[i].Account) + len(v.Participants[i].PromotedBy)
	}
	return size
}

// convosCursor returns the cursor of a page that ends with v.
func convosCursor(v *ds.View) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(v.JoinedMS, 10) + " " + string(v.ID)))
}

func parseConvosCursor(text string) (after core.ConvosPlace, ok bool) {
	if text == "" {
		return after, true
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	joined, id, isPair := strings.Cut(string(data), " ")
	ms, notNumber := strconv.ParseInt(joined, 10, 64)
	if err != nil || !isPair || notNumber != nil || ms <= 0 || !ds.IsValidID(id) {
		return after, false
	}
	return core.ConvosPlace{JoinedMS: ms, ID: ds.ConversationID(id)}, true
}
