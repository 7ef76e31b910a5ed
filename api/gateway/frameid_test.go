package gateway

import (
	"strings"
	"testing"
)

func TestFrameID(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	tests := []struct{ data, id string }{
		{`{"v":1,"id":"a","x":"\u0000"}`, `"a"`},
		{`{"x":"\udfff","id":7,"v":1}`, `7`},
		{` { "x" : ` + deep + ` , "id" : -7 } `, `-7`},
		{`{"x":{"id":"inner"},"id":"outer"`, `"outer"`},
		{`{"x":"{\"id\":1}","id":"a","body":{"env":"cut o`, `"a"`},
		{`{"id":1,"id":"2","x":` + deep, `"2"`},
		{`{"id":1,"id":{},"x":` + deep, ``},
		{`{"\u0069d":"a"}`, `"a"`},
		{`{"id":"\u0000"}`, ``},
		{`{"id":"\ud800"}`, ``},
		{`{"id":"cut of`, ``},
		{`{"id":12`, ``}, // it may go on
		{`{"id":` + deep + `}`, ``},
		{`{"id":"` + strings.Repeat("x", 1100) + `"}`, ``},
		{`{"id":true}`, ``},
		{`{"id":}`, ``},
		{`{"id"}`, ``},
		{`{"id":1x}`, ``},
		{`["id",1]`, ``},
		{`{`, ``},
		{``, ``},
	}
	for _, test := range tests {
		if got := string(FrameID([]byte(test.data))); got != test.id {
			t.Errorf("%.60s: got %s, want %s", test.data, got, test.id)
		}
	}
}

// FuzzFrameID: of what is a frame it is the frame's id, and it is one that can be repeated
// whatever it comes from.
func FuzzFrameID(f *testing.F) {
	f.Add([]byte(`{"v":1,"t":"ping","id":"a","body":{"x":["\u0000"]}}`))
	f.Add([]byte(`{"id":1,"id":-2.5e3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		id := FrameID(data)
		if id != nil && !isFrameID(id) {
			t.Errorf("%q is no id", id)
		}
		if frame, err := DecodeFrame(data); err == nil && string(frame.ID) != string(id) {
			t.Errorf("got %s, want %s", id, frame.ID)
		}
	})
}
