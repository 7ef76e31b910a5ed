package gatewayserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/mls/wire"
)

// fields describes a body: the kind of each field, and a value that is good.
type fields map[string]field

type field struct {
	kind     string // text, number, flag, list or object
	required bool
	good     string // JSON
}

func text(good string) field         { return field{"text", true, fmt.Sprintf("%q", good)} }
func optionalText(good string) field { return field{"text", false, fmt.Sprintf("%q", good)} }
func num(good string) field          { return field{"number", true, good} }
func optionalNum(good string) field  { return field{"number", false, good} }
func flagged() field                 { return field{"flag", false, "false"} }
func list(required bool) field       { return field{"list", required, "[]"} }

// endpoints is every call that takes a body, and frames is every frame in a session.
var endpoints = map[string]fields{
	"/v1/session/start": {"auth_token": text("x"), "device_id": text("d"), "device_credential": optionalText("x"),
		"client_label": optionalText("cli"), "features": list(false)},
	"/v1/session/resume":      {"resume_token": text("rt_x")},
	"/v1/session/revoke":      {"session_id": optionalText("sid_x"), "include_self": flagged()},
	"/v1/rooms/create":        {"conv_id": text("new"), "members": list(false)},
	"/v1/rooms/invite":        {"conv_id": text("c"), "members": list(false)},
	"/v1/rooms/remove":        {"conv_id": text("c"), "members": list(false)},
	"/v1/rooms/leave":         {"conv_id": text("c"), "new_owner": optionalText("x")},
	"/v1/dms/create":          {"peer_user_id": text("p"), "conv_id": optionalText("dm_1")},
	"/v1/keypackages":         {"device_id": text("phone"), "keypackages": list(true)},
	"/v1/keypackages/fetch":   {"user_id": text("u"), "count": optionalNum("1"), "per_device": flagged()},
	"/v1/keypackages/rotate":  {"device_id": text("phone"), "revoke": flagged(), "replacement": list(false)},
	"/v1/session/logout_all":  {"include_self": flagged()},
	"/v1/session/revoke twin": {"device_id": optionalText("d")},
}

var frames = map[string]fields{
	gateway.TypeSubscribe: {"conv_id": text("c"), "from_seq": optionalNum("1"), "after_seq": optionalNum("1")},
	gateway.TypeSend:      {"conv_id": text("c"), "msg_id": text("m"), "env": text("e"), "ts": optionalNum("1")},
	gateway.TypeAck:       {"conv_id": text("c"), "seq": num("1")},
	gateway.TypeCommit: {"conv_id": text("c"), "msg_id": text("m"), "commit": text("AAEA"),
		"welcome": {"object", false, `{"env":"AAEA","to":[]}`}, "group_info": optionalText("AAEA"), "add": list(false), "remove": list(false)},
	gateway.TypeDeviceAck: {"pos": num("1")},
	gateway.TypeReport: {"kind": text("gap"), "conv_id": optionalText("c"), "generation": optionalNum("1"), "epoch": optionalNum("1"),
		"epoch_authenticator": optionalText("x")},
}

// bad makes every body in which one field is not as described, with the message that
// names the field.
func (f fields) bad() map[string]string {
	bodies := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		one := f[name]
		put := func(value, problem string) { bodies[f.with(name, value)] = name + problem }
		if one.required {
			bodies[f.with(name, "")] = name + ": missing"
			put("null", ": missing")
		}
		switch one.kind {
		case "text":
			for _, value := range []string{"5", "true", "{}", `["x"]`} {
				put(value, ": not a string")
			}
		case "number":
			for _, value := range []string{`"1"`, "1.0", "1e3", "true", "[]", "{}", "9223372036854775808", "-9223372036854775809"} {
				put(value, ": not an integer")
			}
		case "flag":
			for _, value := range []string{`"true"`, "1", "0", "[]", "{}"} {
				put(value, ": not true or false")
			}
		case "list":
			for _, value := range []string{`"x"`, "5", "{}", "true"} {
				put(value, ": not a list")
			}
			put("[1]", "[0]: not a string")
			put(`["x",null]`, "[1]: not a string")
			put(`["x",["y"]]`, "[1]: not a string")
		case "object":
			for _, value := range []string{`"x"`, "5", "[]", "true"} {
				put(value, ": not an object")
			}
			put("{}", ".env: missing")
			put(`{"env":"AAEA","to":{}}`, ".to: not a list")
			put(`{"env":"AAEA","to":[5]}`, ".to[0]: not an object")
			put(`{"env":"AAEA","to":[{"user_id":"u","device_id":"d","key_package_ref":5}]}`, ".to[0].key_package_ref: not a string")
		}
	}
	return bodies
}

// with is the good body but for one field; "" leaves it out.
func (f fields) with(name, value string) string {
	var parts []string
	for _, other := range slices.Sorted(maps.Keys(f)) {
		v := f[other].good
		if other == name {
			v = value
		}
		if v != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", other, v))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// malformed returns invalid bodies and frames, with the message for a body.
func malformed() map[string]string {
	return map[string]string{
		"":                           "malformed json",
		" ":                          "malformed json",
		"{":                          "malformed json",
		`{"a":1}}`:                   "malformed json",
		`{"a":1,}`:                   "malformed json",
		`{'a':1}`:                    "malformed json",
		`{"a":01}`:                   "malformed json",
		`{"a":NaN}`:                  "malformed json",
		"nul":                        "malformed json",
		"\x00":                       "malformed json",
		"\ufeff{}":                   "malformed json",
		"{\"a\":\"\n\"}":             "malformed json",
		`{"a":"\x"}`:                 "malformed json",
		"{\"a\":\"\xff\"}":           "not UTF-8",
		"\xff\xfe{}":                 "not UTF-8",
		strings.Repeat("[", 100_000): "nested too deep",
		strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40): "nested too deep",
		`{"a":"\u0000"}`:       "a string holds NUL",
		`{"\u0000":1}`:         "a string holds NUL",
		`{"a":"\ud800"}`:       "a string holds an unpaired surrogate",
		`{"a":"\udc00\ud800"}`: "a string holds an unpaired surrogate",
		"[]":                   "not an object",
		"null":                 "not an object",
		"5":                    "not an object",
		`"{}"`:                 "not an object",
		"false":                "not an object",
	}
}

// badWorld is a world in which ann has data of every kind, and no fault may be logged.
type badWorld struct {
	*world
	faults atomic.Int64
	before string
}

// Handle counts what the door logs as an error: panics and faults of ours.
func (w *badWorld) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		w.faults.Add(1)
		w.t.Errorf("logged: %s", r.Message)
	}
	return nil
}
func (w *badWorld) Enabled(context.Context, slog.Level) bool { return true }
func (w *badWorld) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *badWorld) WithGroup(string) slog.Handler            { return w }

func newBadWorld(t *testing.T) *badWorld {
	w := &badWorld{}
	w.world = newWorld(t, func(s *setup) { s.door.Logger = slog.New(w) })
	w.start("ann", gateway.Features...)
	w.start("bob")
	w.call2(t, "ann", "/v1/rooms/create", w.fill(`{"conv_id":"c","members":["$bob"]}`))
	w.call2(t, "ann", "/v1/inbox", w.fill(`{"v":1,"t":"conv.commit","body":{"conv_id":"c","msg_id":"first","commit":"$commit(g,0)"}}`))
	w.call2(t, "ann", "/v1/keypackages", `{"device_id":"phone","keypackages":["opaque"]}`)
	w.before = w.everything()
	return w
}

// everything returns the stored data that a bad request could change.
func (w *badWorld) everything() string {
	ctx := context.Background()
	session, err := w.server.identity.Session(ctx, w.person("ann").session)
	must(w.t, err)
	conversations, _, err := w.core.Conversations(ctx, session.Caller, core.ListPlace{}, core.ConversationsMax)
	must(w.t, err)
	cursors, err := w.logs.Cursors(ctx, session.Caller)
	must(w.t, err)
	pool, err := w.directory.PublishKeyPackages(ctx, session.Caller, directory.Publication{})
	must(w.t, err)
	available := pool.Available
	var sessions int
	for _, name := range []string{"ann", "bob"} {
		s, err := w.server.identity.Session(ctx, w.person(name).session)
		must(w.t, err)
		all, err := w.server.identity.Sessions(ctx, s)
		must(w.t, err)
		sessions += len(all)
	}
	return fmt.Sprint(conversations, cursors, available, sessions)
}

func (w *badWorld) unchanged(what string) {
	w.t.Helper()
	if now := w.everything(); now != w.before {
		w.t.Errorf("%s: something was stored:\n%s\n%s", what, w.before, now)
		w.before = now
	}
}

func refusal(message string) string {
	out, err := gateway.Marshal(&gateway.Error{Code: gateway.CodeInvalidRequest, Message: message})
	if err != nil {
		panic(err)
	}
	return string(out)
}

// TestBadBodies sends every endpoint everything that is no body of it.
func TestBadBodies(t *testing.T) {
	w := newBadWorld(t)
	for _, path := range slices.Sorted(maps.Keys(endpoints)) {
		bodies := endpoints[path].bad()
		path, _, _ = strings.Cut(path, " ")
		isLoose := path == "/v1/session/logout_all"
		for body, message := range malformed() {
			if message == "not UTF-8" {
				message = "malformed json"
			}
			if !isLoose || message != "malformed json" { // it takes those for no body
				bodies[body] = message
			}
		}
		bodies[`{"x":"`+strings.Repeat("x", gateway.BodyBytesMax)+`"}`] = "malformed json"
		for body, message := range bodies {
			status, answer, header := w.call("ann", "POST", path, body)
			if status != 400 || answer != refusal(message) || header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %.100q: %d %s, want %s", path, body, status, answer, message)
			}
		}
		w.unchanged(path)
	}
}

// TestBadFrames sends a socket and the inbox every frame with everything that is no
// body of it; the socket stays.
func TestBadFrames(t *testing.T) {
	w := newBadWorld(t)
	w.join("ann", gateway.Features...)
	w.before = w.everything()
	for w.hear("ann") != `{"v":1,"t":"members","body":{"pos":1,"conv_id":"c","add":["`+w.person("ann").did+`"],"remove":[]}}` {
	}
	hearRefusal := func(frame, id, message string) {
		t.Helper()
		w.say("ann", frame)
		want := `{"v":1,"t":"error"` + id + `,"body":` + refusal(message) + `}`
		if got := w.hear("ann"); got != want {
			t.Errorf("%.100q: heard %s, want %s", frame, got, want)
		}
	}
	for _, frameType := range slices.Sorted(maps.Keys(frames)) {
		for body, message := range frames[frameType].bad() {
			frame := fmt.Sprintf(`{"v":1,"t":%q,"id":"7","body":%s}`, frameType, body)
			hearRefusal(frame, `,"id":"7"`, message)
			if frameType == gateway.TypeSubscribe {
				continue
			}
			if status, answer, _ := w.call("ann", "POST", "/v1/inbox", frame); status != 400 || answer != refusal(message) {
				t.Errorf("inbox %s %s: %d %s, want %s", frameType, body, status, answer, message)
			}
		}
		for _, body := range []string{"5", `"x"`, "[]", "true"} {
			hearRefusal(fmt.Sprintf(`{"v":1,"t":%q,"id":7,"body":%s}`, frameType, body), `,"id":7`, "body: not an object")
		}
		w.unchanged(frameType)
	}
	for frame, message := range malformed() {
		inbox := message
		switch message {
		case "not UTF-8":
			inbox = "malformed json" // a socket closes 1007, see TestHostileMessages
		case "not an object":
			message, inbox = "invalid frame envelope", "invalid frame envelope"
			hearRefusal(frame, "", message)
		default:
			hearRefusal(frame, "", message)
		}
		if status, answer, _ := w.call("ann", "POST", "/v1/inbox", frame); status != 400 || answer != refusal(inbox) {
			t.Errorf("inbox %.100q: %d %s, want %s", frame, status, answer, inbox)
		}
	}
	for frame, message := range map[string]string{
		`{"t":"ping"}`: "unsupported version", `{"v":null,"t":"ping"}`: "unsupported version", `{"v":1.0,"t":"ping"}`: "unsupported version",
		`{"v":"1","t":"ping"}`: "unsupported version", `{"v":2,"t":"ping"}`: "unsupported version", `{"v":-1,"t":"ping"}`: "unsupported version",
		`{"v":1}`: "unknown frame type", `{"v":1,"t":null}`: "unknown frame type", `{"v":1,"t":5}`: "unknown frame type", `{"v":1,"t":""}`: "unknown frame type",
		`{"v":1,"t":"PING"}`: "unknown frame type", `{"v":1,"t":"session.ready"}`: "unknown frame type", `{"v":1,"t":"conv.event"}`: "unknown frame type",
		`{"v":1,"t":"session.resume"}`: "unknown frame type", `{"v":1,"t":"ping","id":{}}`: "id: not a short string or number",
		`{"v":1,"t":"ping","id":true}`: "id: not a short string or number",
	} {
		hearRefusal(frame, "", message)
	}
	w.unchanged("envelopes")
	w.say("ann", `{"v":1,"t":"ping"}`)
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Errorf("the socket did not stay: %s", got)
	}
}

// TestBadValues: values of the right type that are refused, over the socket and the inbox
// alike.
func TestBadValues(t *testing.T) {
	w := newBadWorld(t)
	w.join("ann", gateway.Features...)
	w.before = w.everything()
	long, bytes := strings.Repeat("x", 129), strings.Repeat("é", 65) // 65 characters, 130 bytes
	const badConv, badMsg = "conv_id must be 1 to 128 bytes of UTF-8 without NUL", "msg_id must be 1 to 128 bytes of UTF-8 without NUL"
	const foreign, conflict = `{"code":"forbidden","message":"not a member"}`, `{"code":"epoch_conflict","message":"the current epoch is 1","current_epoch":1}`
	good := mlsMessage("g", "1", wire.CommitContent)
	raw, err := base64.StdEncoding.DecodeString(good)
	must(t, err)
	encode := base64.StdEncoding.EncodeToString
	notBase64 := func(field string) string { return refusal(field + ": not padded standard base64") }
	tests := []struct{ frame, body, want string }{
		{"conv.send", `{"conv_id":"","msg_id":"m","env":"e"}`, refusal(badConv)},
		{"conv.send", `{"conv_id":"` + long + `","msg_id":"m","env":"e"}`, refusal(badConv)},
		{"conv.send", `{"conv_id":"` + bytes + `","msg_id":"m","env":"e"}`, refusal(badConv)},
		{"conv.send", `{"conv_id":"c","msg_id":"","env":"e"}`, refusal(badMsg)},
		{"conv.send", `{"conv_id":"c","msg_id":"` + long + `","env":"e"}`, refusal(badMsg)},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + strings.Repeat("x", gateway.EnvCharactersMax+1) + `"}`, refusal("env too large")},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + strings.Repeat("é", gateway.EnvCharactersMax+1) + `"}`, refusal("env too large")},
		{"conv.send", `{"conv_id":"nowhere","msg_id":"m","env":"e"}`, foreign},
		{"conv.send", `{"conv_id":"C","msg_id":"m","env":"e"}`, foreign},
		{"conv.send", `{"conv_id":"c ","msg_id":"m","env":"e"}`, foreign},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + mlsMessage("g", "0", wire.CommitContent) + `"}`, conflict},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + mlsMessage("g", "2", wire.ProposalContent) + `"}`, conflict},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + mlsMessage("g", "2", wire.ApplicationContent) + `"}`, conflict},
		{"conv.send", `{"conv_id":"c","msg_id":"m","env":"` + mlsMessage("h", "1", wire.ApplicationContent) + `"}`, refusal("the message belongs to another MLS group")},
		{"conv.send", `{"conv_id":"c","msg_id":"first","env":"` + mlsMessage("g", "1", wire.ApplicationContent) + `"}`, refusal("msg_id stands for a record of another kind")},
		{"conv.ack", `{"conv_id":"c","seq":-1}`, refusal("seq: negative")},
		{"conv.ack", `{"conv_id":"","seq":1}`, refusal(badConv)},
		{"conv.ack", `{"conv_id":"nowhere","seq":1}`, foreign},
		{"device.ack", `{"pos":-1}`, refusal("pos: negative")},
		{"client.report", `{"kind":"rumour"}`, refusal("kind: unknown")},
		{"client.report", `{"kind":""}`, refusal("kind: unknown")},
		{"conv.commit", `{"conv_id":"nowhere","msg_id":"m","commit":"` + good + `"}`, foreign},
		{"conv.commit", `{"conv_id":"c","msg_id":"` + long + `","commit":"` + good + `"}`, refusal(badMsg)},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":""}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + strings.TrimRight(good, "=") + `"}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good[:len(good)-3] + `"}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `="}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good[:4] + `\n` + good[4:] + `"}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":" ` + good + `"}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"AAH_"}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"AAF="}`, notBase64("commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + encode(raw[:len(raw)-1]) + `"}`, refusal("commit is not an MLS commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + encode(append(slices.Clone(raw), 0)) + `"}`, refusal("commit is not an MLS commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + mlsMessage("g", "1", wire.ApplicationContent) + `"}`, refusal("commit is not an MLS commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + welcomeFor("r") + `"}`, refusal("commit is not an MLS commit")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","group_info":"AAH_"}`, notBase64("group_info")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","group_info":"` + good + `"}`, refusal("group_info is not an MLS GroupInfo")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","welcome":{"env":"AAEA==","to":[]}}`, notBase64("welcome.env")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","welcome":{"env":"` + good + `","to":[]}}`, refusal("welcome is not an MLS Welcome")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","welcome":{"env":"` + welcomeFor("r") + `","to":[]}}`, refusal("the welcome is for more devices than the recipients named")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","welcome":{"env":"` + welcomeFor("r") + `","to":[{"user_id":"u","device_id":"d","key_package_ref":"00"}]}}`, refusal("a key_package_ref is not in the welcome")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","add":[""]}`, refusal("a user_id must be 1 to 512 bytes of UTF-8 without NUL")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","remove":["` + strings.Repeat("x", 513) + `"]}`, refusal("a user_id must be 1 to 512 bytes of UTF-8 without NUL")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","add":["u"],"remove":["u"]}`, refusal("the same account in add and remove")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + good + `","remove":["` + w.person("ann").did + `"]}`, refusal("a commit cannot remove its committer")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + mlsMessage("g", "0", wire.CommitContent) + `"}`, conflict},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + mlsMessage("h", "1", wire.CommitContent) + `"}`, refusal("the message belongs to another MLS group")},
		{"conv.commit", `{"conv_id":"c","msg_id":"m","commit":"` + mlsMessage("g", "9223372036854775807", wire.CommitContent) + `"}`, refusal("commit is not an MLS commit")},
	}
	for w.hearEvent("ann").Type != "members" {
	}
	for _, test := range tests {
		frame := fmt.Sprintf(`{"v":1,"t":%q,"id":"7","body":%s}`, test.frame, test.body)
		w.say("ann", frame)
		if got, want := w.hear("ann"), `{"v":1,"t":"error","id":"7","body":`+test.want+`}`; got != want {
			t.Errorf("%s %.150s: heard %s, want %s", test.frame, test.body, got, want)
		}
		status, answer, _ := w.call("ann", "POST", "/v1/inbox", frame)
		if status < 400 || status >= 500 || answer != test.want {
			t.Errorf("inbox %s %.150s: %d %s, want %s", test.frame, test.body, status, answer, test.want)
		}
	}
	w.unchanged("values")
}

// TestOpaqueEnvelopes: an env that is not a complete MLS message in padded standard base64 is
// opaque text, and returned unchanged.
func TestOpaqueEnvelopes(t *testing.T) {
	w := newBadWorld(t)
	good := mlsMessage("g", "1", wire.CommitContent)
	raw, err := base64.StdEncoding.DecodeString(good)
	must(t, err)
	encode := base64.StdEncoding.EncodeToString
	envs := []string{"", " ", "plain text", "é\u2028\U0001F600", "null", strings.TrimRight(good, "="), good + "=", good[:len(good)-1],
		" " + good, good + "\n", base64.URLEncoding.EncodeToString(append(slices.Clone(raw), 0xff, 0xfe)), encode(raw[:len(raw)-1]),
		encode(append(slices.Clone(raw), 0)), encode([]byte{0, 1}), encode([]byte{0, 1, 0, 2}), encode(raw[:8]), welcomeFor("r"),
		"AAEA", strings.Repeat("x", gateway.EnvCharactersMax), strings.Repeat("é", gateway.EnvCharactersMax)}
	must(t, refusedAs(w.stream("ann", "?conv_id=c&from_seq=2", false), ""))
	for i, env := range envs {
		quoted, err := gateway.Marshal(env)
		must(t, err)
		w.call2(t, "ann", "/v1/inbox", fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":"o%d","env":%s}}`, i, quoted))
		for {
			frame, err := gateway.DecodeFrame([]byte(strings.SplitN(w.item("ann"), " ", 2)[1]))
			must(t, err)
			if frame.Type != gateway.TypeEvent {
				continue
			}
			var event gateway.Event
			must(t, frame.Decode(&event))
			if event.Env != env || event.Kind != gateway.KindApp || *event.Epoch != 1 {
				t.Errorf("%.60q comes back as %.60q, %s", env, event.Env, event.Kind)
			}
			break
		}
	}
}

// TestForeignThings: requests that name the data of others.
func TestForeignThings(t *testing.T) {
	w := newBadWorld(t)
	tests := []struct {
		path, body string
		status     int
		want       string
	}{
		{"/v1/keypackages", `{"device_id":"laptop","keypackages":["x"]}`, 401, `{"code":"unauthorized","message":"device_id is not the session's"}`},
		{"/v1/keypackages", `{"device_id":"","keypackages":["x"]}`, 401, `{"code":"unauthorized","message":"device_id is not the session's"}`},
		{"/v1/keypackages/rotate", `{"device_id":"PHONE","revoke":true}`, 401, `{"code":"unauthorized","message":"device_id is not the session's"}`},
		{"/v1/keypackages/fetch", `{"user_id":"","count":1}`, 400, refusal("user_id: not 1 to 512 bytes of text")},
		{"/v1/keypackages/fetch", `{"user_id":"u","count":-1}`, 400, refusal("count: negative")},
		{"/v1/keypackages/fetch", `{"user_id":"u"}`, 400, refusal("count: missing")},
		{"/v1/keypackages/fetch", `{"user_id":"nobody","count":9223372036854775807}`, 200, `{"keypackages":[],"served_by":"` + testDID + `","user_home_gateway":"` + testDID + `"}`},
		{"/v1/rooms/create", `{"conv_id":"c"}`, 400, refusal("conversation already exists")},
		{"/v1/rooms/invite", `{"conv_id":"nowhere","members":["x"]}`, 403, `{"code":"forbidden","message":"not a member"}`},
		{"/v1/rooms/remove", `{"conv_id":"nowhere"}`, 403, `{"code":"forbidden","message":"not a member"}`},
		{"/v1/rooms/leave", `{"conv_id":"nowhere"}`, 403, `{"code":"forbidden","message":"not a member"}`},
		{"/v1/dms/create", `{"peer_user_id":"  "}`, 400, refusal("peer_user_id must be 1 to 512 bytes of UTF-8 without NUL")},
		{"/v1/dms/create", `{"peer_user_id":"p","conv_id":"a b"}`, 400, refusal("invalid conv_id")},
	}
	for _, test := range tests {
		if status, answer, _ := w.call("ann", "POST", test.path, test.body); status != test.status || answer != test.want {
			t.Errorf("%s %s: %d %s", test.path, test.body, status, answer)
		}
		if status, _, _ := w.call("", "POST", test.path, test.body); status != 401 {
			t.Errorf("%s without a session: %d", test.path, status)
		}
	}
	w.unchanged("foreign things")
}

// forgedKey signs with the key of an account and then changes the signature.
type forgedKey struct {
	*identity.AccountKey
	alg   string
	forge func(signature []byte) []byte
}

func (k forgedKey) Alg() string { return k.alg }
func (k forgedKey) Sign(content []byte) ([]byte, error) {
	signature, err := k.AccountKey.Sign(content)
	return k.forge(signature), err
}

// TestBadTokens starts sessions with tokens that are no good, by HTTP and on a socket.
// Which those are in detail is a table of package identity.
func TestBadTokens(t *testing.T) {
	w := newBadWorld(t)
	key := accountKey(t, "ann")
	claims := identity.Claims{Issuer: key.DID(), Audience: testDID, Method: gateway.AuthMethod, IssuedAt: testTime, ExpiresAt: testTime.Add(60e9)}
	sign := func(change func(c *identity.Claims)) string {
		c := claims
		change(&c)
		token, err := identity.SignToken(key, c)
		must(t, err)
		return token
	}
	signature := func(alg string, forge func([]byte) []byte) string {
		token, err := identity.SignToken(forgedKey{key, alg, forge}, claims)
		must(t, err)
		return token
	}
	none := func(header string) string {
		token := strings.SplitN(sign(func(*identity.Claims) {}), ".", 2)[1]
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + token[:strings.LastIndex(token, ".")+1]
	}
	// Common signers write either value of s.
	if status, answer, _ := w.call("", "POST", "/v1/session/start", `{"auth_token":"`+signature(identity.ES256, highS)+`","device_id":"laptop"}`); status != 200 {
		t.Errorf("high s: %d %s", status, answer)
	}
	used := w.token("ann")
	if status, _, _ := w.call("", "POST", "/v1/session/start", `{"auth_token":"`+used+`","device_id":"tablet"}`); status != 200 {
		t.Fatal(status)
	}
	w.before = w.everything()
	tokens := map[string]string{
		"empty": "", "garbage": "garbage", "dots": "..", "three words": "a.b.c", "Bearer alone": "Bearer ", "huge": strings.Repeat("a", 500_000),
		"expired":         sign(func(c *identity.Claims) { c.IssuedAt, c.ExpiresAt = testTime.Add(-120e9), testTime.Add(-60e9) }),
		"future":          sign(func(c *identity.Claims) { c.IssuedAt, c.ExpiresAt = testTime.Add(120e9), testTime.Add(180e9) }),
		"future by hours": sign(func(c *identity.Claims) { c.IssuedAt, c.ExpiresAt = testTime.Add(7200e9), testTime.Add(7260e9) }),
		"too long lived":  sign(func(c *identity.Claims) { c.ExpiresAt = testTime.Add(3600e9) }),
		"wrong audience":  sign(func(c *identity.Claims) { c.Audience = "did:web:elsewhere.example" }),
		"wrong method":    sign(func(c *identity.Claims) { c.Method = "im.waxwing.session.other" }),
		"other issuer":    sign(func(c *identity.Claims) { c.Issuer = accountKey(t, "bob").DID() }),
		"replayed":        used,
		"cut signature":   signature(identity.ES256, func(s []byte) []byte { return s[:63] }),
		"empty signature": signature(identity.ES256, func([]byte) []byte { return nil }),
		"other algorithm": signature(identity.ES256K, func(s []byte) []byte { return s }),
		"none":            none(`{"alg":"none","typ":"JWT"}`),
		"None":            none(`{"alg":"None"}`),
		"HMAC":            none(`{"alg":"HS256","typ":"JWT"}`),
	}
	const invalid, future = "invalid auth_token", "invalid auth_token: the token is from the future: check the clock of the machine that made it"
	for name, token := range tokens {
		message := invalid
		if strings.HasPrefix(name, "future") {
			message = future
		}
		want := `{"code":"unauthorized","message":"` + message + `"}`
		body := fmt.Sprintf(`{"auth_token":%q,"device_id":"phone"}`, token)
		status, answer, header := w.call("", "POST", "/v1/session/start", body)
		if status != 401 || answer != want || header.Get("WWW-Authenticate") != "Bearer" || header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		w.open("eve")
		w.say("eve", `{"v":1,"t":"session.start","id":"1","body":`+body+`}`)
		if got := w.hear("eve"); got != `{"v":1,"t":"error","id":"1","body":`+want+`}` {
			t.Errorf("%s: heard %s", name, got)
		}
		if got := w.hear("eve"); got != "closed 1000" {
			t.Errorf("%s: %s", name, got)
		}
	}
	w.unchanged("tokens")
}

// TestCodesOnBothWays: every refusal is the same body on a socket and by HTTP.
func TestCodesOnBothWays(t *testing.T) {
	for _, code := range ds.Codes {
		status, body := answerTo(&ds.Refusal{Code: code, Message: "m"})
		data, err := json.Marshal(body)
		must(t, err)
		if status < 400 || status >= 500 || !strings.Contains(string(data), `"message":"m"`) {
			t.Errorf("%s: %d %s", code, status, data)
		}
	}
}
