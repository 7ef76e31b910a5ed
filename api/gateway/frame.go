package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Version is the value of `v` in every frame.
const Version = 1

// Sizes of what one end may send to the other.
const (
	// FrameBytesMax bounds a WebSocket frame in both directions; a longer one from a
	// client closes the socket with 1009. Frames on a stream have the same bound.
	FrameBytesMax = 1 << 20
	// LargeFrameBytesMax bounds a frame to a session with the feature large.
	LargeFrameBytesMax = 16 << 20
	// BodyBytesMax bounds the body of an HTTP request, and CommitBytesMax that of
	// an inbox request, which may hold a conv.commit.
	BodyBytesMax   = 1 << 20
	CommitBytesMax = 16 << 20
	// EnvCharactersMax bounds `env` of a conv.send.
	EnvCharactersMax = 262144
	// frameIDBytesMax bounds the `id` of a frame, which is echoed.
	frameIDBytesMax = 1024
)

// The types of frames. A client sends the first group, a server the second; ping
// and pong go both ways.
const (
	TypeSessionStart  = "session.start"
	TypeSessionResume = "session.resume"
	TypeSubscribe     = "conv.subscribe"
	TypeSend          = "conv.send"
	TypeAck           = "conv.ack"
	TypeCommit        = "conv.commit"   // feature bundle
	TypeDeviceAck     = "device.ack"    // feature device
	TypeReport        = "client.report" // feature report

	TypeReady          = "session.ready"
	TypeAcked          = "conv.acked"
	TypeEvent          = "conv.event"
	TypeError          = "error"
	TypeCaughtUp       = "caught_up"       // feature marker
	TypeDrain          = "drain"           // feature drain
	TypeWelcome        = "welcome"         // feature device
	TypeMembers        = "members"         // feature device
	TypeKeyPackagesLow = "keypackages.low" // feature device
	TypeRoster         = "conv.members"    // feature roster
	TypeStreamStarted  = "stream.started"  // server-sent events only

	TypePing = "ping"
	TypePong = "pong"
)

// Feature is an extension of the first version of the protocol that a session may ask for. A
// session without a feature never gets its frames, and its own frames of that kind are unknown.
type Feature = string

// The features.
const (
	// FeatureBundle enables conv.commit: a commit with the data that belongs to it.
	FeatureBundle Feature = "bundle"
	// FeatureDevice enables the device's own log: Welcomes, additions and removals, key
	// packages low, and device.ack.
	FeatureDevice Feature = "device"
	// FeatureMarker enables caught_up, which ends a replay.
	FeatureMarker Feature = "marker"
	// FeatureDrain enables drain, sent before a stopping server closes the socket.
	FeatureDrain Feature = "drain"
	// FeatureReport enables client.report.
	FeatureReport Feature = "report"
	// FeatureRoster enables conv.members, which announces changes of a conversation's accounts
	// to its readers.
	FeatureRoster Feature = "roster"
	// FeatureLarge enables frames of up to LargeFrameBytesMax from the server. Other sessions
	// get no frame above FrameBytesMax: see Omitted.
	FeatureLarge Feature = "large"
)

// Features lists every feature that this version knows.
var Features = []Feature{FeatureBundle, FeatureDevice, FeatureMarker, FeatureDrain, FeatureReport, FeatureRoster, FeatureLarge}

// Frame is one message of the WebSocket, in either direction.
type Frame struct {
	Type string
	// ID is a JSON string or number chosen by the client; the answer repeats it. It is nil if
	// absent.
	ID json.RawMessage
	// Body is a JSON object that has passed Validate, or nil if absent.
	Body json.RawMessage
}

// The errors of DecodeFrame beyond those of Validate.
var (
	// ErrNotObject is the error for JSON that is not an object.
	ErrNotObject = errors.New("invalid frame envelope")
	// ErrVersion is the error for a `v` other than the number 1.
	ErrVersion = errors.New("unsupported version")
)

// envelope is a frame while it is decoded. Only the fields needed for an answer are typed here,
// so that a frame with a broken field is still answered with its id.
type envelope struct {
	Version span `json:"v,omitempty"`
	Type    span `json:"t,omitempty"`
	ID      span `json:"id,omitempty"`
	Body    span `json:"body,omitempty"`
}

// DecodeFrame reads one frame. A type that is missing or not a string is "". The error is one
// of Validate's, ErrNotObject, ErrVersion, or an *InputError about `id` or `body`, or about
// JSON that this protocol never contains. Unless the error reports that data is not JSON or not
// an object, the returned frame has its ID if that is usable. The frame points into data.
func DecodeFrame(data []byte) (Frame, error) {
	if err := Validate(data); err != nil {
		var input *InputError
		if errors.As(err, &input) {
			return Frame{ID: FrameID(data)}, err
		}
		return Frame{}, err
	}
	if data = skipSpace(data); data[0] != '{' {
		return Frame{}, ErrNotObject
	}
	var e envelope
	if err := unmarshalChecked(data, &e); err != nil {
		return Frame{}, err
	}
	var frame Frame
	if len(e.ID) > 0 {
		if len(e.ID) > frameIDBytesMax || !isIDStart(e.ID[0]) {
			return Frame{}, &InputError{Field: "id", Problem: "not a short string or number"}
		}
		frame.ID = json.RawMessage(e.ID)
	}
	if string(e.Version) != "1" {
		return frame, ErrVersion
	}
	frame.Type, _ = textOf(e.Type)
	if len(e.Body) > 0 {
		if e.Body[0] != '{' {
			return frame, &InputError{Field: "body", Problem: "not an object"}
		}
		frame.Body = json.RawMessage(e.Body)
	}
	return frame, nil
}

func isIDStart(c byte) bool { return c == '"' || c == '-' || c >= '0' && c <= '9' }

// Decode reads the body of f into the struct that into points to, with the rules of Unmarshal.
// A frame without a body is read as one with an empty body.
func (f Frame) Decode(into any) error {
	if f.Body == nil {
		return unmarshalChecked([]byte("{}"), into)
	}
	return unmarshalChecked(f.Body, into)
}

// StringID returns a frame id made from text.
func StringID(id string) json.RawMessage {
	raw, _ := json.Marshal(id) // a string cannot fail
	return raw
}

// EncodeFrame writes a frame. id may be nil; body may be nil, or anything that
// encodes to a JSON object.
func EncodeFrame(frameType string, id json.RawMessage, body any) ([]byte, error) {
	out := AppendHead(nil, frameType, id)
	if body == nil {
		return append(out, '}'), nil
	}
	out = append(out, `,"body":`...)
	raw, err := Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", frameType, err)
	}
	return append(append(out, raw...), '}'), nil
}

// AppendHead appends the beginning of a frame, up to but not including the comma before its
// body: for writers that build the rest by hand. frameType is one of the Type constants, which
// need no escaping.
func AppendHead(dst []byte, frameType string, id json.RawMessage) []byte {
	dst = append(dst, `{"v":1,"t":"`...)
	dst = append(append(dst, frameType...), '"')
	if len(id) > 0 {
		dst = append(append(dst, `,"id":`...), id...)
	}
	return dst
}

// Marshal encodes like json.Marshal, without the escapes that only HTML needs.
func Marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
