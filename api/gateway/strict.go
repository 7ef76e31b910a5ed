package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// DepthMax bounds how deep arrays and objects may be nested.
const DepthMax = 32

// ErrNotUTF8 is the error for text that is not UTF-8. On a WebSocket it ends the connection
// with 1007 (RFC 6455, section 8.1).
var ErrNotUTF8 = errors.New("text is not UTF-8")

// ErrMalformed is the error for data that is not JSON (RFC 8259).
var ErrMalformed = errors.New("malformed json")

// InputError is the error for JSON that is not accepted: a field is missing or of another type,
// a string contains a forbidden character, the nesting is too deep. Field is the path of the
// fault, "" if it is the whole.
type InputError struct {
	Field, Problem string
}

func (e *InputError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

// Validate checks that data is one JSON value that this protocol accepts: UTF-8, nested at most
// DepthMax deep, without NUL and without unpaired surrogates in any string. It does not
// allocate, whatever the input. The error is ErrNotUTF8, ErrMalformed or an *InputError.
func Validate(data []byte) error {
	if !utf8.Valid(data) {
		return ErrNotUTF8
	}
	rest, err := skipValue(skipSpace(data), 0)
	if err != nil {
		return err
	}
	if len(skipSpace(rest)) != 0 {
		return ErrMalformed
	}
	return nil
}

func skipSpace(in []byte) []byte {
	for i, c := range in {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return in[i:]
		}
	}
	return nil
}

// skipValue checks the value at the start of in and returns the rest after it.
func skipValue(in []byte, depth int) (rest []byte, err error) {
	if len(in) == 0 {
		return nil, ErrMalformed
	}
	switch in[0] {
	case '{':
		return skipObject(in, depth+1)
	case '[':
		return skipArray(in, depth+1)
	case '"':
		return skipString(in)
	case 't':
		return skipWord(in, "true")
	case 'f':
		return skipWord(in, "false")
	case 'n':
		return skipWord(in, "null")
	}
	return skipNumber(in)
}

func skipWord(in []byte, word string) ([]byte, error) {
	if len(in) < len(word) || string(in[:len(word)]) != word {
		return nil, ErrMalformed
	}
	return in[len(word):], nil
}

func skipObject(in []byte, depth int) ([]byte, error) {
	if depth > DepthMax {
		return nil, &InputError{Problem: "nested too deep"}
	}
	in = skipSpace(in[1:])
	if len(in) > 0 && in[0] == '}' {
		return in[1:], nil
	}
	for {
		if len(in) == 0 || in[0] != '"' {
			return nil, ErrMalformed
		}
		rest, err := skipString(in)
		if err != nil {
			return nil, err
		}
		rest = skipSpace(rest)
		if len(rest) == 0 || rest[0] != ':' {
			return nil, ErrMalformed
		}
		in, err = skipValue(skipSpace(rest[1:]), depth)
		if err != nil {
			return nil, err
		}
		more, after, err := nextItem(in, '}')
		if err != nil || !more {
			return after, err
		}
		in = after
	}
}

func skipArray(in []byte, depth int) ([]byte, error) {
	if depth > DepthMax {
		return nil, &InputError{Problem: "nested too deep"}
	}
	in = skipSpace(in[1:])
	if len(in) > 0 && in[0] == ']' {
		return in[1:], nil
	}
	for {
		rest, err := skipValue(in, depth)
		if err != nil {
			return nil, err
		}
		more, after, err := nextItem(rest, ']')
		if err != nil || !more {
			return after, err
		}
		in = after
	}
}

// nextItem reads the separator between two items: a comma, or the end of the list or object.
func nextItem(in []byte, end byte) (more bool, rest []byte, err error) {
	in = skipSpace(in)
	switch {
	case len(in) == 0:
		return false, nil, ErrMalformed
	case in[0] == end:
		return false, in[1:], nil
	case in[0] == ',':
		return true, skipSpace(in[1:]), nil
	}
	return false, nil, ErrMalformed
}

func skipNumber(in []byte) ([]byte, error) {
	if in[0] == '-' {
		in = in[1:]
	}
	digits := func() bool {
		n := 0
		for n < len(in) && in[n] >= '0' && in[n] <= '9' {
			n++
		}
		in = in[n:]
		return n > 0
	}
	if len(in) > 0 && in[0] == '0' {
		in = in[1:]
	} else if !digits() {
		return nil, ErrMalformed
	}
	if len(in) > 0 && in[0] == '.' {
		in = in[1:]
		if !digits() {
			return nil, ErrMalformed
		}
	}
	if len(in) > 0 && (in[0] == 'e' || in[0] == 'E') {
		in = in[1:]
		if len(in) > 0 && (in[0] == '+' || in[0] == '-') {
			in = in[1:]
		}
		if !digits() {
			return nil, ErrMalformed
		}
	}
	return in, nil
}

// skipString checks a string. Surrogates must be paired: decoders disagree about the meaning of
// a lone one, and one that replaces it by U+FFFD changes the message. Some databases cannot
// store NUL.
func skipString(in []byte) ([]byte, error) {
	for i := 1; i < len(in); i++ {
		for i+8 <= len(in) && isPlain(binary.LittleEndian.Uint64(in[i:])) {
			i += 8
		}
		if i == len(in) {
			break
		}
		switch c := in[i]; {
		case c == '"':
			return in[i+1:], nil
		case c < 0x20:
			return nil, ErrMalformed
		case c == '\\':
			n, err := checkEscape(in[i:])
			if err != nil {
				return nil, err
			}
			i += n - 1
		}
	}
	return nil, ErrMalformed
}

// isPlain reports whether none of eight bytes is a control character, a quote or a backslash:
// almost all input is base64, and long.
func isPlain(x uint64) bool {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^(ones*'"'), x^(ones*'\\')
	return ((x-ones*0x20)&^x|(quote-ones)&^quote|(backslash-ones)&^backslash)&highs == 0
}

// checkEscape returns the length of the escape at the start of in; a pair of surrogates counts
// as one.
func checkEscape(in []byte) (int, error) {
	if len(in) < 2 {
		return 0, ErrMalformed
	}
	switch in[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
	default:
		return 0, ErrMalformed
	}
	unit, err := codeUnit(in)
	if err != nil {
		return 0, err
	}
	switch {
	case unit == 0:
		return 0, &InputError{Problem: "a string holds NUL"}
	case unit >= 0xDC00 && unit <= 0xDFFF:
		return 0, errLoneSurrogate
	case unit >= 0xD800 && unit <= 0xDBFF:
		if len(in) < 8 || in[6] != '\\' || in[7] != 'u' {
			return 0, errLoneSurrogate
		}
		low, err := codeUnit(in[6:])
		if err != nil {
			return 0, err
		}
		if low < 0xDC00 || low > 0xDFFF {
			return 0, errLoneSurrogate
		}
		return 12, nil
	}
	return 6, nil
}

var errLoneSurrogate = &InputError{Problem: "a string holds an unpaired surrogate"}

// codeUnit decodes the UTF-16 code unit of an escape, \uXXXX.
func codeUnit(in []byte) (unit int, err error) {
	if len(in) < 6 {
		return 0, ErrMalformed
	}
	for _, c := range in[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, ErrMalformed
		}
		unit = unit<<4 | int(c)
	}
	return unit, nil
}

// within prepends the name of the surrounding field to the path in err.
func within(name string, err error) error {
	var input *InputError
	if !errors.As(err, &input) {
		return err
	}
	path := name
	switch {
	case input.Field == "":
	case input.Field[0] == '[':
		path += input.Field
	default:
		path += "." + input.Field
	}
	return &InputError{Field: path, Problem: input.Problem}
}

func item(i int) string { return fmt.Sprintf("[%d]", i) }
