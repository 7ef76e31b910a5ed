package gatewayserver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/testwait"
)

const sessionOver = `{"v":1,"t":"error","body":{"code":"unauthorized","message":"invalid session_token"}}`

// TestSessionsEndEverywhere ends a session with a socket and a stream on one server
// through each of the calls that do, made on that server and on another. What is heard
// later than by a poll is not heard here in time.
func TestSessionsEndEverywhere(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		here := newWorldOn(t, url, func(s *setup) { s.door.PingInterval = time.Minute })
		there := here
		if strings.HasPrefix(url, "postgres") {
			there = newWorldOn(t, url)
		}
		here.start("ann")
		here.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
		calls := map[string]string{
			"/v1/session/logout":     "",
			"/v1/session/logout_all": `{"include_self":true}`,
			"/v1/session/revoke":     `{"session_id":"$sid(ann)","include_self":true}`,
			"by device":              `{"device_id":"phone","include_self":true}`,
		}
		for path, body := range calls {
			if path == "by device" {
				path = "/v1/session/revoke"
			}
			here.join("ann")
			must(t, refusedAs(here.stream("ann", "?conv_id=c", false), ""))
			there.person("ann").session = here.person("ann").session
			if status, answer, _ := there.call("ann", "POST", path, here.fill(body)); status != 200 {
				t.Fatalf("%s: %d %s", path, status, answer)
			}
			if got := here.item("ann"); got != "ended" {
				t.Errorf("%s: %s", path, got)
			}
			if got := here.hear("ann"); got != sessionOver {
				t.Errorf("%s: %s", path, got)
			}
			if got := here.hear("ann"); got != "closed 1008" {
				t.Errorf("%s: %s", path, got)
			}
		}
	})
}

// TestNothingAfterTheEnd sends a frame behind the end of its session, before anybody
// else has noticed it: it is not done.
func TestNothingAfterTheEnd(t *testing.T) {
	w := newWorld(t)
	p := w.join("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	network := &recorder{}
	c := newSocket(w.server, network, "", "")
	c.receive(true, []byte(`{"v":1,"t":"session.resume","body":{"resume_token":"`+p.resume+`"}}`))
	session, err := w.server.identity.Session(context.Background(), p.session)
	must(t, err)
	must(t, w.server.identity.Logout(context.Background(), session))
	bye := c.receive(true, []byte(`{"v":1,"t":"conv.send","id":"1","body":{"conv_id":"c","msg_id":"m","env":"late"}}`))
	if bye.code != doors.ClosePolicy || len(network.written) != 2 || string(network.written[1]) != sessionOver {
		t.Errorf("%+v %s", bye, network.written)
	}
	c.cancel()
	c.follower.Close()
	c.detach()
	w.start("ann")
	if _, answer, _ := w.call("ann", "GET", "/v1/conversations", ""); !strings.Contains(answer, `"latest_seq":null`) {
		t.Error(answer)
	}
}

// TestAttachedDoesNotExpire: a session lives while a socket or a stream holds it, and
// for an hour after.
func TestAttachedDoesNotExpire(t *testing.T) {
	w := newWorld(t)
	w.start("ann")
	w.call2(t, "ann", "/v1/rooms/create", `{"conv_id":"c"}`)
	must(t, refusedAs(w.stream("ann", "?conv_id=c", false), ""))
	w.later.Store((3 * time.Hour).Milliseconds())
	if status, answer, _ := w.call("ann", "GET", "/v1/conversations", ""); status != 200 {
		t.Fatal(status, answer)
	}
	w.person("ann").events.stop()
	testwait.Until(t, "the stream is closed", func() bool { return len(w.server.openStreams()) == 0 })
	w.later.Add((5 * time.Hour).Milliseconds())
	if status, answer, _ := w.call("ann", "GET", "/v1/conversations", ""); status != 401 {
		t.Error(status, answer)
	}
	if answer := w.stream("ann", "?conv_id=c", false); !strings.HasPrefix(answer, "401 ") {
		t.Error(answer)
	}
}

func (s *Server) openStreams() []*stream {
	var list []*stream
	s.connections.Each(func(open connection) {
		if c, ok := open.(*stream); ok {
			list = append(list, c)
		}
	})
	return list
}

// TestLostDeviceCannotStay: a device that has used up its calls about key packages is
// logged out nevertheless, and what it has published goes when the limit lets that pass.
func TestLostDeviceCannotStay(t *testing.T) {
	w := newWorld(t, limited(t, limits.KeyPackagePublish+"=1/m"))
	w.start("ann")
	lost := w.person("ann").session
	w.call2(t, "ann", "/v1/keypackages", `{"device_id":"phone","keypackages":["x"]}`)
	_, answer, _ := w.call("", "POST", "/v1/session/start", fmt.Sprintf(`{"auth_token":%q,"device_id":"tablet"}`, w.token("ann")))
	w.remember("ann", answer)
	const end = `{"device_id":"phone","key_packages":true}`
	if status, answer, _ := w.call("ann", "POST", "/v1/session/revoke", end); status != 429 {
		t.Errorf("%d %s", status, answer)
	}
	if _, err := w.server.identity.Session(context.Background(), lost); ds.CodeOf(err) != ds.Unauthorized {
		t.Errorf("the lost device stays: %v", err)
	}
	w.later.Store(time.Minute.Milliseconds() + 1)
	w.call2(t, "ann", "/v1/session/revoke", end)
	w.start("bob")
	if _, answer, _ := w.call("bob", "POST", "/v1/keypackages/fetch", w.fill(`{"user_id":"$ann","count":1}`)); !strings.Contains(answer, `"keypackages":[]`) {
		t.Error(answer)
	}
}

// TestManyFramesStay is a guard against slowing down who sends as a client does.
func TestManyFramesStay(t *testing.T) {
	w := newWorld(t)
	p := w.join("ann")
	for range 2000 {
		must(t, p.ws.Write(context.Background(), websocket.MessageText, []byte(`{"v":1,"t":"pong"}`)))
	}
	w.say("ann", `{"v":1,"t":"ping"}`)
	if got := w.hear("ann"); got != `{"v":1,"t":"pong"}` {
		t.Error(got)
	}
}
