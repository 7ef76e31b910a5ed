package xrpc

// GetSubscriptionTicketInput is the body of getSubscriptionTicket (A.12). Without
// conversations it is all of the caller's.
type GetSubscriptionTicketInput struct {
	ConvoIDs []string `json:"convoIds,omitempty"` // at most 100
}

// GetSubscriptionTicketOutput is the answer of getSubscriptionTicket.
type GetSubscriptionTicketOutput struct {
	Ticket    string `json:"ticket"`
	Endpoint  string `json:"endpoint,omitempty"` // a wss URL; clients ignore it
	ExpiresAt Time   `json:"expiresAt"`
}

// SubscribeEventsParams is the query of subscribeEvents. A ticket is needed; ConvoID is
// for SSE, which comes with a token instead.
type SubscribeEventsParams struct {
	Ticket  string `json:"ticket,omitempty"`
	Cursor  string `json:"cursor,omitempty"`
	ConvoID string `json:"convoId,omitempty"`
}

// Event is what subscribeEvents sends. Every event has a cursor, opaque and strictly
// increasing in its conversation whatever the type.
type Event interface {
	// Type is the name in the lexicon behind '#', as in messageEvent.
	Type() string
}

// MessageEvent is a message, stored or not.
type MessageEvent struct {
	Cursor    string      `json:"cursor"`
	Message   MessageView `json:"message"`
	Ephemeral bool        `json:"ephemeral,omitempty"`
	Epoch     *int64      `json:"epoch,omitempty"` // B
}

// ReactionEvent is a reaction that came or went.
type ReactionEvent struct {
	Cursor    string `json:"cursor"`
	ConvoID   string `json:"convoId"`
	MessageID string `json:"messageId"`
	DID       string `json:"did"`
	Reaction  string `json:"reaction"`
	Action    string `json:"action"` // add, remove
}

// TypingEvent says that somebody types, or no longer does.
type TypingEvent struct {
	Cursor   string `json:"cursor"`
	ConvoID  string `json:"convoId"`
	DID      string `json:"did"`
	IsTyping bool   `json:"isTyping"`
}

// NewDeviceEvent is a member's device that waits to be added.
type NewDeviceEvent struct {
	Cursor              string `json:"cursor"`
	ConvoID             string `json:"convoId"`
	UserDID             string `json:"userDid"`
	DeviceID            string `json:"deviceId"`
	DeviceName          string `json:"deviceName,omitempty"`
	DeviceCredentialDID string `json:"deviceCredentialDid"`
	PendingAdditionID   string `json:"pendingAdditionId"`
}

// InfoEvent is something to know about the stream or a conversation.
type InfoEvent struct {
	Cursor      string `json:"cursor"`
	Info        string `json:"info"`
	InfoType    string `json:"infoType,omitempty"` // heartbeat, groupInfoRefreshRequested, readditionRequested
	ConvoID     string `json:"convoId,omitempty"`
	RequestedBy string `json:"requestedBy,omitempty"`
}

// MemberJoined is for A what MembershipChangeEvent is for B.
type MemberJoined struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Epoch   int64  `json:"epoch"`
	Method  string `json:"method,omitempty"`
}

// MemberLeft is for A what MembershipChangeEvent is for B.
type MemberLeft struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Epoch   int64  `json:"epoch"`
	Action  string `json:"action"` // left, removed, kicked
	Actor   string `json:"actor,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// EpochAdvanced tells A of an accepted commit.
type EpochAdvanced struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	Epoch   int64  `json:"epoch"`
	Reason  string `json:"reason,omitempty"`
}

// ConversationUpdated tells A of changed roles, rules or names.
type ConversationUpdated struct {
	Cursor        string       `json:"cursor"`
	ConvoID       string       `json:"convoId"`
	UpdatedFields List[string] `json:"updatedFields"`
}

// ReadEvent tells A that somebody has read.
type ReadEvent struct {
	Cursor    string `json:"cursor"`
	ConvoID   string `json:"convoId"`
	DID       string `json:"did"`
	MessageID string `json:"messageId,omitempty"` // absent is everything
	ReadAt    Time   `json:"readAt"`
}

// MembershipChangeEvent tells B that somebody came in or is gone.
type MembershipChangeEvent struct {
	Cursor  string `json:"cursor"`
	ConvoID string `json:"convoId"`
	DID     string `json:"did"`
	Action  string `json:"action"` // joined, left, removed, kicked
}

// GroupInfoRefreshRequestedEvent tells B that somebody needs a current GroupInfo.
type GroupInfoRefreshRequestedEvent struct {
	Cursor      string `json:"cursor"`
	ConvoID     string `json:"convoId"`
	RequestedBy string `json:"requestedBy,omitempty"`
	RequestedAt Time   `json:"requestedAt,omitzero"`
}

// ReadditionRequestedEvent tells B that somebody wants to be added again.
type ReadditionRequestedEvent struct {
	Cursor      string `json:"cursor"`
	ConvoID     string `json:"convoId"`
	RequestedBy string `json:"requestedBy,omitempty"`
	RequestedAt Time   `json:"requestedAt,omitzero"`
}

// TreeChanged tells B of the tree that a commit made.
type TreeChanged struct {
	Cursor          string `json:"cursor"`
	ConvoID         string `json:"convoId"`
	ConfirmationTag Bytes  `json:"confirmationTag"`
	Epoch           int64  `json:"epoch"`
}

// GroupResetEvent tells B that a group was replaced.
type GroupResetEvent struct {
	Cursor          string `json:"cursor"`
	ConvoID         string `json:"convoId"`
	NewGroupID      string `json:"newGroupId"`
	ResetGeneration int64  `json:"resetGeneration"`
	ResetBy         string `json:"resetBy,omitempty"`
	CipherSuite     string `json:"cipherSuite,omitempty"`
	Reason          string `json:"reason,omitempty"`
}

// CircuitBreakerTrippedEvent tells B that a group is not reset again for now.
type CircuitBreakerTrippedEvent struct {
	Cursor     string `json:"cursor"`
	ConvoID    string `json:"convoId"`
	ResetCount int64  `json:"resetCount"`
	TrippedAt  Time   `json:"trippedAt"`
}

// ResetRequestedEvent asks B to reset a group.
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

// WelcomeReissueRequestedEvent asks B for a new Welcome.
type WelcomeReissueRequestedEvent struct {
	Cursor             string `json:"cursor"`
	ConvoID            string `json:"convoId"`
	RecipientDeviceDID string `json:"recipientDeviceDid"`
	RequestedAt        Time   `json:"requestedAt"`
	RequestID          string `json:"requestId"`
}
