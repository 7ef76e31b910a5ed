package gateway

import "encoding/json"

// The frames of a device's own log (feature device) come again on each connect
// until device.ack names their Pos or a later one.

// Welcome invites this device into an MLS group.
type Welcome struct {
	Pos           int64  `json:"pos"`
	WelcomeID     string `json:"welcome_id"`
	ConvID        string `json:"conv_id"`
	Env           string `json:"env"` // base64 of the MLSMessage
	KeyPackageRef string `json:"key_package_ref"`
	Epoch         int64  `json:"epoch"`
	NextSeq       int64  `json:"next_seq"` // where the joiner begins to read
	// Omitted is there where the frame would have been too long: Env is "" then.
	Omitted *Omitted `json:"omitted,omitempty"`
}

// StoredWelcome answers GET /v1/records?welcome_id=…, for a device that the Welcome is for.
// GET /v1/records?conv_id=…&seq=… is answered with an Event.
type StoredWelcome struct {
	WelcomeID string `json:"welcome_id"`
	Env       string `json:"env"` // base64 of the MLSMessage
}

// Members says that accounts, the receiver's own among them, were added to or
// removed from a conversation.
type Members struct {
	Pos    int64    `json:"pos"`
	ConvID string   `json:"conv_id"`
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	// Omitted is there where the frame would have been too long: the lists then name no
	// other account than the receiver's own.
	Omitted *Omitted `json:"omitted,omitempty"`
}

// Roster is a change of the accounts of a conversation, told to those who read it, in
// its place between the events. It has no seq, so it is not replayed to who begins
// behind it: whoever connects asks GET /v1/rooms/members. Feature roster.
type Roster struct {
	ConvID  string   `json:"conv_id"`
	Add     []string `json:"add"`
	Remove  []string `json:"remove"`
	Omitted *Omitted `json:"omitted,omitempty"` // as in Members
}

// KeyPackagesLow says that few of this device's key packages are left.
type KeyPackagesLow struct {
	Pos       int64 `json:"pos"`
	Available int64 `json:"available"`
}

// DeviceAck says that the device has dealt with its log up to and including Pos.
type DeviceAck struct {
	Pos int64 `json:"pos"`
}

// DeviceEvents answers GET /v1/device-events: what the device has not acknowledged,
// oldest first, as complete frames. More says that the answer was cut: acknowledge
// and ask again.
type DeviceEvents struct {
	Events []json.RawMessage `json:"events"`
	More   bool              `json:"more"`
}

// GroupInfo answers GET /v1/groupinfo?conv_id=…: what a member needs to enter the MLS
// group by itself (RFC 9420, section 12.4.3.2). Epoch is the conversation's; a
// GroupInfo of an epoch before it is of no use.
type GroupInfo struct {
	ConvID    string `json:"conv_id"`
	Epoch     int64  `json:"epoch"`
	GroupInfo string `json:"group_info"` // base64 of the MLSMessage
}

// Report tells the server what only a client can see. It is counted and never
// stored with an identity. An epoch authenticator is compared with what other members
// report; the answer is epoch_conflict where they differ. Feature report.
type Report struct {
	Kind       string `json:"kind"`
	ConvID     string `json:"conv_id,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Epoch      int64  `json:"epoch,omitempty"`
	// EpochAuthenticator is base64, with ReportEpochAuthenticator.
	EpochAuthenticator string `json:"epoch_authenticator,omitempty"`
}

// The kinds of reports.
const (
	ReportGap                = "gap"
	ReportDecryptFailure     = "decrypt_failure"
	ReportStateReload        = "state_reload"
	ReportEpochAuthenticator = "epoch_authenticator"
)
