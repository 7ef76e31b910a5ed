package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/mls"
)

// TestXRPCLogRewound: a server that was restored from a backup gets back over XRPC what
// it has lost of the epoch that it is in.
func TestXRPCLogRewound(t *testing.T) {
	w := newXRPCWorld(t, "xara", "xeno")
	people := w.people("ann", "xara", "xeno")
	room := w.room(people...)
	say := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			people[i%3].says(room, fmt.Sprintf("%02d", i))
			for _, other := range people {
				other.reads(fmt.Sprintf("%02d", i))
			}
		}
	}
	say(0, 3)
	restore := w.backup()
	say(4, 9)
	restore()
	w.eventually("it is noticed", func() bool {
		return slices.ContainsFunc(people, func(p *person) bool { return p.Stats().Rewinds > 0 })
	})
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("%02d", i))
	}
	for _, p := range people {
		w.eventually(p.name+" has everything again", func() bool {
			got := p.transcript(room)
			slices.Sort(got)
			return slices.Equal(got, all) && !p.isRewound(room)
		})
	}
	say(10, 12)
	for _, p := range people {
		for e, err := range p.Events(w.ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Type == EventRefused || e.Type == EventUndecryptable || e.Type == EventRejoined {
				t.Errorf("%s is told %+v", p.name, e)
			}
			if string(e.Text) == "12" {
				break
			}
		}
	}
	w.agree(room, people...)
}

// TestXRPCTooLate: what was said in an epoch that is over cannot be put back, and is not
// tried for ever; a commit that has lost its race says which epoch there is.
func TestXRPCTooLate(t *testing.T) {
	w := newXRPCWorld(t)
	people := w.people("ann", "bob")
	ann := people[0]
	room := w.room(people...)
	conv, err := ann.snapshot(w.ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	message, _, err := conv.group.Seal([]byte("late"), nil, mls.SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	commit, err := conv.group.Commit(mls.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ann.Refresh(w.ctx, room); err != nil {
		t.Fatal(err)
	}
	w.eventually("the epoch ends", func() bool { return ann.must(room).Epoch > conv.epoch() })
	_, err = ann.xrpcDoor().sendNow(w.ctx, sendRequest{Conversation: room, ID: newMessageID(), Message: message})
	if r := asRefusal(err); r == nil || r.Code != codeInvalidRequest || !errors.Is(err, ErrNotOverXRPC) {
		t.Errorf("a message: %v", err)
	}
	_, err = ann.xrpcDoor().commitNow(w.ctx, commitRequest{Conversation: room, ID: newMessageID(), Commit: commit.Message()})
	if r := asRefusal(err); r == nil || r.Code != codeEpochConflict || r.CurrentEpoch != int64(conv.epoch())+1 {
		t.Errorf("a commit: %v", err)
	}
}

// TestXRPCRefusals: what the server says is told in the words by which the session and
// applications decide.
func TestXRPCRefusals(t *testing.T) {
	for _, row := range []struct {
		status      int
		name, retry string
		code        string
	}{
		{400, "InvalidRequest", "", codeInvalidRequest},
		{401, "BadJwt", "", codeUnauthorized},
		{403, "NotMember", "", codeForbidden},
		{404, "GroupInfoUnavailable", "", codeNotFound},
		{409, "EpochMismatch", "", codeEpochConflict},
		{409, "CommitConflict", "", codeEpochConflict},
		{409, "KeyPackageNotFound", "", codeInvalidRequest},
		{410, "CursorExpired", "", codePruned},
		{429, "RateLimited", "7", codeRateLimited},
		{429, "TooManyDevices", "", codeLimitExceeded},
		{500, "InternalServerError", "", codeInternal},
		{501, "MethodNotImplemented", "", codeInvalidRequest},
		{503, "ServiceUnavailable", "1", codeUnavailable},
		{502, "", "", codeUnavailable},
	} {
		answer := &http.Response{StatusCode: row.status, Status: "as it is", Header: http.Header{"Retry-After": {row.retry}}}
		body := fmt.Appendf(nil, `{"error":%q,"message":"a sentence"}`, row.name)
		if row.name == "" {
			body = []byte("<html>")
		}
		e := asRefusal(xrpcRefusal(answer, body))
		if e.Code != row.code {
			t.Errorf("%d %s is %s", row.status, row.name, e.Code)
		}
		if hasRetry := e.RetryAfter > 0; hasRetry != (row.retry != "") {
			t.Errorf("%d %s: wait %v", row.status, row.name, e.RetryAfter)
		}
	}
	w := newXRPCWorld(t)
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := ann.xrpcDoor().create(w.ctx, "a name of before", ""); asRefusal(err) == nil || !errors.Is(err, ErrNotOverXRPC) {
		t.Errorf("a conversation that XRPC cannot have: %v", err)
	}
	stranger := strings.Repeat("ab", 32)
	_, err := ann.xrpcDoor().sendNow(w.ctx, sendRequest{Conversation: stranger, ID: "x", Message: []byte{0, 0, 0}})
	if r := asRefusal(err); r == nil || r.Code != codeInvalidRequest {
		t.Errorf("what is no MLS message is sent: %v", err)
	}
}

// TestXRPCInvite: where the server asks for an invite, a client over XRPC redeems the one
// it has and stays out without one.
func TestXRPCInvite(t *testing.T) {
	w := newXRPCWorld(t)
	w.stopServer()
	w.config.Admission = "invite"
	created, err := server.Administer(w.ctx, w.config, server.AdminRequest{Operation: server.AdminInviteCreate, Uses: 1, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var invite struct{ Code string }
	if err := json.Unmarshal(created.Result, &invite); err != nil || invite.Code == "" {
		t.Fatalf("the invite is %s, %v", created.Result, err)
	}
	w.startServer()
	open := func(name, code string) *person {
		t.Helper()
		p := w.person(name)
		p.options.InviteCode = code
		p.open()
		return p
	}
	if err := open("ann", invite.Code).WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	for name, code := range map[string]string{"bob": "", "cid": invite.Code} { // used up
		p := open(name, code)
		w.eventually(name+" is told why", func() bool {
			state, _ := p.State()
			r := asRefusal(state.Err)
			return r != nil && r.Code == codeForbidden && strings.Contains(r.Message, "invite")
		})
	}
}
