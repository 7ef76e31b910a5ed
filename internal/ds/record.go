package ds

// LogID names a log. Conversation and account logs live in the same tables and
// are read by the same code; the prefix keeps their names apart.
type LogID string

// ConversationLog returns the log of a conversation.
func ConversationLog(id ConversationID) LogID { return LogID("c/" + string(id)) }

// AccountLog returns the log of an account: the records that belong to it or to one of its
// devices and not to a conversation.
func AccountLog(id AccountID) LogID { return LogID("a/" + string(id)) }

// Conversation returns the conversation of the log, or "" for an account log.
func (l LogID) Conversation() ConversationID {
	if len(l) > 2 && l[0] == 'c' {
		return ConversationID(l[2:])
	}
	return ""
}

// Account returns the account of the log, or "" for a conversation log.
func (l LogID) Account() AccountID {
	if len(l) > 2 && l[0] == 'a' {
		return AccountID(l[2:])
	}
	return ""
}

// Kind is the server's classification of a record. It is stored, hashed into the chain and
// shown to clients. The numbers are part of the stored form and never change.
type Kind uint8

// The kinds of records. App, Proposal and Commit carry a seq; the others are
// control records of a conversation or device events of an account log.
const (
	App      Kind = 1
	Proposal Kind = 2
	Commit   Kind = 3

	// Membership and Roles are control records; their bodies are a MembershipChange and a
	// RoleChange.
	Membership Kind = 16
	Roles      Kind = 17

	// ReactionEvent, SettingsEvent, RequestEvent and DeviceAddition are control records too,
	// for clients of the XRPC door; their bodies are a Reaction, a SettingsChange, a Request
	// and an Addition.
	ReactionEvent  Kind = 18
	SettingsEvent  Kind = 19
	RequestEvent   Kind = 20
	DeviceAddition Kind = 21

	// WelcomeEvent, MembersEvent and KeyPackagesLow are records of account logs; their body is
	// a DeviceEvent.
	WelcomeEvent   Kind = 64
	MembersEvent   Kind = 65
	KeyPackagesLow Kind = 66
)

// IsMessage reports whether records of this kind carry MLS bytes and have a seq.
func (k Kind) IsMessage() bool { return k >= App && k <= Commit }

func (k Kind) String() string {
	switch k {
	case App:
		return "app"
	case Proposal:
		return "proposal"
	case Commit:
		return "commit"
	case Membership:
		return "membership"
	case Roles:
		return "roles"
	case ReactionEvent:
		return "reaction"
	case SettingsEvent:
		return "settings"
	case RequestEvent:
		return "request"
	case DeviceAddition:
		return "device"
	case WelcomeEvent:
		return "welcome"
	case MembersEvent:
		return "members"
	case KeyPackagesLow:
		return "keypackages.low"
	}
	return "unknown"
}

// Encoding is the form in which the bytes of a record were sent, so that every reader gets
// exactly what the sender wrote.
type Encoding uint8

// The encodings. The numbers are part of the stored form and never change.
const (
	// Text is an opaque string, kept unchanged.
	Text Encoding = 0
	// Base64 was sent as padded standard base64 and is stored decoded.
	Base64 Encoding = 1
	// Binary was sent as bytes.
	Binary Encoding = 2
	// JSON is a body that the server wrote: a membership change or a device event.
	JSON Encoding = 3
)

// Record is an entry at its position in a log.
type Record struct {
	Log        LogID
	Pos        int64 // 1, 2, 3 … within the log
	Seq        int64 // 1, 2, 3 … among the log's messages; 0 for every other record
	Kind       Kind
	Generation int64
	Epoch      int64 // the MLS epoch after this record (a commit: the one it opens); 0 where unbound
	Term       int64
	MessageID  MessageID // "" for control records and device events
	CreatedMS  int64     // the server's clock
	Hash       []byte    // SHA-256 over this record and the hash before it; nil in account logs
	Sender     Device    // zero unless the conversation records senders
	Recipient  DeviceID  // account logs: the only device that may see it; "" for all
	Encoding   Encoding
	Body       []byte
	// Left is the size of a body that a page did not load, or 0.
	Left int
	// ConfirmationTag is the tag of the epoch that a commit opens (RFC 9420, section 8.1), as
	// its sender stated it; nil if unknown. It is not part of the chain.
	ConfirmationTag []byte
}

// MembershipChange is the body of a Membership record, as JSON. Fields that are empty are left
// out, so that the body of a change without them never changes.
type MembershipChange struct {
	By     AccountID   `json:"by,omitempty"`
	Add    []AccountID `json:"add,omitempty"`
	Remove []AccountID `json:"remove,omitempty"`
	// At holds the bindings of those accounts of Add that do not live at the home of the
	// conversation.
	At map[AccountID]Binding `json:"at,omitempty"`
	// Settings holds the settings that a conversation is created with, as far as they are not
	// the default ones.
	Settings *Settings `json:"settings,omitempty"`
}

// Binding says at which service an account lives.
type Binding struct {
	Service string `json:"service"` // its DID
}

// RoleChange is the body of a Roles record, as JSON: from this record on the member has that
// role.
type RoleChange struct {
	By      AccountID `json:"by,omitempty"`
	Account AccountID `json:"account"`
	Role    Role      `json:"role"`
}

// Reaction is the body of a ReactionEvent, as JSON: it was added or removed.
type Reaction struct {
	Account   AccountID `json:"account"`
	MessageID MessageID `json:"message"`
	Reaction  string    `json:"reaction"`
	Removed   bool      `json:"removed,omitempty"`
}

// SettingsChange is the body of a SettingsEvent, as JSON: it names the changed settings and
// holds their new values. Records of earlier versions have the names alone.
type SettingsChange struct {
	By     AccountID `json:"by,omitempty"` // "" if it would reveal the committer
	Fields []string  `json:"fields"`       // policy, groupInfo, title, …
	Settings
}

// Settings holds values of settings that a record changes; nil leaves one as it is. Together
// the records of a log determine the settings of its conversation. A GroupInfo has no value
// here: it is stored beside the log.
type Settings struct {
	Policy      *Policy `json:"policy,omitempty"`
	Title       *string `json:"title,omitempty"`
	Description *string `json:"description,omitempty"`
}

// What a Request asks the members for.
const (
	WantsGroupInfo  = "group_info" // a current GroupInfo, to join by external commit
	WantsReaddition = "readdition" // to be added again
)

// Request is the body of a RequestEvent, as JSON.
type Request struct {
	By    AccountID `json:"by"`
	Wants string    `json:"wants"`
}

// Addition is the body of a DeviceAddition, as JSON: a member has a device that has to be added
// to the group.
type Addition struct {
	ID     string `json:"id"`
	Device Device `json:"device"`
	Name   string `json:"name,omitempty"`
}

// DeviceEvent is the body of a record in an account log, as JSON. The record's kind determines
// which fields are set.
type DeviceEvent struct {
	ConversationID ConversationID `json:"conversation,omitempty"`
	Add            []AccountID    `json:"add,omitempty"`
	Remove         []AccountID    `json:"remove,omitempty"`

	WelcomeID     string `json:"welcome,omitempty"`
	KeyPackageRef string `json:"key_package_ref,omitempty"` // lower-case hex
	Generation    int64  `json:"generation,omitempty"`
	Epoch         int64  `json:"epoch,omitempty"`    // the epoch that the commit opened
	NextSeq       int64  `json:"next_seq,omitempty"` // the joiner's first seq to read

	Available int64 `json:"available,omitempty"`

	// Welcome holds the MLSMessage; it is stored once for all recipients, apart from the event,
	// and joined when the event is read.
	Welcome []byte `json:"-"`
	// WelcomeLeft is the size of a Welcome that a page did not load, or 0.
	WelcomeLeft int64 `json:"-"`
}

// Cursor is a device's acknowledged position in a log. Next counts in the log's own number: seq
// in a conversation, pos in an account log.
type Cursor struct {
	Log  LogID
	Next int64
}
