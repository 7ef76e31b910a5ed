package xrpc

import (
	"encoding/json"
	"fmt"
)

// DeviceAction is an action of registerDevice.
type DeviceAction string

// The actions of registerDevice.
const (
	DeviceRegister                DeviceAction = "register"
	DeviceUpdateToken             DeviceAction = "updateToken"
	DeviceRemoveToken             DeviceAction = "removeToken"
	DeviceDelete                  DeviceAction = "delete"
	DeviceClaimPendingAddition    DeviceAction = "claimPendingAddition"
	DeviceCompletePendingAddition DeviceAction = "completePendingAddition"
)

// RegisterDeviceInput is the body of registerDevice.
type RegisterDeviceInput struct {
	DeviceName string `json:"deviceName"`
	// DeviceUUID is the device's own permanent id; it is also read as deviceUuid.
	DeviceUUID         string             `json:"deviceUUID,omitempty"`
	KeyPackages        List[KeyPackageIn] `json:"keyPackages"`
	SignaturePublicKey Bytes              `json:"signaturePublicKey"`
	PushToken          string             `json:"pushToken,omitempty"`
	// ActionText is the action as sent; Action interprets it.
	ActionText        string   `json:"action,omitempty"`
	DeviceID          string   `json:"deviceId,omitempty"`
	PendingAdditionID string   `json:"pendingAdditionId,omitempty"`
	NewEpoch          *Natural `json:"newEpoch,omitempty"`
}

// Action returns the requested action. If none is named, key packages mean register; a push
// token without key packages means update the token; neither means remove the token.
func (in *RegisterDeviceInput) Action() DeviceAction {
	switch {
	case in.ActionText != "":
		return DeviceAction(in.ActionText)
	case len(in.KeyPackages) > 0 || len(in.SignaturePublicKey) > 0:
		return DeviceRegister
	case in.PushToken != "":
		return DeviceUpdateToken
	}
	return DeviceRemoveToken
}

// Generation returns the generation shown by the shape of the key packages.
func (in *RegisterDeviceInput) Generation() Generation { return generationOfPackages(in.KeyPackages) }

// RegisterDeviceOutput answers every action of registerDevice: clients decode the three fields
// of a registration for all of them.
type RegisterDeviceOutput struct {
	DeviceID string `json:"deviceId"`
	// MLSDID is the account's DID, '#' and the device id.
	MLSDID              string             `json:"mlsDid"`
	AutoJoinedConvos    List[string]       `json:"autoJoinedConvos"`
	WelcomeMessages     []WelcomeForDevice `json:"welcomeMessages,omitempty"`
	Success             *bool              `json:"success,omitempty"` // updateToken, removeToken, completePendingAddition
	Deleted             *bool              `json:"deleted,omitempty"` // delete; false if there was no such device
	KeyPackagesDeleted  *int64             `json:"keyPackagesDeleted,omitempty"`
	ConversationsLeft   *int64             `json:"conversationsLeft,omitempty"`
	Claimed             *bool              `json:"claimed,omitempty"` // claimPendingAddition
	ConvoID             string             `json:"convoId,omitempty"`
	DeviceCredentialDID string             `json:"deviceCredentialDid,omitempty"`
	ClaimedBy           string             `json:"claimedBy,omitempty"`
	KeyPackage          *KeyPackageOut     `json:"keyPackage,omitempty"`
	Error               string             `json:"error,omitempty"` // completePendingAddition
}

// WelcomeForDevice is a Welcome that waits for a device.
type WelcomeForDevice struct {
	ConvoID string `json:"convoId"`
	Welcome Blob   `json:"welcome"`
}

// ListDevicesParams is the query of listDevices.
type ListDevicesParams struct {
	DeviceID string `json:"deviceId,omitempty"` // ignored
}

// ListDevicesOutput is the answer of listDevices, last seen first.
type ListDevicesOutput struct {
	Devices List[DeviceInfo] `json:"devices"`
}

// DeviceInfo is a device as its owner sees it. The push token is never included.
type DeviceInfo struct {
	DeviceID            string `json:"deviceId"`
	DeviceName          string `json:"deviceName"`
	DeviceUUID          string `json:"deviceUUID,omitempty"`
	CredentialDID       string `json:"credentialDid"`
	LastSeenAt          Time   `json:"lastSeenAt"`
	RegisteredAt        Time   `json:"registeredAt"`
	KeyPackageCount     int64  `json:"keyPackageCount"`
	PushTokenRegistered *bool  `json:"pushTokenRegistered,omitempty"`
}

// GetPendingDevicesParams is the query of getPendingDevices.
type GetPendingDevicesParams struct {
	ConvoIDs []string `json:"convoIds,omitempty"`
	Limit    *Natural `json:"limit,omitempty"` // 1 to 100; absent is 50
}

// GetPendingDevicesOutput is the answer of getPendingDevices, oldest first.
type GetPendingDevicesOutput struct {
	PendingAdditions List[PendingDevice] `json:"pendingAdditions"`
}

// PendingDevice is a device of another member that waits to be added. It has the fields of both
// the lexicon and the reference server: the new device is listed twice.
type PendingDevice struct {
	ConvoID                string `json:"convoId"`
	DeviceID               string `json:"deviceId"`
	CreatedAt              Time   `json:"createdAt"`
	Welcome                Blob   `json:"welcome,omitzero"`
	ID                     string `json:"id,omitempty"`
	UserDID                string `json:"userDid,omitempty"`
	NewDeviceID            string `json:"newDeviceId,omitempty"`
	NewDeviceCredentialDID string `json:"newDeviceCredentialDid,omitempty"`
	Status                 string `json:"status,omitempty"` // pending, in_progress, completed
	DeviceName             string `json:"deviceName,omitempty"`
	ClaimedBy              string `json:"claimedBy,omitempty"`
}

// KeyPackageIn is a published key package. An unreadable one does not invalidate the others of
// a list: Problem then describes the fault, and the other fields hold what could be read.
type KeyPackageIn struct {
	KeyPackage  Blob   `json:"keyPackage"`
	CipherSuite string `json:"cipherSuite"`
	Expires     Time   `json:"expires"`
	LastResort  bool   `json:"lastResort,omitempty"` // B only
	Problem     string `json:"-"`
}

// UnmarshalJSON reads a key package and stores a fault in Problem.
func (p *KeyPackageIn) UnmarshalJSON(in []byte) error {
	*p = KeyPackageIn{}
	var raw struct {
		KeyPackage  json.RawMessage `json:"keyPackage"`
		CipherSuite json.RawMessage `json:"cipherSuite"`
		Expires     json.RawMessage `json:"expires"`
		LastResort  json.RawMessage `json:"lastResort"`
	}
	if err := json.Unmarshal(in, &raw); err != nil {
		p.Problem = "must be an object"
		return nil
	}
	for _, part := range []struct {
		name     string
		raw      json.RawMessage
		target   any
		optional bool
	}{
		{"keyPackage", raw.KeyPackage, &p.KeyPackage, false},
		{"cipherSuite", raw.CipherSuite, &p.CipherSuite, false},
		{"expires", raw.Expires, &p.Expires, false},
		{"lastResort", raw.LastResort, &p.LastResort, true},
	} {
		problem := ""
		switch {
		case len(part.raw) == 0 || string(part.raw) == "null":
			if !part.optional {
				problem = "is required"
			}
		case json.Unmarshal(part.raw, part.target) != nil:
			problem = "cannot be read"
		}
		if problem != "" && p.Problem == "" {
			p.Problem = fmt.Sprintf("%s: %s", part.name, problem)
		}
	}
	return nil
}

func generationOfPackages(packages []KeyPackageIn) Generation {
	g := GenerationUnknown
	for _, p := range packages {
		if one := generationOf(p.LastResort, p.KeyPackage); one != GenerationUnknown && g != GenerationB {
			g = one
		}
	}
	return g
}
