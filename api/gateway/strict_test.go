package gateway

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct{ name, in, want string }{
		{"object", ` {"a" : [1, -2.5e+3, "x\n\u00e9", true, false, null, {}, []] } `, ""},
		{"word", `null`, ""},
		{"pair of surrogates", `"\ud83d\uDE00"`, ""},
		{"as deep as allowed", deep(DepthMax), ""},
		{"too deep", deep(DepthMax + 1), "nested too deep"},
		{"very deep", strings.Repeat(`{"a":`, 200000), "nested too deep"},
		{"nothing", ``, "malformed json"},
		{"blanks", " \n", "malformed json"},
		{"two values", `{}{}`, "malformed json"},
		{"trailing comma", `[1,]`, "malformed json"},
		{"missing colon", `{"a" 1}`, "malformed json"},
		{"bare name", `{a:1}`, "malformed json"},
		{"open string", `"abc`, "malformed json"},
		{"open object", `{"a":1`, "malformed json"},
		{"raw control character", "\"a\x01\"", "malformed json"},
		{"raw NUL", "\"a\x00\"", "malformed json"},
		{"bad escape", `"\x41"`, "malformed json"},
		{"short escape", `"\u12"`, "malformed json"},
		{"leading zero", `01`, "malformed json"},
		{"plus", `+1`, "malformed json"},
		{"bare point", `1.`, "malformed json"},
		{"bare exponent", `1e`, "malformed json"},
		{"NaN", `NaN`, "malformed json"},
		{"byte order mark", "\ufeff{}", "malformed json"},
		{"escaped NUL", `"a\u0000"`, "a string holds NUL"},
		{"NUL in a name", `{"\u0000":1}`, "a string holds NUL"},
		{"lone high surrogate", `"\ud800"`, "a string holds an unpaired surrogate"},
		{"lone low surrogate", `"\udc00"`, "a string holds an unpaired surrogate"},
		{"high and letter", `"\ud800\u0041"`, "a string holds an unpaired surrogate"},
		{"high and text", `"\ud800abcdef"`, "a string holds an unpaired surrogate"},
		{"not UTF-8", "\"\xff\"", "text is not UTF-8"},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", "text is not UTF-8"},
	}
	for _, test := range tests {
		got := ""
		if err := Validate([]byte(test.in)); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

type sample struct {
	Text  string   `json:"text"`
	Count *int64   `json:"count,omitempty"`
	Flag  bool     `json:"flag,omitempty"`
	Names []string `json:"names,omitempty"`
	Inner *struct {
		To []struct {
			Ref string `json:"ref"`
		} `json:"to"`
	} `json:"inner,omitempty"`
}

func TestUnmarshal(t *testing.T) {
	seven := int64(7)
	tests := []struct {
		name, in string
		want     sample
		wantErr  string
	}{
		{"least", `{"text":""}`, sample{}, ""},
		{"all", `{"text":"a","count":7,"flag":true,"names":["x","\u00e9"]}`,
			sample{Text: "a", Count: &seven, Flag: true, Names: []string{"x", "é"}}, ""},
		{"null is absent", `{"text":"a","count":null,"names":null,"flag":null,"inner":null}`, sample{Text: "a"}, ""},
		{"unknown ignored", `{"text":"a","other":[{"deep":1.5}]}`, sample{Text: "a"}, ""},
		{"names match exactly", `{"text":"a","TEXT":"b","Text":"c"}`, sample{Text: "a"}, ""},
		{"names may be escaped", `{"te\u0078t":"a"}`, sample{Text: "a"}, ""},
		{"the last of two counts", `{"names":["x","y"],"text":"a","names":["z"],"text":"b"}`, sample{Text: "b", Names: []string{"z"}}, ""},
		{"the last of two is null", `{"text":"a","text":null}`, sample{}, "text: missing"},
		{"missing", `{}`, sample{}, "text: missing"},
		{"null for a needed one", `{"text":null}`, sample{}, "text: missing"},
		{"number for text", `{"text":1}`, sample{}, "text: not a string"},
		{"list for text", `{"text":[]}`, sample{}, "text: not a string"},
		{"text for number", `{"text":"a","count":"7"}`, sample{}, "count: not an integer"},
		{"bool for number", `{"text":"a","count":true}`, sample{}, "count: not an integer"},
		{"fraction", `{"text":"a","count":7.0}`, sample{}, "count: not an integer"},
		{"exponent", `{"text":"a","count":7e0}`, sample{}, "count: not an integer"},
		{"beyond int64", `{"text":"a","count":9223372036854775808}`, sample{}, "count: not an integer"},
		{"number for bool", `{"text":"a","flag":1}`, sample{}, "flag: not true or false"},
		{"text for list", `{"text":"a","names":"x"}`, sample{}, "names: not a list"},
		{"number in list", `{"text":"a","names":["x",1]}`, sample{}, "names[1]: not a string"},
		{"null in list", `{"text":"a","names":[null]}`, sample{}, "names[0]: not a string"},
		{"path", `{"text":"a","inner":{"to":[{"ref":"1"},{}]}}`, sample{}, "inner.to[1].ref: missing"},
		{"not an object", `[]`, sample{}, "not an object"},
		{"refused before it is read", `{"text":"a\u0000"}`, sample{}, "a string holds NUL"},
	}
	for _, test := range tests {
		var got sample
		err := Unmarshal([]byte(test.in), &got)
		switch {
		case test.wantErr != "":
			if err == nil || err.Error() != test.wantErr {
				t.Errorf("%s: got %v, want %s", test.name, err, test.wantErr)
			}
		case err != nil || !reflect.DeepEqual(got, test.want):
			t.Errorf("%s: got %+v, %v", test.name, got, err)
		}
	}
}

func TestUnmarshalBoundsLists(t *testing.T) {
	in := `{"text":"","names":[""` + strings.Repeat(`,""`, itemsMax) + `]}`
	err := Unmarshal([]byte(in), &sample{})
	if err == nil || err.Error() != "names: too many items" {
		t.Fatal(err)
	}
}

func TestDecodeFrame(t *testing.T) {
	tests := []struct {
		name, in     string
		wantType, id string
		body         string
		wantErr      error
		wantText     string
	}{
		{"plain", `{"v":1,"t":"ping"}`, "ping", "", "", nil, ""},
		{"with all", `{"v":1,"t":"conv.send","id":"7","ts":"whatever","body":{"a":1}}`, "conv.send", `"7"`, `{"a":1}`, nil, ""},
		{"number as id", `{"v":1,"t":"ping","id":-12}`, "ping", "-12", "", nil, ""},
		{"null id and body", `{"v":1,"t":"ping","id":null,"body":null}`, "ping", "", "", nil, ""},
		{"no type", `{"v":1}`, "", "", "", nil, ""},
		{"type is no text", `{"v":1,"t":5}`, "", "", "", nil, ""},
		{"no version", `{"t":"ping","id":"a"}`, "", `"a"`, "", ErrVersion, ""},
		{"version 2", `{"v":2,"t":"ping","id":"a"}`, "", `"a"`, "", ErrVersion, ""},
		{"version as text", `{"v":"1","t":"ping"}`, "", "", "", ErrVersion, ""},
		{"version as fraction", `{"v":1.0,"t":"ping"}`, "", "", "", ErrVersion, ""},
		{"version true", `{"v":true,"t":"ping"}`, "", "", "", ErrVersion, ""},
		{"list as id", `{"v":1,"t":"ping","id":["a"]}`, "", "", "", nil, "id: not a short string or number"},
		{"long id", `{"v":1,"t":"ping","id":"` + strings.Repeat("a", 2000) + `"}`, "", "", "", nil, "id: not a short string or number"},
		{"body is a list", `{"v":1,"t":"ping","id":"a","body":[]}`, "ping", `"a"`, "", nil, "body: not an object"},
		{"body is text", `{"v":1,"t":"ping","body":"{}"}`, "ping", "", "", nil, "body: not an object"},
		{"list", `[1]`, "", "", "", ErrNotObject, ""},
		{"text", `"ping"`, "", "", "", ErrNotObject, ""},
		{"nothing", ``, "", "", "", ErrMalformed, ""},
		{"binary rubbish", "\xff\xfe", "", "", "", ErrNotUTF8, ""},
	}
	for _, test := range tests {
		frame, err := DecodeFrame([]byte(test.in))
		if test.wantText != "" {
			if err == nil || err.Error() != test.wantText {
				t.Errorf("%s: got %v, want %s", test.name, err, test.wantText)
			}
		} else if !errors.Is(err, test.wantErr) || test.wantErr == nil && err != nil {
			t.Errorf("%s: got %v, want %v", test.name, err, test.wantErr)
		}
		if frame.Type != test.wantType || string(frame.ID) != test.id || string(frame.Body) != test.body {
			t.Errorf("%s: got %q %s %s", test.name, frame.Type, frame.ID, frame.Body)
		}
	}
}

func TestEncodeFrame(t *testing.T) {
	tests := []struct {
		frameType string
		id        json.RawMessage
		body      any
		want      string
	}{
		{TypePong, StringID("a<b"), nil, `{"v":1,"t":"pong","id":"a\u003cb"}`},
		{TypeDrain, nil, Drain{ReconnectAfterMS: 5}, `{"v":1,"t":"drain","body":{"reconnect_after_ms":5}}`},
		{TypeEvent, nil, Event{ConvID: "c", Seq: 1, MsgID: "m", Env: "<é>", ConvHome: "h", OriginGateway: "g"},
			`{"v":1,"t":"conv.event","body":{"conv_id":"c","seq":1,"msg_id":"m","env":"<é>","conv_home":"h","origin_gateway":"g"}}`},
	}
	for _, test := range tests {
		got, err := EncodeFrame(test.frameType, test.id, test.body)
		if err != nil || string(got) != test.want {
			t.Errorf("got %s, %v, want %s", got, err, test.want)
		}
		if _, err := DecodeFrame(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}

// FuzzValidate compares with encoding/json: what we accept, it accepts too, and what
// it accepts and we refuse, we refuse for one of our own reasons.
func FuzzValidate(f *testing.F) {
	for _, seed := range []string{`{"a":[1,2.5e3,"\ud83d\ude00"]}`, `"\ud800"`, `01`, `[[[]]]`, `{"a":1,}`, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Validate(data)
		if err == nil != json.Valid(data) {
			var input *InputError
			if err == nil || !errors.As(err, &input) && !errors.Is(err, ErrNotUTF8) {
				t.Fatalf("%q: %v", data, err)
			}
		}
	})
}

// FuzzDecodeFrame checks that no frame panics and that what is read can be written.
func FuzzDecodeFrame(f *testing.F) {
	f.Add([]byte(`{"v":1,"t":"conv.send","id":"1","body":{"conv_id":"c","msg_id":"m","env":"e","ts":1}}`))
	f.Add([]byte(`{"v":1,"t":"conv.commit","body":{"conv_id":"c","msg_id":"m","commit":"AA==","welcome":{"env":"","to":[{"user_id":"u","device_id":"d","key_package_ref":""}]},"add":["x"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := DecodeFrame(data)
		if err != nil {
			return
		}
		_ = frame.Decode(&Send{})
		_ = frame.Decode(&Subscribe{})
		_ = frame.Decode(&Start{})
		if err := frame.Decode(&Commit{}); err != nil {
			return
		}
		if !json.Valid(append(AppendHead(nil, TypePong, frame.ID), '}')) {
			t.Fatalf("id %s does not travel", frame.ID)
		}
	})
}
