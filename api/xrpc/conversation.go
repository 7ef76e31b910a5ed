package xrpc

// ConvoView is a conversation as its members see it.
type ConvoView struct {
	ConversationID  string           `json:"conversationId"` // the group id until a reset
	GroupID         string           `json:"groupId"`        // hex
	Creator         string           `json:"creator"`
	Members         List[MemberView] `json:"members"`
	Epoch           int64            `json:"epoch"`
	CipherSuite     string           `json:"cipherSuite"`
	CreatedAt       Time             `json:"createdAt"`
	LastMessageAt   Time             `json:"lastMessageAt,omitzero"`
	Metadata        *Metadata        `json:"metadata,omitempty"` // A only
	ConfirmationTag Bytes            `json:"confirmationTag,omitempty"`
	ResetGeneration *int64           `json:"resetGeneration,omitempty"`
	SequencerDID    string           `json:"sequencerDid,omitempty"`
}

// MemberView is a member. DID is that of the account: clients refuse one with '#'.
type MemberView struct {
	DID         string `json:"did"`
	UserDID     string `json:"userDid"`
	DeviceID    string `json:"deviceId,omitempty"`
	DeviceName  string `json:"deviceName,omitempty"`
	JoinedAt    Time   `json:"joinedAt"`
	IsAdmin     bool   `json:"isAdmin"`
	IsModerator *bool  `json:"isModerator,omitempty"`
	PromotedAt  Time   `json:"promotedAt,omitzero"`
	PromotedBy  string `json:"promotedBy,omitempty"`
	LeafIndex   *int64 `json:"leafIndex,omitempty"`
	Credential  Bytes  `json:"credential,omitempty"`
}

// Metadata is the unencrypted name and description of a conversation in generation A.
type Metadata struct {
	Name        string `json:"name,omitempty"`        // at most 128 bytes
	Description string `json:"description,omitempty"` // at most 512 bytes
}

// KeyPackageHash names the package of an account for which a Welcome was made.
type KeyPackageHash struct {
	DID  string `json:"did"`
	Hash string `json:"hash"` // hex of the KeyPackageRef
}

// InviteAction asks for an invite, or revokes one. Waxwing has none: it refuses the call.
type InviteAction struct {
	Action string `json:"action"` // create, revoke
	Code   string `json:"code,omitempty"`
}

// CreateConvoInput is the body of createConvo.
type CreateConvoInput struct {
	GroupID          string           `json:"groupId"` // hex, becomes the conversation's id
	CipherSuite      string           `json:"cipherSuite"`
	InitialMembers   []string         `json:"initialMembers,omitempty"`
	WelcomeMessage   Blob             `json:"welcomeMessage,omitzero"`
	KeyPackageHashes []KeyPackageHash `json:"keyPackageHashes,omitempty"`
	Metadata         *Metadata        `json:"metadata,omitempty"`
	GroupInfo        Blob             `json:"groupInfo,omitzero"`
	Invite           *InviteAction    `json:"invite,omitempty"`
	CurrentEpoch     *Natural         `json:"currentEpoch,omitempty"`
	IdempotencyKey   string           `json:"idempotencyKey,omitempty"`
}

// Generation returns the generation shown by the shape of the Welcome and the GroupInfo.
func (in *CreateConvoInput) Generation() Generation {
	return generationOf(false, in.WelcomeMessage, in.GroupInfo)
}

// CreateConvoOutput has the conversation in convo, and its fields at the top level for older
// clients. NewCreateConvoOutput fills both.
type CreateConvoOutput struct {
	Convo       ConvoView        `json:"convo"`
	InviteCode  string           `json:"inviteCode,omitempty"`
	SequencerDS string           `json:"sequencerDs,omitempty"`
	Success     *bool            `json:"success,omitempty"` // of a revoked invite
	GroupID     string           `json:"groupId"`
	Creator     string           `json:"creator"`
	Members     List[MemberView] `json:"members"`
	Epoch       int64            `json:"epoch"`
	CipherSuite string           `json:"cipherSuite"`
	CreatedAt   Time             `json:"createdAt"`
}

// NewCreateConvoOutput returns the output that shows a conversation.
func NewCreateConvoOutput(convo ConvoView) *CreateConvoOutput {
	return &CreateConvoOutput{Convo: convo, SequencerDS: convo.SequencerDID, GroupID: convo.GroupID, Creator: convo.Creator,
		Members: convo.Members, Epoch: convo.Epoch, CipherSuite: convo.CipherSuite, CreatedAt: convo.CreatedAt}
}

// GetConvosParams is the query of getConvos.
type GetConvosParams struct {
	Limit     *Natural `json:"limit,omitempty"` // 1 to 100; absent: everything, up to 1000
	Cursor    string   `json:"cursor,omitempty"`
	Filter    string   `json:"filter,omitempty"` // all, pending, expected, requests (the same as pending)
	CountOnly bool     `json:"countOnly,omitempty"`
	DeviceID  string   `json:"deviceId,omitempty"`
	Status    string   `json:"status,omitempty"`
}

// GetConvosOutput is the answer of getConvos, newest first.
type GetConvosOutput struct {
	Conversations List[ConvoView] `json:"conversations"`
	Cursor        string          `json:"cursor,omitempty"`
	PendingCount  *int64          `json:"pendingCount,omitempty"`
	RequestCount  *int64          `json:"requestCount,omitempty"`
}

// GetConvoSettingsParams is the query of getConvoSettings.
type GetConvoSettingsParams struct {
	ConvoID string `json:"convoId"`
}

// GetConvoSettingsOutput is the answer of getConvoSettings.
type GetConvoSettingsOutput struct {
	ConvoID string     `json:"convoId"`
	Policy  PolicyView `json:"policy"`
}

// PolicyView holds the rules of a conversation: those of the lexicon and those of the reference
// server.
type PolicyView struct {
	ConvoID                  string `json:"convoId"`
	AllowInvites             bool   `json:"allowInvites"`
	AdminOnlyInvites         bool   `json:"adminOnlyInvites"`
	AllowMemberAdd           bool   `json:"allowMemberAdd"`
	AllowMemberRemove        bool   `json:"allowMemberRemove"`
	RequireAdminApproval     bool   `json:"requireAdminApproval"`
	AllowExternalCommits     bool   `json:"allowExternalCommits"`
	RequireInviteForJoin     bool   `json:"requireInviteForJoin"`
	AllowRejoin              bool   `json:"allowRejoin"`
	RejoinWindowDays         int64  `json:"rejoinWindowDays"`
	PreventRemovingLastAdmin bool   `json:"preventRemovingLastAdmin"`
	MaxMembers               int64  `json:"maxMembers"`
	UpdatedAt                Time   `json:"updatedAt"`
	UpdatedBy                string `json:"updatedBy,omitempty"`
}

// PolicyInput changes the rules that are present.
type PolicyInput struct {
	AllowInvites             *bool    `json:"allowInvites,omitempty"`
	AdminOnlyInvites         *bool    `json:"adminOnlyInvites,omitempty"`
	AllowMemberAdd           *bool    `json:"allowMemberAdd,omitempty"`
	AllowMemberRemove        *bool    `json:"allowMemberRemove,omitempty"`
	RequireAdminApproval     *bool    `json:"requireAdminApproval,omitempty"`
	AllowExternalCommits     *bool    `json:"allowExternalCommits,omitempty"`
	RequireInviteForJoin     *bool    `json:"requireInviteForJoin,omitempty"`
	AllowRejoin              *bool    `json:"allowRejoin,omitempty"`
	RejoinWindowDays         *Natural `json:"rejoinWindowDays,omitempty"`
	PreventRemovingLastAdmin *bool    `json:"preventRemovingLastAdmin,omitempty"`
	MaxMembers               *Natural `json:"maxMembers,omitempty"` // 2 to 1000
}

// IsEmpty reports whether p changes nothing, which is answered with NoFieldsProvided.
func (p *PolicyInput) IsEmpty() bool { return p == nil || *p == PolicyInput{} }

// UpdateConvoInput is the body of updateConvo.
type UpdateConvoInput struct {
	ConvoID string `json:"convoId"`
	// Action is promoteAdmin, demoteAdmin, promoteModerator, demoteModerator,
	// updatePolicy, updateGroupInfo, refreshGroupInfo or getAdminStats.
	Action    string       `json:"action"`
	TargetDID string       `json:"targetDid,omitempty"`
	Policy    *PolicyInput `json:"policy,omitempty"`
	GroupInfo Blob         `json:"groupInfo,omitzero"`
	Epoch     *Natural     `json:"epoch,omitempty"`
}

// UpdateConvoOutput answers every action of updateConvo; clients need success in all of them.
type UpdateConvoOutput struct {
	Success       bool        `json:"success"`
	NewEpoch      *int64      `json:"newEpoch,omitempty"`
	Policy        *PolicyView `json:"policy,omitempty"`
	Action        string      `json:"action,omitempty"`
	OK            *bool       `json:"ok,omitempty"`
	PromotedAt    Time        `json:"promotedAt,omitzero"`
	Updated       *bool       `json:"updated,omitempty"`
	Requested     *bool       `json:"requested,omitempty"`
	ActiveMembers *int64      `json:"activeMembers,omitempty"`
}

// LeaveConvoInput is the body of leaveConvo.
type LeaveConvoInput struct {
	ConvoID   string `json:"convoId"`
	TargetDID string `json:"targetDid,omitempty"` // absent: the caller
	Commit    Blob   `json:"commit,omitzero"`
}

// LeaveConvoOutput is the answer of leaveConvo.
type LeaveConvoOutput struct {
	Success  bool  `json:"success"`
	NewEpoch int64 `json:"newEpoch"` // unchanged without a commit
}
