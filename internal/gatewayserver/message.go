package gatewayserver

import (
	"context"
	"encoding/base64"
	"unicode/utf8"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
)

// messageOf returns the operation of a conv.send of a socket or of the inbox.
func messageOf(in *gateway.Send) (core.Send, error) {
	if len(in.Env) > gateway.EnvCharactersMax && utf8.RuneCountInString(in.Env) > gateway.EnvCharactersMax {
		return core.Send{}, ds.Refuse(ds.InvalidRequest, "env too large")
	}
	body, encoding := bytesOf(in.Env)
	return core.Send{
		ConversationID: ds.ConversationID(in.ConvID),
		ID:             ds.MessageID(in.MsgID),
		Body:           body,
		Encoding:       encoding,
	}, nil
}

// messages appends messages and commits, and returns stored ones.
type messages struct {
	core *core.Service
	did  func() string // of this service
}

// send handles a conv.send for a caller that waits.
func (m messages) send(ctx context.Context, who ds.Caller, in *gateway.Send) (*gateway.Acked, error) {
	message, err := messageOf(in)
	if err != nil {
		return nil, err
	}
	done, err := m.core.Apply(ctx, who, message)
	if err != nil {
		return nil, err
	}
	return m.acked(in.ConvID, in.MsgID, done.Record), nil
}

// commit handles a conv.commit of a socket or of the inbox.
func (m messages) commit(ctx context.Context, who ds.Caller, in *gateway.Commit) (*gateway.Acked, error) {
	bundle, err := bundleOf(in)
	if err != nil {
		return nil, err
	}
	done, err := m.core.Apply(ctx, who, bundle)
	if err != nil {
		return nil, err
	}
	acked := m.acked(in.ConvID, in.MsgID, done.Record)
	acked.Epoch = &done.Record.Epoch
	return acked, nil
}

func (m messages) acked(conversation, message string, record ds.Record) *gateway.Acked {
	did := m.did()
	return &gateway.Acked{ConvID: conversation, MsgID: message, Seq: record.Seq, ConvHome: did, OriginGateway: did}
}

func bundleOf(in *gateway.Commit) (core.Bundle, error) {
	b := core.Bundle{
		ConversationID: ds.ConversationID(in.ConvID),
		ID:             ds.MessageID(in.MsgID),
		Add:            accounts(in.Add),
		Remove:         accounts(in.Remove),
		Encoding:       ds.Base64,
	}
	var err error
	if b.Commit, err = decodeMLS("commit", in.Commit); err != nil {
		return b, err
	}
	if in.GroupInfo != nil {
		if b.GroupInfo, err = decodeMLS("group_info", *in.GroupInfo); err != nil {
			return b, err
		}
	}
	if in.Welcome == nil {
		return b, nil
	}
	if b.Welcome, err = decodeMLS("welcome.env", in.Welcome.Env); err != nil {
		return b, err
	}
	for _, to := range in.Welcome.To {
		b.To = append(b.To, core.Recipient{
			Device:        ds.Device{Account: ds.AccountID(to.UserID), ID: ds.DeviceID(to.DeviceID)},
			KeyPackageRef: to.KeyPackageRef,
		})
	}
	return b, nil
}

func decodeMLS(field, text string) ([]byte, error) {
	data, ok := decodeBase64(text)
	if !ok || len(data) == 0 {
		return nil, ds.Refuse(ds.InvalidRequest, "%s: not padded standard base64", field)
	}
	return data, nil
}

// bytesOf decides how an env is stored. One that begins like an MLSMessage of version mls10
// (RFC 9420, section 6: the bytes 00 01) in base64 is stored as bytes, for core to inspect; any
// other is stored as text and returned unchanged.
func bytesOf(env string) ([]byte, ds.Encoding) {
	if len(env) >= 4 && env[:2] == "AA" && env[2] >= 'E' && env[2] <= 'H' {
		if data, ok := decodeBase64(env); ok {
			return data, ds.Base64
		}
	}
	return []byte(env), ds.Text
}

// decodeBase64 decodes the one canonical encoding: padded, without line breaks, the unused
// bits zero.
func decodeBase64(text string) ([]byte, bool) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	return data, err == nil && base64.StdEncoding.EncodedLen(len(data)) == len(text)
}
