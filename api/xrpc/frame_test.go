package xrpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/lexicons"
)

// unhex reads hex with spaces and, to the end of a line, what it means.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		code, _, _ := strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(code), ""))
	}
	out, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Frames worked out by hand from RFC 8949 and the order of names in
// DAG-CBOR.
func TestFramesByHand(t *testing.T) {
	for _, c := range []struct {
		event Event
		seq   int64
		want  string
	}{
		{&TypingEvent{Cursor: "c1", ConvoID: "ab", DID: "did:plc:x", IsTyping: true}, 1, `
			a2                                                     // the header, 2 entries
			61 74  6c 23 74 79 70 69 6e 67 45 76 65 6e 74          // t: #typingEvent
			62 6f 70  01                                           // op: 1
			a5                                                     // the payload, 5 entries
			63 64 69 64  69 64 69 64 3a 70 6c 63 3a 78             // did: did:plc:x
			63 73 65 71  01                                        // seq: 1
			66 63 75 72 73 6f 72  62 63 31                         // cursor: c1
			67 63 6f 6e 76 6f 49 64  62 61 62                      // convoId: ab
			68 69 73 54 79 70 69 6e 67  f5                         // isTyping: true`},
		{&MessageEvent{Cursor: "c", Message: MessageView{ID: "m", ConvoID: "ab", Ciphertext: Bytes{1, 2}, Epoch: 24, Seq: 256,
			CreatedAt: Time{time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)}, MessageType: "app"}}, 65536, `
			a2 61 74  6d 23 6d 65 73 73 61 67 65 45 76 65 6e 74    // t: #messageEvent
			62 6f 70  01
			a3
			63 73 65 71  1a 00 01 00 00                            // seq: 65536
			66 63 75 72 73 6f 72  61 63                            // cursor: c
			67 6d 65 73 73 61 67 65  a7                            // message, 7 entries
			62 69 64  61 6d                                        // id: m
			63 73 65 71  19 01 00                                  // seq: 256
			65 65 70 6f 63 68  18 18                               // epoch: 24
			67 63 6f 6e 76 6f 49 64  62 61 62                      // convoId: ab
			69 63 72 65 61 74 65 64 41 74                          // createdAt
			78 18 32 30 32 36 2d 30 31 2d 30 32 54 30 33 3a 30 34 3a 30 35 2e 36 37 38 5a
			6a 63 69 70 68 65 72 74 65 78 74  42 01 02             // ciphertext: bytes 01 02
			6b 6d 65 73 73 61 67 65 54 79 70 65  63 61 70 70       // messageType: app`},
		{&ConversationUpdated{Cursor: "c", ConvoID: "ab", UpdatedFields: List[string]{"name"}}, 23, `
			a2 61 74  74 23 63 6f 6e 76 65 72 73 61 74 69 6f 6e 55 70 64 61 74 65 64
			62 6f 70  01
			a4 63 73 65 71  17                                     // seq: 23, the largest of one byte
			66 63 75 72 73 6f 72  61 63
			67 63 6f 6e 76 6f 49 64  62 61 62
			6d 75 70 64 61 74 65 64 46 69 65 6c 64 73  81 64 6e 61 6d 65`},
	} {
		frame, err := NewFrame(c.event)
		if err != nil {
			t.Fatal(err)
		}
		want := unhex(t, c.want)
		if got := frame.Append(nil, c.seq); !bytes.Equal(got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", c.event.Type(), got, want)
		}
		event, seq, err := DecodeFrame(want)
		if err != nil || seq != c.seq || !reflect.DeepEqual(event, c.event) {
			t.Errorf("%s: read %+v, %d, %v", c.event.Type(), event, seq, err)
		}
	}
	for _, c := range []struct{ name, message, want string }{
		{"x", "", "a1 62 6f 70 20  a1 65 65 72 72 6f 72 61 78"},
		{"x", "y", "a1 62 6f 70 20  a2 65 65 72 72 6f 72 61 78  67 6d 65 73 73 61 67 65 61 79"},
	} {
		want := unhex(t, c.want)
		if got := ErrorFrame(c.name, c.message); !bytes.Equal(got, want) {
			t.Errorf("error frame %x, want %x", got, want)
		}
		var failed *StreamError
		if _, _, err := DecodeFrame(want); !errors.As(err, &failed) || failed.Name != c.name || failed.Message != c.message {
			t.Errorf("error frame was read as %v", err)
		}
	}
}

// Every event, full and minimal, makes a canonical frame that is read again, and one
// frame serves subscribers with different counters.
func TestFramesOfAllEvents(t *testing.T) {
	for name, kind := range eventKinds {
		for _, full := range []bool{true, false} {
			event := kind.make()
			fill(reflect.ValueOf(event).Elem(), "", full, GenerationB)
			frame, err := NewFrame(event)
			if err != nil {
				t.Fatal(err)
			}
			for _, seq := range []int64{1, 23, 24, 255, 256, 65535, 65536, 1 << 32} {
				bin := frame.Append(nil, seq)
				got, gotSeq, err := DecodeFrame(bin)
				if err != nil || gotSeq != seq {
					t.Fatalf("%s: %d, %v", name, gotSeq, err)
				}
				want, _ := json.Marshal(event)
				if text, _ := json.Marshal(got); !bytes.Equal(text, want) {
					t.Errorf("%s: wrote %s, read %s", name, want, text)
				}
				if len(bin) > frame.Len() {
					t.Errorf("%s: %d bytes, promised %d", name, len(bin), frame.Len())
				}
			}
			text, err := EventJSON(event, 7)
			if err != nil {
				t.Fatal(err)
			}
			for set, generation := range generations {
				if err := lexicons.Validate(set, SubscribeEvents, "message", text); (err == nil) != generation.Knows(name) {
					t.Errorf("%s in %s: %v\n%s", name, set, err, text)
				}
			}
			if text, _ := EventJSON(event, 0); !bytes.HasPrefix(text, []byte(`{"$type":"`+SubscribeEvents+"#"+name+`","cursor":`)) {
				t.Errorf("%s without a counter: %s", name, text)
			}
		}
	}
}

// No client is sent an event that its generation does not know; when the generation is
// unknown, none that either does not.
func TestEventsForAGeneration(t *testing.T) {
	for name, kind := range eventKinds {
		for _, g := range []Generation{GenerationUnknown, GenerationA, GenerationB} {
			event := g.For(kind.make())
			if event != nil && !g.Knows(event.Type()) {
				t.Errorf("generation %d is sent %s for %s", g, event.Type(), name)
			}
			if event == nil && g.Knows(name) {
				t.Errorf("generation %d is not sent %s", g, name)
			}
			if event != nil && g == GenerationUnknown && (!GenerationA.Knows(event.Type()) || !GenerationB.Knows(event.Type())) {
				t.Errorf("%s is not safe for everybody", event.Type())
			}
		}
	}
	asked := GenerationA.For(&ReadditionRequestedEvent{Cursor: "c", ConvoID: "v", RequestedBy: "did:plc:x"})
	if info, is := asked.(*InfoEvent); !is || info.InfoType != "readditionRequested" || info.ConvoID != "v" || info.RequestedBy != "did:plc:x" || info.Cursor != "c" {
		t.Errorf("A is told %+v", asked)
	}
	left := GenerationB.For(&MemberLeft{Cursor: "c", ConvoID: "v", DID: "did:plc:x", Action: "kicked", Actor: "did:plc:y"})
	if change, is := left.(*MembershipChangeEvent); !is || *change != (MembershipChangeEvent{"c", "v", "did:plc:x", "kicked"}) {
		t.Errorf("B is told %+v", left)
	}
}

func TestCBORRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                       "",
		"an integer in two bytes":       "a1 61 61 18 17",
		"an integer in three":           "a1 61 61 19 00 ff",
		"an integer in five":            "a1 61 61 1a 00 00 ff ff",
		"an integer in nine":            "a1 61 61 1b 00 00 00 00 ff ff ff ff",
		"an integer above 2^63":         "a1 61 61 1b 80 00 00 00 00 00 00 00",
		"a length in two bytes":         "b8 01 61 61 01",
		"a map without end":             "bf 61 61 01 ff",
		"an array without end":          "a1 61 61 9f 01 ff",
		"text without end":              "a1 61 61 7f 61 61 ff",
		"a half float":                  "a1 61 61 f9 3c 00",
		"a float":                       "a1 61 61 fa 3f 80 00 00",
		"a double":                      "a1 61 61 fb 3f f0 00 00 00 00 00 00",
		"undefined":                     "a1 61 61 f7",
		"a simple value":                "a1 61 61 f8 ff",
		"true in two bytes":             "a1 61 61 f8 15",
		"a reserved head":               "a1 61 61 1c",
		"a tag":                         "a1 61 61 c1 01",
		"a link":                        "a1 61 61 d8 2a 41 00",
		"names out of order":            "a2 61 62 01 61 61 01",
		"a longer name first":           "a2 62 61 61 01 61 62 01",
		"a name twice":                  "a2 61 61 01 61 61 01",
		"a number as a name":            "a1 01 01",
		"bytes as a name":               "a1 41 61 01",
		"something behind":              "a1 61 61 01 00",
		"cut off":                       "a1 61 61",
		"cut off in a head":             "a1 61 61 19 01",
		"text that is not UTF-8":        "a1 61 61 61 ff",
		"a length that cannot be":       "a1 61 61 7b ff ff ff ff ff ff ff ff",
		"a map of more than there is":   "bb 7f ff ff ff ff ff ff ff",
		"an array of more than that":    "a1 61 61 9b 00 00 00 00 7f ff ff ff",
		"too deep":                      "a1 61 61 " + strings.Repeat("81 ", 9) + "01",
		"not an object":                 "81 01",
		"nothing that says what it is":  "a1 61 61 01",
		"a type that is no text":        "a1 65 24 74 79 70 65 01",
		"$type only, and of a far type": "a1 65 24 74 79 70 65 61 78",
	} {
		frame, err := DecodeClientFrame(unhex(t, text), false)
		if err == nil {
			t.Errorf("%s: read %+v", name, frame)
		}
		if errors.Is(err, ErrUnknownType) != (name == "$type only, and of a far type") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for text, want := range map[string]any{
		"17": int64(23), "18 18": int64(24), "20": int64(-1), "3b 7f ff ff ff ff ff ff ff": int64(-1 << 63), "f6": nil, "f4": false,
		"40": Bytes{}, "80": []any{}, "a0": map[string]any{}, "82 01 61 61": []any{int64(1), "a"},
	} {
		reader := cborReader{in: unhex(t, text)}
		if got, err := reader.value(0); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
}

func TestClientFrames(t *testing.T) {
	yes := true
	for _, c := range []struct {
		text string
		kind ClientFrameKind
		want ClientFrame
	}{
		{`{"$type":"` + SubscribeConvoEvents + `#typing","convoId":"c","isTyping":true}`, ClientTyping, ClientFrame{ConvoID: "c", IsTyping: &yes}},
		{`{"$type":"` + SubscribeEvents + `#ack","seq":7}`, ClientAck, ClientFrame{Seq: 7}},
		{`{"$type":"#ping","more":[1.5]}`, ClientPing, ClientFrame{}},
	} {
		got, err := DecodeClientFrame([]byte(c.text), true)
		if err != nil || got.Kind() != c.kind || got.ConvoID != c.want.ConvoID || got.Seq != c.want.Seq || !reflect.DeepEqual(got.IsTyping, c.want.IsTyping) {
			t.Errorf("%s: %+v, %v", c.text, got, err)
		}
		bin, err := EncodeClientFrame(c.kind, c.want)
		if err != nil {
			t.Fatal(err)
		}
		got, err = DecodeClientFrame(bin, false)
		if err != nil || got.Kind() != c.kind || got.ConvoID != c.want.ConvoID || got.Seq != c.want.Seq || !reflect.DeepEqual(got.IsTyping, c.want.IsTyping) {
			t.Errorf("%s as %x: %+v, %v", c.text, bin, got, err)
		}
		if _, err := DecodeClientFrame(bin, true); err == nil {
			t.Errorf("%x was read as text", bin)
		}
	}
	for text, unknown := range map[string]bool{
		`{"$type":"#later"}`:                       true,
		`{"$type":"elsewhere#typing"}`:             true,
		`{"$type":"ping"}`:                         true,
		`{"$type":"#typing","convoId":"c"}`:        false,
		`{"$type":"#typing","isTyping":true}`:      false,
		`{"$type":"#ack","seq":-1}`:                false,
		`{"convoId":"c","isTyping":true}`:          false,
		`[]`:                                       false,
		strings.Repeat(" ", ClientFrameMax) + `{}`: false,
	} {
		if got, err := DecodeClientFrame([]byte(text), true); err == nil || errors.Is(err, ErrUnknownType) != unknown {
			t.Errorf("%.40s: %+v, %v", text, got, err)
		}
	}
	// isTyping: false is said, not left out.
	no := false
	bin, _ := EncodeClientFrame(ClientTyping, ClientFrame{ConvoID: "c", IsTyping: &no})
	if got, err := DecodeClientFrame(bin, false); err != nil || got.IsTyping == nil || *got.IsTyping {
		t.Errorf("%x: %+v, %v", bin, got, err)
	}
}

// What is read from CBOR is canonical, so writing it again gives the same bytes.
func FuzzCBOR(f *testing.F) {
	for _, seed := range []string{"a1652474797065652370696e67", "a0", "a2616101626161810a", "a16161f5", "a161615818" + strings.Repeat("00", 24), "3b7fffffffffffffff"} {
		raw, _ := hex.DecodeString(seed)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		reader := cborReader{in: in}
		value, err := reader.value(0)
		if err != nil {
			return
		}
		if again := appendTree(nil, value); !bytes.Equal(again, in[:len(in)-len(reader.in)]) {
			t.Fatalf("%x became %x", in, again)
		}
		if frame, err := DecodeClientFrame(in, false); err == nil && frame.Kind() == "" {
			t.Fatalf("%x is a frame of no kind", in)
		}
		_, _, _ = DecodeFrame(in)
	})
}

func appendTree(out []byte, value any) []byte {
	switch v := value.(type) {
	case nil:
		return append(out, cborNull)
	case bool:
		if v {
			return append(out, cborTrue)
		}
		return append(out, cborFalse)
	case int64:
		return appendCBORInt(out, v)
	case string:
		return appendCBORText(out, v)
	case Bytes:
		return append(appendCBORHead(out, cborBytes, uint64(len(v))), v...)
	case []any:
		out = appendCBORHead(out, cborArray, uint64(len(v)))
		for _, item := range v {
			out = appendTree(out, item)
		}
		return out
	}
	object := value.(map[string]any)
	var names []string
	for name := range object {
		at := 0
		for at < len(names) && nameOrder(names[at], name) < 0 {
			at++
		}
		names = append(names[:at], append([]string{name}, names[at:]...)...)
	}
	out = appendCBORHead(out, cborMap, uint64(len(object)))
	for _, name := range names {
		out = appendTree(appendCBORText(out, name), object[name])
	}
	return out
}

func FuzzClientFrameText(f *testing.F) {
	f.Add([]byte(`{"$type":"#typing","convoId":"c","isTyping":true}`))
	f.Add([]byte(`{"$type":"#ack","seq":7}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, err := DecodeClientFrame(in, true)
		if err != nil {
			return
		}
		bin, err := EncodeClientFrame(frame.Kind(), *frame)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeClientFrame(bin, false)
		if len(bin) <= ClientFrameMax && (err != nil || again.Kind() != frame.Kind() || again.ConvoID != frame.ConvoID || again.Seq != frame.Seq) {
			t.Fatalf("%s became %x: %+v, %v", in, bin, again, err)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	event := &MessageEvent{Cursor: strings.Repeat("0", 26), Message: MessageView{ID: strings.Repeat("m", 36), ConvoID: strings.Repeat("c", 32), Ciphertext: make(Bytes, 1024), Epoch: 3, Seq: 1000, MessageType: "app"}}
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := NewFrame(event); err != nil {
				b.Fatal(err)
			}
		}
	})
	frame, _ := NewFrame(event)
	out := make([]byte, 0, frame.Len())
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			out = frame.Append(out[:0], 77)
		}
	})
}

// A reader's own cursor stands where the event's was.
func TestFrameWithCursor(t *testing.T) {
	for _, cursor := range []string{"", "c", "7TVR000000004800000000146F"} {
		event := &ReactionEvent{Cursor: "\x00", ConvoID: "c1", MessageID: "m", DID: "did:x:fcursor", Reaction: "+", Action: "add"}
		frame, err := NewFrame(event)
		if err != nil {
			t.Fatal(err)
		}
		event.Cursor = cursor
		same, err := NewFrame(event)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := frame.AppendAt(nil, 9, cursor), same.Append(nil, 9); !bytes.Equal(got, want) {
			t.Errorf("%q: got %x, want %x", cursor, got, want)
		}
	}
}
