package ds

import "bytes"

// Role is the role of a member of a conversation; it determines the member's rights.
type Role string

// The roles of the gateway protocol, from most to least.
const (
	Owner     Role = "owner"
	Admin     Role = "admin"
	Moderator Role = "moderator" // XRPC only: a plain member in the gateway protocol
	Plain     Role = "member"
	NoRole    Role = ""
)

// MayManage reports whether the role may invite and remove members.
func (r Role) MayManage() bool { return r == Owner || r == Admin }

// Conversation is the head of a conversation's log: the narrow row that every append locks.
// Rarely read data (GroupInfo, titles) is kept elsewhere.
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
	LastMS     int64 // time of the last record as far as it is stored: a lower bound for the next one

	RecordSenders bool
	RefuseOpaque  bool // once bound, refuse messages that do not parse as MLS
	Committer     Device
	Policy        Policy
	// ConfirmationTag is the tag of the current epoch (RFC 9420, section 8.1), if the committer
	// stated it; else nil.
	ConfirmationTag []byte
}

// IsBound reports whether the conversation belongs to an MLS group.
func (c *Conversation) IsBound() bool { return c.GroupID != nil }

// HeadVersion identifies a state of a conversation: whatever changes it changes one of these.
type HeadVersion struct {
	Pos  int64
	Hash []byte
	Term int64
	Home string
}

// Version returns the version of the head.
func (c *Conversation) Version() HeadVersion { return HeadVersion{c.Pos, c.Hash, c.Term, c.Home} }

// IsEqual reports whether v and other are the same version.
func (v HeadVersion) IsEqual(other HeadVersion) bool {
	return v.Pos == other.Pos && v.Term == other.Term && v.Home == other.Home && bytes.Equal(v.Hash, other.Hash)
}

// Policy holds the rules that the admins of a conversation have set.
type Policy struct {
	AllowExternalCommits     bool  `json:"external"`        // members may join the group by external commit
	RequireInviteForJoin     bool  `json:"invite_to_join"`  // a non-member needs to be added
	AllowRejoin              bool  `json:"rejoin"`          // a former member may rejoin without being added
	RejoinWindowDays         int64 `json:"rejoin_days"`     // for this long; 0: unlimited
	PreventRemovingLastAdmin bool  `json:"keep_last_admin"` // an admin who leaves needs a successor
	AllowInvites             bool  `json:"invites"`         // invite codes may be created
	AdminOnlyInvites         bool  `json:"admin_invites"`   // by admins only
	AllowMemberAdd           bool  `json:"member_add"`      // plain members may add others
	AllowMemberRemove        bool  `json:"member_remove"`   // and remove plain members
	RequireAdminApproval     bool  `json:"approval"`        // only an admin may add
	MaxMembers               int64 `json:"members_max"`     // accounts; 0: the server's maximum
}

// DefaultPolicy returns the policy of a conversation in which the admins have not set one.
func DefaultPolicy() Policy {
	return Policy{AllowExternalCommits: true, AllowRejoin: true, RejoinWindowDays: 30, PreventRemovingLastAdmin: true,
		AllowInvites: true, AdminOnlyInvites: true}
}

// Interval is one stay of an account in a conversation. It covers the records from From through
// Until, the record that ended it; Until 0 means that it has not ended.
type Interval struct {
	From, Until int64
	Role        Role
	Service     string // the DID of the service where the account lives; "" means this one
}

// Member is a current member of a conversation.
type Member struct {
	Account AccountID
	Role    Role
}

// Details holds data of a conversation outside its log: rarely written, and read with lists.
type Details struct {
	Creator            AccountID // "" if unknown
	Suite              string    // by name; "" if unknown
	SuiteNumber        int64     // of the stored GroupInfo; 0 without one
	Title, Description string
	PolicyMS           int64 // when the rules were last changed; 0: never
	PolicyBy           AccountID
}

// Participant is a member with the dates of its stay.
type Participant struct {
	Member
	JoinedMS   int64
	PromotedMS int64 // 0 unless its role was assigned to it
	PromotedBy AccountID
}

// View is a conversation as one of its members sees it.
type View struct {
	Conversation
	Details
	Role         Role          // the reader's
	JoinedMS     int64         // the reader's
	Participants []Participant // in order of joining
}

// Summary is a line in an account's list of conversations.
type Summary struct {
	Conversation
	Role        Role
	EarliestSeq int64 // 0 when the log holds no message
	MemberList  []AccountID
}
