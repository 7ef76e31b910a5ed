package xrpc

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDecodeRefuses(t *testing.T) {
	send := func(change, to string) string {
		return strings.Replace(`{"convoId":"c","msgId":"m","ciphertext":{"$bytes":"AQI="},"epoch":7,"paddedSize":2}`, change, to, 1)
	}
	for _, c := range []struct {
		name, body string
		want       string // part of the error, "" when it is accepted
	}{
		{"as it should be", send("", ""), ""},
		{"a field that is not known", send(`"epoch"`, `"later":{"a":[1.5,null]},"epoch"`), ""},
		{"null for what may be absent", send(`"epoch"`, `"delivery":null,"confirmationTag":null,"epoch"`), ""},
		{"the largest integer", send(`7`, `9223372036854775807`), ""},
		{"nothing", ``, "is required"},
		{"without epoch", send(`"epoch":7,`, ``), "epoch: is required"},
		{"null for what must be there", send(`"m"`, `null`), "msgId: is required"},
		{"another case does not make it present", send(`"convoId"`, `"CONVOID"`), "convoId: is required"},
		{"twice", send(`"epoch"`, `"msgId":"n","epoch"`), "msgId: is there twice"},
		{"twice, once with an escape", send(`"epoch"`, `"msg\u0049d":null,"epoch"`), "msgId: is there twice"},
		{"twice inside", send(`"epoch"`, `"x":{"msgId":1,"msgId":2},"epoch"`), ""},
		{"negative", send(`7`, `-7`), "integer"},
		{"minus zero", send(`7`, `-0`), "integer"},
		{"a fraction", send(`7`, `7.0`), "integer"},
		{"an exponent", send(`7`, `7e0`), "integer"},
		{"too large", send(`7`, `9223372036854775808`), "integer"},
		{"an integer as text", send(`7`, `"7"`), "integer"},
		{"bytes as text", send(`{"$bytes":"AQI="}`, `"AQI="`), "bytes must be"},
		{"another type", send(`"c"`, `7`), "convoId: must not be of type number"},
		{"an array", `[]`, "json object"},
		{"two objects", send("", "") + `{}`, "malformed"},
		{"cut off", `{"convoId":"c`, "malformed"},
		{"not UTF-8", send(`"c"`, "\"\xff\""), "UTF-8"},
		{"NUL", send(`"c"`, `"\u0000"`), "NUL"},
		{"NUL behind a backslash", send(`"c"`, `"\\u0000"`), ""},
		{"a surrogate pair", send(`"c"`, `"\ud83d\ude00"`), ""},
		{"half a pair", send(`"c"`, `"\ud83d"`), "surrogate"},
		{"the other half", send(`"c"`, `"\ude00"`), "surrogate"},
		{"half a pair and a letter", send(`"c"`, `"\ud83d\u0041"`), "surrogate"},
		{"deep", send(`"epoch"`, `"x":`+strings.Repeat("[", DepthMax-1)+strings.Repeat("]", DepthMax-1)+`,"epoch"`), ""},
		{"too deep", send(`"epoch"`, `"x":`+strings.Repeat("[", DepthMax)+strings.Repeat("]", DepthMax)+`,"epoch"`), "too deep"},
		{"very deep and cut off", strings.Repeat(`{"a":`, 100000), "too deep"},
		{"too many", send(`"epoch"`, `"x":[`+strings.Repeat("0,", ValuesMax)+`0],"epoch"`), "too many"},
	} {
		err := Decode([]byte(c.body), &SendMessageInput{})
		var wrong *InputError
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDecodeRegisterDevice(t *testing.T) {
	const rest = `"deviceName":"Phone","keyPackages":[],"signaturePublicKey":{"$bytes":""}`
	for _, c := range []struct {
		body, uuid string
		action     DeviceAction
	}{
		{`{` + rest + `,"deviceUUID":"u"}`, "u", DeviceRemoveToken},
		{`{` + rest + `,"deviceUuid":"u","pushToken":"t"}`, "u", DeviceUpdateToken},
		{`{` + rest + `,"action":"delete","deviceId":"d"}`, "", DeviceDelete},
		{`{"deviceName":"n","keyPackages":[],"signaturePublicKey":{"$bytes":"AQI="}}`, "", DeviceRegister},
		{`{"deviceName":"n","keyPackages":[{"keyPackage":"AQI="}],"signaturePublicKey":{"$bytes":""},"pushToken":"t"}`, "", DeviceRegister},
	} {
		var in RegisterDeviceInput
		if err := Decode([]byte(c.body), &in); err != nil || in.DeviceUUID != c.uuid || in.Action() != c.action {
			t.Errorf("%s: uuid %q, action %s, %v", c.body, in.DeviceUUID, in.Action(), err)
		}
	}
}

// A package that cannot be read is answered by its index and does not spoil the others.
func TestDecodeKeyPackages(t *testing.T) {
	const expires = `"expires":"2026-01-02T03:04:05+01:00"`
	for _, c := range []struct{ item, problem string }{
		{`{"keyPackage":"AQI=","cipherSuite":"s",` + expires + `}`, ""},
		{`{"keyPackage":{"$bytes":"AQI="},"cipherSuite":"s",` + expires + `,"lastResort":true}`, ""},
		{`{"keyPackage":"*","cipherSuite":"s",` + expires + `}`, "keyPackage: cannot be read"},
		{`{"keyPackage":{"$bytes":"AQI=","x":1},"cipherSuite":"s",` + expires + `}`, "keyPackage: cannot be read"},
		{`{"cipherSuite":"s",` + expires + `}`, "keyPackage: is required"},
		{`{"keyPackage":"AQI=",` + expires + `}`, "cipherSuite: is required"},
		{`{"keyPackage":"AQI=","cipherSuite":"s","expires":"tomorrow"}`, "expires: cannot be read"},
		{`{"keyPackage":"AQI=","cipherSuite":"s","expires":null}`, "expires: is required"},
		{`7`, "must be an object"},
	} {
		var in PublishKeyPackagesInput
		good := `{"keyPackage":"AQI=","cipherSuite":"s",` + expires + `}`
		if err := Decode([]byte(`{"action":"publishBatch","keyPackages":[`+good+`,`+c.item+`,`+good+`]}`), &in); err != nil {
			t.Errorf("%s: %v", c.item, err)
			continue
		}
		if len(in.KeyPackages) != 3 || in.KeyPackages[0].Problem+in.KeyPackages[2].Problem != "" || in.KeyPackages[1].Problem != c.problem {
			t.Errorf("%s: got %+v", c.item, in.KeyPackages)
		}
	}
}

func TestTime(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{`"2026-01-02T03:04:05Z"`, `"2026-01-02T03:04:05.000Z"`},
		{`"2026-01-02T03:04:05.6789Z"`, `"2026-01-02T03:04:05.678Z"`},
		{`"2026-01-02T03:04:05.123456789+05:30"`, `"2026-01-01T21:34:05.123Z"`},
		{`"2026-01-02t03:04:05z"`, `"2026-01-02T03:04:05.000Z"`},
		{`"0000-01-01T00:00:00Z"`, `"0000-01-01T00:00:00.000Z"`},
		{`"0000-01-01T00:00:00+01:00"`, ""},
		{`"9999-12-31T23:59:59-01:00"`, ""},
		{`"2026-01-02T03:04:05,5Z"`, ""},
		{`"2026-01-02T3:04:05Z"`, ""},
		{`"2026-01-02T03:04:05+24:00"`, ""},
		{`"2026-01-02T03:04:05"`, ""},
		{`"2026-01-02 03:04:05Z"`, ""},
		{`"2026-02-30T03:04:05Z"`, ""},
		{`1767323045`, ""},
	} {
		var got Time
		err := json.Unmarshal([]byte(c.in), &got)
		out, _ := json.Marshal(got)
		if (err == nil) != (c.out != "") || err == nil && string(out) != c.out {
			t.Errorf("%s became %s, %v", c.in, out, err)
		}
	}
	if out, err := json.Marshal(TimeMS(1767323045678)); err != nil || string(out) != `"2026-01-02T03:04:05.678Z"` {
		t.Errorf("milliseconds became %s, %v", out, err)
	}
	if _, err := json.Marshal(Time{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("the year 10000 was written")
	}
}

func TestUpdateCursorTakesNumbers(t *testing.T) {
	for body, want := range map[string]string{
		`{"convoId":"c","cursor":"01ARZ3NDEKTSV4RRFFQ69G5FAV"}`: "01ARZ3NDEKTSV4RRFFQ69G5FAV",
		`{"convoId":"c","cursor":42}`:                           "42",
		`{"convoId":"c","cursor":"42"}`:                         "42",
		`{"convoId":"c"}`:                                       "",
		`{"convoId":"c","cursor":-1}`:                           "error",
		`{"convoId":"c","cursor":1.5}`:                          "error",
		`{"convoId":"c","cursor":[]}`:                           "error",
	} {
		var in UpdateCursorInput
		err := Decode([]byte(body), &in)
		if (err != nil) != (want == "error") || err == nil && string(in.Cursor) != want {
			t.Errorf("%s: %q, %v", body, in.Cursor, err)
		}
	}
}

func TestActionsByEitherName(t *testing.T) {
	for sent, want := range map[string]GroupAction{
		"addMembers": GroupAddMembers, "externalCommit": GroupExternalCommit, "processExternalCommit": GroupExternalCommit,
		"listPending": GroupListPending, "getPendingDeviceAdditions": GroupListPending, "claimPendingDeviceAddition": GroupClaimPending,
		"completePendingDeviceAddition": GroupCompletePending, "nonsense": "nonsense",
	} {
		if got := (&CommitGroupChangeInput{ActionText: sent}).Action(); got != want {
			t.Errorf("%s is %s, want %s", sent, got, want)
		}
	}
	if kind := (&GetMessagesParams{Type: "commits"}).Kind(); kind != "commit" {
		t.Errorf("commits is %s", kind)
	}
	if !(&PolicyInput{}).IsEmpty() || (&PolicyInput{AllowRejoin: new(bool)}).IsEmpty() {
		t.Error("a policy that changes something is not empty")
	}
}

// An answer has [] where its lexicon has an array, also when it was not set.
func TestArraysAreNeverNull(t *testing.T) {
	for _, c := range contract {
		if c.part != "output" {
			continue
		}
		text, err := json.Marshal(reflect.New(reflect.TypeOf(c.value)).Interface())
		if err != nil || strings.Contains(string(text), "null") {
			t.Errorf("%s: %s, %v", c.nsid, text, err)
		}
	}
}

func TestDecodeQuery(t *testing.T) {
	n := func(value Natural) *Natural { return &value }
	for _, c := range []struct {
		raw  string
		in   any
		want any
	}{
		{"dids=did%3Aplc%3Aa&dids=did:plc:b&other=1", &GetKeyPackagesParams{}, &GetKeyPackagesParams{DIDs: []string{"did:plc:a", "did:plc:b"}}},
		{"convoIds=a&convoIds=b&limit=5", &GetPendingDevicesParams{}, &GetPendingDevicesParams{ConvoIDs: []string{"a", "b"}, Limit: n(5)}},
		{"", &GetConvosParams{}, &GetConvosParams{}},
		{"countOnly=true&filter=requests&limit=", &GetConvosParams{}, &GetConvosParams{CountOnly: true, Filter: "requests"}},
		{"convoId=c&sinceSeq=0&limit=7&limit=7", &GetMessagesParams{}, &GetMessagesParams{ConvoID: "c", SinceSeq: n(0), Limit: n(7)}},
		{"convoId=c&keyPackageHashes=aa&keyPackageHashes=bb", &GetGroupStateParams{}, &GetGroupStateParams{ConvoID: "c", KeyPackageHashes: []string{"aa", "bb"}}},
		{"convoId=c&limit=7&limit=8", &GetMessagesParams{}, nil},
		{"convoId=c&convoId=d", &GetMessagesParams{}, nil},
		{"limit=7", &GetMessagesParams{}, nil},
		{"convoId=c&limit=-1", &GetMessagesParams{}, nil},
		{"convoId=c&limit=+1", &GetMessagesParams{}, nil},
		{"convoId=c&limit=1.5", &GetMessagesParams{}, nil},
		{"convoId=c&limit=9223372036854775808", &GetMessagesParams{}, nil},
		{"convoId=%00", &GetMessagesParams{}, nil},
		{"convoId=%ff", &GetMessagesParams{}, nil},
		{"convoId=%zz", &GetMessagesParams{}, nil},
		{"countOnly=1", &GetConvosParams{}, nil},
		{"convoId=" + strings.Repeat("c", QueryMax), &GetMessagesParams{}, nil},
		{"convoId=c" + strings.Repeat("&a", QueryValuesMax), &GetMessagesParams{}, nil},
	} {
		err := DecodeQuery(c.raw, c.in)
		var wrong *InputError
		switch {
		case c.want == nil:
			if !errors.As(err, &wrong) {
				t.Errorf("%.60s: got %v, %v", c.raw, c.in, err)
			}
		case err != nil || !reflect.DeepEqual(c.in, c.want):
			t.Errorf("%.60s: got %+v, %v", c.raw, c.in, err)
		}
	}
	if got := CommaList(" a,,b , c", 2); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("comma list: %q", got)
	}
	groupInfo, epoch, welcome := (&GetGroupStateParams{Include: "welcome, epoch,else"}).Wants()
	if groupInfo || !epoch || !welcome {
		t.Error("include was not read")
	}
	groupInfo, epoch, welcome = (&GetGroupStateParams{}).Wants()
	if !groupInfo || !epoch || welcome {
		t.Error("include has a default")
	}
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"convoId=c&limit=5&sinceSeq=0", "keyPackageHashes=a&keyPackageHashes=b&convoId=%63", "convoId=a&convoId=a", "limit=;", "convoId=%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, in := range []any{&GetMessagesParams{}, &GetGroupStateParams{}, &GetConvosParams{}, &GetKeyPackagesParams{}} {
			if DecodeQuery(raw, in) != nil {
				continue
			}
			again := reflect.New(reflect.TypeOf(in).Elem()).Interface()
			text := EncodeQuery(in)
			if len(text) > QueryMax {
				continue // longer by its escapes
			}
			if err := DecodeQuery(text, again); err != nil || EncodeQuery(again) != text {
				t.Fatalf("%q became %q: %v", raw, text, err)
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"convoId":"c","action":"commit","commit":"AQI=","welcome":{"$bytes":"AQI"}}`, `{"convoId":"\u0000"}`, `{"a":[[[{}]]]}`,
		`{"convoId":"c","msgId":"m","ciphertext":{"$bytes":""},"epoch":0,"paddedSize":0}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range []any{&CommitGroupChangeInput{}, &SendMessageInput{}, &PublishKeyPackagesInput{}} {
			if Decode(body, in) != nil {
				continue
			}
			text, err := json.Marshal(in)
			if err != nil {
				t.Skip("a time that cannot be written")
			}
			again := reflect.New(reflect.TypeOf(in).Elem()).Interface()
			if err := Decode(text, again); err != nil {
				t.Fatalf("%s became %s: %v", body, text, err)
			}
			if second, _ := json.Marshal(again); string(second) != string(text) {
				t.Fatalf("%s, then %s", text, second)
			}
		}
	})
}
