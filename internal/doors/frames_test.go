package doors

import (
	"strings"
	"testing"
)

// close1 is a masked close frame with the mask 0.
func closeWith(reason string) string {
	return "\x88" + string([]byte{0x80 | byte(2+len(reason))}) + "\x00\x00\x00\x00\x03\xe8" + reason
}

func TestFrames(t *testing.T) {
	text := "\x81\x82\x01\x02\x03\x04zz"
	tests := []struct {
		name, bytes string
		good, code  int
	}{
		{"short", text + text, 16, 0},
		{"126 bytes", "\x82\xfe\x00\x7e\x00\x00\x00\x00" + strings.Repeat("x", 126) + text, 142, 0},
		{"65535 bytes", "\x82\xfe\xff\xff\x00\x00\x00\x00" + strings.Repeat("x", 65535) + text, 65551, 0},
		{"65536 bytes", "\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + strings.Repeat("x", 65536) + text, 65558, 0},
		{"125 in two bytes", text + "\x82\xfe\x00\x7d\x00\x00\x00\x00x", 8, 1002},
		{"0 in two bytes", text + "\x82\xfe\x00\x00\x00\x00\x00\x00", 8, 1002},
		{"65535 in eight bytes", text + "\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00x", 8, 1002},
		{"negative", text + "\x82\xff\xff\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00x", 8, 1002},
		{"unmasked", "\x81\x01z" + text, 11, 0},
		{"close", closeWith("bye é"), 14, 0},
		{"close without a reason", closeWith(""), 8, 0},
		{"close without anything", "\x88\x80\x00\x00\x00\x00" + text, 14, 0},
		{"close with half a code", "\x88\x81\x00\x00\x00\x00\x03", 7, 0},
		{"close, not UTF-8", text + closeWith("\xff"), 8, 1007},
		{"close, not UTF-8, masked", "\x88\x83\x01\x02\x03\x04\x02\xea\xfc", 0, 1007},
		{"close, UTF-8 once it is unmasked", "\x88\x83\xff\xff\xff\xff\xfc\x17\x9e", 9, 0},
		{"close with a surrogate", closeWith("\xed\xa0\x80"), 0, 1007},
	}
	for _, test := range tests {
		for _, piece := range []int{len(test.bytes), 1, 3, 7} {
			var f Frames
			good, code := lookIn(&f, test.bytes, piece)
			if code != test.code || code == 0 && good != test.good || piece == len(test.bytes) && good != test.good {
				t.Errorf("%s, in pieces of %d: good to %d, code %d, want %d, %d", test.name, piece, good, code, test.good, test.code)
			}
		}
	}
}

// lookIn follows text in pieces.
func lookIn(f *Frames, text string, piece int) (good, code int) {
	for at := 0; at < len(text); at += piece {
		n, code := f.Look([]byte(text[at:min(at+piece, len(text))]))
		if good += n; code != 0 {
			return good, code
		}
	}
	return good, 0
}

// FuzzLook: how the network cuts what is sent makes no difference.
func FuzzLook(f *testing.F) {
	f.Add([]byte("\x81\x82\x01\x02\x03\x04zz"+closeWith("\xff")), uint8(3))
	f.Add([]byte("\x82\xfe\x00\x7d\x00\x00\x00\x00x"), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		var whole, cut Frames
		_, want := lookIn(&whole, string(data), max(1, len(data)))
		if _, got := lookIn(&cut, string(data), max(1, int(piece))); got != want {
			t.Errorf("code %d in pieces, %d in one", got, want)
		}
	})
}

func BenchmarkLook(b *testing.B) {
	frame := []byte("\x81\xfe\x02\x00\x01\x02\x03\x04" + strings.Repeat("x", 512))
	var f Frames
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		if _, code := f.Look(frame); code != 0 {
			b.Fatal(code)
		}
	}
}
