package xrpcserver

import (
	"context"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// members holds the method by which members leave or are removed.
type members struct{ core *core.Service }

func (m members) register(s *Server) {
	procedure(s, xrpc.LeaveConvo, m.leaveConvo)
}

func (m members) leaveConvo(ctx context.Context, who ds.Caller, in *xrpc.LeaveConvoInput) (*xrpc.LeaveConvoOutput, error) {
	target := who.Account
	if in.TargetDID != "" {
		var err error
		if target, err = accountOf(in.TargetDID); err != nil {
			return nil, err
		}
	}
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	var handshakeID ds.MessageID
	if len(in.Commit.Data) > 0 {
		handshakeID = commitID(who.Account, "", in.Commit.Data)
	}
	var op core.Op = core.Leave{ConversationID: id, PassOn: true, Handshake: in.Commit.Data, HandshakeID: handshakeID}
	if target != who.Account {
		op = core.Remove{ConversationID: id, Accounts: []ds.AccountID{target}, Strict: true, Handshake: in.Commit.Data, HandshakeID: handshakeID}
	}
	done, err := m.core.Apply(ctx, who, op)
	if err != nil {
		return nil, err
	}
	return &xrpc.LeaveConvoOutput{Success: true, NewEpoch: done.Epoch}, nil
}

// accountOf returns the account of a DID, which may name one of its devices.
func accountOf(did string) (ds.AccountID, error) {
	account, _, _ := strings.Cut(did, "#")
	if !isDID(account) {
		return "", invalid("not a DID: an account is named by one")
	}
	return ds.AccountID(account), nil
}

// memberList returns the accounts that an action names, each once.
func memberList(in *xrpc.CommitGroupChangeInput) ([]ds.AccountID, error) {
	if len(in.MemberDIDs) == 0 {
		return nil, badInput("memberDids", "is required")
	}
	var list []ds.AccountID
	seen := map[ds.AccountID]bool{}
	for _, text := range in.MemberDIDs {
		account, err := accountOf(text)
		if err != nil {
			return nil, err
		}
		if !seen[account] {
			seen[account] = true
			list = append(list, account)
		}
	}
	return list, nil
}

func memberView(p *ds.Participant) xrpc.MemberView {
	isModerator := p.Role == ds.Moderator
	out := xrpc.MemberView{DID: string(p.Account), UserDID: string(p.Account), JoinedAt: xrpc.TimeMS(p.JoinedMS),
		IsAdmin: p.Role.MayManage(), IsModerator: &isModerator}
	if p.PromotedMS > 0 {
		out.PromotedAt = xrpc.TimeMS(p.PromotedMS)
	}
	if isDID(string(p.PromotedBy)) {
		out.PromotedBy = string(p.PromotedBy)
	}
	return out
}
