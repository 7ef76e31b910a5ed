package gateway

import (
	"bytes"
	"encoding/json"
)

// FrameID returns the `id` of data that cannot be decoded as a frame, or is only the start of
// one, so that it can be answered; nil if there is no id that could be repeated. The result
// points into data.
func FrameID(data []byte) (id json.RawMessage) {
	in := skipSpace(data)
	if len(in) == 0 || in[0] != '{' {
		return nil
	}
	for in = skipSpace(in[1:]); len(in) > 0 && in[0] == '"'; in = skipSpace(in[1:]) {
		rest, ok := passString(in)
		name := in[:len(in)-len(rest)]
		if rest = skipSpace(rest); !ok || len(rest) == 0 || rest[0] != ':' {
			return id
		}
		in = skipSpace(rest[1:])
		if rest, ok = passValue(in); !ok {
			return id
		}
		if text, _ := textOf(name); text == "id" { // the last of repeated names is used
			if id = json.RawMessage(bytes.TrimRight(in[:len(in)-len(rest)], " \t\r\n")); !isFrameID(id) {
				id = nil
			}
		}
		if in = skipSpace(rest); len(in) == 0 || in[0] != ',' {
			return id
		}
	}
	return id
}

// isFrameID reports whether a value can be the id of a frame.
func isFrameID(value []byte) bool {
	return len(value) > 0 && len(value) <= frameIDBytesMax && isIDStart(value[0]) && Validate(value) == nil
}

// passValue returns the rest after the value at the start of in, without checking the value,
// however deep it is and whatever its strings contain. ok is false if it does not end.
func passValue(in []byte) (rest []byte, ok bool) {
	for depth := 0; len(in) > 0; {
		switch in[0] {
		case '"':
			if in, ok = passString(in); !ok {
				return nil, false
			}
			if depth == 0 {
				return in, true
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return in, true // the end of the surrounding value
			}
			if depth--; depth == 0 {
				return in[1:], true
			}
		case ',':
			if depth == 0 {
				return in, true
			}
		}
		in = in[1:]
	}
	return nil, false
}

// passString returns the rest after the string at the start of in.
func passString(in []byte) (rest []byte, ok bool) {
	for i := 1; i < len(in); i++ {
		switch in[i] {
		case '\\':
			i++
		case '"':
			return in[i+1:], true
		}
	}
	return nil, false
}
