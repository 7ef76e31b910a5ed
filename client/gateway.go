package client

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// gatewayCalls makes the HTTP calls of the gateway.
type gatewayCalls struct {
	base   *url.URL
	client *http.Client
	device string // of this client
	token  string // of a session; "" for calls without one
}

func (c *Client) gateway(token string) *gatewayCalls {
	return &gatewayCalls{c.base, c.http, c.options.DeviceID, token}
}

// gatewayTraits holds the traits of the gateway.
var gatewayTraits = traits{pool: "published", accountsMax: math.MaxInt, namesSuccessor: true}

// The messages of the gateway that are more specific than their codes.
const (
	sentenceNotMember = "not a member"
	sentenceExists    = "conversation already exists"
)

// gatewayRefusal decodes an unsuccessful answer.
func gatewayRefusal(answer *http.Response, body []byte) error {
	var e gateway.Error
	if gateway.Unmarshal(body, &e) != nil || e.Code == "" {
		return foreignRefusal(answer)
	}
	r := refusalOf(&e)
	switch {
	case e.Code == gateway.CodeForbidden && e.Message == sentenceNotMember:
		r.cause = errNotMember
	case e.Code == gateway.CodeInvalidRequest && e.Message == sentenceExists:
		r.cause = errExists
	}
	return r
}

// foreignRefusal describes an unsuccessful answer by something else than our server: a proxy
// before it, or another program at the address.
func foreignRefusal(answer *http.Response) *Refusal {
	r := &Refusal{Code: codeUnavailable, Message: "the answer is " + answer.Status, Index: -1}
	if answer.StatusCode < http.StatusInternalServerError {
		r.cause = ErrNoWaxwing
	}
	return r
}

func refusalOf(e *gateway.Error) *Refusal {
	number := func(p *int64, missing int64) int64 {
		if p == nil {
			return missing
		}
		return *p
	}
	r := &Refusal{Code: string(e.Code), Message: sentenceOf(string(e.Code), e.Message),
		CurrentEpoch: number(e.CurrentEpoch, 0), EarliestSeq: number(e.EarliestSeq, 0),
		LatestSeq: number(e.LatestSeq, 0), Index: int(number(e.Index, -1))}
	if s := number(e.RetryAfterS, 0); s > 0 {
		r.RetryAfter = time.Duration(min(s, 3600)) * time.Second
	}
	return r
}

// call makes a call: POST with a body, GET without. A refusal is an error that wraps a
// *Refusal.
func (g *gatewayCalls) call(ctx context.Context, path string, in, out any) error {
	if in == nil {
		return g.exchange(ctx, path, nil, out)
	}
	raw, err := gateway.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return g.exchange(ctx, path, raw, out)
}

func (g *gatewayCalls) exchange(ctx context.Context, path string, body []byte, out any) error {
	path, query, _ := strings.Cut(path, "?")
	address := g.base.JoinPath(path)
	address.RawQuery = query
	raw, err := httpCall{path, address, g.token, body, gatewayRefusal}.do(ctx, g.client)
	if err != nil {
		return err
	}
	if err := gateway.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("call %s: %w: %w", path, ErrNoWaxwing, err)
	}
	return nil
}

func (g *gatewayCalls) create(ctx context.Context, id, peer string) error {
	if peer != "" {
		return g.call(ctx, "/v1/dms/create", gateway.CreateDM{PeerUserID: peer, ConvID: &id}, &gateway.DMCreated{})
	}
	return g.call(ctx, "/v1/rooms/create", gateway.RoomMembers{ConvID: id}, &gateway.Status{})
}

func (g *gatewayCalls) conversations(ctx context.Context, cursor string) (page []listed, next string, err error) {
	path := "/v1/conversations"
	if cursor != "" {
		path += "?cursor=" + url.QueryEscape(cursor)
	}
	var list gateway.ConversationList
	if err := g.call(ctx, path, nil, &list); err != nil {
		return nil, "", err
	}
	for _, item := range list.Items {
		page = append(page, listed{item.ConvID, item.Role, item.Members, item.LatestSeq == nil, item.Title, nil})
	}
	return page, list.NextCursor, nil
}

func (g *gatewayCalls) members(ctx context.Context, id string) (out []RoleChange, err error) {
	var list gateway.MemberList
	if err := g.call(ctx, "/v1/rooms/members?conv_id="+url.QueryEscape(id), nil, &list); err != nil {
		return nil, err
	}
	for _, m := range list.Members {
		out = append(out, RoleChange{m.UserID, m.Role})
	}
	return out, nil
}

func (g *gatewayCalls) setAdmin(ctx context.Context, id, account string, isAdmin bool) error {
	path := "/v1/rooms/demote"
	if isAdmin {
		path = "/v1/rooms/promote"
	}
	return g.call(ctx, path, gateway.RoomMembers{ConvID: id, Members: []string{account}}, &gateway.Status{})
}

func (g *gatewayCalls) leave(ctx context.Context, id, successor string) error {
	body := gateway.LeaveRoom{ConvID: id}
	if successor != "" {
		body.NewOwner = &successor
	}
	return g.call(ctx, "/v1/rooms/leave", body, &gateway.Status{})
}

func (g *gatewayCalls) groupInfo(ctx context.Context, id string) (offeredGroup, error) {
	var answer gateway.GroupInfo
	if err := g.call(ctx, "/v1/groupinfo?conv_id="+url.QueryEscape(id), nil, &answer); err != nil {
		return offeredGroup{}, err
	}
	return offeredGroup{decoded(answer.GroupInfo), answer.Epoch}, nil
}

func (g *gatewayCalls) publish(ctx context.Context, packages []publication, isFirst bool) (int64, error) {
	messages := []string{}
	for _, p := range packages {
		messages = append(messages, base64.StdEncoding.EncodeToString(p.message))
	}
	var answer gateway.KeyPackagesPublished
	if isFirst {
		err := g.call(ctx, "/v1/keypackages/rotate", gateway.RotateKeyPackages{DeviceID: g.device, Revoke: true, Replacement: messages}, &answer)
		return answer.Available, err
	}
	err := g.call(ctx, "/v1/keypackages", gateway.PublishKeyPackages{DeviceID: g.device, KeyPackages: messages}, &answer)
	return answer.Available, err
}

func (g *gatewayCalls) fetch(ctx context.Context, account string) (out []offeredPackage, err error) {
	var answer gateway.DeviceKeyPackages
	if err := g.call(ctx, "/v1/keypackages/fetch", gateway.FetchKeyPackages{UserID: account, PerDevice: true}, &answer); err != nil {
		return nil, err
	}
	for _, item := range answer.Items {
		out = append(out, offeredPackage{item.DeviceID, item.KeyPackageRef, decoded(item.KeyPackage)})
	}
	return out, nil
}

func (g *gatewayCalls) revoke(ctx context.Context, device string) error {
	return g.call(ctx, "/v1/session/revoke", gateway.Revoke{DeviceID: &device, KeyPackages: true}, &gateway.Revoked{})
}

func (g *gatewayCalls) sendNow(ctx context.Context, m sendRequest) (int64, error) {
	return g.post(ctx, gateway.TypeSend, sendBody(m))
}

func (g *gatewayCalls) commitNow(ctx context.Context, m commitRequest) (int64, error) {
	return g.post(ctx, gateway.TypeCommit, commitBody(m))
}

// post adds a frame to the inbox.
func (g *gatewayCalls) post(ctx context.Context, frameType string, body any) (seq int64, err error) {
	frame, err := gateway.EncodeFrame(frameType, nil, body)
	if err != nil {
		return 0, err
	}
	var answer gateway.InboxAnswer
	err = g.exchange(ctx, "/v1/inbox", frame, &answer)
	return answer.Seq, err
}

func sendBody(m sendRequest) gateway.Send {
	return gateway.Send{ConvID: m.Conversation, MsgID: m.ID, Env: base64.StdEncoding.EncodeToString(m.Message)}
}

func commitBody(m commitRequest) gateway.Commit {
	encode := base64.StdEncoding.EncodeToString
	out := gateway.Commit{ConvID: m.Conversation, MsgID: m.ID, Commit: encode(m.Commit), Add: m.Add, Remove: m.Remove}
	if m.Welcome != nil {
		out.Welcome = &gateway.CommitWelcome{Env: encode(m.Welcome.Message)}
		for _, to := range m.Welcome.To {
			out.Welcome.To = append(out.Welcome.To, gateway.WelcomeTo{UserID: to.Account, DeviceID: to.Device, KeyPackageRef: to.KeyPackageRef})
		}
	}
	if m.GroupInfo != nil {
		text := encode(m.GroupInfo)
		out.GroupInfo = &text
	}
	return out
}
