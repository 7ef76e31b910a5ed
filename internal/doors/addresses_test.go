package doors

import (
	"errors"
	"fmt"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

// TestAddresses: an address has a bounded number of sockets, few of them without an account, and
// takes nothing from another one; all handshakes together are bounded too.
func TestAddresses(t *testing.T) {
	a := NewAddresses()
	begin := func(address string, n int) (list []*Arrival) {
		t.Helper()
		for range n {
			v, err := a.Begin(address)
			if err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			list = append(list, v)
		}
		return list
	}
	refused := func(address string, want ds.Code) {
		t.Helper()
		if _, err := a.Begin(address); ds.CodeOf(err) != want || want == "" && !ds.IsUnavailable(err) {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
	crowd := begin("eve", addressHandshakesMax)
	refused("eve", ds.RateLimited)
	begin("ann", 1)[0].Leave()
	crowd[0].Known()
	begin("eve", 1)[0].Leave()
	for _, v := range crowd[1:] {
		v.Known()
	}
	for len(crowd) < addressSocketsMax {
		v := begin("eve", 1)[0]
		v.Known()
		crowd = append(crowd, v)
	}
	refused("eve", ds.LimitExceeded)
	for _, v := range crowd {
		v.Leave()
	}
	if len(a.sockets)+len(a.handshakes)+a.underWay != 0 {
		t.Errorf("%d sockets, %d handshakes, %d under way: want none", len(a.sockets), len(a.handshakes), a.underWay)
	}
	all := begin("", addressHandshakesMax+1) // those of this machine are bounded together only
	for i := 0; len(all) < handshakesMax; i++ {
		all = append(all, begin(fmt.Sprint("address ", i/addressHandshakesMax), 1)...)
	}
	refused("ann", "")
	refused("", "")
	all[0].Known()
	begin("ann", 1)
	if _, err := a.Begin("ben"); !errors.Is(err, errHandshakes) {
		t.Error(err)
	}
}
