package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Frame is an encoded event that can be sent to any number of subscribers with different
// counters: a header {"op":1,"t":"#name"} and the payload, each in canonical DAG-CBOR. It is
// immutable and may be shared.
type Frame struct {
	// The counter is inserted between the two, where the order of names requires it.
	before, after []byte
	cursor        [2]int // offsets in after of the cursor's name and value
}

const (
	seqName    = "seq"
	cursorName = "cursor"
)

// NewFrame encodes an event once for all its subscribers.
func NewFrame(event Event) (Frame, error) {
	out := appendCBORHead(nil, cborMap, 2)
	out = appendCBORText(out, "t")
	out = appendCBORText(out, "#"+event.Type())
	out = appendCBORText(out, "op")
	out = appendCBORInt(out, 1)
	out, at, err := appendCBORStruct(out, reflect.ValueOf(event).Elem(), seqName)
	if err != nil {
		return Frame{}, fmt.Errorf("encode %s: %w", event.Type(), err)
	}
	f := Frame{before: slices.Clip(out[:at]), after: out[at:]}
	cursor := appendCBORCursor(nil, reflect.ValueOf(event).Elem().FieldByName("Cursor").String())
	// No earlier name has a value that could contain the same bytes.
	f.cursor[0] = bytes.Index(f.after, cursor)
	f.cursor[1] = f.cursor[0] + len(cursor)
	return f, nil
}

func appendCBORCursor(out []byte, cursor string) []byte {
	return appendCBORText(appendCBORText(out, cursorName), cursor)
}

// AppendAt appends the frame with a subscriber's own cursor in place of the event's.
func (f Frame) AppendAt(out []byte, seq int64, cursor string) []byte {
	out = append(out, f.before...)
	out = appendCBORText(out, seqName)
	out = appendCBORInt(out, seq)
	out = append(out, f.after[:f.cursor[0]]...)
	out = appendCBORCursor(out, cursor)
	return append(out, f.after[f.cursor[1]:]...)
}

// Append appends the frame with a subscriber's own counter, which begins at 1.
func (f Frame) Append(out []byte, seq int64) []byte {
	out = append(out, f.before...)
	out = appendCBORText(out, seqName)
	out = appendCBORInt(out, seq)
	return append(out, f.after...)
}

// Len returns an upper bound of the size of the frame with any counter.
func (f Frame) Len() int { return len(f.before) + len(f.after) + 4 + 9 }

// ErrorFrame returns the last frame before a stream is closed: {"op":-1}, then the name of an
// error and a message, which may be "".
func ErrorFrame(name, message string) []byte {
	out := appendCBORHead(nil, cborMap, 1)
	out = appendCBORText(out, "op")
	out = appendCBORInt(out, -1)
	if message == "" {
		out = appendCBORHead(out, cborMap, 1)
		return appendCBORText(appendCBORText(out, "error"), name)
	}
	out = appendCBORHead(out, cborMap, 2)
	out = appendCBORText(appendCBORText(out, "error"), name)
	return appendCBORText(appendCBORText(out, "message"), message)
}

// EventJSON encodes an event as one JSON object in one line, for SSE and the JSON subprotocol:
// its $type is the full name in the lexicon, and seq the subscriber's counter, left out if it
// is 0.
func EventJSON(event Event, seq int64) ([]byte, error) {
	body, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", event.Type(), err)
	}
	out := fmt.Appendf(nil, `{"$type":"%s#%s",`, SubscribeEvents, event.Type())
	if seq != 0 {
		out = fmt.Appendf(out, `"%s":%d,`, seqName, seq)
	}
	// Every event has a cursor, so the object is not empty.
	return append(out, body[1:]...), nil
}

// StreamError is a received error frame.
type StreamError struct{ Name, Message string }

func (e *StreamError) Error() string { return strings.TrimSuffix(e.Name+": "+e.Message, ": ") }

// ErrUnknownType is the error for a well-formed frame of an unknown type.
var ErrUnknownType = errors.New("frame of an unknown type")

// DecodeFrame reads a frame of the server. The error is a *StreamError if the frame is an error
// frame, and ErrUnknownType if a newer server sent it.
func DecodeFrame(in []byte) (event Event, seq int64, err error) {
	reader := cborReader{in: in}
	header, err := reader.message()
	if err != nil {
		return nil, 0, err
	}
	payload, err := reader.message()
	if err != nil {
		return nil, 0, err
	}
	if len(reader.in) != 0 {
		return nil, 0, errNotCBOR
	}
	if header["op"] == int64(-1) {
		name, _ := payload["error"].(string)
		message, _ := payload["message"].(string)
		return nil, 0, &StreamError{name, message}
	}
	name, _ := header["t"].(string)
	kind, known := eventKinds[strings.TrimPrefix(name, "#")]
	if header["op"] != int64(1) || !known {
		return nil, 0, ErrUnknownType
	}
	seq, _ = payload[seqName].(int64)
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, 0, err
	}
	event = kind.make()
	if err := Decode(body, event); err != nil {
		return nil, 0, err
	}
	return event, seq, nil
}

func (r *cborReader) message() (map[string]any, error) {
	value, err := r.value(0)
	if err != nil {
		return nil, err
	}
	object, is := value.(map[string]any)
	if !is {
		return nil, errNotCBOR
	}
	return object, nil
}

// ClientFrameMax bounds the bytes of a client's frame.
const ClientFrameMax = 4 << 10

// ClientFrameKind is the kind of a frame that a client sends over an open subscription.
type ClientFrameKind string

// The kinds of client frames.
const (
	ClientTyping ClientFrameKind = "typing"
	ClientAck    ClientFrameKind = "ack"
	ClientPing   ClientFrameKind = "ping"
)

// ClientFrame is a client's frame. ConvoID and IsTyping are those of typing, Seq that of
// ack: the counter of the last frame that arrived.
type ClientFrame struct {
	Type     string  `json:"$type"`
	ConvoID  string  `json:"convoId,omitempty"`
	IsTyping *bool   `json:"isTyping,omitempty"`
	Seq      Natural `json:"seq,omitempty"`
}

// Kind returns the kind of the frame, under either of the endpoint's two names.
func (f *ClientFrame) Kind() ClientFrameKind {
	name, kind, has := strings.Cut(f.Type, "#")
	if has && (name == "" || name == SubscribeConvoEvents || name == SubscribeEvents) {
		return ClientFrameKind(kind)
	}
	return ""
}

// DecodeClientFrame reads a client's frame: JSON if it came as text, else one DAG-CBOR object.
// The error is ErrUnknownType if it is well formed but unknown, which is not a reason to end a
// stream; any other error is.
func DecodeClientFrame(in []byte, isText bool) (*ClientFrame, error) {
	if len(in) > ClientFrameMax {
		return nil, &InputError{Problem: "the frame is too long"}
	}
	if !isText {
		reader := cborReader{in: in}
		object, err := reader.message()
		if err != nil {
			return nil, &InputError{Problem: err.Error()}
		}
		if len(reader.in) != 0 {
			return nil, &InputError{Problem: errNotCBOR.Error()}
		}
		if in, err = json.Marshal(object); err != nil {
			return nil, &InputError{Problem: errNotCBOR.Error()}
		}
	}
	frame := &ClientFrame{}
	if err := Decode(in, frame); err != nil {
		return nil, err
	}
	switch frame.Kind() {
	case ClientTyping:
		if frame.ConvoID == "" || frame.IsTyping == nil {
			return nil, &InputError{"convoId", "and isTyping are required"}
		}
	case ClientAck, ClientPing:
	default:
		return nil, ErrUnknownType
	}
	return frame, nil
}

// EncodeClientFrame writes a client's frame as DAG-CBOR. Its Type is set from kind.
func EncodeClientFrame(kind ClientFrameKind, frame ClientFrame) ([]byte, error) {
	frame.Type = SubscribeConvoEvents + "#" + string(kind)
	return appendCBOR(nil, reflect.ValueOf(frame))
}
