package xrpcserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
)

// The bounds in the lexicons of devices.
const (
	deviceNameMax         = 100 // characters
	deviceUUIDMax         = 64  // bytes
	pushTokenMax          = 512 // bytes
	signatureKeyBytes     = 32
	registeredPackagesMax = 200
	pageMax               = 100
	pageDefault           = 50
)

// devices registers, lists and deletes devices, and hands out those that wait to be added.
type devices struct {
	core      *core.Service
	directory *directory.Service
}

func (h devices) register(s *Server) {
	procedure(s, xrpc.RegisterDevice, h.registerDevice)
	query(s, xrpc.ListDevices, h.listDevices)
	query(s, xrpc.GetPendingDevices, h.getPendingDevices)
}

// mlsDID returns the name of a device in MLS: its account's DID, '#' and its id.
func mlsDID(d ds.Device) string { return string(d.Account) + "#" + string(d.ID) }

// invalid returns a refusal of a request with that sentence.
func invalid(sentence string) *Error {
	return &Error{http.StatusBadRequest, xrpc.ErrorInvalidRequest, sentence}
}

func (h devices) registerDevice(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	if len(in.DeviceUUID) > deviceUUIDMax || len(in.PushToken) > pushTokenMax || len(in.DeviceID) > 3*ds.IDBytesMax {
		return nil, invalid("deviceUUID, deviceId or pushToken is too long")
	}
	act := map[xrpc.DeviceAction]func(context.Context, ds.Caller, *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error){
		xrpc.DeviceRegister:                h.registerNewDevice,
		xrpc.DeviceUpdateToken:             h.updateToken,
		xrpc.DeviceRemoveToken:             h.updateToken,
		xrpc.DeviceDelete:                  h.deleteDevice,
		xrpc.DeviceClaimPendingAddition:    h.claimPendingAddition,
		xrpc.DeviceCompletePendingAddition: h.completePendingAddition,
	}[in.Action()]
	if act == nil {
		return nil, invalid("action is none of this method's")
	}
	return act(ctx, who, in)
}

func (h devices) registerNewDevice(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	name := cleanName(in.DeviceName)
	switch {
	case name == "" || utf8.RuneCountInString(name) > deviceNameMax:
		return nil, &Error{http.StatusBadRequest, "InvalidDeviceName", "deviceName must have 1 to 100 characters"}
	case len(in.SignaturePublicKey) != signatureKeyBytes:
		return nil, &Error{http.StatusBadRequest, "InvalidSignatureKey", "signaturePublicKey must have 32 bytes"}
	case len(in.KeyPackages) == 0 || len(in.KeyPackages) > registeredPackagesMax:
		return nil, &Error{http.StatusBadRequest, "InvalidKeyPackages", "there must be 1 to 200 keyPackages"}
	}
	d, conversations, err := h.core.RegisterDevice(ctx, who, directory.Registration{Name: name, UUID: in.DeviceUUID, SignatureKey: in.SignaturePublicKey,
		PushToken: in.PushToken, Generation: int(xrpc.GenerationOf(in)), Uploads: uploads(in.KeyPackages)})
	if err != nil {
		return nil, err
	}
	out := deviceOutput(d.Device)
	for _, id := range conversations {
		out.AutoJoinedConvos = append(out.AutoJoinedConvos, string(id))
	}
	return out, nil
}

// cleanName removes invisible characters from a name.
func cleanName(name string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\ufeff' || r == '\u200b' {
			return -1
		}
		return r
	}, name))
}

// deviceOutput returns the fields that clients require in the answer to every action.
func deviceOutput(d ds.Device) *xrpc.RegisterDeviceOutput {
	return &xrpc.RegisterDeviceOutput{DeviceID: string(d.ID), MLSDID: mlsDID(d)}
}

func namesOf(in *xrpc.RegisterDeviceInput) directory.DeviceNames {
	return directory.DeviceNames{ID: in.DeviceID, UUID: in.DeviceUUID, Name: cleanName(in.DeviceName)}
}

// updateToken changes a push token, or removes it.
func (h devices) updateToken(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	token := in.PushToken
	switch isUpdate := in.Action() == xrpc.DeviceUpdateToken; {
	case !isUpdate:
		token = ""
	case token == "":
		return nil, invalid("pushToken is required")
	}
	d, err := h.directory.SetPushToken(ctx, who, namesOf(in), token)
	if err != nil {
		return nil, err
	}
	conversations, err := h.core.RecentConversations(ctx, who)
	if err != nil {
		return nil, err
	}
	out := deviceOutput(d)
	out.Success = new(true)
	for _, id := range conversations {
		out.AutoJoinedConvos = append(out.AutoJoinedConvos, string(id))
	}
	return out, nil
}

func (h devices) deleteDevice(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	if in.DeviceID == "" && in.DeviceUUID == "" {
		return nil, invalid("deviceId is required")
	}
	gone, err := h.directory.DeleteDevice(ctx, who, namesOf(in))
	if err != nil {
		return nil, err
	}
	out := deviceOutput(ds.Device{Account: who.Account, ID: ds.DeviceID(in.DeviceID)})
	if gone.Device.ID != "" {
		out = deviceOutput(gone.Device)
	}
	// Memberships are the account's, so none ends with a device.
	out.Deleted, out.KeyPackagesDeleted, out.ConversationsLeft = new(gone.Device.ID != ""), &gone.KeyPackages, new(int64)
	return out, nil
}

// claimPendingAddition claims an addition. If another device has it, the answer names that one.
func (h devices) claimPendingAddition(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, invalid("pendingAdditionId is required")
	}
	a, packages, err := h.directory.ClaimAddition(ctx, who, in.PendingAdditionID, true)
	if err != nil && !isBecause(err, ds.AdditionClaimed) {
		return nil, err
	}
	g, genErr := generationOf(ctx, h.directory, who, in)
	if genErr != nil {
		return nil, genErr
	}
	out := deviceOutput(a.Device)
	out.Claimed, out.ConvoID, out.DeviceCredentialDID, out.ClaimedBy = new(err == nil), string(a.Conversation), mlsDID(a.Device), string(a.ClaimedBy)
	if len(packages) > 0 {
		p := packageOutput(g, packages[0])
		out.KeyPackage = &p
	}
	return out, nil
}

// completePendingAddition completes an addition. A refusal is returned within the answer.
func (h devices) completePendingAddition(ctx context.Context, who ds.Caller, in *xrpc.RegisterDeviceInput) (*xrpc.RegisterDeviceOutput, error) {
	if in.PendingAdditionID == "" {
		return nil, invalid("pendingAdditionId is required")
	}
	out := deviceOutput(ds.Device{Account: who.Account, ID: ds.DeviceID(in.DeviceID)})
	err := h.directory.CompleteAddition(ctx, who, in.PendingAdditionID)
	var refusal *ds.Refusal
	switch {
	case err == nil:
		out.Success = new(true)
	case errors.As(err, &refusal):
		out.Success, out.Error = new(false), refusal.Message
	default:
		return nil, err
	}
	return out, nil
}

// isBecause reports whether err is a refusal for that reason.
func isBecause(err error, reason ds.Reason) bool {
	var refusal *ds.Refusal
	return errors.As(err, &refusal) && refusal.Reason == reason
}

func (h devices) listDevices(ctx context.Context, who ds.Caller, _ *xrpc.ListDevicesParams) (*xrpc.ListDevicesOutput, error) {
	devices, err := h.directory.Devices(ctx, who)
	if err != nil {
		return nil, err
	}
	out := &xrpc.ListDevicesOutput{}
	for _, d := range devices {
		out.Devices = append(out.Devices, xrpc.DeviceInfo{DeviceID: string(d.Device.ID), DeviceName: d.Name, DeviceUUID: d.UUID, CredentialDID: mlsDID(d.Device),
			LastSeenAt: xrpc.TimeMS(d.SeenMS), RegisteredAt: xrpc.TimeMS(d.RegisteredMS), KeyPackageCount: d.KeyPackages, PushTokenRegistered: new(d.PushToken != "")})
	}
	return out, nil
}

func (h devices) getPendingDevices(ctx context.Context, who ds.Caller, in *xrpc.GetPendingDevicesParams) (*xrpc.GetPendingDevicesOutput, error) {
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	if len(in.ConvoIDs) > pageMax {
		return nil, invalid("convoIds: at most 100")
	}
	var conversations []ds.ConversationID // nil: all
	for _, id := range in.ConvoIDs {
		conversations = append(conversations, ds.ConversationID(id))
	}
	list, err := h.directory.PendingAdditions(ctx, who, conversations, limit)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetPendingDevicesOutput{}
	for _, a := range list {
		out.PendingAdditions = append(out.PendingAdditions, xrpc.PendingDevice{ConvoID: string(a.Conversation), DeviceID: string(a.Device.ID), CreatedAt: xrpc.TimeMS(a.CreatedMS),
			ID: a.ID, UserDID: string(a.Device.Account), NewDeviceID: string(a.Device.ID), NewDeviceCredentialDID: mlsDID(a.Device),
			Status: a.Status, DeviceName: a.DeviceName, ClaimedBy: string(a.ClaimedBy)})
	}
	return out, nil
}

// pageLimit returns the requested number of items: 1 to 100, or 50 by default.
func pageLimit(limit *xrpc.Natural) (int, error) {
	switch {
	case limit == nil:
		return pageDefault, nil
	case *limit < 1 || *limit > pageMax:
		return 0, invalid("limit must be 1 to 100")
	}
	return int(*limit), nil
}
