package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"waxwing.im/waxwing/api/xrpc"
)

// The AT Protocol door as a service of the session: the calls (xrpc_calls.go), a link that
// receives announcements (xrpc_link.go) and reads the logs (xrpc_read.go). XRPC has no sessions
// to resume and no log of the account; the door derives both from queries.

// xrpcDoor is a client's access to the server's AT Protocol door. It is safe for concurrent
// use.
type xrpcDoor struct {
	c *Client

	mu       sync.Mutex
	audience string    // of tokens; guarded by mu
	link     *xrpcLink // of the open connection; guarded by mu
	device   string    // the server's name for this device, "" before it is known; guarded by mu
}

// xrpcTraits holds the traits of the AT Protocol door.
var xrpcTraits = traits{pool: "published_xrpc", accountsMax: xrpcMembersMax}

// xrpcFragment names the service in our audience, as in the server's DID document.
const xrpcFragment = "#atproto_mls"

// open registers this device, and opens the connection.
func (d *xrpcDoor) open(ctx context.Context) (connection, service, error) {
	audience, err := d.c.audience(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := d.load(ctx, audience); err != nil {
		return nil, nil, err
	}
	if d.deviceID() == "" {
		if err := d.redeemInvite(ctx); err != nil {
			return nil, nil, err
		}
		// The server sends nothing to a device before its registration.
		if err := d.c.errands.fillKeyPackages(ctx, d, -1); err != nil {
			return nil, nil, err
		}
	}
	link, err := d.subscribe(ctx)
	if err != nil {
		return nil, nil, err
	}
	link.begin()
	return link, d, nil
}

// redeemInvite has the account admitted by the configured invite, if any. An account that was
// admitted before does not use it up. Servers other than ours have no such method, and none of
// our invites.
func (d *xrpcDoor) redeemInvite(ctx context.Context) error {
	code := d.c.options.InviteCode
	if code == "" {
		return nil
	}
	err := d.do(ctx, xrpc.RedeemInvite, xrpc.RedeemInviteInput{Code: code}, &xrpc.RedeemInviteOutput{})
	if errors.Is(err, ErrNotOverXRPC) {
		return nil
	}
	return err
}

// load prepares the door for calls.
func (d *xrpcDoor) load(ctx context.Context, audience string) error {
	var device string
	err := d.c.db.update(ctx, func(tx *tx) error {
		_, err := tx.Settings.Get(xrpcDeviceSetting, &device)
		return err
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.audience, d.device = audience, device
	return err
}

func (d *xrpcDoor) deviceID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.device
}

// xrpcDeviceSetting is the setting for the server's name of this device.
const xrpcDeviceSetting = "xrpc_device"

// uuidOf returns the UUID of a device of our account at the server, derived from its name.
func (d *xrpcDoor) uuidOf(device string) string {
	sum := sha256.Sum256([]byte("waxwing device v1\x00" + d.c.account.DID() + "\x00" + device))
	id := [16]byte(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8: a custom format
	return formatUUID(id)
}

// ask calls a query: GET.
func (d *xrpcDoor) ask(ctx context.Context, nsid string, params, out any) error {
	return d.exchange(ctx, http.MethodGet, nsid, xrpc.EncodeQuery(params), nil, out)
}

// do calls a procedure: POST.
func (d *xrpcDoor) do(ctx context.Context, nsid string, in, out any) error {
	raw, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", nsid, err)
	}
	return d.exchange(ctx, http.MethodPost, nsid, "", raw, out)
}

// errAnswerTooLong reports an answer of more than answerBytesMax.
var errAnswerTooLong = errors.New("the answer is too long")

// exchange makes a call with a token of its own. A refusal is an error that wraps a
// *Refusal.
func (d *xrpcDoor) exchange(ctx context.Context, method, nsid, query string, body []byte, out any) error {
	ctx, cancel, patience := withPatience(ctx)
	defer cancel()
	d.mu.Lock()
	audience := d.audience
	d.mu.Unlock()
	token, err := d.c.account.serviceToken(audience+xrpcFragment, nsid, d.c.now())
	if err != nil {
		return err
	}
	address := d.c.base.JoinPath("/xrpc/" + nsid)
	address.RawQuery = query
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, address.String(), content)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := d.c.http.Do(request)
	if err != nil {
		return fmt.Errorf("call %s: %w", nsid, err)
	}
	defer answer.Body.Close()
	raw, err := patience.read(answer.Body)
	switch {
	case err != nil:
		return fmt.Errorf("call %s: %w", nsid, err)
	case answer.StatusCode != http.StatusOK:
		return xrpcRefusal(answer, raw)
	}
	if json.Unmarshal(raw, out) != nil {
		return wrongAnswer("it is malformed")
	}
	return nil
}

// xrpcConflicts holds the error names of status 409 that do not mean that the epoch has
// changed.
var xrpcConflicts = map[string]bool{
	"AlreadyMember": true, "KeyPackageNotFound": true, "ConvoAlreadyExists": true, "TreeStateDiverged": true,
	"AlreadyDone": true, "LastAdmin": true, "PendingAdditionAlreadyClaimed": true, "DeviceAlreadyRegistered": true,
}

// xrpcRefusal decodes an unsuccessful answer: the code that the session uses, and the server's
// message.
func xrpcRefusal(answer *http.Response, raw []byte) error {
	var body xrpc.ErrorBody
	if json.Unmarshal(raw, &body) != nil || body.Error == "" {
		// Not our server, or a proxy before it.
		return &Refusal{Code: codeUnavailable, Message: answer.Status, Index: -1}
	}
	r := &Refusal{Code: codeInvalidRequest, Message: body.Message, Index: -1}
	if r.Message == "" {
		r.Message = body.Error
	}
	if seconds, err := strconv.ParseInt(answer.Header.Get("Retry-After"), 10, 64); err == nil && seconds > 0 {
		r.RetryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		r.Code = codeUnauthorized
	case answer.StatusCode == http.StatusForbidden:
		r.Code = codeForbidden
		if body.Error == "NotMember" {
			return &declined{r, errNotMember}
		}
	case answer.StatusCode == http.StatusNotFound:
		r.Code = codeNotFound
	case answer.StatusCode == http.StatusConflict && body.Error == "ConvoAlreadyExists":
		return &declined{r, errExists}
	case answer.StatusCode == http.StatusConflict && !xrpcConflicts[body.Error]:
		r.Code = codeEpochConflict
	case answer.StatusCode == http.StatusGone:
		r.Code = codePruned
	case answer.StatusCode == http.StatusTooManyRequests && body.Error == xrpc.ErrorRateLimited:
		r.Code = codeRateLimited
	case answer.StatusCode == http.StatusTooManyRequests:
		r.Code = codeLimitExceeded
	case answer.StatusCode == http.StatusInternalServerError:
		r.Code = codeInternal
	case answer.StatusCode == http.StatusNotImplemented:
		return notOverXRPC("")
	case answer.StatusCode > http.StatusInternalServerError:
		r.Code = codeUnavailable
	}
	return r
}

// notOverXRPC refuses an operation that this door lacks; it wraps ErrNotOverXRPC.
func notOverXRPC(what string) error {
	message := ErrNotOverXRPC.Error()
	if what != "" {
		message += ": " + what
	}
	return &declined{&Refusal{Code: codeInvalidRequest, Message: message, Index: -1}, ErrNotOverXRPC}
}
