package xrpcserver

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/doors"
)

// TestUnfinishedBodies: what strangers hold leaves room for calls with a token, large ones
// too; a body of which no more comes is cut.
func TestUnfinishedBodies(t *testing.T) {
	in := doors.NewIntake()
	w := newWorld(t, func(s *setup) { s.door.Intake = in })
	id := w.phone("ann").start().id
	strangers := doors.Owner{}
	must(t, in.Take(strangers, doors.StrangerBodyBytesMax))
	w.call("ann", xrpc.SendMessage, message(id, uuid(1), 0, 512)).fields()
	w.call("ann", xrpc.SendMessage, message(id, uuid(2), 0, 128<<10)).fields()
	in.Release(strangers, doors.StrangerBodyBytesMax)

	in = doors.NewIntake()
	in.Patience = 100 * time.Millisecond
	w = newWorld(t, func(s *setup) { s.door.Intake = in })
	network, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	must(t, err)
	defer network.Close()
	_, err = fmt.Fprintf(network, "POST /xrpc/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 102400\r\n\r\n%s",
		xrpc.SendMessage, w.token("ann", xrpc.SendMessage), strings.Repeat(" ", 20<<10))
	must(t, err)
	must(t, network.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := io.ReadAll(network) // to the end: the connection is closed
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "the request arrives too slowly") {
		t.Errorf("got %q, %v", answer, err)
	}
	if _, total := in.Held(""); total != 0 {
		t.Errorf("%d bytes are held", total)
	}
}
