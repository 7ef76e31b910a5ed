package gateway

// Start is the body of session.start and of POST /v1/session/start.
type Start struct {
	// AuthToken is a service token (a JWT) with lxm im.waxwing.session.start. The
	// account is its issuer.
	AuthToken string `json:"auth_token"`
	// DeviceID is the caller's own name for the device, 1–128 bytes.
	DeviceID string `json:"device_id"`
	// DeviceCredential is accepted and ignored.
	DeviceCredential *string `json:"device_credential,omitempty"`
	// ClientLabel names the kind of client: 1–32 characters of [a-z0-9 _-].
	ClientLabel *string   `json:"client_label,omitempty"`
	Features    []Feature `json:"features,omitempty"`
	// InviteCode admits a new account on a service that requires one: without a code the answer
	// is forbidden "invite required", with an unknown or used code forbidden "invalid invite".
	// At most 64 bytes; the starts of existing accounts ignore it.
	InviteCode *string `json:"invite_code,omitempty"`
}

// AuthMethod is the lxm that an AuthToken carries.
const AuthMethod = "im.waxwing.session.start"

// Resume is the body of session.resume and of POST /v1/session/resume.
type Resume struct {
	ResumeToken string `json:"resume_token"`
}

// Ready answers a start or a resume: the body of session.ready and of both HTTP calls.
type Ready struct {
	UserID       string   `json:"user_id"`
	SessionToken string   `json:"session_token"`
	ResumeToken  string   `json:"resume_token"`
	ExpiresAt    int64    `json:"expires_at"` // ms
	Cursors      []Cursor `json:"cursors"`    // this device's, by conv_id
	// CursorsOmitted is the number of cursors that session.ready leaves out to stay within
	// FrameBytesMax. They still apply to a subscription without a position.
	CursorsOmitted int64 `json:"cursors_omitted,omitempty"`
	// DeviceNextPos is the first position of the device's log that it has not acknowledged; nil
	// without the feature device.
	DeviceNextPos *int64 `json:"device_next_pos,omitempty"`
	// Features are those granted, kept over resume.
	Features []Feature `json:"features,omitempty"`
}

// Cursor is the position from which a device continues to read a conversation.
type Cursor struct {
	ConvID  string `json:"conv_id"`
	NextSeq int64  `json:"next_seq"`
}

// SessionList answers GET /v1/session/list: the caller's session first, then by
// device and id. Nothing in it is secret.
type SessionList struct {
	Sessions         []SessionRow `json:"sessions"`
	CurrentSessionID string       `json:"current_session_id"`
}

// SessionRow is one live session of the account. Times are in ms.
type SessionRow struct {
	SessionID    string `json:"session_id"`
	DeviceID     string `json:"device_id"`
	ExpiresAtMS  int64  `json:"expires_at_ms"`
	IsCurrent    bool   `json:"is_current"`
	CreatedAtMS  int64  `json:"created_at_ms"`
	LastSeenAtMS int64  `json:"last_seen_at_ms"`
	ClientLabel  string `json:"client_label"`
}

// LogoutAll is the body of POST /v1/session/logout_all. A body that is empty or not JSON counts
// as one without fields.
type LogoutAll struct {
	IncludeSelf bool `json:"include_self,omitempty"`
}

// LoggedOutAll answers POST /v1/session/logout_all.
type LoggedOutAll struct {
	Status      string `json:"status"`
	Invalidated int64  `json:"invalidated"`
	KeptCurrent bool   `json:"kept_current"`
}

// Revoke is the body of POST /v1/session/revoke: exactly one of SessionID and DeviceID is set.
type Revoke struct {
	SessionID   *string `json:"session_id,omitempty"`
	DeviceID    *string `json:"device_id,omitempty"`
	IncludeSelf bool    `json:"include_self,omitempty"`
	// KeyPackages, with DeviceID, also voids the key packages of that device, so that a lost
	// device cannot be added again.
	KeyPackages bool `json:"key_packages,omitempty"`
}

// Revoked answers POST /v1/session/revoke.
type Revoked struct {
	Status            string   `json:"status"`
	Revoked           int64    `json:"revoked"`
	RevokedSessionIDs []string `json:"revoked_session_ids"` // sorted
}
