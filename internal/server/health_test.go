package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testwait"
)

// TestHealth: the pages that the AT Protocol's operators know say what is so, without and
// with a database, and say so in time.
func TestHealth(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	c.Version = "v1.2.3"
	s := start(t, c)
	if status, body := get(t, s.URL()+"/health/live"); status != 200 || body != "OK" {
		t.Errorf("live: %d %s", status, body)
	}
	if status, body := get(t, s.URL()+"/health/ready"); status != 200 || body != `{"ready":true,"checks":{"actors":true,"database":true}}` {
		t.Errorf("ready: %d %s", status, body)
	}
	status, body := get(t, s.URL()+"/health")
	for _, want := range []string{`"status":"healthy"`, `"timestamp":`, `"version":"v1.2.3"`, `"database":"healthy"`, `"memory":"healthy"`,
		`"actors":{"active_actors":0,"status":"healthy","healthy":true}`} {
		if status != 200 || !strings.Contains(body, want) {
			t.Errorf("health: %d %s", status, body)
		}
	}
}

// TestHealthWithoutDatabase: a database that is away shows within seconds, and so does
// its return.
func TestHealthWithoutDatabase(t *testing.T) {
	db := pgtest.Start(t, pgtest.Options{})
	c := server.DefaultConfig(t.TempDir())
	c.Database = db.Database(t)
	s := start(t, c)
	wants := func(want int) {
		t.Helper()
		testwait.Until(t, fmt.Sprintf("ready and health are %d", want), func() bool {
			ready, _ := get(t, s.URL()+"/health/ready")
			health, _ := get(t, s.URL()+"/health")
			return ready == want && health == want
		})
	}
	wants(200)
	db.Kill()
	wants(503)
	if status, _ := get(t, s.URL()+"/health/live"); status != 200 {
		t.Errorf("live: %d", status)
	}
	if err := db.Restart(); err != nil {
		t.Fatal(err)
	}
	wants(200)
}

// TestRedeemInvite: where an invite is asked for, an account behind a PDS is told so by
// every method, and is admitted by redeeming one, once.
func TestRedeemInvite(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	c.Admission = "invite"
	h := onNetwork(t, c)
	create, err := json.Marshal(server.AdminRequest{Operation: server.AdminInviteCreate, Uses: 1, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var invite identity.Invite
	if err := json.Unmarshal(ask(t, c, string(create)).Result, &invite); err != nil || invite.Code == "" {
		t.Fatalf("made %+v, %v", invite, err)
	}
	const redeem = "im.waxwing.invite.redeem"
	for _, step := range []struct {
		name, method string
		in           any
		status       int
		want         string
	}{
		{"ann", chat + "getConvos", "", http.StatusForbidden, "InviteRequired"},
		{"ann", redeem, object{"code": ""}, http.StatusBadRequest, "InvalidRequest"},
		{"ann", redeem, object{"code": strings.Repeat("x", 65)}, http.StatusBadRequest, "InvalidRequest"},
		{"ann", redeem, object{"code": "wxi_nothing"}, http.StatusForbidden, "InvalidInvite"},
		{"ann", redeem, object{"code": invite.Code}, http.StatusOK, `{"admitted":true}`},
		{"ann", redeem, object{"code": invite.Code}, http.StatusOK, `{"admitted":true}`},
		{"ann", chat + "getConvos", "", http.StatusOK, "conversations"},
		{"bob", redeem, object{"code": invite.Code}, http.StatusForbidden, "InvalidInvite"},
		{"bob", chat + "createConvo", object{"groupId": groupID("bob"), "cipherSuite": suiteName}, http.StatusForbidden, "InviteRequired"},
	} {
		status, body := h.call(step.name, step.method, step.in)
		if status != step.status || !strings.Contains(string(body), step.want) {
			t.Errorf("%s: %s: %d %s, want %d %s", step.name, step.method, status, body, step.status, step.want)
		}
	}
}
