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
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
)

// groups holds the methods of MLS groups.
type groups struct {
	core      *core.Service
	directory *directory.Service
	did       func() string                                      // of this service
	sign      func(content []byte) (signature []byte, err error) // nil: no receipts
}

func (g groups) register(s *Server) {
	bulky(s, xrpc.GetGroupState, g.getGroupState)
	procedure(s, xrpc.CommitGroupChange, g.commitGroupChange)
}

const (
	groupInfoLifetime  = 5 * time.Minute // when it should be asked for again
	idempotencyKeyMax  = 128
	welcomeInvalidated = "invalidated" // why a Welcome was given up
)

// getGroupState returns the requested parts that exist. A missing GroupInfo is an error
// unless a Welcome, by which the caller can enter as well, was requested and found.
func (g groups) getGroupState(ctx context.Context, who ds.Caller, in *xrpc.GetGroupStateParams, room *room) (*xrpc.GetGroupStateOutput, error) {
	withInfo, withEpoch, withWelcome := in.Wants()
	if withInfo || withWelcome {
		if err := room.take(ctx, answerBytes(g.core)); err != nil {
			return nil, err
		}
	}
	state, err := g.core.GroupState(ctx, who, ds.ConversationID(in.ConvoID), withInfo, withWelcome,
		core.WelcomeChoice{Refs: in.KeyPackageHashes, Device: ds.DeviceID(in.DeviceID)})
	if err != nil {
		return nil, err
	}
	if withInfo && state.Info == nil && state.Welcome == nil {
		return nil, &Error{http.StatusNotFound, "GroupInfoUnavailable", "there is no GroupInfo to enter the group by"}
	}
	if text := base64.StdEncoding.EncodedLen; text(len(state.Info))+text(len(state.Welcome)) > answerBytes(g.core)-pageFieldBytes && state.Welcome != nil {
		state.Info = nil // the caller enters by the Welcome, or asks for the GroupInfo alone
	}
	generation, err := generationOf(ctx, g.directory, who, in)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetGroupStateOutput{GroupInfo: generation.Blob(state.Info), Welcome: generation.Blob(state.Welcome)}
	switch {
	case withEpoch:
		out.Epoch = &state.Epoch
	case state.Info != nil:
		out.Epoch = &state.InfoEpoch
	}
	if state.Info != nil {
		out.ExpiresAt = xrpc.TimeMS(g.core.Now() + groupInfoLifetime.Milliseconds())
	}
	return out, nil
}

type groupAction = func(g groups, ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error)

// groupActions holds the actions of commitGroupChange.
var groupActions = map[xrpc.GroupAction]groupAction{
	xrpc.GroupAddMembers:        groups.addMembers,
	xrpc.GroupRemoveMember:      groups.removeMembers,
	xrpc.GroupCommit:            groups.plainCommit,
	xrpc.GroupExternalCommit:    groups.externalCommit,
	xrpc.GroupRejoin:            groups.externalCommit,
	xrpc.GroupReaddition:        groups.askReaddition,
	xrpc.GroupUpdateGroupInfo:   groups.groupInfoByCommit,
	xrpc.GroupRefreshGroupInfo:  groups.askGroupInfo,
	xrpc.GroupConfirmWelcome:    endWelcome(""),
	xrpc.GroupInvalidateWelcome: endWelcome(welcomeInvalidated),
	xrpc.GroupListPending:       groups.listPending,
	xrpc.GroupClaimPending:      groups.claimPending,
	xrpc.GroupCompletePending:   groups.completePending,
}

// commitGroupChange checks the common fields and runs the action.
func (g groups) commitGroupChange(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	act := groupActions[in.Action()]
	switch {
	case act == nil:
		return nil, &Error{http.StatusBadRequest, "InvalidAction", "action is none of this method's"}
	case len(in.IdempotencyKey) > idempotencyKeyMax:
		return nil, badInput("idempotencyKey", "is too long")
	case len(in.ConfirmationTag) > tagBytesMax:
		return nil, badInput("confirmationTag", "is too long")
	}
	return act(g, ctx, who, in)
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

// orNil returns data, or nil where it is empty: clients send empty fields for absent ones.
func orNil(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}

func (g groups) addMembers(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	if bundle.Add, err = memberList(in); err != nil {
		return nil, err
	}
	return g.changeGroup(ctx, who, in, bundle)
}

func (g groups) removeMembers(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	if bundle.Remove, err = memberList(in); err != nil {
		return nil, err
	}
	return g.changeGroup(ctx, who, in, bundle)
}

func (g groups) plainCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if len(in.MemberDIDs) > 0 {
		return nil, badInput("memberDids", "belongs to addMembers and removeMember")
	}
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	return g.changeGroup(ctx, who, in, bundle)
}

func (g groups) externalCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	bundle, err := bundleOf(who, in)
	if err != nil {
		return nil, err
	}
	bundle.Enters, bundle.Device = true, ds.DeviceID(in.DeviceID)
	return g.changeGroup(ctx, who, in, bundle)
}

// changeGroup appends a commit. The answer is made of its record alone, so that a repeat is
// answered in full.
func (g groups) changeGroup(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput, bundle core.Bundle) (*xrpc.CommitGroupChangeOutput, error) {
	done, err := g.core.Apply(ctx, who, bundle)
	if err != nil {
		return nil, err
	}
	commit := done.Record
	if commit.Body == nil {
		if commit, err = g.core.Stored(ctx, commit); err != nil {
			return nil, err
		}
	}
	out := &xrpc.CommitGroupChangeOutput{Success: true, NewEpoch: &commit.Epoch, ConfirmationTag: in.ConfirmationTag}
	if bundle.Enters {
		out.RejoinedAt = xrpc.TimeMS(commit.CreatedMS)
	}
	if g.sign != nil && commit.Body != nil && xrpc.GenerationOf(in) != xrpc.GenerationA {
		out.Receipt, err = g.receipt(in.ConvoID, commit)
	}
	return out, err
}

// receipt signs that this service chose a commit, and when. It is made of the stored record,
// so that every repeat has the same content.
func (g groups) receipt(convo string, commit ds.Record) (*xrpc.SequencerReceipt, error) {
	hash := sha256.Sum256(commit.Body)
	r := &xrpc.SequencerReceipt{ConvoID: convo, Epoch: commit.Epoch, SequencerTerm: commit.Term, CommitHash: hash[:], SequencerDID: g.did(),
		IssuedAt: commit.CreatedMS / 1000}
	var err error
	r.Signature, err = g.sign(r.SignedContent())
	return r, err
}

func (g groups) askReaddition(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	_, err := g.core.Apply(ctx, who, core.Readdition{ConversationID: ds.ConversationID(in.ConvoID)})
	return success(err)
}

func (g groups) groupInfoByCommit(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.GroupInfo.IsZero() {
		return nil, badInput("groupInfo", "is required")
	}
	id, err := convoID(in.ConvoID)
	if err != nil {
		return nil, err
	}
	done, err := g.core.Apply(ctx, who, core.GroupInfoUpdate{ConversationID: id, GroupInfo: in.GroupInfo.Data})
	if err != nil {
		return nil, err
	}
	return &xrpc.CommitGroupChangeOutput{Success: true, NewEpoch: &done.Epoch}, nil
}

func (g groups) askGroupInfo(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	id, err := convoID(in.ConvoID)
	if err == nil {
		_, err = g.core.Apply(ctx, who, core.GroupInfoRequest{ConversationID: id})
	}
	return success(err)
}

// endWelcome returns the action that ends the wait of a Welcome.
func endWelcome(reason string) groupAction {
	return func(g groups, ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
		choice := core.WelcomeChoice{Device: ds.DeviceID(in.DeviceID)}
		for _, p := range in.KeyPackageHashes {
			choice.Refs = append(choice.Refs, p.Hash)
		}
		return success(g.core.EndWelcome(ctx, who, ds.ConversationID(in.ConvoID), choice, reason))
	}
}

func (g groups) listPending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	var only []ds.ConversationID // nil: all of the caller's
	if in.ConvoID != "" {
		only = []ds.ConversationID{ds.ConversationID(in.ConvoID)}
	}
	list, err := g.directory.PendingAdditions(ctx, who, only, pageMax)
	if err != nil {
		return nil, err
	}
	out := &xrpc.CommitGroupChangeOutput{Success: true}
	for _, a := range list {
		out.PendingAdditions = append(out.PendingAdditions, additionOutput(a))
	}
	return out, nil
}

func (g groups) claimPending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, badInput("pendingAdditionId", "is required")
	}
	a, _, err := g.directory.ClaimAddition(ctx, who, in.PendingAdditionID, false)
	if err != nil {
		return nil, err
	}
	claimed := additionOutput(a)
	return &xrpc.CommitGroupChangeOutput{Success: true, ClaimedAddition: &claimed}, nil
}

func (g groups) completePending(ctx context.Context, who ds.Caller, in *xrpc.CommitGroupChangeInput) (*xrpc.CommitGroupChangeOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, badInput("pendingAdditionId", "is required")
	}
	return success(g.directory.CompleteAddition(ctx, who, in.PendingAdditionID))
}

// success returns the output of actions that return no data.
func success(err error) (*xrpc.CommitGroupChangeOutput, error) {
	if err != nil {
		return nil, err
	}
	return &xrpc.CommitGroupChangeOutput{Success: true}, nil
}

func additionOutput(a directory.Addition) xrpc.PendingAddition {
	return xrpc.PendingAddition{ID: a.ID, ConvoID: string(a.Conversation), UserDID: string(a.Device.Account), DeviceID: string(a.Device.ID),
		DeviceName: a.DeviceName, DeviceCredentialDID: mlsDID(a.Device), Status: a.Status, ClaimedBy: string(a.ClaimedBy), CreatedAt: xrpc.TimeMS(a.CreatedMS)}
}
