package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testvectors"
)

// outcome is what became of a text at a door.
type outcome int

const (
	accepted outcome = iota
	refused          // for its content or its shape
	unread           // for a bound or a character, before it was decoded
	notJSON
	notFrame // the connection was closed, by a code for that
	faulty
)

// refusedFor returns the outcome that a refusal with this message is.
func refusedFor(message string) outcome {
	for words, is := range map[string]outcome{"malformed json": notJSON, "not UTF-8": notJSON, "too deep": unread, "too many values": unread,
		"too long": unread, "NUL": unread, "surrogate": unread, "is there twice": unread} {
		if strings.Contains(message, words) {
			return is
		}
	}
	return refused
}

// jsonReply sends a text and returns what came of it, and the answer.
type jsonReply func(text []byte) (outcome, string)

// jsonDoor is a place that JSON comes in by. A text is sent as it is, and within a field that the
// door does not know, where %s is. open returns the way in of one worker.
type jsonDoor struct {
	within string
	open   func(worker string) jsonReply
	// isForObjects leaves out the texts that are refused by their first character, where that
	// costs a connection.
	isForObjects bool
}

// try sends the files, several at a time, because an answer may wait for the disk.
func (d jsonDoor) try(t *testing.T, files []string) {
	const workers = 8
	var running sync.WaitGroup
	for worker := range workers {
		running.Go(func() {
			reply := d.open(fmt.Sprint("worker ", worker))
			for i := worker; i < len(files); i += workers {
				d.check(t, reply, files[i], testvectors.Read(t, "json/"+files[i]))
			}
		})
	}
	running.Wait()
}

func (d jsonDoor) check(t *testing.T, reply jsonReply, file string, text []byte) {
	for _, isWithin := range []bool{false, true} {
		if !isWithin && d.isForObjects && !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			continue
		}
		sent := text
		if isWithin {
			sent = fmt.Appendf(nil, d.within, text)
		}
		result, answer := reply(sent)
		isRight := result != faulty
		switch {
		case file[0] == 'y': // what is no object is no frame
			isRight = isRight && result != notJSON && (result != notFrame || !isWithin && text[0] != '{')
		case file[0] == 'n' && isWithin:
			isRight = isRight && result != accepted && result != refused
		case file[0] == 'n':
			isRight = isRight && result != accepted
		}
		if !isRight {
			t.Errorf("%s: %.80q: %.200s", file, sent, answer)
		}
	}
}

// TestJSONTestSuite sends each file of JSONTestSuite to both doors of a running server, as
// bodies and as frames. What is no JSON is refused as the caller's fault, what is JSON is never
// refused for not being it, and the server has no fault. A refusal for another reason is right:
// few of the files have the shape of a request.
func TestJSONTestSuite(t *testing.T) {
	files := testvectors.Names(t, "json")
	c := server.DefaultConfig(t.TempDir())
	c.Limit = []string{"all=off"}
	log := keepsJournal(&c)
	h := withSecret(t, c)
	ann, err := dial(h.service, h.jsonKey(), "phone")
	if err != nil {
		t.Fatal(err)
	}
	defer ann.ws.CloseNow()
	inbox := h.jsonBody("/v1/inbox", ann.token)
	doors := map[string]jsonDoor{
		"body of sendMessage":   {`{"x":%s}`, h.jsonBody("/xrpc/"+chat+"sendMessage", ""), false},
		"frame of a subscriber": {`{"$type":"#later","x":%s}`, h.jsonToSubscription, true},
		"body of inbox":         {`{"v":1,"t":"conv.ack","body":{"conv_id":"c","seq":1},"x":%s}`, inbox, false},
		"content of inbox":      {`{"v":1,"t":"conv.ack","body":{"conv_id":"c","seq":1,"x":%s}}`, inbox, false},
		"body of rooms":         {`{"conv_id":"c","title":"t","x":%s}`, h.jsonBody("/v1/rooms/create", ann.token), false},
		"body of a session":     {`{"auth_token":"none","device_id":"d","x":%s}`, h.jsonBody("/v1/session/start", "none"), false},
		"frame of a socket":     {`{"v":1,"t":"pong","id":"7","body":{"x":%s}}`, h.jsonToSocket, false},
		"first frame":           {`{"v":1,"t":"session.start","body":{"auth_token":"none","device_id":"d","x":%s}}`, h.jsonToNewSocket, false},
	}
	t.Run("doors", func(t *testing.T) {
		for name, door := range doors {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				door.try(t, files)
			})
		}
	})
	testvectors.Published(t, "json", len(files), 0)
	for _, word := range []string{"level=ERROR", "panic"} {
		if i := strings.Index(log.String(), word); i >= 0 {
			t.Errorf("the server logged %.500s", log.String()[i:])
		}
	}
}

// jsonBody posts texts with the token of a session, or with a service token for each if session
// is "".
func (h *harness) jsonBody(path, session string) func(string) jsonReply {
	reply := func(text []byte) (outcome, string) {
		r, err := http.NewRequest("POST", h.service.URL()+path, bytes.NewReader(text))
		if err != nil {
			return faulty, err.Error()
		}
		if r.Header.Set("Authorization", "Bearer "+session); session == "" {
			h.sign(r, "ben", strings.TrimPrefix(path, "/xrpc/"))
		}
		answer, err := testClient.Do(r)
		if err != nil {
			return faulty, err.Error()
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		said := fmt.Sprintf("%d %s %v", answer.StatusCode, body, err)
		var e struct{ Message string }
		switch {
		case err == nil && answer.StatusCode < 300:
			return accepted, said
		case err != nil || answer.StatusCode >= 500 || json.Unmarshal(body, &e) != nil || e.Message == "":
			return faulty, said
		}
		return refusedFor(e.Message), said
	}
	return func(string) jsonReply { return reply }
}

// jsonToSubscription sends texts over a subscription, and another when it was refused one. The
// answer to the ping after a text says that the text was not refused; a socket has ten of them at once.
func (h *harness) jsonToSubscription(worker string) jsonReply {
	var ctx context.Context
	var ws *websocket.Conn
	opened, pings := 0, 0
	open := func() (err error) {
		if ws != nil && pings < 10 {
			return nil
		}
		if ws != nil {
			ws.CloseNow()
		}
		opened++ // an account has few subscriptions at a time, and they end a little later
		_, body, err := h.try(fmt.Sprint(worker, opened%20), xrpc.GetSubscriptionTicket, object{"convoIds": []string{}})
		var ticket xrpc.GetSubscriptionTicketOutput
		if err := errors.Join(err, json.Unmarshal(body, &ticket)); err != nil {
			return err
		}
		pings = 0
		ctx, ws, err = h.jsonSocket("/xrpc/" + xrpc.SubscribeEvents + "?ticket=" + url.QueryEscape(ticket.Ticket))
		return err
	}
	return func(text []byte) (result outcome, said string) {
		if err := open(); err != nil {
			return faulty, err.Error()
		}
		pings++
		_ = ws.Write(ctx, websocket.MessageText, text) // an error shows at the next read
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"$type":"#ping"}`))
		for {
			_, data, err := ws.Read(ctx)
			if err != nil {
				ws = nil
				return closedWith(err)
			}
			event, _, err := xrpc.DecodeFrame(data)
			if refusal, is := errors.AsType[*xrpc.StreamError](err); is && refusal.Name == xrpc.ErrorInvalidRequest {
				ws.CloseNow()
				ws = nil
				return refusedFor(refusal.Message), refusal.Message
			}
			if info, is := event.(*xrpc.InfoEvent); is && info.InfoType == "heartbeat" {
				return accepted, info.Info
			}
		}
	}
}

// jsonToSocket sends texts over one socket with a session, and another when it was closed. The
// answer to the ping after each ends its own answers.
func (h *harness) jsonToSocket(worker string) jsonReply {
	var open *benchSocket
	return func(text []byte) (outcome, string) {
		if open == nil {
			var err error
			if open, err = dial(h.service, h.jsonKey(), worker); err != nil {
				return faulty, err.Error()
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), testClient.Timeout)
		defer cancel()
		_ = open.ws.Write(ctx, websocket.MessageText, text) // an error shows at the next read
		_ = open.ws.Write(ctx, websocket.MessageText, []byte(`{"v":1,"t":"ping","id":"last"}`))
		result, said := accepted, ""
		for {
			frame, err := readGateway(ctx, open.ws)
			switch {
			case err != nil:
				open.ws.CloseNow()
				open = nil
				return closedWith(err)
			case frame.Type == gateway.TypePong:
				return result, said
			case frame.Type == gateway.TypeError:
				result, said = refusalIn(frame)
			}
		}
	}
}

// jsonToNewSocket sends each text as the first frame of a socket.
func (h *harness) jsonToNewSocket(string) jsonReply {
	return func(text []byte) (outcome, string) {
		ctx, ws, err := h.jsonSocket("/v1/ws")
		if err != nil {
			return faulty, err.Error()
		}
		defer ws.CloseNow()
		_ = ws.Write(ctx, websocket.MessageText, text) // an error shows at the next read
		frame, err := readGateway(ctx, ws)
		if err != nil {
			return closedWith(err)
		}
		return refusalIn(frame)
	}
}

// jsonKey is the key of the account that has sessions.
func (h *harness) jsonKey() *identity.AccountKey {
	key, err := identity.DeriveAccountKey([]byte("json"), "ann", identity.EdDSA)
	if err != nil {
		panic(err) // a constant name and algorithm
	}
	return key
}

func (h *harness) jsonSocket(path string) (context.Context, *websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), testClient.Timeout)
	h.t.Cleanup(cancel)
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(h.service.URL(), "http")+path, nil)
	return ctx, ws, err
}

func readGateway(ctx context.Context, ws *websocket.Conn) (gateway.Frame, error) {
	_, data, err := ws.Read(ctx)
	if err != nil {
		return gateway.Frame{}, err
	}
	return gateway.DecodeFrame(data)
}

// refusalIn returns what an error frame says.
func refusalIn(frame gateway.Frame) (outcome, string) {
	var e gateway.Error
	said := fmt.Sprintf("%s %s", frame.Type, frame.Body)
	if frame.Type != gateway.TypeError || frame.Decode(&e) != nil || e.Code != gateway.CodeInvalidRequest && e.Code != gateway.CodeUnauthorized {
		return faulty, said
	}
	return refusedFor(e.Message), said
}

// closedWith returns what the end of a connection says.
func closedWith(err error) (outcome, string) {
	switch websocket.CloseStatus(err) {
	case websocket.StatusProtocolError, websocket.StatusInvalidFramePayloadData, websocket.StatusPolicyViolation, websocket.StatusMessageTooBig:
		return notFrame, err.Error()
	}
	return faulty, err.Error()
}
