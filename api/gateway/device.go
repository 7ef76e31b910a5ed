package gateway

import "encoding/json"

// The frames of a device's own log (feature device) are sent again on each connect until
// device.ack names their Pos or a later one.

// Welcome invites this device into an MLS group.
type Welcome struct {
	Pos           int64  `json:"pos"`
	WelcomeID     string `json:"welcome_id"`
	ConvID        string `json:"conv_id"`
	Env           string `json:"env"` // base64 of the MLSMessage
	KeyPackageRef string `json:"key_package_ref"`
	Epoch         int64  `json:"epoch"`
	NextSeq       int64  `json:"next_seq"` // the joiner's first seq to read
	// Omitted is set if the frame would have been too long: Env is "" then.
	Omitted *Omitted `json:"omitted,omitempty"`
}

// StoredWelcome answers GET /v1/records?welcome_id=…, for a device that the Welcome is
// addressed to. GET /v1/records?conv_id=…&seq=… is answered with an Event.
type StoredWelcome struct {
	WelcomeID string `json:"welcome_id"`
	Env       string `json:"env"` // base64 of the MLSMessage
}

// Members announces that accounts, including the receiver's own, were added to or removed from
// a conversation.
type Members struct {
	Pos    int64    `json:"pos"`
	ConvID string   `json:"conv_id"`
	Add    []string `json:"add"`
	Remove []string `json:"remove"`
	// Omitted is set if the frame would have been too long: the lists then contain only the
	// receiver's own account.
	Omitted *Omitted `json:"omitted,omitempty"`
}

// Roster announces a change of the accounts of a conversation to its readers, in order among
// the events. It has no seq, so it is not replayed to a reader that starts after it: after
// connecting, call GET /v1/rooms/members. Feature roster.
type Roster struct {
	ConvID  string   `json:"conv_id"`
	Add     []string `json:"add"`
	Remove  []string `json:"remove"`
	Omitted *Omitted `json:"omitted,omitempty"` // as in Members
}

// KeyPackagesLow announces that few of this device's key packages are left.
type KeyPackagesLow struct {
	Pos       int64 `json:"pos"`
	Available int64 `json:"available"`
}

// DeviceAck confirms that the device has processed its log up to and including Pos.
type DeviceAck struct {
	Pos int64 `json:"pos"`
}

// DeviceEvents answers GET /v1/device-events with the frames that the device has not
// acknowledged, oldest first. More reports that the list was cut: acknowledge and ask again.
type DeviceEvents struct {
	Events []json.RawMessage `json:"events"`
	More   bool              `json:"more"`
}

// GroupInfo answers GET /v1/groupinfo?conv_id=…: the data with which a member can join the MLS
// group by external commit (RFC 9420, section 12.4.3.2). Epoch is the conversation's; a
// GroupInfo of an earlier epoch is useless.
type GroupInfo struct {
	ConvID    string `json:"conv_id"`
	Epoch     int64  `json:"epoch"`
	GroupInfo string `json:"group_info"` // base64 of the MLSMessage
}

// Report informs the server of a problem that only a client can detect. It is counted and never
// stored with an identity. An epoch authenticator is compared with the reports of other
// members; the answer is epoch_conflict if they differ. Feature report.
type Report struct {
	Kind       string `json:"kind"`
	ConvID     string `json:"conv_id,omitempty"`
	Generation int64  `json:"generation,omitempty"`
	Epoch      int64  `json:"epoch,omitempty"`
	// EpochAuthenticator is base64; it is set with ReportEpochAuthenticator.
	EpochAuthenticator string `json:"epoch_authenticator,omitempty"`
}

// The kinds of reports.
const (
	ReportGap                = "gap"
	ReportDecryptFailure     = "decrypt_failure"
	ReportStateReload        = "state_reload"
	ReportEpochAuthenticator = "epoch_authenticator"
)
