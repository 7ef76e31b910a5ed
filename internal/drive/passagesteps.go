package drive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls/wire"
)

// probe holds a request with an answer that must not depend on the way that it takes.
type probe struct {
	method, path string
	isOurs       bool // with a session's token
	body         string
}

// probes asks for answers of many kinds: pages, JSON, refusals of both doors, and what browsers
// ask.
func probes(room string) []probe {
	room = url.QueryEscape(room)
	return []probe{
		{"GET", "/", false, ""}, {"HEAD", "/", false, ""}, {"GET", "/.well-known/did.json", false, ""},
		{"GET", "/docs/", false, ""}, {"GET", "/docs/xrpc.md", false, ""}, {"GET", "/lexicons/", false, ""}, {"GET", "/health/live", false, ""},
		{"GET", "/nowhere?a=%2F..%2F&b=+", false, ""},
		{"OPTIONS", "/v1/inbox", false, ""}, {"OPTIONS", "/xrpc/" + xrpc.SendMessage, false, ""},
		{"GET", "/v1/conversations", false, ""}, {"GET", "/v1/conversations", true, ""},
		{"GET", "/v1/rooms/members?conv_id=" + room, true, ""}, {"GET", "/v1/rooms/members?conv_id=%zz", true, ""},
		{"GET", "/v1/records?conv_id=" + room + "&seq=999999", true, ""},
		{"POST", "/v1/inbox", true, "{"}, {"POST", "/v1/inbox", true, ""}, {"POST", "/v1/inbox", false, "{}"},
		{"POST", "/v1/rooms/create", true, `{"conv_id":"` + strings.Repeat("x", 1100<<10) + `"}`},
		{"GET", "/v1/sse?conv_id=" + room, false, ""},
		{"GET", "/xrpc/com.example.none", false, ""}, {"GET", "/xrpc/" + xrpc.GetConvos, false, ""},
		{"POST", "/xrpc/" + xrpc.SendMessage, false, "{}"}, {"GET", "/xrpc/" + xrpc.SubscribeEvents + "?ticket=none", false, ""},
	}
}

// comparedHeaders are headers that clients look at.
var comparedHeaders = []string{"Content-Type", "Cache-Control", "Allow", "Retry-After", "WWW-Authenticate",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Expose-Headers", "Access-Control-Max-Age"}

// answers compares the answers to the probes with those without the front.
func (r *passage) answers(ctx context.Context, v visitor) error {
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	key, err := r.key("probes " + v.route.Name)
	if err != nil {
		return err
	}
	session, err := SignIn(ctx, r.Server.URL, r.Server.DID, key, "probes")
	if err != nil {
		return err
	}
	room := r.room + "p " + v.route.Name
	if err := session.CreateRoom(ctx, room, nil); err != nil {
		return err
	}
	direct := Route{URL: r.Server.URL}
	var errs []error
	for _, p := range probes(room) {
		want, err := p.ask(ctx, direct, session.token)
		if err != nil {
			return err
		}
		got, err := p.ask(ctx, v.route, session.token)
		if err == nil && got != want {
			err = fmt.Errorf("answered %s, and without a proxy %s", got, want)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %.60s: %w", p.method, p.path, err))
		}
		r.count(&r.report.Answers, 1)
	}
	return errors.Join(errs...)
}

// ask returns what a client sees of the answer.
func (p probe) ask(ctx context.Context, route Route, token string) (string, error) {
	transport := route.transport()
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, p.method, route.URL+p.path, strings.NewReader(p.body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Origin", "https://page.example")
	request.Header.Set("Access-Control-Request-Method", "POST")
	request.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
	if p.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if p.isOurs {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if len(answer.Trailer) > 0 {
		return "", errors.New("an answer has trailers")
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, answerMax))
	if err != nil {
		return "", err
	}
	text := answer.Status[:3]
	for _, name := range comparedHeaders {
		if values := answer.Header.Values(name); len(values) > 0 {
			text += fmt.Sprintf(" %s: %s;", name, strings.Join(values, ", "))
		}
	}
	if len(body) > 200 {
		return fmt.Sprintf("%s %d bytes with the digest %x", text, len(body), sha256.Sum256(body)), nil
	}
	return fmt.Sprintf("%s %q", text, body), nil
}

// idle opens a socket and a stream of each door, leaves them alone, and wants a message to arrive
// on each of them at once.
func (r *passage) idle(ctx context.Context, v visitor) {
	opening, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	room, err := r.room+"i "+v.route.Name, error(nil)
	if v.key, err = r.key("idle " + v.route.Name); err == nil { // what follows all of an account must not see the room
		err = r.owner.CreateRoom(opening, room, []string{v.key.DID()})
	}
	if err != nil {
		r.note(ctx, &r.report.Cut, v.route.Name, err)
		return
	}
	caller, err := v.route.signIn(opening, r.Server.DID, v.key, "idle")
	if err != nil {
		r.note(ctx, &r.report.Cut, v.route.Name, err)
		return
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	calls := v.route
	if r.Hasty != nil {
		v.route = v.route.through(r.Hasty.Address())
	}
	type outcome struct {
		kind string
		err  error // nil: the message has come
	}
	ends := make(chan outcome, 4)
	open := map[string]func() (func() error, error){
		"gateway socket": func() (func() error, error) { return v.gatewaySocket(ctx, opening, r.Server.DID, room) },
		"gateway stream": func() (func() error, error) {
			return v.eventStream(ctx, r.StreamMax, func() (string, string, error) {
				return "/v1/sse?conv_id=" + url.QueryEscape(room), caller.token, nil
			})
		},
		"subscription": func() (func() error, error) { return v.subscription(ctx, opening, calls, r.Server.DID, room) },
		"subscription stream": func() (func() error, error) {
			return v.eventStream(ctx, r.StreamMax, func() (string, string, error) {
				path, err := subscriptionPath(ctx, calls, v.key, r.Server.DID, room)
				return path, "", err
			})
		},
	}
	left := 0
	for kind, open := range open {
		await, err := open()
		for tries := 1; err != nil && tries < openTries; tries++ { // a busy machine is slower than a hasty proxy allows
			await, err = open()
		}
		r.count(&r.report.Idle, 1)
		if err != nil {
			r.note(ctx, &r.report.Cut, v.route.Name+", "+kind, err)
			continue
		}
		left++
		go func() { ends <- outcome{kind, await()} }()
	}
	timer := time.NewTimer(r.Idle)
	defer timer.Stop()
	for sent := 0; left > 0; {
		select {
		case o := <-ends:
			left--
			if sent == 0 && o.err == nil {
				o.err = errors.New("got a message that was not sent")
			}
			if o.err != nil {
				r.note(ctx, &r.report.Cut, v.route.Name+", idle "+o.kind, o.err)
			}
		case <-timer.C:
			// Again for a subscription that was just being opened again, and begins with what
			// comes after that.
			if sent++; time.Duration(sent)*resendEach > passageLateMax {
				r.note(ctx, &r.report.Cut, v.route.Name, fmt.Errorf("a message has not come to %d idle connections within %s", left, passageLateMax))
				r.count(&r.report.Cut, left-1)
				return
			}
			timer.Reset(resendEach)
			body := fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":%q,"msg_id":"m%d","env":"the message"}}`, room, sent)
			if err := r.owner.do(ctx, http.MethodPost, "/v1/inbox", []byte(body), &gateway.InboxAnswer{}); err != nil {
				r.note(ctx, &r.report.Cut, v.route.Name, err)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

const (
	openTries  = 3
	resendEach = 2 * time.Second
)

// dial opens a WebSocket.
func (r Route) dial(ctx context.Context, path string, subprotocols ...string) (*websocket.Conn, error) {
	transport := r.transport()
	transport.DisableKeepAlives = true
	ws, _, err := websocket.Dial(ctx, r.URL+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}, Subprotocols: subprotocols})
	if err == nil {
		ws.SetReadLimit(answerMax)
	}
	return ws, err
}

// session opens a WebSocket with a session of its own.
func (v visitor) session(ctx context.Context, audience, device string, features ...gateway.Feature) (*websocket.Conn, error) {
	token, err := authToken(v.key, audience)
	if err != nil {
		return nil, err
	}
	ws, err := v.route.dial(ctx, "/v1/ws")
	if err != nil {
		return nil, err
	}
	frame, err := gateway.EncodeFrame(gateway.TypeSessionStart, gateway.StringID("s"), &gateway.Start{AuthToken: token, DeviceID: device, Features: features})
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, frame)
	}
	if err == nil {
		var ready []byte
		if _, ready, err = ws.Read(ctx); err == nil && !bytes.Contains(ready, []byte("session.ready")) {
			err = fmt.Errorf("session.start is answered %.200s", ready)
		}
	}
	if err != nil {
		_ = ws.CloseNow()
	}
	return ws, err
}

// gatewaySocket follows a conversation as a client does that answers each question.
func (v visitor) gatewaySocket(ctx, opening context.Context, audience, room string) (func() error, error) {
	ws, err := v.session(opening, audience, "idle socket")
	if err != nil {
		return nil, err
	}
	say := func(frame string) error { return ws.Write(ctx, websocket.MessageText, []byte(frame)) }
	if err := say(fmt.Sprintf(`{"v":1,"t":"conv.subscribe","body":{"conv_id":%q}}`, room)); err != nil {
		return nil, err
	}
	return func() error {
		defer ws.CloseNow()
		for {
			_, frame, err := ws.Read(ctx)
			switch {
			case err != nil:
				return err
			case string(frame) == `{"v":1,"t":"ping"}`:
				if err := say(`{"v":1,"t":"pong"}`); err != nil {
					return err
				}
			case bytes.Contains(frame, []byte("the message")):
				return nil
			default:
				return fmt.Errorf("got %.200s", frame)
			}
		}
	}, nil
}

func (v visitor) subscription(ctx, opening context.Context, calls Route, audience, room string) (func() error, error) {
	path, err := subscriptionPath(opening, calls, v.key, audience, room)
	if err != nil {
		return nil, err
	}
	ws, err := v.route.dial(opening, path)
	return func() error {
		defer ws.CloseNow()
		_, _, err := ws.Read(ctx)
		return err
	}, err
}

// eventStream reads text/event-stream up to its first item. If the front may end a stream after
// some time it is opened again.
func (v visitor) eventStream(ctx context.Context, streamMax time.Duration, where func() (path, token string, err error)) (func() error, error) {
	open := func() (io.ReadCloser, error) {
		path, token, err := where()
		if err != nil {
			return nil, err
		}
		return v.route.stream(ctx, path, token, "")
	}
	began := time.Now()
	body, err := open()
	if err != nil {
		return nil, err
	}
	return func() error {
		for {
			err := firstItem(body)
			if err == nil || streamMax == 0 || time.Since(began) < streamMax*9/10 {
				return err
			}
			began = time.Now()
			if body, err = open(); err != nil {
				return err
			}
		}
	}, nil
}

// stream opens a stream of events.
func (r Route) stream(ctx context.Context, path, token, lastID string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	transport := r.transport()
	transport.DisableKeepAlives = true
	transport.ResponseHeaderTimeout = passageLateMax
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, fmt.Errorf("a stream is answered %s", answer.Status)
	}
	return answer.Body, nil
}

func firstItem(body io.ReadCloser) error {
	defer body.Close()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "data:") {
			return nil
		}
	}
	return fmt.Errorf("the stream has ended: %w", errors.Join(io.EOF, lines.Err()))
}

// frameChangeBytes is the size of a group change that fits into a frame of a client.
const frameChangeBytes = 700 << 10

// bodies sends and reads what is as long as it may be: a group change with a GroupInfo through
// the gateway's inbox and its socket, and a message through the AT Protocol's door.
func (r *passage) bodies(ctx context.Context, v visitor) error {
	r.turns <- struct{}{} // the server's work does not get faster with the times of proxies
	defer func() { <-r.turns }()
	ctx, cancel := context.WithTimeout(ctx, passageStepMax)
	defer cancel()
	var err error
	if v.key, err = r.key("bodies " + v.route.Name); err != nil {
		return err
	}
	caller, err := v.route.signIn(ctx, r.Server.DID, v.key, "bodies", passageFeatures...)
	if err != nil {
		return err
	}
	room := r.room + "b " + v.route.Name
	if err := caller.CreateRoom(ctx, room, nil); err != nil {
		return err
	}
	where := "conv_id=" + url.QueryEscape(room)

	// A group change by the inbox, and its parts again.
	change := groupChange(room, 0, r.Bytes)
	frame, err := gateway.EncodeFrame(gateway.TypeCommit, gateway.StringID("c"), change)
	if err != nil {
		return err
	}
	if err := caller.do(ctx, http.MethodPost, "/v1/inbox", frame, &gateway.InboxAnswer{}); err != nil {
		return err
	}
	var info gateway.GroupInfo
	if err := caller.do(ctx, http.MethodGet, "/v1/groupinfo?"+where, nil, &info); err != nil {
		return err
	}
	var record gateway.Event
	if err := caller.do(ctx, http.MethodGet, "/v1/records?"+where+"&seq=1", nil, &record); err != nil {
		return err
	}
	if info.GroupInfo != *change.GroupInfo || record.Env != change.Commit {
		return errors.New("a group change did not come back as it was sent")
	}
	r.count(&r.report.Bodies, 3)

	// A message by XRPC.
	message := &xrpc.SendMessageInput{ConvoID: room, MsgID: "01890a5d-ac96-774b-bcce-b302099a8057", Ciphertext: bytes.Repeat([]byte("waxwing "), r.Bytes/8),
		Epoch: 1, PaddedSize: xrpc.Natural(r.Bytes / 8 * 8)}
	if err := xrpcCall(ctx, v.route, v.key, r.Server.DID, xrpc.SendMessage, nil, message, &xrpc.SendMessageOutput{}); err != nil {
		return err
	}
	var page xrpc.GetMessagesOutput
	if err := xrpcCall(ctx, v.route, v.key, r.Server.DID, xrpc.GetMessages, url.Values{"convoId": {room}, "sinceSeq": {"1"}}, nil, &page); err != nil {
		return err
	}
	if len(page.Messages) != 1 || !bytes.Equal(page.Messages[0].Ciphertext, message.Ciphertext) {
		return errors.New("a message did not come back as it was sent")
	}
	r.count(&r.report.Bodies, 2)

	// Both as events, on a stream and on a socket, and another group change by the socket.
	want := []string{change.Commit, base64.StdEncoding.EncodeToString(message.Ciphertext)}
	body, err := v.route.stream(ctx, "/v1/sse?from_seq=1&"+where, caller.token, "")
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReader(body)
	if err := compareEvents("a stream", want, func() ([]byte, error) {
		for {
			line, err := lines.ReadBytes('\n')
			if data, has := bytes.CutPrefix(line, []byte("data: ")); has || err != nil {
				return data, err
			}
		}
	}); err != nil {
		return err
	}
	ws, err := v.session(ctx, r.Server.DID, "bodies socket", passageFeatures...)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	next := groupChange(room, 1, frameChangeBytes)
	if frame, err = gateway.EncodeFrame(gateway.TypeCommit, gateway.StringID("c2"), next); err != nil {
		return err
	}
	subscribe := fmt.Appendf(nil, `{"v":1,"t":"conv.subscribe","body":{"conv_id":%q,"from_seq":1}}`, room)
	if err := errors.Join(ws.Write(ctx, websocket.MessageText, subscribe), ws.Write(ctx, websocket.MessageText, frame)); err != nil {
		return err
	}
	err = compareEvents("a socket", append(want, next.Commit), func() ([]byte, error) {
		_, frame, err := ws.Read(ctx)
		return frame, err
	})
	r.count(&r.report.Bodies, 6)
	return err
}

// compareEvents reads frames until the events of a conversation have come, and compares their
// content.
func compareEvents(what string, want []string, next func() ([]byte, error)) error {
	for i := 0; i < len(want); {
		data, err := next()
		if err != nil {
			return fmt.Errorf("%s, event %d: %w", what, i+1, err)
		}
		frame, err := gateway.DecodeFrame(data)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if frame.Type == gateway.TypeError {
			return fmt.Errorf("%s: %s", what, frame.Body)
		}
		if frame.Type != gateway.TypeEvent {
			continue
		}
		var event gateway.Event
		if err := frame.Decode(&event); err != nil {
			return err
		}
		if event.Env != want[i] {
			return fmt.Errorf("%s: event %d has other content than was sent: %d bytes, want %d", what, event.Seq, len(event.Env), len(want[i]))
		}
		i++
	}
	return nil
}

// groupChange makes a commit with a GroupInfo, of so many bytes together, that a server takes for
// real.
func groupChange(room string, epoch uint64, size int) *gateway.Commit {
	group := []byte(room) // a group belongs to one conversation
	filled := func(n int) []byte { return bytes.Repeat([]byte("commit! "), n/8) }
	commit := wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{GroupID: group, Epoch: epoch,
		ContentType: wire.CommitContent, EncryptedSenderData: []byte("s"), Ciphertext: filled(size * 3 / 8)}})
	info := base64.StdEncoding.EncodeToString(wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &wire.GroupInfo{
		Context:    wire.GroupContext{Version: wire.MLS10, CipherSuite: 1, GroupID: group, Epoch: epoch + 1},
		Extensions: []wire.Extension{{Type: 2, Data: filled(size * 5 / 8)}}, ConfirmationTag: []byte("t"), Signature: []byte("s")}}))
	return &gateway.Commit{ConvID: room, MsgID: fmt.Sprint("change ", epoch), Commit: base64.StdEncoding.EncodeToString(commit), GroupInfo: &info}
}
