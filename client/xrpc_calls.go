package client

import (
	"context"
	"errors"
	"maps"
	"slices"

	"waxwing.im/waxwing/api/xrpc"
)

// The bounds of lists, so that an endless one does no harm. The rest of a longer one, which
// strangers can cause, is ignored.
const (
	xrpcListPages   = 256
	xrpcListMembers = 1 << 20 // of all conversations together
)

// list returns all conversations of the account, each once.
func (d *xrpcDoor) list(ctx context.Context) ([]xrpc.ConvoView, error) {
	var all []xrpc.ConvoView
	var params xrpc.GetConvosParams
	seen, members := map[string]bool{}, 0
	for range xrpcListPages {
		page, err := query[xrpc.GetConvosOutput](ctx, d, xrpc.GetConvos, &params)
		if err != nil {
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

var errEndlessList = errors.New("list of conversations repeats itself")

// roleIn returns our role among those of a conversation, "" if we are not in it.
func (d *xrpcDoor) roleIn(roles []RoleChange) string {
	for _, m := range roles {
		if m.Account == d.c.account.DID() {
			return m.Role
		}
	}
	return ""
}

func accountsIn(v *xrpc.ConvoView) []string {
	accounts := map[string]bool{}
	for _, m := range v.Members {
		accounts[m.DID] = true
	}
	return slices.Sorted(maps.Keys(accounts))
}

// conversations lists them. It omits those that have ended here: whether we are in the group
// again is for the link to find out.
func (d *xrpcDoor) conversations(ctx context.Context, _ string) (out []listed, next string, err error) {
	known, err := d.c.db.conversations(ctx)
	if err != nil {
		return nil, "", err
	}
	phases := map[string]Phase{}
	for _, conv := range known {
		phases[conv.id] = conv.phase
	}
	list, err := d.list(ctx)
	if err != nil {
		return nil, "", err
	}
	d.mu.Lock()
	link := d.link
	d.mu.Unlock()
	for i := range list {
		v := &list[i]
		phase, isKnown := phases[v.ConversationID]
		delete(phases, v.ConversationID)
		if link != nil && (!isKnown || phase == Waiting || phase == Removed) {
			link.mark(v.ConversationID, hintMember)
		}
		if phase != Removed {
			isEmpty := v.Epoch == 0 // a commit ends that
			title := ""
			if v.Metadata != nil {
				title = v.Metadata.Name
			}
			roles := rolesIn(v)
			out = append(out, listed{v.ConversationID, d.roleIn(roles), accountsIn(v), isEmpty, title, roles})
		}
	}
	for id, phase := range phases {
		if phase == Waiting && link != nil {
			link.mark(id, hintNotMember)
		}
	}
	return out, "", nil
}

// create makes a conversation; one that another account has made is errExists.
func (d *xrpcDoor) create(ctx context.Context, id, peer string) error {
	if !isGroupID(id) {
		return notOverXRPC("conversation ID that is not a group ID")
	}
	var members []string
	if peer != "" {
		members = []string{peer}
	}
	out, err := procedure[xrpc.CreateConvoOutput](ctx, d, xrpc.CreateConvo,
		&xrpc.CreateConvoInput{GroupID: id, CipherSuite: xrpcSuite, InitialMembers: members})
	if errors.Is(err, errNotMember) || err == nil && out.Convo.Creator != d.c.account.DID() {
		return &Refusal{Code: codeInvalidRequest, Message: "conversation was created by another account", Index: -1, cause: errExists}
	}
	return err
}

// xrpcSuite is XRPC's name of groupSuite.
const xrpcSuite = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"

// members returns the accounts of one conversation. XRPC has them in the list of all.
func (d *xrpcDoor) members(ctx context.Context, id string) (out []RoleChange, err error) {
	list, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(list, func(v xrpc.ConvoView) bool { return v.ConversationID == id })
	if at < 0 {
		return nil, &Refusal{Code: codeForbidden, Message: errNotMember.Error(), Index: -1, cause: errNotMember}
	}
	return rolesIn(&list[at]), nil
}

// rolesIn returns the roles of the members, as far as XRPC shows them.
func rolesIn(v *xrpc.ConvoView) (out []RoleChange) {
	for _, m := range v.Members {
		role := RoleMember
		switch {
		case m.IsAdmin && m.DID == v.Creator:
			role = RoleOwner
		case m.IsAdmin:
			role = RoleAdmin
		}
		out = append(out, RoleChange{m.DID, role})
	}
	return out
}

// setAdmin changes the role of a member. The server refuses a change to the role that a member
// has, which is no error here.
func (d *xrpcDoor) setAdmin(ctx context.Context, id, account string, isAdmin bool) error {
	action := "demoteAdmin"
	if isAdmin {
		action = "promoteAdmin"
	}
	_, err := procedure[xrpc.UpdateConvoOutput](ctx, d, xrpc.UpdateConvo, &xrpc.UpdateConvoInput{ConvoID: id, Action: action, TargetDID: account})
	if r := asRefusal(err); r == nil || r.mayPass() {
		return err
	}
	list, listErr := d.members(ctx, id)
	if at := slices.IndexFunc(list, func(m RoleChange) bool { return m.Account == account }); listErr == nil && at >= 0 && mayManage(list[at].Role) == isAdmin {
		return nil
	}
	return err
}

// leave leaves. The server chooses the next owner of the conversation: an admin, or the member
// of longest standing.
func (d *xrpcDoor) leave(ctx context.Context, id, _ string) error {
	_, err := procedure[xrpc.LeaveConvoOutput](ctx, d, xrpc.LeaveConvo, &xrpc.LeaveConvoInput{ConvoID: id})
	return err
}

func (d *xrpcDoor) groupInfo(ctx context.Context, id string) (offeredGroup, error) {
	d.wake(id) // an invitation takes precedence, if there is one
	// The server returns the group state to former members as well; this query refuses them.
	if _, err := d.seqOfCommit(ctx, id, 0); err != nil {
		return offeredGroup{}, err
	}
	state, err := query[xrpc.GetGroupStateOutput](ctx, d, xrpc.GetGroupState, &xrpc.GetGroupStateParams{ConvoID: id, Include: "groupInfo,epoch"})
	if err != nil {
		return offeredGroup{}, err
	}
	if state.Epoch == nil || len(state.GroupInfo.Data) == 0 {
		return offeredGroup{}, &Refusal{Code: codeNotFound, Message: "no GroupInfo", Index: -1}
	}
	return offeredGroup{state.GroupInfo.Data, *state.Epoch}, nil
}

// wake marks a conversation for the current link to look at.
func (d *xrpcDoor) wake(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link != nil {
		d.link.mark(id, hintUnknown)
	}
}

// The limits of one publishing call of XRPC.
const (
	xrpcRegisterMax = 100
	xrpcPublishMax  = 100
)

// packagesIn converts key packages to the form of XRPC.
func packagesIn(packages []publication) (out []xrpc.KeyPackageIn) {
	for _, p := range packages {
		out = append(out, xrpc.KeyPackageIn{KeyPackage: xrpc.Blob{Data: p.message, Shape: xrpc.ShapeBytes}, CipherSuite: xrpcSuite,
			Expires: xrpc.Time{Time: p.expires}, LastResort: p.isLastResort})
	}
	return out
}

func (d *xrpcDoor) publish(ctx context.Context, packages []publication, isFirst bool) (available int64, err error) {
	if isFirst {
		return d.register(ctx, packagesIn(packages))
	}
	return d.upload(ctx, packagesIn(packages))
}

// register registers this device, with its first key packages. The server voids those of an
// earlier home of the same device.
func (d *xrpcDoor) register(ctx context.Context, packages []xrpc.KeyPackageIn) (available int64, err error) {
	rest := packages[min(len(packages), xrpcRegisterMax):]
	registered, err := procedure[xrpc.RegisterDeviceOutput](ctx, d, xrpc.RegisterDevice, &xrpc.RegisterDeviceInput{
		ActionText: string(xrpc.DeviceRegister), DeviceName: shortened(d.c.options.DeviceID), DeviceUUID: d.uuidOf(d.c.options.DeviceID),
		SignaturePublicKey: d.c.identity.Key.Public(), KeyPackages: packages[:len(packages)-len(rest)]})
	if err != nil {
		return 0, err
	}
	if registered.DeviceID == "" {
		return 0, invalidAnswer("missing device ID")
	}
	if err := d.c.db.update(ctx, func(tx *tx) error { return tx.Settings.Set(xrpcDeviceSetting, registered.DeviceID) }); err != nil {
		return 0, err
	}
	d.mu.Lock()
	d.device = registered.DeviceID
	d.mu.Unlock()
	return d.upload(ctx, rest)
}

// deviceNameMax bounds the name of a device, in characters.
const deviceNameMax = 100

func shortened(name string) string {
	if runes := []rune(name); len(runes) > deviceNameMax {
		return string(runes[:deviceNameMax])
	}
	return name
}

// upload publishes packages, and returns the server's count for this device.
func (d *xrpcDoor) upload(ctx context.Context, packages []xrpc.KeyPackageIn) (available int64, err error) {
	device := d.deviceID()
	for part := range slices.Chunk(packages, xrpcPublishMax) {
		answer, err := procedure[xrpc.PublishKeyPackagesOutput](ctx, d, xrpc.PublishKeyPackages,
			&xrpc.PublishKeyPackagesInput{Action: "publishBatch", DeviceID: device, KeyPackages: part})
		if err != nil {
			return 0, err
		}
		if r := answer.PublishResult; r != nil && r.Failed > 0 {
			problem := "key package rejected"
			if len(r.Errors) > 0 {
				problem = r.Errors[0].Error
			}
			return 0, &Refusal{Code: codeInvalidRequest, Message: problem, Index: -1}
		}
	}
	status, err := query[xrpc.GetKeyPackageStatusOutput](ctx, d, xrpc.GetKeyPackageStatus, &xrpc.GetKeyPackageStatusParams{Include: "stats"})
	if err != nil {
		return 0, err
	}
	if status.Stats != nil {
		for _, of := range status.Stats.ByDevice {
			if of.DeviceID == device {
				available = of.Available
			}
		}
	}
	return available, nil
}

// fetch takes one package of each of an account's devices. XRPC does not name the devices;
// their certificates do.
func (d *xrpcDoor) fetch(ctx context.Context, account string) (out []offeredPackage, err error) {
	answer, err := query[xrpc.GetKeyPackagesOutput](ctx, d, xrpc.GetKeyPackages,
		&xrpc.GetKeyPackagesParams{DIDs: []string{account}, CipherSuite: xrpcSuite})
	if err != nil {
		return nil, err
	}
	for _, p := range answer.KeyPackages {
		if p.DID == account {
			out = append(out, offeredPackage{ref: p.KeyPackageHash, message: p.KeyPackage.Data})
		}
	}
	return out, nil
}

// revoke deletes a device of the account with its key packages. There are no sessions to end.
func (d *xrpcDoor) revoke(ctx context.Context, name string) error {
	list, err := query[xrpc.ListDevicesOutput](ctx, d, xrpc.ListDevices, &xrpc.ListDevicesParams{})
	if err != nil {
		return err
	}
	uuid := d.uuidOf(name)
	for _, device := range list.Devices {
		if device.DeviceUUID != uuid {
			continue
		}
		if _, err := procedure[xrpc.RegisterDeviceOutput](ctx, d, xrpc.RegisterDevice, &xrpc.RegisterDeviceInput{
			ActionText: string(xrpc.DeviceDelete), DeviceID: device.DeviceID, KeyPackages: xrpc.List[xrpc.KeyPackageIn]{}}); err != nil {
			return err
		}
	}
	return nil
}

// sendNow sends a message and returns its place. A refusal because of a past epoch is final:
// the message comes from the journal, unchanged, and XRPC accepts only messages of the current
// epoch.
func (d *xrpcDoor) sendNow(ctx context.Context, m sendRequest) (int64, error) {
	seq, err := d.sendMessage(ctx, m)
	if r := asRefusal(err); r != nil && r.Code == codeEpochConflict && r.CurrentEpoch > 0 {
		if epoch, _, problem := epochOf(m.Message); problem == nil && epoch < uint64(r.CurrentEpoch) {
			return 0, notOverXRPC("message of a past epoch")
		}
	}
	if err == nil {
		d.wake(m.Conversation)
	}
	return seq, err
}

func (d *xrpcDoor) commitNow(ctx context.Context, m commitRequest) (int64, error) {
	seq, err := d.commitGroup(ctx, m)
	if err == nil {
		d.wake(m.Conversation)
	}
	return seq, err
}
