package xrpc

// GetSubscriptionTicketInput is the body of getSubscriptionTicket. Without conversations the
// ticket is for all of the caller's.
type GetSubscriptionTicketInput struct {
	ConvoIDs []string `json:"convoIds,omitempty"` // at most 100
}

// GetSubscriptionTicketOutput is the answer of getSubscriptionTicket.
type GetSubscriptionTicketOutput struct {
	Ticket    string `json:"ticket"`
	Endpoint  string `json:"endpoint,omitempty"` // a wss URL; clients ignore it
	ExpiresAt Time   `json:"expiresAt"`
}

// SubscribeEventsParams is the query of subscribeEvents. A ticket is required; ConvoID is for
// SSE, which is authorized by a token instead.
type SubscribeEventsParams struct {
	Ticket  string `json:"ticket,omitempty"`
	Cursor  string `json:"cursor,omitempty"`
	ConvoID string `json:"convoId,omitempty"`
}

// Event is an event of subscribeEvents. Every event has a cursor, opaque and strictly
// increasing in its conversation over all types.
type Event interface {
	// Type returns the name in the lexicon after '#', such as messageEvent.
	Type() string
}

// MessageEvent is a message, stored or not.
type MessageEvent struct {
	Cursor    string      `json:"cursor"`
	Message   MessageView `json:"message"`
	Ephemeral bool        `json:"ephemeral,omitempty"`
	Epoch     *int64      `json:"epoch,omitempty"` // B
}

// ReactionEvent reports that a reaction was added or removed.
type ReactionEvent struct {
	Cursor    string `json:"cursor"`
	ConvoID   string `json:"convoId"`
	MessageID string `json:"messageId"`
	DID       string `json:"did"`
	Reaction  string `json:"reaction"`
	Action    string `json:"action"` // add, remove
}

// TypingEvent reports that a member started or stopped typing.
type TypingEvent struct {
	Cursor   string `json:"cursor"`
	ConvoID  string `json:"convoId"`
	DID      string `json:"did"`
	IsTyping bool   `json:"isTyping"`
}

// NewDeviceEvent announces a member's device that waits to be added.
type NewDeviceEvent struct {
	Cursor              string `json:"cursor"`
	ConvoID             string `json:"convoId"`
	UserDID             string `json:"userDid"`
	DeviceID            string `json:"deviceId"`
	DeviceName          string `json:"deviceName,omitempty"`
	DeviceCredentialDID string `json:"deviceCredentialDid"`
	PendingAdditionID   string `json:"pendingAdditionId"`
}

// InfoEvent carries information about the stream or a conversation.
type InfoEvent struct {
	Cursor      string `json:"cursor"`
	Info        string `json:"info"`
	InfoType    string `json:"infoType,omitempty"` // heartbeat, groupInfoRefreshRequested, readditionRequested
	ConvoID     string `json:"convoId,omitempty"`
	RequestedBy string `json:"requestedBy,omitempty"`
}

// MemberJoined is generation A's form of MembershipChangeEvent.
type MemberJoined struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Epoch   int64  `json:"epoch"`
	Method  string `json:"method,omitempty"`
}

// MemberLeft is generation A's form of MembershipChangeEvent.
type MemberLeft struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Epoch   int64  `json:"epoch"`
	Action  string `json:"action"` // left, removed, kicked
	Actor   string `json:"actor,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// EpochAdvanced reports an accepted commit (generation A).
type EpochAdvanced struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	Epoch   int64  `json:"epoch"`
	Reason  string `json:"reason,omitempty"`
}

// ConversationUpdated reports changed roles, rules or names (generation A).
type ConversationUpdated struct {
	Cursor        string       `json:"cursor"`
	ConvoID       string       `json:"convoId"`
	UpdatedFields List[string] `json:"updatedFields"`
}

// ReadEvent reports that a member has read up to a message (generation A).
type ReadEvent struct {
	Cursor    string `json:"cursor"`
	ConvoID   string `json:"convoId"`
	DID       string `json:"did"`
	MessageID string `json:"messageId,omitempty"` // absent: everything
	ReadAt    Time   `json:"readAt"`
}

// MembershipChangeEvent reports that an account joined or left (generation B).
type MembershipChangeEvent struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Action  string `json:"action"` // joined, left, removed, kicked
}

// GroupInfoRefreshRequestedEvent reports that a member needs a current GroupInfo (generation
// B).
type GroupInfoRefreshRequestedEvent struct {
	Cursor      string `json:"cursor"`
	ConvoID     string `json:"convoId"`
	RequestedBy string `json:"requestedBy,omitempty"`
	RequestedAt Time   `json:"requestedAt,omitzero"`
}

// ReadditionRequestedEvent reports that a member asks to be added again (generation B).
type ReadditionRequestedEvent struct {
	Cursor      string `json:"cursor"`
	ConvoID     string `json:"convoId"`
	RequestedBy string `json:"requestedBy,omitempty"`
	RequestedAt Time   `json:"requestedAt,omitzero"`
}

// TreeChanged carries the confirmation tag of the tree after a commit (generation B).
type TreeChanged struct {
	Cursor          string `json:"cursor"`
	ConvoID         string `json:"convoId"`
	ConfirmationTag Bytes  `json:"confirmationTag"`
	Epoch           int64  `json:"epoch"`
}

// GroupResetEvent reports that a group was replaced (generation B).
type GroupResetEvent struct {
	Cursor          string `json:"cursor"`
	ConvoID         string `json:"convoId"`
	NewGroupID      string `json:"newGroupId"`
	ResetGeneration int64  `json:"resetGeneration"`
	ResetBy         string `json:"resetBy,omitempty"`
	CipherSuite     string `json:"cipherSuite,omitempty"`
	Reason          string `json:"reason,omitempty"`
}

// CircuitBreakerTrippedEvent reports that resets of a group are suspended (generation B).
type CircuitBreakerTrippedEvent struct {
	Cursor     string `json:"cursor"`
	ConvoID    string `json:"convoId"`
	ResetCount int64  `json:"resetCount"`
	TrippedAt  Time   `json:"trippedAt"`
}

// ResetRequestedEvent requests the reset of a group (generation B).
type ResetRequestedEvent struct {
	Cursor                string `json:"cursor"`
	ConvoID               string `json:"convoId"`
	CryptoSessionID       string `json:"cryptoSessionId"`
	Generation            int64  `json:"generation"`
	Trigger               string `json:"trigger"`
	RequestEventID        string `json:"requestEventId"`
	ExpectedNewMLSGroupID string `json:"expectedNewMlsGroupId,omitempty"`
	Reason                string `json:"reason,omitempty"`
	RequestedAt           Time   `json:"requestedAt,omitzero"`
}

// WelcomeReissueRequestedEvent requests a new Welcome (generation B).
type WelcomeReissueRequestedEvent struct {
	Cursor             string `json:"cursor"`
	ConvoID            string `json:"convoId"`
	RecipientDeviceDID string `json:"recipientDeviceDid"`
	RequestedAt        Time   `json:"requestedAt"`
	RequestID          string `json:"requestId"`
}
