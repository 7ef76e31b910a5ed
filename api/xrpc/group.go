package xrpc

// GetGroupStateParams is the query of getGroupState.
type GetGroupStateParams struct {
	ConvoID          string   `json:"convoId"`
	Include          string   `json:"include,omitempty"`          // comma list of groupInfo, epoch, welcome
	KeyPackageHashes []string `json:"keyPackageHashes,omitempty"` // B only, at most 200
	DeviceID         string   `json:"deviceId,omitempty"`         // B only
}

// Wants returns the parts that include asks for; if absent, the GroupInfo and the epoch.
// Unknown words are ignored.
func (in *GetGroupStateParams) Wants() (groupInfo, epoch, welcome bool) {
	if in.Include == "" {
		return true, true, false
	}
	for _, word := range CommaList(in.Include, 8) {
		switch word {
		case "groupInfo":
			groupInfo = true
		case "epoch":
			epoch = true
		case "welcome":
			welcome = true
		}
	}
	return groupInfo, epoch, welcome
}

// Generation returns B if a parameter is present that only B sends.
func (in *GetGroupStateParams) Generation() Generation {
	return generationOf(len(in.KeyPackageHashes) > 0 || in.DeviceID != "")
}

// GetGroupStateOutput is the answer of getGroupState.
type GetGroupStateOutput struct {
	GroupInfo Blob   `json:"groupInfo,omitzero"`
	Epoch     *int64 `json:"epoch,omitempty"` // the current one if asked for, else that of groupInfo
	Welcome   Blob   `json:"welcome,omitzero"`
	ExpiresAt Time   `json:"expiresAt,omitzero"` // set with groupInfo
}

// GroupAction is an action of commitGroupChange.
type GroupAction string

// The actions of commitGroupChange, by the names that clients use.
const (
	GroupAddMembers        GroupAction = "addMembers"
	GroupRemoveMember      GroupAction = "removeMember"
	GroupCommit            GroupAction = "commit"
	GroupExternalCommit    GroupAction = "externalCommit"
	GroupRejoin            GroupAction = "rejoin"
	GroupReaddition        GroupAction = "readdition"
	GroupUpdateGroupInfo   GroupAction = "updateGroupInfo"
	GroupRefreshGroupInfo  GroupAction = "refreshGroupInfo"
	GroupConfirmWelcome    GroupAction = "confirmWelcome"
	GroupInvalidateWelcome GroupAction = "invalidateWelcome"
	GroupListPending       GroupAction = "listPending"
	GroupClaimPending      GroupAction = "claimPending"
	GroupCompletePending   GroupAction = "completePending"
)

// groupActionNames maps names of the lexicon to the names that clients use.
var groupActionNames = map[string]GroupAction{
	"processExternalCommit":         GroupExternalCommit,
	"getPendingDeviceAdditions":     GroupListPending,
	"claimPendingDeviceAddition":    GroupClaimPending,
	"completePendingDeviceAddition": GroupCompletePending,
}

// CommitGroupChangeInput is the body of commitGroupChange.
type CommitGroupChangeInput struct {
	ConvoID string `json:"convoId"` // may be "" for pending additions
	// ActionText is the action as sent; Action interprets it.
	ActionText         string           `json:"action"`
	MemberDIDs         []string         `json:"memberDids,omitempty"` // at most 50
	Commit             Blob             `json:"commit,omitzero"`
	Welcome            Blob             `json:"welcome,omitzero"`
	GroupInfo          Blob             `json:"groupInfo,omitzero"`
	KeyPackageHashes   []KeyPackageHash `json:"keyPackageHashes,omitempty"`
	DeviceID           string           `json:"deviceId,omitempty"`
	PendingAdditionID  string           `json:"pendingAdditionId,omitempty"`
	IdempotencyKey     string           `json:"idempotencyKey,omitempty"`
	ConfirmationTag    Bytes            `json:"confirmationTag,omitempty"`    // B only, at most 64 bytes
	EpochAuthenticator string           `json:"epochAuthenticator,omitempty"` // B only, hex
}

// Action returns the requested action under either of its names. An unknown action is returned
// unchanged, which is answered with InvalidAction.
func (in *CommitGroupChangeInput) Action() GroupAction {
	if action, has := groupActionNames[in.ActionText]; has {
		return action
	}
	return GroupAction(in.ActionText)
}

// Generation returns the generation shown by the shape of the commit's fields and by parameters
// that only B sends.
func (in *CommitGroupChangeInput) Generation() Generation {
	return generationOf(len(in.ConfirmationTag) > 0 || in.EpochAuthenticator != "", in.Commit, in.Welcome, in.GroupInfo)
}

// CommitGroupChangeOutput is the answer of commitGroupChange.
type CommitGroupChangeOutput struct {
	Success          bool              `json:"success"`
	NewEpoch         *int64            `json:"newEpoch,omitempty"`
	RejoinedAt       Time              `json:"rejoinedAt,omitzero"`
	PendingAdditions []PendingAddition `json:"pendingAdditions,omitempty"`
	ClaimedAddition  *PendingAddition  `json:"claimedAddition,omitempty"`
	ConfirmationTag  Bytes             `json:"confirmationTag,omitempty"`
	Receipt          *SequencerReceipt `json:"receipt,omitempty"` // B only
}

// PendingAddition is a device of a member that is not in the group yet.
type PendingAddition struct {
	ID                  string `json:"id"`
	ConvoID             string `json:"convoId"`
	UserDID             string `json:"userDid"`
	DeviceID            string `json:"deviceId"`
	DeviceName          string `json:"deviceName,omitempty"`
	DeviceCredentialDID string `json:"deviceCredentialDid"`
	Status              string `json:"status"` // pending, in_progress, completed
	ClaimedBy           string `json:"claimedBy,omitempty"`
	CreatedAt           Time   `json:"createdAt"`
}

// SequencerReceipt is the sequencer's signed statement that it chose a commit.
type SequencerReceipt struct {
	ConvoID       string `json:"convoId"`
	Epoch         int64  `json:"epoch"` // the epoch that the commit opens
	SequencerTerm int64  `json:"sequencerTerm"`
	CommitHash    Bytes  `json:"commitHash"` // SHA-256
	SequencerDID  string `json:"sequencerDid"`
	IssuedAt      int64  `json:"issuedAt"`  // unix seconds
	Signature     Bytes  `json:"signature"` // ECDSA P-256, r and s
}
