package xrpcserver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// registerGroups makes the methods of groups callable.
func (s *Server) registerGroups() {
	bulky(s, xrpc.GetGroupState, s.getGroupState)
	procedure(s, xrpc.CommitGroupChange, s.commitGroupChange)
}

const (
	groupInfoLifetime  = 5 * time.Minute // when it should be asked for again
	idempotencyKeyMax  = 128
	welcomeInvalidated = "invalidated" // why a Welcome was given up
)

// getGroupState answers what was asked for and is there. That there is no GroupInfo is an
// error unless a Welcome, by which the caller can enter as well, was asked for and found.
func (s *Server) getGroupState(ctx context.Context, who ds.Caller, in *xrpc.GetGroupStateParams, room *room) (*xrpc.GetGroupStateOutput, error) {
	withInfo, withEpoch, withWelcome := in.Wants()
	if withInfo || withWelcome {
		if err := room.take(ctx, s.answerBytes()); err != nil {
			return nil, err
		}
	}
	state, err := s.core.GroupState(ctx, who, ds.ConversationID(in.ConvoID), withInfo, withWelcome,
		core.WelcomeChoice{Refs: in.KeyPackageHashes, Device: ds.DeviceID(in.DeviceID)})
	if err != nil {
		return nil, err
	}
	if withInfo && state.Info == nil && state.Welcome == nil {
		return nil, &Error{http.StatusNotFound, "GroupInfoUnavailable", "there is no GroupInfo to enter the group by"}
	}
	if text := base64.StdEncoding.EncodedLen; text(len(state.Info))+text(len(state.Welcome)) > s.answerBytes()-pageFieldBytes && state.Welcome != nil {
		state.Info = nil // the caller enters by the Welcome, or asks for the GroupInfo alone
	}
	g, err := s.generation(ctx, who, in)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetGroupStateOutput{GroupInfo: g.Blob(state.Info), Welcome: g.Blob(state.Welcome)}
	switch {
	case withEpoch:
		out.Epoch = &state.Epoch
	case state.Info != nil:
		out.Epoch = &state.InfoEpoch
	}
	if state.Info != nil {
		out.ExpiresAt = xrpc.TimeMS(s.core.Now() + groupInfoLifetime.Milliseconds())
	}
	return out, nil
}

type groupAction = func(s *Server, ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error)

// groupActions is what commitGroupChange can be asked to do.
var groupActions = map[xrpc.GroupAction]groupAction{
	xrpc.GroupAddMembers:        (*Server).addMembers,
	xrpc.GroupRemoveMember:      (*Server).removeMembers,
	xrpc.GroupCommit:            (*Server).plainCommit,
	xrpc.GroupExternalCommit:    (*Server).externalCommit,
	xrpc.GroupRejoin:            (*Server).externalCommit,
	xrpc.GroupReaddition:        (*Server).askReaddition,
	xrpc.GroupUpdateGroupInfo:   (*Server).groupInfoByCommit,
	xrpc.GroupRefreshGroupInfo:  (*Server).askGroupInfo,
	xrpc.GroupConfirmWelcome:    endWelcome(""),
	xrpc.GroupInvalidateWelcome: endWelcome(welcomeInvalidated),
	xrpc.GroupListPending:       (*Server).listPending,
	xrpc.GroupClaimPending:      (*Server).claimPending,
	xrpc.GroupCompletePending:   (*Server).completePending,
}

// commitGroupChange does what the action says.
func (s *Server) commitGroupChange(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	act := groupActions[in.Action()]
	switch {
	case act == nil:
		return nil, &Error{http.StatusBadRequest, "InvalidAction", "action is none of this method's"}
	case len(in.IdempotencyKey) > idempotencyKeyMax:
		return nil, badInput("idempotencyKey", "is too long")
	case len(in.ConfirmationTag) > tagBytesMax:
		return nil, badInput("confirmationTag", "is too long")
	}
	return act(s, ctx, who, in)
}

// bundleOf returns the bundle of an action with a commit.
func bundleOf(who ds.Caller, in *xrpc.CommitGroupChangeInput) (core.Bundle, error) {
	b := core.Bundle{ConversationID: ds.ConversationID(in.ConvoID), ID: commitID(who.Account, in.IdempotencyKey, in.Commit.Data), Commit: in.Commit.Data,
		Welcome: orNil(in.Welcome.Data), GroupInfo: orNil(in.GroupInfo.Data), ConfirmationTag: orNil(in.ConfirmationTag), Encoding: ds.Binary, ByAccount: true}
	if in.Commit.IsZero() {
		return b, badInput("commit", "is required")
	}
	for _, p := range in.KeyPackageHashes {
		account, err := accountOf(p.DID)
		if err != nil {
			return b, err
		}
		b.Packages = append(b.Packages, core.UsedPackage{Account: account, Ref: p.Hash})
	}
	return b, nil
}

// commitID makes the message id of a commit, which has none here: the same for the same
// idempotency key of the same account and for no other account's, or, without a key, for
// the same bytes.
func commitID(account ds.AccountID, key string, commit []byte) ds.MessageID {
	prefix, sum := "c-", sha256.Sum256(commit)
	if key != "" {
		prefix, sum = "k-", sha256.Sum256([]byte(string(account)+"\x00"+xrpc.CommitGroupChange+"\x00"+key))
	}
	return ds.MessageID(prefix + hex.EncodeToString(sum[:])[:40])
}

// orNil is data, or nil for none: clients send what they do not have as nothing at all.
func orNil(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}

// members reads the accounts of an action, once each.
func members(in *xrpc.CommitGroupChangeInput) ([]ds.AccountID, error) {
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

func (s *Server) addMembers(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	if bundle.Add, err = members(in); err != nil {
		return nil, err
	}
	return s.changeGroup(ctx, who, in, bundle)
}

func (s *Server) removeMembers(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	if bundle.Remove, err = members(in); err != nil {
		return nil, err
	}
	return s.changeGroup(ctx, who, in, bundle)
}

func (s *Server) plainCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if len(in.MemberDIDs) > 0 {
		return nil, badInput("memberDids", "belongs to addMembers and removeMember")
	}
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	return s.changeGroup(ctx, who, in, bundle)
}

func (s *Server) externalCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	bundle.Enters, bundle.Device = true, ds.DeviceID(in.DeviceID)
	return s.changeGroup(ctx, who, in, bundle)
}

// changeGroup hands in a commit. The answer is all in its record, so that a repeat is
// answered in full.
func (s *Server) changeGroup(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput, bundle core.Bundle) (*xrpc.CommitGroupChangeOutput, error) {
	done, err := s.core.Apply(ctx, who, bundle)
	if err != nil {
		return nil, err
	}
	commit := done.Record
	if commit.Body == nil {
		if commit, err = s.core.Stored(ctx, commit); err != nil {
			return nil, err
		}
	}
	out := &xrpc.CommitGroupChangeOutput{Success: true, NewEpoch: &commit.Epoch, ConfirmationTag: in.ConfirmationTag}
	if bundle.Enters {
		out.RejoinedAt = xrpc.TimeMS(commit.CreatedMS)
	}
	if s.sign != nil && commit.Body != nil && xrpc.GenerationOf(in) != xrpc.GenerationA {
		out.Receipt, err = s.receipt(in.ConvoID, commit)
	}
	return out, err
}

// receipt is this service's word that it chose a commit, and when: of what is stored, so
// that however often it is given it says the same.
func (s *Server) receipt(convo string, commit ds.Record) (*xrpc.SequencerReceipt, error) {
	hash := sha256.Sum256(commit.Body)
	r := &xrpc.SequencerReceipt{ConvoID: convo, Epoch: commit.Epoch, SequencerTerm: commit.Term, CommitHash: hash[:], SequencerDID: s.did(),
		IssuedAt: commit.CreatedMS / 1000}
	var err error
	r.Signature, err = s.sign(r.SignedContent())
	return r, err
}

func (s *Server) askReaddition(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	_, err := s.core.Apply(ctx, who, core.Readdition{ConversationID: ds.ConversationID(in.ConvoID)})
	return done(err)
}

func (s *Server) groupInfoByCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.GroupInfo.IsZero() {
		return nil, badInput("groupInfo", "is required")
	}
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	done, err := s.core.Apply(ctx, who, core.GroupInfoUpdate{ConversationID: id, GroupInfo: in.GroupInfo.Data})
	if err != nil {
		return nil, err
	}
	return &xrpc.CommitGroupChangeOutput{Success: true, NewEpoch: &done.Epoch}, nil
}

func (s *Server) askGroupInfo(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	id, err := convoID(in.ConvoID)
	if err == nil {
		_, err = s.core.Apply(ctx, who, core.GroupInfoRequest{ConversationID: id})
	}
	return done(err)
}

// endWelcome makes the action that says of a Welcome that it need not wait any more.
func endWelcome(reason string) groupAction {
	return func(s *Server, ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
		choice := core.WelcomeChoice{Device: ds.DeviceID(in.DeviceID)}
		for _, p := range in.KeyPackageHashes {
			choice.Refs = append(choice.Refs, p.Hash)
		}
		return done(s.core.EndWelcome(ctx, who, ds.ConversationID(in.ConvoID), choice, reason))
	}
}

func (s *Server) listPending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	var only []ds.ConversationID // nil: all of the caller's
	if in.ConvoID != "" {
		only = []ds.ConversationID{ds.ConversationID(in.ConvoID)}
	}
	list, err := s.core.PendingAdditions(ctx, who, only, pageMax)
	if err != nil {
		return nil, err
	}
	out := &xrpc.CommitGroupChangeOutput{Success: true}
	for _, a := range list {
		out.PendingAdditions = append(out.PendingAdditions, additionOutput(a))
	}
	return out, nil
}

func (s *Server) claimPending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, badInput("pendingAdditionId", "is required")
	}
	a, err := s.core.ReserveAddition(ctx, who, in.PendingAdditionID)
	if err != nil {
		return nil, err
	}
	claimed := additionOutput(a)
	return &xrpc.CommitGroupChangeOutput{Success: true, ClaimedAddition: &claimed}, nil
}

func (s *Server) completePending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, badInput("pendingAdditionId", "is required")
	}
	return done(s.core.CompleteAddition(ctx, who, in.PendingAdditionID))
}

// done is the answer of what has nothing to answer.
func done(err error) (*xrpc.CommitGroupChangeOutput, error) {
	if err != nil {
		return nil, err
	}
	return &xrpc.CommitGroupChangeOutput{Success: true}, nil
}

func additionOutput(a core.Addition) xrpc.PendingAddition {
	return xrpc.PendingAddition{ID: a.ID, ConvoID: string(a.Conversation), UserDID: string(a.Device.Account), DeviceID: string(a.Device.ID),
		DeviceName: a.DeviceName, DeviceCredentialDID: mlsDID(a.Device), Status: a.Status, ClaimedBy: string(a.ClaimedBy), CreatedAt: xrpc.TimeMS(a.CreatedMS)}
}
