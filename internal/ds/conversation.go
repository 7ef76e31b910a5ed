package ds

// Role is what a member may do in a conversation.
type Role string

// The roles of the gateway protocol, from most to least.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Plain  Role = "member"
	NoRole Role = ""
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

	RecordSenders bool
	RefuseOpaque  bool // what does not parse as MLS is refused once bound
	Committer     Device
}

// IsBound says whether the conversation belongs to an MLS group.
func (c *Conversation) IsBound() bool { return c.GroupID != nil }

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

// Summary is a line in an account's list of conversations.
type Summary struct {
	Conversation
	Role        Role
	EarliestSeq int64 // 0 when the log holds no message
	MemberList  []AccountID
}
