package xrpcserver

import (
	"context"
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// groupInfoBytesMin is a lower bound on the size of a GroupInfo.
const groupInfoBytesMin = 100

// settings holds the methods that read and change the policy, roles and GroupInfo of a
// conversation.
type settings struct{ core *core.Service }

func (s settings) register(door *Server) {
	query(door, xrpc.GetConvoSettings, s.getConvoSettings)
	procedure(door, xrpc.UpdateConvo, s.updateConvo)
}

func (s settings) getConvoSettings(ctx context.Context, who ds.Caller, in *xrpc.GetConvoSettingsParams) (*xrpc.GetConvoSettingsOutput, error) {
	view, err := s.core.Convo(ctx, who, ds.ConversationID(in.ConvoID))
	if err != nil {
		return nil, err
	}
	return &xrpc.GetConvoSettingsOutput{ConvoID: in.ConvoID, Policy: policyView(&view)}, nil
}

// policyView encodes the rules of a conversation under both sets of names.
func policyView(v *ds.View) xrpc.PolicyView {
	p := v.Policy
	out := xrpc.PolicyView{ConvoID: string(v.ID), AllowInvites: p.AllowInvites, AdminOnlyInvites: p.AdminOnlyInvites, AllowMemberAdd: p.AllowMemberAdd,
		AllowMemberRemove: p.AllowMemberRemove, RequireAdminApproval: p.RequireAdminApproval, AllowExternalCommits: p.AllowExternalCommits,
		RequireInviteForJoin: p.RequireInviteForJoin, AllowRejoin: p.AllowRejoin, RejoinWindowDays: p.RejoinWindowDays,
		PreventRemovingLastAdmin: p.PreventRemovingLastAdmin, MaxMembers: p.MaxMembers, UpdatedAt: xrpc.TimeMS(v.CreatedMS)}
	if p.MaxMembers == 0 {
		out.MaxMembers = core.RuleMembersMax
	}
	if v.PolicyMS > 0 {
		out.UpdatedAt, out.UpdatedBy = xrpc.TimeMS(v.PolicyMS), string(v.PolicyBy)
	}
	return out
}

// updates holds the actions of updateConvo.
var updates = map[string]func(settings, context.Context, ds.Caller, *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error){
	"promoteAdmin":     roleUpdate(ds.Admin, false),
	"promoteModerator": roleUpdate(ds.Moderator, false),
	"demoteAdmin":      roleUpdate(ds.Admin, true),
	"demoteModerator":  roleUpdate(ds.Moderator, true),
	"updatePolicy":     settings.updatePolicy,
	"updateGroupInfo":  settings.updateGroupInfo,
	"refreshGroupInfo": settings.refreshGroupInfo,
	"getAdminStats":    settings.getAdminStats,
}

func (s settings) updateConvo(ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	update, isKnown := updates[in.Action]
	if !isKnown {
		return nil, &Error{http.StatusBadRequest, "InvalidAction", "no such action"}
	}
	out, err := update(s, ctx, who, in)
	if err != nil {
		return nil, err
	}
	isDone := true
	out.Success, out.OK, out.Action = true, &isDone, in.Action
	return out, nil
}

// roleUpdate returns the action that gives a role or takes it away.
func roleUpdate(role ds.Role, take bool) func(settings, context.Context, ds.Caller, *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	return func(s settings, ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
		if in.TargetDID == "" {
			return nil, &Error{http.StatusBadRequest, "MissingTargetDid", "targetDid is required"}
		}
		target, err := accountOf(in.TargetDID)
		if err != nil {
			return nil, err
		}
		id, err := convoID(in.ConvoID)
		if err != nil {
			return nil, err
		}
		if _, err := s.core.Apply(ctx, who, core.ChangeRole{ConversationID: id, Account: target, Role: role, Take: take}); err != nil {
			return nil, err
		}
		out := &xrpc.UpdateConvoOutput{}
		view, err := s.core.Convo(ctx, who, id)
		if err != nil {
			return nil, err
		}
		for _, p := range view.Participants {
			if p.Account == target && p.Role == role && p.PromotedMS > 0 {
				out.PromotedAt = xrpc.TimeMS(p.PromotedMS)
			}
		}
		return out, nil
	}
}

func (s settings) updatePolicy(ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	p := in.Policy
	if p.IsEmpty() {
		return nil, &Error{http.StatusBadRequest, "NoFieldsProvided", "policy has nothing to change"}
	}
	if p.MaxMembers != nil && (*p.MaxMembers < 2 || *p.MaxMembers > core.RuleMembersMax) {
		return nil, &Error{http.StatusBadRequest, "InvalidMaxMembers", "maxMembers must be 2 to 1000"}
	}
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	change := core.PolicyChange{AllowExternalCommits: p.AllowExternalCommits, RequireInviteForJoin: p.RequireInviteForJoin,
		AllowRejoin: p.AllowRejoin, PreventRemovingLastAdmin: p.PreventRemovingLastAdmin, AllowInvites: p.AllowInvites,
		AdminOnlyInvites: p.AdminOnlyInvites, AllowMemberAdd: p.AllowMemberAdd, AllowMemberRemove: p.AllowMemberRemove,
		RequireAdminApproval: p.RequireAdminApproval, RejoinWindowDays: number(p.RejoinWindowDays), MaxMembers: number(p.MaxMembers)}
	if _, err := s.core.Apply(ctx, who, core.Settings{ConversationID: id, Policy: change}); err != nil {
		return nil, err
	}
	view, err := s.core.Convo(ctx, who, id)
	if err != nil {
		return nil, err
	}
	policy := policyView(&view)
	return &xrpc.UpdateConvoOutput{Policy: &policy}, nil
}

func number(n *xrpc.Natural) *int64 {
	if n == nil {
		return nil
	}
	value := int64(*n)
	return &value
}

func (s settings) updateGroupInfo(ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	switch {
	case len(in.GroupInfo.Data) < groupInfoBytesMin:
		return nil, &Error{http.StatusBadRequest, "InvalidGroupInfo", "groupInfo is missing or too small to be one"}
	case in.Epoch == nil:
		return nil, invalid("epoch is required with groupInfo")
	}
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	done, err := s.core.Apply(ctx, who, core.GroupInfoUpdate{ConversationID: id, GroupInfo: in.GroupInfo.Data, Epoch: number(in.Epoch)})
	if err != nil {
		return nil, err
	}
	return &xrpc.UpdateConvoOutput{Updated: &done.IsNew, NewEpoch: &done.Epoch}, nil
}

func (s settings) refreshGroupInfo(ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	done, err := s.core.Apply(ctx, who, core.GroupInfoRequest{ConversationID: id})
	if err != nil {
		return nil, err
	}
	isDone := true
	out := &xrpc.UpdateConvoOutput{Requested: &isDone}
	if done.Asked > 0 {
		out.ActiveMembers = &done.Asked
	}
	return out, nil
}

// getAdminStats counts the members, for owner and admins.
func (s settings) getAdminStats(ctx context.Context, who ds.Caller, in *xrpc.UpdateConvoInput) (*xrpc.UpdateConvoOutput, error) {
	members, err := s.core.AdminStats(ctx, who, ds.ConversationID(in.ConvoID))
	if err != nil {
		return nil, err
	}
	return &xrpc.UpdateConvoOutput{ActiveMembers: &members}, nil
}
