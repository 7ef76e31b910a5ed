package xrpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timeLayout is the output format of times: the lexicon format datetime, in UTC with
// milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

var (
	errNotTime    = errors.New("a time must be RFC 3339")
	errNotInteger = errors.New("an integer must be whole, not negative and below 2^63")
)

// timeForm is the form of RFC 3339, section 5.6. Go's layout is no substitute: it accepts an hour
// of one digit, a comma for the point and an offset of a day, and no lower-case letters.
var timeForm = regexp.MustCompile(`^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// Time is the lexicon format datetime. It is read with any offset and fraction, and written in
// UTC with milliseconds, truncated.
type Time struct{ time.Time }

// TimeMS converts epoch milliseconds.
func TimeMS(ms int64) Time { return Time{time.UnixMilli(ms).UTC()} }

func (t Time) text() (string, error) {
	utc := t.UTC()
	if !hasFourDigits(utc) {
		return "", fmt.Errorf("year %d cannot be written", utc.Year())
	}
	return utc.Format(timeLayout), nil
}

// hasFourDigits reports whether the year of utc can be written.
func hasFourDigits(utc time.Time) bool { return utc.Year() >= 0 && utc.Year() <= 9999 }

// MarshalJSON writes the time in UTC with milliseconds.
func (t Time) MarshalJSON() ([]byte, error) {
	text, err := t.text()
	return []byte(`"` + text + `"`), err
}

// UnmarshalJSON reads any RFC 3339 time that has a form in UTC.
func (t *Time) UnmarshalJSON(in []byte) error {
	if string(in) == "null" {
		return nil
	}
	var text string
	if err := json.Unmarshal(in, &text); err != nil {
		return errNotTime
	}
	parsed, err := time.Parse(time.RFC3339, strings.ToUpper(text))
	if err != nil || !timeForm.MatchString(text) || !hasFourDigits(parsed.UTC()) {
		return errNotTime
	}
	*t = Time{parsed.UTC()}
	return nil
}

// Natural is an integer of an input: whole, 0 or more, of 64 bits.
type Natural int64

// UnmarshalJSON refuses fractions, exponents, negative numbers and overflow.
func (n *Natural) UnmarshalJSON(in []byte) error {
	if string(in) == "null" {
		return nil
	}
	value, err := parseNatural(string(in))
	if err != nil {
		return err
	}
	*n = value
	return nil
}

func parseNatural(text string) (Natural, error) {
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil || value < 0 || text[0] == '+' || text[0] == '-' {
		return 0, errNotInteger
	}
	return Natural(value), nil
}

// List is an array that is always written as one: nil is written as [], because a client that
// finds null where its lexicon has an array refuses the whole answer.
type List[T any] []T

// MarshalJSON writes an array.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// CursorText is a cursor of updateCursor, which some clients send as a number.
type CursorText string

// UnmarshalJSON reads a string or an integer.
func (c *CursorText) UnmarshalJSON(in []byte) error {
	if string(in) == "null" {
		return nil
	}
	if len(in) > 0 && in[0] != '"' {
		n, err := parseNatural(string(in))
		if err != nil {
			return errNotInteger
		}
		*c = CursorText(strconv.FormatInt(int64(n), 10))
		return nil
	}
	return json.Unmarshal(in, (*string)(c))
}
