package gatewayserver

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/testwait"
)

// TestUnfinishedBodies is 262 strangers that send all of a body but its end, half of them as
// frames. Meanwhile members are served whatever they send, and others begin sessions.
func TestUnfinishedBodies(t *testing.T) {
	in := doors.NewIntake()
	in.Patience = 10 * time.Minute // TestSilentSenders is about that
	w := newWorld(t, func(s *setup) { s.door.Intake = in })
	w.join("ann")
	const count, size = 262, 1<<20 - 1 // of the MiB that is announced
	var bodies []net.Conn
	address := strings.TrimPrefix(w.http.URL, "http://")
	head := fmt.Sprintf("POST /v1/session/start HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size+1)
	frame := "\x81\xFF\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00"
	for i := range count {
		network, err := net.Dial("tcp", address)
		must(t, err)
		defer network.Close()
		begin := head
		if i%2 == 1 {
			ws, network2, err := w.dial(nil)
			must(t, err)
			defer ws.CloseNow()
			network.Close()
			network, begin = network2, frame
		}
		_, _ = io.WriteString(network, begin+strings.Repeat(" ", size)) // ends early when it is refused
		bodies = append(bodies, network)
	}
	testwait.Until(t, "the strangers hold their room", func() bool {
		_, total := in.Held("")
		return total > doors.StrangerBodyBytesMax-(1<<20)
	})
	large := `{"conv_id":"c","x":"` + strings.Repeat("x", 900_000) + `"}`
	w.call2(t, "ann", "/v1/rooms/create", large)
	w.say("ann", `{"v":1,"t":"ping","x":"`+strings.Repeat("x", 900_000)+`"}`)
	if got := w.hear("ann"); got != pong {
		t.Errorf("a member hears %s", got)
	}
	w.start("bob")
	for _, network := range bodies {
		network.Close()
	}
	w.holds("", 0)
}

// TestSilentSenders: a body and a frame of which no more comes are cut, and told why.
func TestSilentSenders(t *testing.T) {
	in := doors.NewIntake()
	in.Patience = 100 * time.Millisecond
	w := newWorld(t, func(s *setup) { s.door.Intake = in })
	w.join("ann")
	begun := strings.Repeat(" ", 20<<10) // of 100 KiB
	network, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	must(t, err)
	defer network.Close()
	_, err = fmt.Fprintf(network, "POST /v1/inbox HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 102400\r\n\r\n%s", w.person("ann").session, begun)
	must(t, err)
	must(t, network.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := io.ReadAll(network) // to the end: the connection is closed
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "the request arrives too slowly") {
		t.Errorf("body: %q, %v", answer, err)
	}
	_, err = io.WriteString(w.person("ann").network, "\x81\xFF\x00\x00\x00\x00\x00\x01\x90\x00\x00\x00\x00\x00"+begun)
	must(t, err)
	if got := w.hear("ann"); got != "closed 1008" {
		t.Errorf("frame: %s", got)
	}
	w.holds("", 0)
}
