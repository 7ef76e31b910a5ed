package xrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
)

var (
	errNotBytes  = errors.New(`bytes must be an object with nothing but a "$bytes" string`)
	errNotBase64 = errors.New("bytes must be base64")
)

// Bytes is the lexicon type bytes: {"$bytes": base64} in JSON, a byte string in CBOR. It
// is written with the standard alphabet and padding, as the strictest client wants it.
type Bytes []byte

// MarshalJSON writes b in the one form that every client reads.
func (b Bytes) MarshalJSON() ([]byte, error) {
	const before, after = `{"$bytes":"`, `"}`
	out := make([]byte, 0, len(before)+base64.StdEncoding.EncodedLen(len(b))+len(after))
	out = append(out, before...)
	out = base64.StdEncoding.AppendEncode(out, b)
	return append(out, after...), nil
}

// UnmarshalJSON reads {"$bytes": base64}. Any other key beside it is an error.
func (b *Bytes) UnmarshalJSON(in []byte) error {
	if string(in) == "null" {
		return nil
	}
	text, err := dollarBytes(in)
	if err != nil {
		return err
	}
	data, err := DecodeBase64(text)
	if err != nil {
		return err
	}
	*b = data
	return nil
}

// dollarBytes takes the base64 out of a {"$bytes"} object. It reads tokens rather than a
// map, because a key that stands there twice must not go unseen.
func dollarBytes(in []byte) ([]byte, error) {
	if rest, plain := bytes.CutPrefix(in, []byte(`{"$bytes":"`)); plain {
		// The common case copies nothing; MLS messages come in megabytes.
		if end := bytes.IndexByte(rest, '"'); end >= 0 && string(rest[end:]) == `"}` && !has(rest, '\\') {
			return rest[:end], nil
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(in))
	var parts [4]json.Token
	for i := range parts {
		token, err := decoder.Token()
		if err != nil {
			return nil, errNotBytes
		}
		parts[i] = token
	}
	text, isText := parts[2].(string)
	_, err := decoder.Token()
	if parts[0] != json.Delim('{') || parts[1] != "$bytes" || !isText || parts[3] != json.Delim('}') || !errors.Is(err, io.EOF) {
		return nil, errNotBytes
	}
	return []byte(text), nil
}

// DecodeBase64 reads base64 of the standard or the URL alphabet, padded or not (RFC 4648,
// sections 4 and 5). The alphabets are not mixed, and bits that encode nothing are zero,
// so that a value has one spelling in each dialect.
func DecodeBase64(text []byte) ([]byte, error) {
	encoding := base64.RawStdEncoding
	switch {
	case has(text, '\r') || has(text, '\n'):
		return nil, errNotBase64 // Go's decoder would skip them.
	case has(text, '-') || has(text, '_'):
		encoding = base64.RawURLEncoding
	}
	if len(text) > 0 && text[len(text)-1] == '=' {
		encoding = encoding.WithPadding(base64.StdPadding)
	}
	data := make([]byte, encoding.DecodedLen(len(text)))
	n, err := encoding.Strict().Decode(data, text)
	if err != nil {
		return nil, errNotBase64
	}
	return data[:n], nil
}

// has searches many bytes at a time, as bytes.ContainsAny does not.
func has(text []byte, c byte) bool { return bytes.IndexByte(text, c) >= 0 }

// Shape is how bytes stand in JSON where the generations disagree.
type Shape byte

// The shapes.
const (
	// ShapeNone is that of what was absent; it is written as ShapeBytes.
	ShapeNone Shape = iota
	// ShapeText is a plain string of padded standard base64, as generation A has it.
	ShapeText
	// ShapeBytes is a {"$bytes"} object, as generation B has it.
	ShapeBytes
)

// Blob is bytes of a field that generation A has as a string and generation B as bytes
// (spec section 0: commit, welcome, groupInfo, keyPackage, welcomeMessage). It is read in
// either shape and remembers which; it is written in the shape that it holds.
type Blob struct {
	Data  []byte
	Shape Shape
}

// IsZero says whether the field was absent; one that is there but empty is not.
func (b Blob) IsZero() bool { return b.Shape == ShapeNone && b.Data == nil }

// MarshalJSON writes the bytes in their shape.
func (b Blob) MarshalJSON() ([]byte, error) {
	if b.Shape != ShapeText {
		return Bytes(b.Data).MarshalJSON()
	}
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b.Data))+2)
	out = append(out, '"')
	out = base64.StdEncoding.AppendEncode(out, b.Data)
	return append(out, '"'), nil
}

// UnmarshalJSON reads either shape.
func (b *Blob) UnmarshalJSON(in []byte) error {
	switch {
	case string(in) == "null":
		return nil
	case len(in) > 0 && in[0] == '"':
		text := in[1 : len(in)-1]
		if has(text, '\\') {
			// "\/" is a legal way to write one of the alphabet's characters.
			var s string
			if err := json.Unmarshal(in, &s); err != nil {
				return err
			}
			text = []byte(s)
		}
		data, err := DecodeBase64(text)
		if err != nil {
			return err
		}
		*b = Blob{data, ShapeText}
		return nil
	}
	var data Bytes
	if err := data.UnmarshalJSON(in); err != nil {
		return err
	}
	*b = Blob{data, ShapeBytes}
	return nil
}
