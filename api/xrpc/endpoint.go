package xrpc

import "strings"

// Namespaces of the API.
const (
	Chat = "blue.catbird.mlsChat."
	// Legacy is an older namespace, of which two names are still called.
	Legacy = "blue.catbird.mls."
)

// Names of the endpoints with types in this package.
const (
	RegisterDevice         = Chat + "registerDevice"
	ListDevices            = Chat + "listDevices"
	GetPendingDevices      = Chat + "getPendingDevices"
	PublishKeyPackages     = Chat + "publishKeyPackages"
	GetKeyPackages         = Chat + "getKeyPackages"
	GetKeyPackageStatus    = Chat + "getKeyPackageStatus"
	CreateConvo            = Chat + "createConvo"
	GetConvos              = Chat + "getConvos"
	GetConvoSettings       = Chat + "getConvoSettings"
	UpdateConvo            = Chat + "updateConvo"
	LeaveConvo             = Chat + "leaveConvo"
	SendMessage            = Chat + "sendMessage"
	SendEphemeral          = Chat + "sendEphemeral"
	GetMessages            = Chat + "getMessages"
	UpdateCursor           = Chat + "updateCursor"
	GetGroupState          = Chat + "getGroupState"
	CommitGroupChange      = Chat + "commitGroupChange"
	GetSubscriptionTicket  = Chat + "getSubscriptionTicket"
	SubscribeEvents        = Chat + "subscribeEvents"
	SubscribeConvoEvents   = Legacy + "subscribeConvoEvents" // SubscribeEvents by its older name
	RequestFailover        = Chat + "requestFailover"
	GetDeliveryStatus      = Chat + "getDeliveryStatus"
	ResolveDeliveryService = Legacy + "resolveDeliveryService"
	RedeemInvite           = "im.waxwing.invite.redeem"
)

const (
	// CiphertextMax bounds the bytes of a message or a GroupInfo.
	CiphertextMax = 10 << 20
	bodyMaxLarge  = 16 << 20
	bodyMaxSmall  = 256 << 10
)

// BodyMax bounds the bytes of a request's body. The large ones carry an
// MLS message as base64.
func BodyMax(nsid string) int64 {
	switch strings.TrimPrefix(nsid, Chat) {
	case "sendMessage", "sendEphemeral", "updateConvo", "publishKeyPackages", "registerDevice",
		"createConvo", "commitGroupChange", "leaveConvo":
		return bodyMaxLarge
	}
	return bodyMaxSmall
}
