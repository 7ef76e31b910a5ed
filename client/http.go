package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// answerBytesMax bounds the body of an HTTP answer, and requestTimeout one call, beside the
// time for the answer's bytes at the rate answerRate, in bytes a second: over a slow line a
// long record would otherwise never arrive, and be requested again for ever.
const (
	answerBytesMax = 16 << 20
	requestTimeout = 30 * time.Second
	answerRate     = 16 << 10
)

// errSlowAnswer is the error of a call that takes too long.
var errSlowAnswer = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// patience ends a call requestTimeout after it began, plus the time that its answer's bytes may
// take.
type patience struct {
	until time.Time
	timer *time.Timer
}

// withPatience returns the context of a call, and the patience that reads its answer.
func withPatience(ctx context.Context) (context.Context, context.CancelFunc, *patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &patience{until: time.Now().Add(requestTimeout)}
	p.timer = time.AfterFunc(requestTimeout, func() { cancel(errSlowAnswer) })
	return ctx, func() { p.timer.Stop(); cancel(nil) }, p
}

// read reads an answer of at most answerBytesMax.
func (p *patience) read(body io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(patientReader{body, p}, answerBytesMax+1))
	if err == nil && len(raw) > answerBytesMax {
		err = errAnswerTooLong
	}
	return raw, err
}

type patientReader struct {
	body io.Reader
	p    *patience
}

// Read extends the call's time by that for the bytes it has read.
func (r patientReader) Read(b []byte) (int, error) {
	n, err := r.body.Read(b)
	r.p.until = r.p.until.Add(time.Duration(n) * time.Second / answerRate)
	if r.p.timer.Stop() {
		r.p.timer.Reset(time.Until(r.p.until))
	}
	return n, err
}

// errorBytesMax bounds the body of an unsuccessful answer where no other body is read.
const errorBytesMax = 64 << 10

// caller makes the HTTP calls of the gateway protocol.
type caller struct {
	base   *url.URL
	client *http.Client
	device string // of this client
}

// call makes a call: POST with a body, GET without. A refusal is an error that wraps a
// *Refusal.
func (h caller) call(ctx context.Context, token, path string, in, out any) error {
	if in == nil {
		return asAnswer(h.exchange(ctx, http.MethodGet, token, path, nil, out))
	}
	raw, err := gateway.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return h.post(ctx, token, path, raw, out)
}

// post is call for a body that is JSON already.
func (h caller) post(ctx context.Context, token, path string, raw []byte, out any) error {
	return asAnswer(h.exchange(ctx, http.MethodPost, token, path, bytes.NewReader(raw), out))
}

// exchangeFrame posts a frame to the inbox. A refusal is the unchanged *gateway.Error.
func (h caller) exchangeFrame(ctx context.Context, token string, frame []byte, out *gateway.InboxAnswer) error {
	return h.exchange(ctx, http.MethodPost, token, "/v1/inbox", bytes.NewReader(frame), out)
}

// exchange makes a call. A refusal is the unchanged *gateway.Error.
func (h caller) exchange(ctx context.Context, method, token, path string, body io.Reader, out any) error {
	ctx, cancel, patience := withPatience(ctx)
	defer cancel()
	path, query, _ := strings.Cut(path, "?")
	address := h.base.JoinPath(path)
	address.RawQuery = query
	request, err := http.NewRequestWithContext(ctx, method, address.String(), body)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := h.client.Do(request)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	defer answer.Body.Close()
	raw, err := patience.read(answer.Body)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return errorIn(answer, raw)
	}
	if err := gateway.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	return nil
}

// errorIn decodes the error of an unsuccessful answer.
func errorIn(answer *http.Response, body []byte) *gateway.Error {
	var e gateway.Error
	if gateway.Unmarshal(body, &e) != nil || e.Code == "" {
		// Not our server, or a proxy before it.
		return &gateway.Error{Code: gateway.CodeUnavailable, Message: answer.Status}
	}
	return &e
}

// asAnswer converts the server's error to a *Refusal.
func asAnswer(err error) error {
	var e *gateway.Error
	if errors.As(err, &e) {
		return declinedBy(e)
	}
	return err
}

func refusalOf(e *gateway.Error) *Refusal {
	number := func(p *int64, missing int64) int64 {
		if p == nil {
			return missing
		}
		return *p
	}
	r := &Refusal{Code: string(e.Code), Message: e.Message,
		CurrentEpoch: number(e.CurrentEpoch, 0), EarliestSeq: number(e.EarliestSeq, 0),
		LatestSeq: number(e.LatestSeq, 0), Index: int(number(e.Index, -1))}
	if s := number(e.RetryAfterS, 0); s > 0 {
		r.RetryAfter = time.Duration(min(s, 3600)) * time.Second
	}
	return r
}

func (c *Client) caller() caller { return caller{c.base, c.http, c.options.DeviceID} }

// audience returns the DID of the service, for service tokens. It is requested each time, since
// an operator may change it.
func (c *Client) audience(ctx context.Context) (string, error) {
	var document struct {
		ID string `json:"id"`
	}
	if err := c.caller().call(ctx, "", "/.well-known/did.json", nil, &document); err != nil {
		return "", fmt.Errorf("ask for the service's DID: %w", err)
	}
	if document.ID == "" {
		return "", fmt.Errorf("ask for the service's DID: the document has no id")
	}
	if !mayBe(c.base, document.ID, c.options.ServerDID) {
		return "", fmt.Errorf("%w: %.200q", ErrOtherService, document.ID)
	}
	return document.ID, nil
}

// mayBe reports whether the service at a URL may have tokens for a DID. A service with the name
// of another could pass the tokens on and impersonate us there. Over plain http anyone on the
// path could do that anyway, and private servers have no name of their own.
func mayBe(base *url.URL, did, expected string) bool {
	if expected != "" {
		return did == expected
	}
	if base.Scheme != "https" {
		return true
	}
	host := base.Hostname()
	if port := base.Port(); port != "" && port != "443" {
		host += "%3A" + port
	}
	return strings.EqualFold(did, "did:web:"+host)
}
