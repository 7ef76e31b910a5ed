package client

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
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
var errSlowAnswer = fmt.Errorf("timeout of the answer: %w", context.DeadlineExceeded)

// patientReader reads an answer, and extends the time of its call by that for the bytes read.
type patientReader struct {
	body  io.Reader
	until time.Time
	timer *time.Timer // ends the call
}

// Read reads bytes of the answer.
func (r *patientReader) Read(b []byte) (int, error) {
	n, err := r.body.Read(b)
	r.until = r.until.Add(time.Duration(n) * time.Second / answerRate)
	if r.timer.Stop() {
		r.timer.Reset(time.Until(r.until))
	}
	return n, err
}

// errorBytesMax bounds the body of an unsuccessful answer where no other body is read.
const errorBytesMax = 64 << 10

// httpCall is a call to one of the server's doors: POST with a body, GET without.
type httpCall struct {
	name  string // for errors
	url   *url.URL
	token string // "" for none
	body  []byte // JSON
	// refusal decodes an unsuccessful answer.
	refusal func(answer *http.Response, body []byte) error
}

// do makes the call and returns the body of a successful answer.
func (h httpCall) do(ctx context.Context, client *http.Client) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	until := time.Now().Add(requestTimeout)
	timer := time.AfterFunc(requestTimeout, func() { cancel(errSlowAnswer) })
	defer timer.Stop()
	method, content := http.MethodGet, io.Reader(nil)
	if h.body != nil {
		method, content = http.MethodPost, bytes.NewReader(h.body)
	}
	request, err := http.NewRequestWithContext(ctx, method, h.url.String(), content)
	if err != nil {
		return nil, err
	}
	if h.token != "" {
		request.Header.Set("Authorization", "Bearer "+h.token)
	}
	if h.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", h.name, err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(&patientReader{answer.Body, until, timer}, answerBytesMax+1))
	if err == nil && len(raw) > answerBytesMax {
		err = errAnswerTooLong
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("call %s: %w", h.name, err)
	case answer.StatusCode != http.StatusOK:
		return nil, h.refusal(answer, raw)
	}
	return raw, nil
}

// audience returns the DID of the service, for service tokens. It is requested each time, since
// an operator may change it.
func (c *Client) audience(ctx context.Context) (string, error) {
	var document struct {
		ID string `json:"id"`
	}
	if err := c.gateway("").call(ctx, "/.well-known/did.json", nil, &document); err != nil {
		return "", fmt.Errorf("request the server's DID: %w", err)
	}
	if document.ID == "" {
		return "", fmt.Errorf("%w: DID document without an id", ErrNoWaxwing)
	}
	if !mayHaveDID(c.base, document.ID, c.options.ServerDID) {
		return "", fmt.Errorf("%w: it is %.200q and should be %s", ErrOtherService, document.ID,
			cmp.Or(c.options.ServerDID, "the did:web of its address"))
	}
	return document.ID, c.db.update(ctx, func(tx *tx) error { return c.knowService(tx, document.ID) })
}

// knownService is the setting "service": the DID of the server at an address.
type knownService struct {
	Server string `json:"server"`
	DID    string `json:"did"`
}

// knowService checks that the service at an address is the same as before, and remembers it. Only
// Options.ServerDID admits another one.
func (c *Client) knowService(tx *tx, did string) error {
	now := knownService{c.options.Server, did}
	known, err := setting[knownService](tx, "service")
	switch {
	case err != nil || known == now:
		return err
	case known.Server == now.Server && c.options.ServerDID == "":
		return fmt.Errorf("%w: it is %.200q, and was %s before", ErrOtherService, did, known.DID)
	}
	return tx.Settings.Set("service", now)
}

// mayHaveDID reports whether the service at a URL may have tokens for a DID. A service with the
// name of another could pass the tokens on and impersonate us there. Over plain http anyone on
// the path could do that anyway, and private servers have no name of their own.
func mayHaveDID(base *url.URL, did, expected string) bool {
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
