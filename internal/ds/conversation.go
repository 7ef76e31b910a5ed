package ds

// Role is what a member may do in a conversation.
type Role string

// The roles of the gateway protocol, from most to least.
const (
	Owner     Role = "owner"
	Admin     Role = "admin"
	Moderator Role = "moderator" // XRPC only: to the gateway protocol a member
	Plain     Role = "member"
	NoRole    Role = ""
)

// MayManage says whether the role may invite and remove members.
func (r Role) MayManage() bool { return r == Owner || r == Admin }

// Conversation is the head of a conversation's log: the narrow row that every
// append locks. What is read seldom (GroupInfo, titles) is kept elsewhere.
type Conversation struct {
	ID         ConversationID
	Pos        int64 // head
	Seq        int64 // head among messages
	Hash       []byte
	Term       int64
	Home       string // "" means this service
	GroupID    []byte // nil until bound to an MLS group
	Generation int64
	Epoch      int64
	Members    int64
	CreatedMS  int64
	LatestMS   int64 // time of the last message; 0 when there is none
	LastMS     int64 // time of the last record, as far as it is noted: that of the next one is not before it

	RecordSenders bool
	RefuseOpaque  bool // what does not parse as MLS is refused once bound
	Committer     Device
	Policy        Policy
	// ConfirmationTag is the tag of the current epoch (RFC 9420, section 8.1), where the
	// committer has said it; else nil.
	ConfirmationTag []byte
}

// IsBound says whether the conversation belongs to an MLS group.
func (c *Conversation) IsBound() bool { return c.GroupID != nil }

// Policy is the rules that the admins of a conversation have set for it.
type Policy struct {
	AllowExternalCommits     bool  `json:"external"`        // members may enter the group by themselves
	RequireInviteForJoin     bool  `json:"invite_to_join"`  // whoever is no member needs to be added
	AllowRejoin              bool  `json:"rejoin"`          // who has left may come back by itself
	RejoinWindowDays         int64 `json:"rejoin_days"`     // for so long; 0: without end
	PreventRemovingLastAdmin bool  `json:"keep_last_admin"` // an admin who goes has a successor
	AllowInvites             bool  `json:"invites"`         // codes may be made
	AdminOnlyInvites         bool  `json:"admin_invites"`   // by admins only
	AllowMemberAdd           bool  `json:"member_add"`      // plain members may add others
	AllowMemberRemove        bool  `json:"member_remove"`   // and remove plain members
	RequireAdminApproval     bool  `json:"approval"`        // an admin has to be the one who adds
	MaxMembers               int64 `json:"members_max"`     // accounts; 0: as many as there may be
}

// DefaultPolicy holds where nobody has set another one.
func DefaultPolicy() Policy {
	return Policy{AllowExternalCommits: true, AllowRejoin: true, RejoinWindowDays: 30, PreventRemovingLastAdmin: true,
		AllowInvites: true, AdminOnlyInvites: true}
}

// Interval is one stay of an account in a conversation. It covers the records
// from From through Until, the record that ended it; Until 0 means it goes on.
type Interval struct {
	From, Until int64
	Role        Role
}

// Member is an account in a conversation now.
type Member struct {
	Account AccountID
	Role    Role
}

// Details is what is known of a conversation beside its log: seldom written, and read
// with lists.
type Details struct {
	Creator            AccountID // "" where nobody was noted
	Suite              string    // by name; "" where nobody has said it
	SuiteNumber        int64     // of the stored GroupInfo; 0 where there is none
	Title, Description string
	PolicyMS           int64 // when the rules were last changed; 0: never
	PolicyBy           AccountID
}

// Participant is a member with the dates of its stay.
type Participant struct {
	Member
	JoinedMS   int64
	PromotedMS int64 // 0 unless its role was given to it
	PromotedBy AccountID
}

// View is a conversation as one of its members sees it.
type View struct {
	Conversation
	Details
	Role         Role          // the reader's
	JoinedMS     int64         // the reader's
	Participants []Participant // longest-standing first
}

// Summary is a line in an account's list of conversations.
type Summary struct {
	Conversation
	Role        Role
	EarliestSeq int64 // 0 when the log holds no message
	MemberList  []AccountID
}
