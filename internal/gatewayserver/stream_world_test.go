package gatewayserver

import (
	"bufio"
	"context"
	"crypto/elliptic"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// events is a stream as a client reads it.
type events struct {
	stop   context.CancelFunc
	header http.Header
	items  chan item // closed at the end
	pings  chan struct{}
}

type item struct{ event, data, id string }

// openEvents asks for a stream; where it is refused, answer is the refusal.
func openEvents(t testing.TB, url, session, query, lastID string) (e *events, status int, answer string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	request, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/sse"+query, nil)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+session)
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	if response.StatusCode != http.StatusOK {
		defer stop()
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		must(t, err)
		return nil, response.StatusCode, string(data)
	}
	e = &events{stop: stop, header: response.Header, items: make(chan item, 1), pings: make(chan struct{}, 1000)}
	go e.read(ctx, response.Body)
	return e, response.StatusCode, ""
}

// read reads a stream like a browser, as far as this service writes one.
func (e *events) read(ctx context.Context, body io.ReadCloser) {
	defer close(e.items)
	defer body.Close()
	lines := bufio.NewReader(body)
	var one item
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case line == "\n" && one.event != "":
			select {
			case e.items <- one:
			case <-ctx.Done():
				return
			}
			one = item{}
		case name == "":
			e.pings <- struct{}{}
		case name == "event":
			one.event = value
		case name == "data":
			one.data += value
		case name == "id":
			one.id = value
		}
	}
}

// next is the next item; ok is false at the end.
func (e *events) next(t testing.TB) (one item, ok bool) {
	t.Helper()
	select {
	case one, ok = <-e.items:
		return one, ok
	case <-time.After(10 * time.Second):
		t.Fatal("no event comes")
		return item{}, false
	}
}

// stream opens a stream for name, which replaces the one before; the answer is that of
// a refusal.
func (w *world) stream(name, query string, resume bool) (answer string) {
	w.t.Helper()
	p := w.person(name)
	if p.events != nil {
		p.events.stop()
	}
	lastID := ""
	if resume {
		lastID = p.lastID
	}
	var status int
	p.events, status, answer = openEvents(w.t, w.http.URL, p.session, query, lastID)
	if p.events == nil {
		return fmt.Sprint(status, " ", answer)
	}
	return ""
}

// item is the next item of name's stream in one line.
func (w *world) item(name string) string {
	w.t.Helper()
	p := w.person(name)
	one, ok := p.events.next(w.t)
	if !ok {
		return "ended"
	}
	if one.id != "" {
		p.lastID = one.id
	}
	return one.event + " " + one.data
}

func encodeID(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// startDevice gives name a session on another device and returns its token.
func (w *world) startDevice(name, device string) string {
	w.t.Helper()
	_, answer, _ := w.call("", "POST", "/v1/session/start", fmt.Sprintf(`{"auth_token":"%s","device_id":"%s"}`, w.token(name), device))
	m := sessionTokens.FindStringSubmatch(answer)
	if m == nil {
		w.t.Fatal(answer)
	}
	return m[1]
}

// highS gives a P-256 signature its other value of s.
func highS(signature []byte) []byte {
	s := new(big.Int).SetBytes(signature[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	return signature
}
