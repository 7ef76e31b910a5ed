package doors

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestPace: a sender of a kibibyte a second is never cut, whatever the pieces; a slower one is
// cut when the patience ends. Only the time of waiting counts.
func TestPace(t *testing.T) {
	in := NewIntake()
	for _, test := range []struct {
		bytes, perS int // of a piece, and how many bytes come in a second
		isCut       bool
	}{
		{1, 1100, false}, {1000, 1100, false}, {9000, 1100, false}, {64 << 10, 7000, false},
		{1, 900, true}, {1000, 900, true}, {5000, 300, true},
	} {
		var p Pace
		isCut := false
		for range 120 * test.perS / test.bytes {
			waited := time.Duration(test.bytes) * time.Second / time.Duration(test.perS)
			if in.Left(&p) < waited {
				isCut = true
				break
			}
			in.Took(&p, test.bytes, waited)
		}
		if isCut != test.isCut {
			t.Errorf("%+v: cut is %t", test, isCut)
		}
	}
}

// TestReserve: strangers, addresses and accounts take their shares and no more, what is
// small counts for nothing, and everything is given back.
func TestReserve(t *testing.T) {
	in := NewIntake()
	const piece = 1 << 20
	var messages []*Message
	fill := func(o Owner, most int64) (held int64, err error) {
		for ; held <= most && err == nil; held += piece {
			m := in.Begin(o)
			if err = m.Arrived(FreeBytes + piece); err != nil {
				break
			}
			messages = append(messages, &m)
		}
		return held, err
	}
	check := func(name string, o Owner, most int64, want error) {
		t.Helper()
		if held, err := fill(o, most); held != most || !errors.Is(err, want) {
			t.Errorf("%s: %d bytes of %d, %v", name, held, most, err)
		}
	}
	check("strangers of an address", Owner{Address: "a"}, AddressStrangerBodyBytesMax, refuseAddressAll)
	check("members of that address", Owner{"a", "did:ex:0"}, AddressBodyBytesMax-AddressStrangerBodyBytesMax, refuseAddressAll)
	check("strangers", Owner{}, StrangerBodyBytesMax-AddressStrangerBodyBytesMax, ErrFull)
	check("an account", Owner{Account: "did:ex:1"}, AccountBodyBytesMax, refuseAccountAll)
	check("another", Owner{Account: "did:ex:2"}, AccountBodyBytesMax, refuseAccountAll)
	left := TotalBodyBytesMax - AddressBodyBytesMax - (StrangerBodyBytesMax - AddressStrangerBodyBytesMax) - 2*AccountBodyBytesMax
	check("all", Owner{Account: "did:ex:3"}, int64(left), ErrFull)
	small := in.Begin(Owner{Address: "a"})
	if err := small.Arrived(FreeBytes); err != nil {
		t.Errorf("what is small: %v", err)
	}
	for _, m := range messages {
		m.Release()
		m.Release()
	}
	if fmt.Sprint(in.total, in.strangers, len(in.addresses), len(in.accounts)) != "0 0 0 0" {
		t.Errorf("left: %+v", in)
	}
}
