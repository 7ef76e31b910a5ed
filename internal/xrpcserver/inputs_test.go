package xrpcserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
)

// field is a lexicon's definition of a part of an input.
type field struct {
	Type       string           `json:"type"`
	Ref        string           `json:"ref"`
	Required   []string         `json:"required"`
	Properties map[string]field `json:"properties"`
	Items      *field           `json:"items"`
}

// inputOf returns a lexicon's definition of a method's parameters or body.
func inputOf(t testing.TB, set lexicons.Set, nsid string) field {
	t.Helper()
	text, err := lexicons.File(set, nsid)
	if err != nil {
		return field{}
	}
	var doc struct {
		Defs map[string]json.RawMessage
	}
	must(t, json.Unmarshal(text, &doc))
	var main struct {
		Parameters *field
		Input      *struct{ Schema field }
	}
	must(t, json.Unmarshal(doc.Defs["main"], &main))
	if main.Parameters != nil {
		return *main.Parameters
	}
	if main.Input == nil {
		t.Fatalf("%s has neither parameters nor a body", nsid)
	}
	return resolve(t, set, nsid, main.Input.Schema)
}

// resolve puts what references name in their place.
func resolve(t testing.TB, set lexicons.Set, nsid string, f field) field {
	t.Helper()
	if f.Ref != "" {
		where, name, _ := strings.Cut(f.Ref, "#")
		if where == "" {
			where = nsid
		}
		text, err := lexicons.File(set, where)
		must(t, err)
		var doc struct{ Defs map[string]field }
		must(t, json.Unmarshal(text, &doc))
		return resolve(t, set, where, doc.Defs[name])
	}
	for name, property := range f.Properties {
		f.Properties[name] = resolve(t, set, nsid, property)
	}
	if f.Items != nil {
		items := resolve(t, set, nsid, *f.Items)
		f.Items = &items
	}
	return f
}

// goodCall is a call that is good as it stands.
type goodCall struct {
	nsid string
	in   any // object or url.Values
}

// goodCalls are a good call for each way in which a method can be called. They are made
// by ann, who has a group with ben.
func goodCalls(w *world, p *party, device string) []goodCall {
	commit := p.commit(mls.CommitOptions{})
	full := map[string]any{"allowExternalCommits": true, "requireInviteForJoin": false, "allowRejoin": true, "rejoinWindowDays": 7,
		"preventRemovingLastAdmin": true, "allowInvites": true, "adminOnlyInvites": true, "allowMemberAdd": false, "allowMemberRemove": false,
		"requireAdminApproval": false, "maxMembers": 50}
	post := []goodCall{
		{xrpc.RegisterDevice, w.phone("ann").registration(1, object{"deviceUUID": "a new one", "pushToken": "token", "action": "register"})},
		{xrpc.RegisterDevice, object{"deviceName": "phone", "deviceId": device, "keyPackages": []object{}, "signaturePublicKey": blob(nil), "pushToken": "t", "action": "updateToken"}},
		{xrpc.PublishKeyPackages, object{"action": "publishBatch", "deviceId": device, "keyPackages": []object{w.item(p.pack())}}},
		{xrpc.PublishKeyPackages, object{"action": "requestReplenish", "targetDids": []string{w.did("ben")}, "reason": "low", "convoId": p.id}},
		{xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": device, "localHashes": []string{}}},
		{xrpc.CreateConvo, object{"groupId": group("g"), "cipherSuite": suiteName, "initialMembers": []string{w.did("ben")}, "welcomeMessage": blob([]byte("w")),
			"keyPackageHashes": []object{}, "metadata": object{"name": "n", "description": "d"}, "groupInfo": blob(info("g", 1)),
			"currentEpoch": 1, "idempotencyKey": "k"}},
		{xrpc.UpdateConvo, object{"convoId": p.id, "action": "updatePolicy", "policy": full}},
		{xrpc.UpdateConvo, object{"convoId": p.id, "action": "promoteModerator", "targetDid": w.did("ben")}},
		{xrpc.SendMessage, w.with(message(p.id, uuid(1), 1, 512), "delivery", "persistent", "idempotencyKey", "k", "confirmationTag", blob(nil))},
		{xrpc.SendMessage, w.with(message(p.id, uuid(2), 1, 512), "delivery", "ephemeral", "action", "addReaction", "reactionEmoji", "+", "targetMessageId", uuid(1))},
		{xrpc.SendEphemeral, object{"convoId": p.id, "ciphertext": blob([]byte("x")), "epoch": 0, "paddedSize": 1}},
		{xrpc.UpdateCursor, object{"convoId": p.id, "cursor": "1", "messageId": uuid(1), "markRead": true}},
		{xrpc.GetSubscriptionTicket, object{"convoIds": []string{p.id}}},
		{xrpc.RequestFailover, object{"convoId": p.id}},
		{xrpc.CommitGroupChange, p.body("commit", object{"commit": blob(commit.Message()), "groupInfo": blob(commit.GroupInfo()), "idempotencyKey": "k",
			"keyPackageHashes": []object{}, "memberDids": []string{}})},
		{xrpc.LeaveConvo, object{"convoId": p.id, "targetDid": w.did("ben")}},
	}
	get := []goodCall{
		{xrpc.ListDevices, params("deviceId", device)},
		{xrpc.GetPendingDevices, params("convoIds", p.id, "limit", "5")},
		{xrpc.GetKeyPackages, params("dids", w.did("cid"), "cipherSuite", suiteName)},
		{xrpc.GetKeyPackageStatus, params("include", "stats,history", "limit", "5")},
		{xrpc.GetConvos, params("limit", "5", "filter", "all", "countOnly", "false", "deviceId", device)},
		{xrpc.GetConvoSettings, params("convoId", p.id)},
		{xrpc.GetMessages, params("convoId", p.id, "limit", "5", "sinceSeq", "0", "type", "all", "fromEpoch", "0", "toEpoch", "9", "joinEpoch", "0")},
		{xrpc.GetGroupState, params("convoId", p.id, "include", "epoch", "keyPackageHashes", "aa", "deviceId", device)},
		{xrpc.GetDeliveryStatus, params("convoId", p.id, "messageIds", uuid(1))},
		{xrpc.ResolveDeliveryService, params("did", testDID)},
	}
	return append(get, post...) // the posts change what is there
}

// wrongTypes returns values of types that a part of a body may not have.
func wrongTypes(f field) []string {
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	switch f.Type {
	case "string":
		return []string{`true`, `[]`, `{}`, `-1`, `1.5`, `1e400`, `"\u0000"`, `"\ud800"`, "\"\xff\"", "\"a\x00\"", deep}
	case "integer":
		return []string{`"7"`, `true`, `[]`, `{}`, `-1`, `9223372036854775808`, `1.5`, `1e3`, `-9223372036854775808`, `-0`, deep}
	case "boolean":
		return []string{`"true"`, `1`, `[]`, `{}`, deep}
	case "bytes":
		return []string{`7`, `true`, `[]`, `[1,2]`, `{}`, `{"$bytes":7}`, `{"$bytes":null}`, `{"$bytes":["QUE="]}`, `{"$bytes":"QUE=","x":1}`, `{"$bytes":"QUE=","$bytes":"QUE="}`,
			`{"$bytes":"Q"}`, `{"$bytes":"QUF="}`, `{"$bytes":"QUE=\n"}`, `{"$bytes":"Q E="}`, `{"$bytes":"-/8="}`, `{"$bytes":"QUE==="}`, `{"bytes":"QUE="}`, `{"$link":"QUE="}`, deep}
	case "array":
		return []string{`"x"`, `7`, `true`, `{}`, deep}
	}
	return []string{`"x"`, `7`, `true`, `[]`, deep} // an object
}

// TestInputs: of every method and every way to call it, each part that the lexicons of
// either generation require is left out once and each part is of a wrong type once.
// All of it is refused with a name, and nothing is stored.
func TestInputs(t *testing.T) {
	onBothStored(t, func(t *testing.T, w *world, stored *database) {
		ann, ben := w.phone("ann"), w.phone("ben")
		device := ann.register(1, object{"deviceUUID": "uuid-of-ann"})
		w.phone("cid").register(1, nil)
		p := ann.start()
		p.add(ben)
		calls, tried := goodCalls(w, p, device), 0
		w.call("ann", xrpc.PublishKeyPackages, object{"action": "stats"}).fields() // the device was seen
		before := stored.contents()
		for _, call := range calls {
			tries := map[string]any{}
			for _, set := range []lexicons.Set{lexicons.A, lexicons.B} {
				f := inputOf(t, set, call.nsid)
				if call.nsid == xrpc.UpdateCursor { // generation A goes without
					f.Required = slices.DeleteFunc(f.Required, func(name string) bool { return name == "cursor" })
				}
				switch in := call.in.(type) {
				case url.Values:
					spoilQuery(tries, in, f)
				case object:
					spoil(tries, "", f, in, func(o any) any { return o })
				}
			}
			if len(tries) == 0 && call.nsid != xrpc.ListDevices {
				t.Errorf("%s: nothing to try", call.nsid)
			}
			for _, name := range slices.Sorted(maps.Keys(tries)) {
				tried++
				a := w.call("ann", call.nsid, tries[name])
				if isListed := call.nsid == xrpc.PublishKeyPackages && strings.HasPrefix(name, "keyPackages.") && a.status == 200; isListed {
					var out xrpc.PublishKeyPackagesOutput
					a.into(&out)
					if out.PublishResult == nil || out.PublishResult.Succeeded != 0 || out.PublishResult.Failed != 1 {
						t.Errorf("%s %s: %s", call.nsid, name, a.body)
					}
					continue
				}
				if a.status != 400 {
					t.Errorf("%s %s: %d %s", call.nsid, name, a.status, a.body)
				}
			}
			stored.unchanged(call.nsid, before)
		}
		if tried < 1000 {
			t.Errorf("only %d inputs were tried", tried)
		}
		for _, call := range calls {
			if a := w.do(w.request("ann", call.nsid, call.in), call.nsid); a.status != 200 {
				t.Errorf("%s as it should be: %d %s", call.nsid, a.status, a.body)
			}
		}
	})
}

// spoil makes from a good body bad ones: without each part that is required, and with a
// wrong type for each. wrap puts what is within another into its place.
func spoil(tries map[string]any, path string, f field, good object, wrap func(any) any) {
	for _, name := range f.Required {
		for what, bad := range map[string]object{"missing": without(good, name), "null": changed(good, name, json.RawMessage("null"))} {
			tries[path+name+" "+what] = wrap(bad)
		}
	}
	for name, property := range f.Properties {
		for _, text := range wrongTypes(property) {
			if name == "cursor" && (text == "7" || text == "-0") { // which some clients send as a number
				continue
			}
			body, _ := json.Marshal(wrap(changed(good, name, "HERE")))
			tries[fmt.Sprintf("%s%s %.30s", path, name, text)] = strings.Replace(string(body), `"HERE"`, text, 1)
		}
		inner := func(o any) any { return wrap(changed(good, name, o)) }
		switch value := good[name].(type) {
		case object:
			if property.Type == "object" {
				spoil(tries, path+name+".", property, value, inner)
			}
		case []object:
			if len(value) > 0 {
				spoil(tries, path+name+".", *property.Items, value[0], func(o any) any { return inner([]any{o}) })
			}
		}
		if property.Items != nil && property.Items.Type != "object" {
			for _, text := range wrongTypes(*property.Items) {
				body, _ := json.Marshal(inner([]string{"HERE"}))
				tries[fmt.Sprintf("%s%s[0] %.30s", path, name, text)] = strings.Replace(string(body), `"HERE"`, text, 1)
			}
		}
	}
}

func without(o object, name string) object {
	o = maps.Clone(o)
	delete(o, name)
	return o
}

func changed(o object, name string, value any) object {
	o = maps.Clone(o)
	o[name] = value
	return o
}

// spoilQuery is spoil for parameters, which are text all of them.
func spoilQuery(tries map[string]any, good url.Values, f field) {
	set := func(name string, values ...string) url.Values {
		o := maps.Clone(good)
		o[name] = values
		return o
	}
	for _, name := range f.Required {
		o := maps.Clone(good)
		delete(o, name)
		tries[name+" missing"] = o
	}
	for name, property := range f.Properties {
		wrong := []string{"\x00", "\xff", "a\x00b"}
		switch property.Type {
		case "integer":
			wrong = append(wrong, "x", "-1", "+1", "1.5", "1e3", "9223372036854775808", " 1", "0x1")
		case "boolean":
			wrong = append(wrong, "yes", "1", "TRUE")
		}
		for _, value := range wrong {
			tries[fmt.Sprintf("%s %q", name, value)] = set(name, value)
		}
		if property.Type != "array" {
			tries[name+" twice"] = set(name, "1", "2")
		}
	}
}
