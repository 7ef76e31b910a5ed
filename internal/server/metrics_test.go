package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/internal/testwait"
)

// scrape reads /metrics as a map from a sample to its value.
func scrape(t *testing.T, s *server.Server) map[string]float64 {
	t.Helper()
	_, text := get(t, s.OpsURL()+"/metrics")
	samples := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ')
		if n, err := strconv.ParseFloat(line[end+1:], 64); end > 0 && err == nil {
			samples[line[:end]] = n
		}
	}
	return samples
}

// TestMetricsMove: what an operator is promised to see is there from the start, or from
// the first time that it happens, and moves by what was done.
func TestMetricsMove(t *testing.T) {
	c := server.DefaultConfig(t.TempDir())
	c.Listen, c.OpsListen, c.LogTo = "127.0.0.1:0", "127.0.0.1:0", io.Discard
	c.Limit = []string{"client_reports=1/1h"}
	s, err := server.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	key, err := identity.DeriveAccountKey([]byte("metrics"), "ann", identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	post := func(path, session, body string) (int, []byte) {
		t.Helper()
		request, err := http.NewRequest("POST", s.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+session)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		answer, _ := io.ReadAll(response.Body)
		return response.StatusCode, answer
	}
	before := scrape(t, s)

	token, err := identity.SignToken(key, identity.Claims{Issuer: key.DID(), Audience: s.DID(), Method: gateway.AuthMethod, IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	_, answer := post("/v1/session/start", "", fmt.Sprintf(`{"auth_token":%q,"device_id":"phone","features":["report"]}`, token))
	var ready gateway.Ready
	if err := json.Unmarshal(answer, &ready); err != nil || ready.SessionToken == "" {
		t.Fatalf("start: %s", answer)
	}
	post("/v1/rooms/create", ready.SessionToken, `{"conv_id":"c"}`)
	send := func(id string) {
		post("/v1/inbox", ready.SessionToken, fmt.Sprintf(`{"v":1,"t":"conv.send","body":{"conv_id":"c","msg_id":%q,"env":"e"}}`, id))
	}
	send("m1")
	send("m2")
	send("m2")
	post("/v1/inbox", ready.SessionToken, `{"v":1,"t":"conv.send","body":{"conv_id":"elsewhere","msg_id":"m","env":"e"}}`)
	post("/v1/inbox", ready.SessionToken, `{"v":1,"t":"client.report","body":{"kind":"gap"}}`)
	post("/v1/inbox", ready.SessionToken, `{"v":1,"t":"client.report","body":{"kind":"gap"}}`) // beyond the limit
	post("/v1/session/resume", "", fmt.Sprintf(`{"resume_token":%q}`, ready.ResumeToken))
	post("/v1/session/resume", "", `{"resume_token":"rt_AAAAAAAAAAAAAAAAAAAAAA"}`)

	post("/v1/session/start", "", fmt.Sprintf(`{"auth_token":%q,"device_id":"phone"}`, token)) // a replay
	silent, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	again, err := http.NewRequest("GET", s.URL()+"/v1/sse?conv_id=elsewhere", nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Header.Set("Authorization", "Bearer "+ready.SessionToken)
	again.Header.Set("Last-Event-ID", "1")
	refused, err := http.DefaultClient.Do(again)
	if err != nil {
		t.Fatal(err)
	}
	refused.Body.Close()

	// A stream that replays the two messages of the room.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", s.URL()+"/v1/sse?conv_id=c&from_seq=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+ready.SessionToken)
	stream, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	var read []byte
	for piece := make([]byte, 4096); bytes.Count(read, []byte("event: conv.event")) < 2; {
		n, err := stream.Body.Read(piece)
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, piece[:n]...)
	}
	socket, err := dial(s, key, "tablet")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.ws.CloseNow()
	send("m3") // live, for the stream
	if n, err := stream.Body.Read(make([]byte, 4096)); n == 0 || err != nil {
		t.Fatal(err)
	}

	after := scrape(t, s)
	want := map[string]float64{
		`waxwing_requests_total{operation="POST /v1/inbox",result="ok"}`:        5,
		`waxwing_requests_total{operation="POST /v1/inbox",result="forbidden"}`: 1,
		`waxwing_requests_total{operation="GET /v1/sse",result="ok"}`:           1,
		`waxwing_requests_total{operation="session.start",result="ok"}`:         1,
		`waxwing_rate_limited_total{policy="client_reports"}`:                   1,
		`waxwing_rate_limited_total{policy="sends"}`:                            0,
		`waxwing_request_seconds_count{route="POST /v1/inbox"}`:                 7,
		`waxwing_request_seconds_count{route="POST /v1/rooms/create"}`:          1,
		`waxwing_store_outage_seconds_total`:                                    0,
		`waxwing_gateway_sockets`:                                               1,
		`waxwing_gateway_streams`:                                               1,
		`waxwing_gateway_resumes_total{result="ok",transport="http"}`:           1,
		`waxwing_gateway_resumes_total{result="refused",transport="http"}`:      1,
		`waxwing_gateway_resumes_total{result="ok",transport="ws"}`:             0,
		`waxwing_gateway_resumes_total{result="ok",transport="sse"}`:            0,
		`waxwing_gateway_resumes_total{result="refused",transport="sse"}`:       1,
		`waxwing_gateway_reconnects_total`:                                      1,
		`waxwing_connections{state="new"}`:                                      1,
		`waxwing_auth_replays_total`:                                            1,
		`waxwing_log_gap_detected_total`:                                        0,
		`waxwing_commits_total{result="ok"}`:                                    0,
		`waxwing_slow_readers_total{door="gateway"}`:                            0,
		`waxwing_slow_readers_total{door="xrpc"}`:                               0,
		`waxwing_records_replayed_total`:                                        2,
		`waxwing_records_read_total`:                                            3,
		`waxwing_append_duplicates_total`:                                       1,
		`waxwing_append_batch_requests_sum`:                                     6,
		`waxwing_append_seconds_count`:                                          6,
		`waxwing_client_gap_reports_total`:                                      1,
		`waxwing_store_errors_total`:                                            0,
	}
	for name, n := range want {
		value, exists := after[name]
		if !exists || value-before[name] != n {
			t.Errorf("%s moved by %g (there: %t), want %g", name, value-before[name], exists, n)
		}
	}
	if n := after[`waxwing_connections{state="active"}`]; n < 1 {
		t.Errorf("%g connections are active, and one is the stream's", n)
	}
	cancel()
	socket.ws.CloseNow()
	testwait.Until(t, "connections that ended are counted", func() bool {
		after := scrape(t, s)
		return after[`waxwing_transport_closes_total{cause="peer",transport="sse"}`] == 1 &&
			after[`waxwing_transport_closes_total{cause="peer",transport="ws"}`] == 1 && after["waxwing_gateway_sockets"]+after["waxwing_gateway_streams"]+after[`waxwing_connections{state="active"}`] == 0 && after[`waxwing_connections{state="idle"}`] > 0
	})
}
