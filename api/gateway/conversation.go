package gateway

// Status is the answer of calls that return no data.
type Status struct {
	Status string `json:"status"` // "ok"
}

// RoomMembers is the body of POST /v1/rooms/create, /v1/rooms/invite, /v1/rooms/remove,
// /v1/rooms/promote and /v1/rooms/demote.
type RoomMembers struct {
	ConvID  string   `json:"conv_id"`
	Members []string `json:"members,omitempty"`
}

// LeaveRoom is the body of POST /v1/rooms/leave. The owner may leave only as the last member,
// or by naming another member who becomes the owner.
type LeaveRoom struct {
	ConvID   string  `json:"conv_id"`
	NewOwner *string `json:"new_owner,omitempty"`
}

// MemberList answers GET /v1/rooms/members: the owner, then admins, then members, each sorted
// by user_id.
type MemberList struct {
	ConvID  string   `json:"conv_id"`
	Members []Member `json:"members"`
}

// Member is an account in a conversation. Role is owner, admin or member.
type Member struct {
	UserID string `json:"user_id"`
	Role   string `json:"role"`
}

// CreateDM is the body of POST /v1/dms/create. Without ConvID the server chooses an id.
type CreateDM struct {
	PeerUserID string  `json:"peer_user_id"`
	ConvID     *string `json:"conv_id,omitempty"`
}

// DMCreated answers POST /v1/dms/create.
type DMCreated struct {
	Status string `json:"status"`
	ConvID string `json:"conv_id"`
}

// ConversationList answers GET /v1/conversations with a page of items after the query's cursor:
// at most limit (1 to 1000; 1000 if limit is absent).
type ConversationList struct {
	Items []Conversation `json:"items"`
	// NextCursor requests the following page. It is absent on the last page.
	NextCursor string `json:"next_cursor,omitempty"`
}

// Conversation is a conversation that the caller is a member of. The three numbers about the
// log are null while it is empty.
type Conversation struct {
	ConvID      string   `json:"conv_id"`
	Role        string   `json:"role"`
	CreatedAtMS int64    `json:"created_at_ms"`
	HomeGateway string   `json:"home_gateway"`
	MemberCount int64    `json:"member_count"`
	Title       string   `json:"title"`
	Label       string   `json:"label"`
	Pinned      bool     `json:"pinned"`
	PinnedAtMS  int64    `json:"pinned_at_ms"` // 0: not pinned
	Muted       bool     `json:"muted"`
	Archived    bool     `json:"archived"`
	Members     []string `json:"members,omitempty"` // sorted, up to 20 members
	EarliestSeq *int64   `json:"earliest_seq"`
	LatestSeq   *int64   `json:"latest_seq"`
	LatestTSMS  *int64   `json:"latest_ts_ms"`
	LastReadSeq *int64   `json:"last_read_seq"` // null until marked
	UnreadCount int64    `json:"unread_count"`
	DisplayName string   `json:"display_name"`
}

// Gateway answers GET /v1/gateways/resolve.
type Gateway struct {
	GatewayID  string `json:"gateway_id"`
	GatewayURL string `json:"gateway_url"`
}
