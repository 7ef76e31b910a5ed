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

// Bytes is the lexicon type bytes: {"$bytes": base64} in JSON, a byte string in CBOR. It is
// written with the standard alphabet and padding, as the strictest client requires.
type Bytes []byte

// MarshalJSON encodes b in the one form that every client reads.
func (b Bytes) MarshalJSON() ([]byte, error) {
	const before, after = `{"$bytes":"`, `"}`
	out := make([]byte, 0, len(before)+base64.StdEncoding.EncodedLen(len(b))+len(after))
	out = append(out, before...)
	out = base64.StdEncoding.AppendEncode(out, b)
	return append(out, after...), nil
}

// UnmarshalJSON reads {"$bytes": base64}. Any other key in the object is an error.
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

// dollarBytes returns the base64 of a {"$bytes"} object. It reads tokens rather than a map,
// because a duplicate key must not go unnoticed.
func dollarBytes(in []byte) ([]byte, error) {
	if rest, plain := bytes.CutPrefix(in, []byte(`{"$bytes":"`)); plain {
		// The common case copies nothing; MLS messages have megabytes.
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

// DecodeBase64 decodes base64 of the standard or the URL alphabet, padded or not (RFC 4648,
// sections 4 and 5). The alphabets must not be mixed, and unused bits must be zero, so that a
// value has one spelling in each dialect.
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

// has searches many bytes at a time, which bytes.ContainsAny does not.
func has(text []byte, c byte) bool { return bytes.IndexByte(text, c) >= 0 }

// Shape is the JSON form of a bytes field on which the generations disagree.
type Shape byte

// The shapes.
const (
	// ShapeNone is the shape of an absent field; it is written as ShapeBytes.
	ShapeNone Shape = iota
	// ShapeText is a plain string of padded standard base64, as in generation A.
	ShapeText
	// ShapeBytes is a {"$bytes"} object, as in generation B.
	ShapeBytes
)

// Blob holds the bytes of a field that is a string in generation A and bytes in generation B
// (commit, welcome, groupInfo, keyPackage, welcomeMessage). It is read in
// either shape and remembers which; it is written in the shape that it holds.
type Blob struct {
	Data  []byte
	Shape Shape
}

// IsZero reports whether the field was absent; a field that is present but empty is not zero.
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
			// "\/" is a valid way to write one of the alphabet's characters.
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
