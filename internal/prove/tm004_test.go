package prove

import (
	"fmt"
	"net"
	"testing"
)

// TestOutsidePortIsTaken: another process at the port of a host of the inner network costs TM-004
// another try, not the row.
func TestOutsidePortIsTaken(t *testing.T) {
	for i := range 400 { // of the ten thousand that drive.FreePort takes
		taken, err := net.Listen("tcp", fmt.Sprint("127.0.0.3:", 18000+25*i))
		if err != nil {
			continue
		}
		t.Cleanup(func() { taken.Close() })
	}
	for range 60 { // one in twenty-five meets one
		o := &outside{}
		listener, inside, err := o.listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		for _, l := range inside {
			if _, port, _ := net.SplitHostPort(l.Addr().String()); port != o.port {
				t.Errorf("%s is not at port %s", l.Addr(), o.port)
			}
			t.Cleanup(func() { l.Close() })
		}
		if len(inside) < len(insideListeners)-1 {
			t.Errorf("%d listeners in the inner network", len(inside))
		}
	}
}
