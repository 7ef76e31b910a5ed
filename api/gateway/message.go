package gateway

// Subscribe requests the events of a conversation from a position on, replayed and then live.
// There is no answer on success. A repeated subscription replaces the first. FromSeq is
// inclusive, AfterSeq exclusive; FromSeq takes precedence; without either it is the device's
// cursor.
type Subscribe struct {
	ConvID   string `json:"conv_id"`
	FromSeq  *int64 `json:"from_seq,omitempty"`
	AfterSeq *int64 `json:"after_seq,omitempty"`
}

// Send appends a message. Repeating the same (conv_id, msg_id), from any sender, gets the same
// answer.
type Send struct {
	ConvID string `json:"conv_id"`
	MsgID  string `json:"msg_id"`
	// Env is the message: padded standard base64 of one MLSMessage, or any text.
	Env string `json:"env"`
	// TS is checked to be an integer and ignored: the server's clock is used.
	TS *int64 `json:"ts,omitempty"`
}

// Acked answers a conv.send or conv.commit.
type Acked struct {
	ConvID        string `json:"conv_id"`
	MsgID         string `json:"msg_id"`
	Seq           int64  `json:"seq"`
	ConvHome      string `json:"conv_home"`
	OriginGateway string `json:"origin_gateway"`
	// Epoch is the epoch that the commit opened; only in the answer to conv.commit.
	Epoch *int64 `json:"epoch,omitempty"`
}

// Ack confirms that the device has received everything up to and including Seq. There is no
// answer on success.
type Ack struct {
	ConvID string `json:"conv_id"`
	Seq    int64  `json:"seq"`
}

// Event is one message of a conversation.
type Event struct {
	ConvID string `json:"conv_id"`
	Seq    int64  `json:"seq"`
	MsgID  string `json:"msg_id"`
	Env    string `json:"env"`
	// SenderDeviceID is set if the conversation records senders.
	SenderDeviceID string `json:"sender_device_id,omitempty"`
	ConvHome       string `json:"conv_home"`
	OriginGateway  string `json:"origin_gateway"`
	// Kind is the server's classification: KindApp, KindProposal or KindCommit. Epoch is the
	// MLS epoch after this message. Both are sent to sessions with a feature.
	Kind  string `json:"kind,omitempty"`
	Epoch *int64 `json:"epoch,omitempty"`
	// Omitted is set if the frame would have been too long: Env is "" then.
	Omitted *Omitted `json:"omitted,omitempty"`
}

// Omitted replaces content that would have made a frame longer than FrameBytesMax. The content
// of an event or a Welcome is available from GET /v1/records; the members of a conversation
// from GET /v1/rooms/members.
type Omitted struct {
	Bytes int64 `json:"bytes"` // of env, or of the lists of members
}

// The kinds of events. Clients must process handshakes only from commits and proposals, and
// application messages only from apps.
const (
	KindApp      = "app"
	KindProposal = "proposal"
	KindCommit   = "commit"
)

// Commit is the body of conv.commit: a commit and all changes that take effect with it, all or
// nothing. Bytes are padded standard base64 of MLSMessages.
type Commit struct {
	ConvID    string         `json:"conv_id"`
	MsgID     string         `json:"msg_id"`
	Commit    string         `json:"commit"`
	Welcome   *CommitWelcome `json:"welcome,omitempty"`
	GroupInfo *string        `json:"group_info,omitempty"`
	Add       []string       `json:"add,omitempty"`    // accounts
	Remove    []string       `json:"remove,omitempty"` // accounts
}

// CommitWelcome is the Welcome of a commit and its recipients.
type CommitWelcome struct {
	Env string      `json:"env"`
	To  []WelcomeTo `json:"to"`
}

// WelcomeTo is one recipient device of a Welcome. KeyPackageRef is lower-case hex.
type WelcomeTo struct {
	UserID        string `json:"user_id"`
	DeviceID      string `json:"device_id"`
	KeyPackageRef string `json:"key_package_ref"`
}

// CaughtUp ends a replay: everything up to Seq, the head at that moment, has been sent. Feature
// marker.
type CaughtUp struct {
	ConvID string `json:"conv_id"`
	Seq    int64  `json:"seq"`
}

// StreamStarted is the first item of a stream of server-sent events that differs from the
// request. It is sent if the stream starts again, and, to sessions with any feature, if it
// leaves conversations out.
type StreamStarted struct {
	// Restarted reports that the id to continue from is unknown or too old: the stream starts
	// as if without an id. Cursors are the starting positions, of up to 1000 conversations.
	Restarted bool     `json:"restarted,omitempty"`
	Cursors   []Cursor `json:"cursors,omitempty"`
	// More reports that the account is in more conversations than the stream follows: it
	// follows the most recently active ones.
	More bool `json:"more,omitempty"`
}

// Drain announces that the server is about to close the socket, and when to reconnect. Feature
// drain.
type Drain struct {
	ReconnectAfterMS int64 `json:"reconnect_after_ms"`
}

// InboxAnswer answers POST /v1/inbox. Only Status is set for frames that a socket
// leaves unanswered.
type InboxAnswer struct {
	Status        string `json:"status"`
	Seq           int64  `json:"seq,omitempty"`
	ConvHome      string `json:"conv_home,omitempty"`
	OriginGateway string `json:"origin_gateway,omitempty"`
	Epoch         *int64 `json:"epoch,omitempty"`
}
