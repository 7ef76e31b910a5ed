package client

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
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
	_, err := procedure[xrpc.RedeemInviteOutput](ctx, d, xrpc.RedeemInvite, xrpc.RedeemInviteInput{Code: code})
	if errors.Is(err, ErrNotOverXRPC) {
		return nil
	}
	return err
}

// load prepares the door for calls.
func (d *xrpcDoor) load(ctx context.Context, audience string) error {
	device, err := read(ctx, d.c.db, func(tx *tx) (string, error) { return setting[string](tx, xrpcDeviceSetting) })
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

// query calls a query: GET.
func query[Out any](ctx context.Context, d *xrpcDoor, nsid string, params any) (out Out, err error) {
	err = d.exchange(ctx, nsid, xrpc.EncodeQuery(params), nil, &out)
	return out, err
}

// procedure calls a procedure: POST.
func procedure[Out any](ctx context.Context, d *xrpcDoor, nsid string, in any) (out Out, err error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("encode %s: %w", nsid, err)
	}
	err = d.exchange(ctx, nsid, "", raw, &out)
	return out, err
}

// errAnswerTooLong reports an answer of more than answerBytesMax.
var errAnswerTooLong = errors.New("answer is too long")

// exchange makes a call with a token of its own. A refusal is an error that wraps a
// *Refusal.
func (d *xrpcDoor) exchange(ctx context.Context, nsid, query string, body []byte, out any) error {
	d.mu.Lock()
	audience := d.audience
	d.mu.Unlock()
	token, err := d.c.account.serviceToken(audience+xrpcFragment, nsid, d.c.now())
	if err != nil {
		return err
	}
	address := d.c.base.JoinPath("/xrpc/" + nsid)
	address.RawQuery = query
	raw, err := httpCall{nsid, address, token, body, xrpcRefusal}.do(ctx, d.c.http)
	if err == nil && json.Unmarshal(raw, out) != nil {
		err = invalidAnswer("malformed")
	}
	return err
}

// xrpcConflicts holds the error names of status 409 that do not mean that the epoch has
// changed.
var xrpcConflicts = map[string]bool{
	"AlreadyMember": true, "KeyPackageNotFound": true, "ConvoAlreadyExists": true, "TreeStateDiverged": true,
	"AlreadyDone": true, "LastAdmin": true, "PendingAdditionAlreadyClaimed": true, "DeviceAlreadyRegistered": true,
}

// xrpcCodes holds the codes of the other statuses; the default is codeInvalidRequest.
var xrpcCodes = map[int]string{
	http.StatusUnauthorized: codeUnauthorized, http.StatusForbidden: codeForbidden, http.StatusNotFound: codeNotFound,
	http.StatusGone: codePruned, http.StatusTooManyRequests: codeLimitExceeded, http.StatusInternalServerError: codeInternal,
}

// xrpcRefusal decodes an unsuccessful answer: the code that the session uses, and the server's
// message.
func xrpcRefusal(answer *http.Response, raw []byte) error {
	var body xrpc.ErrorBody
	if json.Unmarshal(raw, &body) != nil || body.Error == "" {
		return foreignRefusal(answer)
	}
	r := &Refusal{Code: codeInvalidRequest, Message: cmp.Or(body.Message, body.Error), Index: -1}
	if seconds, err := strconv.ParseInt(answer.Header.Get("Retry-After"), 10, 64); err == nil && seconds > 0 {
		r.RetryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	switch status := answer.StatusCode; {
	case status == http.StatusForbidden && body.Error == "NotMember":
		r.Code, r.cause = codeForbidden, errNotMember
	case status == http.StatusConflict && body.Error == "ConvoAlreadyExists":
		r.cause = errExists
	case status == http.StatusConflict && !xrpcConflicts[body.Error]:
		r.Code = codeEpochConflict
	case status == http.StatusTooManyRequests && body.Error == xrpc.ErrorRateLimited:
		r.Code = codeRateLimited
	case status == http.StatusNotImplemented:
		return notOverXRPC("")
	case status > http.StatusInternalServerError:
		r.Code = codeUnavailable
	default:
		r.Code = cmp.Or(xrpcCodes[status], codeInvalidRequest)
	}
	r.Message = sentenceOf(r.Code, r.Message)
	return r
}

// notOverXRPC refuses an operation that this door lacks; it wraps ErrNotOverXRPC.
func notOverXRPC(what string) error {
	message := ErrNotOverXRPC.Error()
	if what != "" {
		message += ": " + what
	}
	return &Refusal{Code: codeInvalidRequest, Message: message, Index: -1, cause: ErrNotOverXRPC}
}
