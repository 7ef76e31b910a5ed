package xrpc

// SendMessageInput is the body of sendMessage.
type SendMessageInput struct {
	ConvoID         string  `json:"convoId"`
	MsgID           string  `json:"msgId"` // ULID or UUID, unique in the conversation
	Ciphertext      Bytes   `json:"ciphertext"`
	Epoch           Natural `json:"epoch"`
	PaddedSize      Natural `json:"paddedSize"`         // bytes of ciphertext
	Delivery        string  `json:"delivery,omitempty"` // persistent (when absent), ephemeral
	Action          string  `json:"action,omitempty"`   // addReaction, removeReaction; with ephemeral
	ReactionEmoji   string  `json:"reactionEmoji,omitempty"`
	TargetMessageID string  `json:"targetMessageId,omitempty"`
	IdempotencyKey  string  `json:"idempotencyKey,omitempty"`  // A only
	ConfirmationTag Bytes   `json:"confirmationTag,omitempty"` // B only
}

// Generation returns B if a field is present that only B sends.
func (in *SendMessageInput) Generation() Generation {
	return generationOf(len(in.ConfirmationTag) > 0)
}

// SendMessageOutput is the answer of sendMessage for every kind of message.
type SendMessageOutput struct {
	MessageID  string `json:"messageId"`  // the msgId
	ReceivedAt Time   `json:"receivedAt"` // rounded down to two seconds
	Seq        int64  `json:"seq"`        // 0 if nothing was stored
	Epoch      int64  `json:"epoch"`
	Success    *bool  `json:"success,omitempty"` // of reactions
}

// SendEphemeralInput is the body of sendEphemeral.
type SendEphemeralInput struct {
	ConvoID    string  `json:"convoId"`
	Ciphertext Bytes   `json:"ciphertext"`
	Epoch      Natural `json:"epoch"`
	PaddedSize Natural `json:"paddedSize"`
}

// SendEphemeralOutput is the answer of sendEphemeral.
type SendEphemeralOutput struct {
	Cursor string `json:"cursor"`
}

// GetMessagesParams is the query of getMessages.
type GetMessagesParams struct {
	ConvoID   string   `json:"convoId"`
	Limit     *Natural `json:"limit,omitempty"`    // 1 to 100; absent: 50
	SinceSeq  *Natural `json:"sinceSeq,omitempty"` // exclusive; absent: 0
	Type      string   `json:"type,omitempty"`     // all, app, commit; commits is commit
	FromEpoch *Natural `json:"fromEpoch,omitempty"`
	ToEpoch   *Natural `json:"toEpoch,omitempty"`
	JoinEpoch *Natural `json:"joinEpoch,omitempty"` // B only
}

// Kind returns the wanted kind of messages: all, app or commit; any other value is returned
// unchanged.
func (in *GetMessagesParams) Kind() string {
	switch in.Type {
	case "":
		return "all"
	case "commits":
		return "commit"
	}
	return in.Type
}

// Generation returns B if a parameter is present that only B sends.
func (in *GetMessagesParams) Generation() Generation { return generationOf(in.JoinEpoch != nil) }

// GetMessagesOutput is the answer of getMessages, in the order of seq.
type GetMessagesOutput struct {
	Messages             List[MessageView] `json:"messages"`
	LastSeq              *int64            `json:"lastSeq,omitempty"` // the next sinceSeq
	GapInfo              *GapInfo          `json:"gapInfo,omitempty"`
	SuppressedBeforeJoin *int64            `json:"suppressedBeforeJoin,omitempty"`
}

// GapInfo lists missing messages.
type GapInfo struct {
	HasGaps       bool        `json:"hasGaps"`
	MissingSeqs   List[int64] `json:"missingSeqs"`
	TotalMessages int64       `json:"totalMessages"`
}

// MessageView is a message. It does not name its sender.
type MessageView struct {
	ID          string `json:"id"`
	ConvoID     string `json:"convoId"`
	Ciphertext  Bytes  `json:"ciphertext"`
	Epoch       int64  `json:"epoch"` // of a commit, the epoch that it opens
	Seq         int64  `json:"seq"`
	CreatedAt   Time   `json:"createdAt"`             // rounded down to two seconds
	MessageType string `json:"messageType,omitempty"` // app, commit
}

// UpdateCursorInput is the body of updateCursor.
type UpdateCursorInput struct {
	ConvoID   string     `json:"convoId"`
	Cursor    CursorText `json:"cursor,omitempty"`    // of an event, or a decimal seq
	MessageID string     `json:"messageId,omitempty"` // A only
	MarkRead  *bool      `json:"markRead,omitempty"`  // A only
}

// UpdateCursorOutput is the answer of updateCursor.
type UpdateCursorOutput struct {
	UpdatedAt Time `json:"updatedAt"`
	ReadAt    Time `json:"readAt,omitzero"` // set if a receipt was written
}
