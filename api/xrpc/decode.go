package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// DepthMax bounds how deep the arrays and objects of a body may be nested.
	DepthMax = 16
	// ValuesMax bounds how many values a body may hold in all.
	ValuesMax = 1 << 16

	fieldNameMax = 64
)

// InputError is the error for input that is not accepted: the error InvalidRequest with status
// 400. Field is the name of the faulty field, "" if it is not known.
type InputError struct {
	Field, Problem string
}

func (e *InputError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

// Decode reads a body into the struct that in points to. Names are matched without regard to
// case, so that deviceUUID and deviceUuid are one; a field without omitempty or omitzero must
// be present under its exact spelling. An empty body counts as {}. The caller bounds the size
// of body. The error is an *InputError.
func Decode(body []byte, in any) error {
	if len(body) == 0 {
		body = []byte("{}")
	}
	if !utf8.Valid(body) {
		return &InputError{Problem: "text is not UTF-8"}
	}
	names, err := survey(body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, in); err != nil {
		return inputError(err)
	}
	for _, field := range fieldsOf(reflect.TypeOf(in).Elem()) {
		if !field.optional && !names[field.name] {
			return &InputError{field.name, "is required"}
		}
	}
	return nil
}

func inputError(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return &InputError{wrong.Field, "must not be of type " + strings.Fields(wrong.Value + " ?")[0]}
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return &InputError{Problem: "malformed json"}
	}
	return &InputError{Problem: err.Error()}
}

// survey scans a body before anything is built from it. It counts depth and values, refuses
// strings that cannot be stored, and returns the names of the outermost object, each of which
// may occur once, and whether its value is not null. Other faults of the JSON are left to the
// decoder.
func survey(body []byte) (map[string]bool, error) {
	names := map[string]bool{}
	depth, values := 0, 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
			values++
		case '}', ']':
			depth--
		case ',':
			values++
		case '"':
			end, err := stringEnd(body, i)
			if err != nil {
				return nil, err
			}
			if rest := bytes.TrimLeft(body[end:], " \t\r\n"); depth == 1 && len(rest) > 0 && rest[0] == ':' {
				if err := addName(names, body[i:end], bytes.TrimLeft(rest[1:], " \t\r\n")); err != nil {
					return nil, err
				}
			}
			i = end - 1
		}
		if depth > DepthMax {
			return nil, &InputError{Problem: "nested too deep"}
		}
		if values > ValuesMax {
			return nil, &InputError{Problem: "too many values"}
		}
	}
	if first := bytes.TrimLeft(body, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return nil, &InputError{Problem: "the body must be a json object"}
	}
	return names, nil
}

func addName(names map[string]bool, quoted, value []byte) error {
	var name string
	if json.Unmarshal(quoted, &name) != nil {
		return &InputError{Problem: "malformed json"}
	}
	if _, twice := names[name]; twice {
		if len(name) > fieldNameMax {
			name = "" // untrusted text is not echoed at length
		}
		return &InputError{name, "is there twice"}
	}
	names[name] = !bytes.HasPrefix(value, []byte("null"))
	return nil
}

// stringEnd returns the index after the string that begins at start. Some databases cannot
// store NUL, and decoders disagree about half a surrogate pair.
func stringEnd(body []byte, start int) (int, error) {
	quote := start
	for i := start + 1; i < len(body); {
		if quote < i {
			next := bytes.IndexByte(body[i:], '"')
			if next < 0 {
				break
			}
			quote = i + next
		}
		escape := bytes.IndexByte(body[i:quote], '\\')
		if escape < 0 {
			return quote + 1, nil
		}
		i += escape
		unit, isUnit := utf16Unit(body[i:])
		switch {
		case !isUnit:
			i += 2
			continue
		case unit == 0:
			return 0, &InputError{Problem: "a string must not contain NUL"}
		case unit >= 0xd800 && unit < 0xe000:
			low, isLow := utf16Unit(body[i+6:])
			if unit >= 0xdc00 || !isLow || low < 0xdc00 || low >= 0xe000 {
				return 0, &InputError{Problem: "a string must not contain half a surrogate pair"}
			}
			i += 6
		}
		i += 6
	}
	return 0, &InputError{Problem: "malformed json"}
}

// utf16Unit decodes \uXXXX.
func utf16Unit(in []byte) (uint64, bool) {
	if len(in) < 6 || in[0] != '\\' || in[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(in[2:6]), 16, 16)
	return unit, err == nil
}
