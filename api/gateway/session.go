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
	// DeviceNextPos is the first position of the device's log that it has not
	// acknowledged; nil without the feature device.
	DeviceNextPos *int64 `json:"device_next_pos,omitempty"`
	// Features are those granted, kept over resume.
	Features []Feature `json:"features,omitempty"`
}

// Cursor is where a device goes on reading a conversation.
type Cursor struct {
	ConvID  string `json:"conv_id"`
	NextSeq int64  `json:"next_seq"`
}
