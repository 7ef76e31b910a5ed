package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
)

// answer answers a call of the gateway's HTTP API by what XRPC has for it. in is the
// body, as a value or as JSON, or nil. A refusal is a *gateway.Error.
func (d *xrpcDoor) answer(ctx context.Context, path string, in, out any) error {
	path, query, _ := strings.Cut(path, "?")
	if in == nil {
		values, err := url.ParseQuery(query)
		if err != nil {
			return err
		}
		in = values
	}
	answer, ok := xrpcAnswers[path]
	if !ok {
		return &gateway.Error{Code: gateway.CodeInvalidRequest, Message: ErrNotOverXRPC.Error() + ": " + path}
	}
	return answer(d, ctx, in, out)
}

type xrpcAnswer func(d *xrpcDoor, ctx context.Context, in, out any) error

// xrpcAnswers are the calls that the session makes.
var xrpcAnswers map[string]xrpcAnswer

func init() {
	xrpcAnswers = map[string]xrpcAnswer{
		"/v1/conversations":      answerBy((*xrpcDoor).conversations),
		"/v1/rooms/create":       answerBy((*xrpcDoor).createRoom),
		"/v1/dms/create":         answerBy((*xrpcDoor).createDM),
		"/v1/rooms/members":      answerBy((*xrpcDoor).members),
		"/v1/rooms/leave":        answerBy((*xrpcDoor).leave),
		"/v1/groupinfo":          answerBy((*xrpcDoor).groupInfo),
		"/v1/keypackages":        answerBy((*xrpcDoor).publish),
		"/v1/keypackages/rotate": answerBy((*xrpcDoor).register),
		"/v1/keypackages/fetch":  answerBy((*xrpcDoor).fetch),
		"/v1/session/revoke":     answerBy((*xrpcDoor).revoke),
		"/v1/inbox":              answerBy((*xrpcDoor).inbox),
	}
}

// answerBy makes an answer of a method with types.
func answerBy[In, Out any](method func(d *xrpcDoor, ctx context.Context, in In) (Out, error)) xrpcAnswer {
	return func(d *xrpcDoor, ctx context.Context, in, out any) error {
		body, isBody := in.(In)
		into, isOut := out.(*Out)
		if !isBody || !isOut {
			return fmt.Errorf("no translation of %T to %T", in, out)
		}
		got, err := method(d, ctx, body)
		if err == nil {
			*into = got
		}
		return err
	}
}

// What a list may hold in all, so that one that does not end is no harm. Of a longer one,
// which strangers can bring about, the rest is left.
const (
	xrpcListPages   = 256
	xrpcListMembers = 1 << 20 // of all conversations together
)

// list is everything that the account is in, each conversation once.
func (d *xrpcDoor) list(ctx context.Context) ([]xrpc.ConvoView, error) {
	var all []xrpc.ConvoView
	var params xrpc.GetConvosParams
	seen, members := map[string]bool{}, 0
	for range xrpcListPages {
		var page xrpc.GetConvosOutput
		if err := d.ask(ctx, xrpc.GetConvos, &params, &page); err != nil {
			return nil, err
		}
		before := len(all)
		for _, v := range page.Conversations {
			if !seen[v.ConversationID] && isConversationID(v.ConversationID) {
				seen[v.ConversationID] = true
				all = append(all, v)
				members += len(v.Members)
			}
		}
		switch {
		case page.Cursor == "" || len(page.Conversations) == 0:
			return all, nil
		case len(all) == before:
			return nil, errEndlessList
		case members > xrpcListMembers:
			return all, nil
		}
		params.Cursor = page.Cursor
	}
	return all, nil
}

var errEndlessList = errors.New("the server's list of conversations does not end")

// roleIn is our role in a conversation, as far as XRPC tells: "" if we are not in it.
func (d *xrpcDoor) roleIn(v *xrpc.ConvoView) string {
	self := d.c.account.DID()
	for _, m := range v.Members {
		switch {
		case m.DID != self:
		case m.IsAdmin && v.Creator == self:
			return RoleOwner
		case m.IsAdmin:
			return RoleAdmin
		default:
			return RoleMember
		}
	}
	return ""
}

func accountsIn(v *xrpc.ConvoView) []string {
	var out []string
	for _, m := range v.Members {
		if !slices.Contains(out, m.DID) {
			out = append(out, m.DID)
		}
	}
	slices.Sort(out)
	return out
}

// conversations lists them. Those that have ended here are left out: whether we are back
// in the group as well is for the link to find out.
func (d *xrpcDoor) conversations(ctx context.Context, _ url.Values) (out gateway.ConversationList, err error) {
	phases := map[string]Phase{}
	if err := d.c.db.update(ctx, func(tx *tx) error {
		all, err := tx.conversations()
		for _, conv := range all {
			phases[conv.id] = conv.phase
		}
		return err
	}); err != nil {
		return out, err
	}
	list, err := d.list(ctx)
	if err != nil {
		return out, err
	}
	d.mu.Lock()
	link := d.link
	d.mu.Unlock()
	for i := range list {
		v := &list[i]
		phase, isKnown := phases[v.ConversationID]
		delete(phases, v.ConversationID)
		if link != nil && (!isKnown || phase == Waiting || phase == Removed) {
			link.wake(v.ConversationID, dueMember)
		}
		if phase != Removed {
			item := gateway.Conversation{ConvID: v.ConversationID, Role: d.roleIn(v), Members: accountsIn(v)}
			if v.Epoch > 0 { // which takes a commit
				item.LatestSeq = &v.Epoch
			}
			out.Items = append(out.Items, item)
		}
	}
	for id, phase := range phases {
		if phase == Waiting && link != nil {
			link.wake(id, dueOut)
		}
	}
	return out, nil
}

// create makes a conversation; whoever finds it made by somebody else is told so.
func (d *xrpcDoor) create(ctx context.Context, id string, members []string) error {
	if !isGroupID(id) {
		return &gateway.Error{Code: gateway.CodeInvalidRequest, Message: ErrNotOverXRPC.Error() + ": a conversation of this name"}
	}
	var out xrpc.CreateConvoOutput
	err := d.do(ctx, xrpc.CreateConvo, &xrpc.CreateConvoInput{GroupID: id, CipherSuite: xrpcSuite, InitialMembers: members}, &out)
	if e := asGateway(err); e != nil && e.Code == gateway.CodeForbidden && e.Message == notMember ||
		err == nil && out.Convo.Creator != d.c.account.DID() {
		return &gateway.Error{Code: gateway.CodeInvalidRequest, Message: alreadyExists}
	}
	return err
}

// xrpcSuite is what XRPC calls groupSuite.
const xrpcSuite = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"

func (d *xrpcDoor) createRoom(ctx context.Context, in gateway.RoomMembers) (gateway.Status, error) {
	return gateway.Status{Status: "ok"}, d.create(ctx, in.ConvID, in.Members)
}

func (d *xrpcDoor) createDM(ctx context.Context, in gateway.CreateDM) (gateway.DMCreated, error) {
	return gateway.DMCreated{Status: "ok", ConvID: *in.ConvID}, d.create(ctx, *in.ConvID, []string{in.PeerUserID})
}

// members are the accounts of one conversation. XRPC shows them in the list of all.
func (d *xrpcDoor) members(ctx context.Context, in url.Values) (out gateway.MemberList, err error) {
	out.ConvID = in.Get("conv_id")
	list, err := d.list(ctx)
	if err != nil {
		return out, err
	}
	at := slices.IndexFunc(list, func(v xrpc.ConvoView) bool { return v.ConversationID == out.ConvID })
	if at < 0 {
		return out, &gateway.Error{Code: gateway.CodeForbidden, Message: notMember}
	}
	for _, m := range list[at].Members {
		role := RoleMember
		switch {
		case m.DID == d.c.account.DID():
			role = d.roleIn(&list[at])
		case m.IsAdmin:
			role = RoleAdmin
		}
		out.Members = append(out.Members, gateway.Member{UserID: m.DID, Role: role})
	}
	return out, nil
}

// leave leaves. Who owns the conversation from then on the server decides: it passes to
// an admin, or to who has been in it longest.
func (d *xrpcDoor) leave(ctx context.Context, in gateway.LeaveRoom) (gateway.Status, error) {
	err := d.do(ctx, xrpc.LeaveConvo, &xrpc.LeaveConvoInput{ConvoID: in.ConvID}, &xrpc.LeaveConvoOutput{})
	return gateway.Status{Status: "ok"}, err
}

func (d *xrpcDoor) groupInfo(ctx context.Context, in url.Values) (out gateway.GroupInfo, err error) {
	out.ConvID = in.Get("conv_id")
	d.mu.Lock()
	if d.link != nil {
		d.link.wake(out.ConvID, dueMaybe) // an invitation is better, if there is one
	}
	d.mu.Unlock()
	// Former members are shown it as well, and must be told that they are none any more.
	if _, err := d.seqOfCommit(ctx, out.ConvID, 0); err != nil {
		return out, err
	}
	var state xrpc.GetGroupStateOutput
	err = d.ask(ctx, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: out.ConvID, Include: "groupInfo,epoch"}, &state)
	if err == nil && (state.Epoch == nil || len(state.GroupInfo.Data) == 0) {
		err = &gateway.Error{Code: gateway.CodeNotFound, Message: "there is no group info"}
	}
	if err != nil {
		return out, err
	}
	out.Epoch, out.GroupInfo = *state.Epoch, base64.StdEncoding.EncodeToString(state.GroupInfo.Data)
	return out, nil
}

// What one call of XRPC publishes.
const (
	xrpcRegisterMax = 100
	xrpcPublishMax  = 100
)

// packagesIn are key packages as XRPC publishes them.
func (d *xrpcDoor) packagesIn(ctx context.Context, messages []string) ([]xrpc.KeyPackageIn, error) {
	lastResorts := map[string]bool{}
	expires := map[string]time.Time{}
	if err := d.c.db.update(ctx, func(tx *tx) error {
		list, err := tx.unpublished()
		for _, p := range list {
			message := string(p.message)
			lastResorts[message], expires[message] = p.isLastResort, p.expires
		}
		return err
	}); err != nil {
		return nil, err
	}
	var out []xrpc.KeyPackageIn
	for _, text := range messages {
		message, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		out = append(out, xrpc.KeyPackageIn{KeyPackage: xrpc.Blob{Data: message, Shape: xrpc.ShapeBytes}, CipherSuite: xrpcSuite,
			Expires: xrpc.Time{Time: expires[string(message)]}, LastResort: lastResorts[string(message)]})
	}
	return out, nil
}

// register makes this device known, with its first key packages. What an earlier home of
// the same device has published is void.
func (d *xrpcDoor) register(ctx context.Context, in gateway.RotateKeyPackages) (out gateway.KeyPackagesPublished, err error) {
	packages, err := d.packagesIn(ctx, in.Replacement)
	if err != nil {
		return out, err
	}
	rest := packages[min(len(packages), xrpcRegisterMax):]
	var registered xrpc.RegisterDeviceOutput
	if err := d.do(ctx, xrpc.RegisterDevice, &xrpc.RegisterDeviceInput{ActionText: string(xrpc.DeviceRegister), DeviceName: shortened(d.c.options.DeviceID),
		DeviceUUID: d.uuidOf(d.c.options.DeviceID), SignaturePublicKey: d.c.identity.Key.Public(), KeyPackages: packages[:len(packages)-len(rest)]},
		&registered); err != nil {
		return out, err
	}
	if registered.DeviceID == "" {
		return out, wrongAnswer("it does not name the device")
	}
	if err := d.c.db.update(ctx, func(tx *tx) error { return tx.Settings.Set(xrpcDeviceSetting, registered.DeviceID) }); err != nil {
		return out, err
	}
	d.mu.Lock()
	d.device = registered.DeviceID
	d.mu.Unlock()
	return d.upload(ctx, rest)
}

// deviceNameMax is how many characters the name of a device may have.
const deviceNameMax = 100

func shortened(name string) string {
	if runes := []rune(name); len(runes) > deviceNameMax {
		return string(runes[:deviceNameMax])
	}
	return name
}

func (d *xrpcDoor) publish(ctx context.Context, in gateway.PublishKeyPackages) (out gateway.KeyPackagesPublished, err error) {
	packages, err := d.packagesIn(ctx, in.KeyPackages)
	if err != nil {
		return out, err
	}
	return d.upload(ctx, packages)
}

// upload publishes packages, and says how many the server has of this device then.
func (d *xrpcDoor) upload(ctx context.Context, packages []xrpc.KeyPackageIn) (out gateway.KeyPackagesPublished, err error) {
	device := d.deviceID()
	for part := range slices.Chunk(packages, xrpcPublishMax) {
		var answer xrpc.PublishKeyPackagesOutput
		if err := d.do(ctx, xrpc.PublishKeyPackages, &xrpc.PublishKeyPackagesInput{Action: "publishBatch", DeviceID: device, KeyPackages: part}, &answer); err != nil {
			return out, err
		}
		if r := answer.PublishResult; r != nil && r.Failed > 0 {
			problem := "a key package was refused"
			if len(r.Errors) > 0 {
				problem = r.Errors[0].Error
			}
			return out, &gateway.Error{Code: gateway.CodeInvalidRequest, Message: problem}
		}
	}
	var status xrpc.GetKeyPackageStatusOutput
	if err := d.ask(ctx, xrpc.GetKeyPackageStatus, &xrpc.GetKeyPackageStatusParams{Include: "stats"}, &status); err != nil {
		return out, err
	}
	if status.Stats != nil {
		for _, of := range status.Stats.ByDevice {
			if of.DeviceID == device {
				out.Available = of.Available
			}
		}
	}
	return out, nil
}

// fetch takes one package of each of an account's devices. XRPC does not name the
// devices; their certificates do.
func (d *xrpcDoor) fetch(ctx context.Context, in gateway.FetchKeyPackages) (out gateway.DeviceKeyPackages, err error) {
	var answer xrpc.GetKeyPackagesOutput
	if err := d.ask(ctx, xrpc.GetKeyPackages, &xrpc.GetKeyPackagesParams{DIDs: []string{in.UserID}, CipherSuite: xrpcSuite}, &answer); err != nil {
		return out, err
	}
	for _, p := range answer.KeyPackages {
		if p.DID == in.UserID {
			out.Items = append(out.Items, gateway.DeviceKeyPackage{KeyPackage: base64.StdEncoding.EncodeToString(p.KeyPackage.Data), KeyPackageRef: p.KeyPackageHash})
		}
	}
	return out, nil
}

// revoke deletes a device of the account with its key packages. There are no sessions
// that could be ended.
func (d *xrpcDoor) revoke(ctx context.Context, in gateway.Revoke) (out gateway.Revoked, err error) {
	if in.DeviceID == nil {
		return out, &gateway.Error{Code: gateway.CodeInvalidRequest, Message: ErrNotOverXRPC.Error() + ": there are no sessions"}
	}
	var list xrpc.ListDevicesOutput
	if err := d.ask(ctx, xrpc.ListDevices, &xrpc.ListDevicesParams{}, &list); err != nil {
		return out, err
	}
	uuid := d.uuidOf(*in.DeviceID)
	for _, device := range list.Devices {
		if device.DeviceUUID != uuid {
			continue
		}
		if err := d.do(ctx, xrpc.RegisterDevice, &xrpc.RegisterDeviceInput{ActionText: string(xrpc.DeviceDelete), DeviceID: device.DeviceID,
			KeyPackages: xrpc.List[xrpc.KeyPackageIn]{}}, &xrpc.RegisterDeviceOutput{}); err != nil {
			return out, err
		}
	}
	return out, nil
}

// tooLate makes a refusal for its epoch final where the message is of an epoch that is
// over: it comes from the journal, as it is, and XRPC takes what is said now only.
func tooLate(body any, err error) error {
	e := asGateway(err)
	m, isSend := body.(gateway.Send)
	if e == nil || e.Code != gateway.CodeEpochConflict || e.CurrentEpoch == nil || !isSend {
		return err
	}
	message, problem := base64.StdEncoding.DecodeString(m.Env)
	if problem != nil {
		return err
	}
	if epoch, _, problem := epochOf(message); problem == nil && epoch < uint64(*e.CurrentEpoch) {
		return &gateway.Error{Code: gateway.CodeInvalidRequest, Message: ErrNotOverXRPC.Error() + ": the epoch of the message is over"}
	}
	return err
}

// inbox does what a frame asks for that is posted by itself.
func (d *xrpcDoor) inbox(ctx context.Context, raw []byte) (out gateway.InboxAnswer, err error) {
	frame, err := gateway.DecodeFrame(raw)
	if err != nil {
		return out, err
	}
	var body any
	switch frame.Type {
	case gateway.TypeSend:
		var m gateway.Send
		err = frame.Decode(&m)
		body = m
	case gateway.TypeCommit:
		var m gateway.Commit
		err = frame.Decode(&m)
		body = m
	default:
		err = errors.New("no call for a " + frame.Type)
	}
	if err != nil {
		return out, err
	}
	acked, err := d.append(ctx, body)
	if err != nil {
		return out, tooLate(body, err)
	}
	d.mu.Lock()
	if d.link != nil {
		d.link.wake(acked.ConvID, dueMaybe)
	}
	d.mu.Unlock()
	return gateway.InboxAnswer{Status: "ok", Seq: acked.Seq, Epoch: acked.Epoch}, nil
}
