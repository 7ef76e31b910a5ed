package lexicons

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrUnknown reports that the set has no such lexicon, or the lexicon no such part.
var ErrUnknown = errors.New("no such lexicon")

// ValidationError names the part of a value that does not match its lexicon.
type ValidationError struct {
	// Path leads to the fault: /messages/0/seq.
	Path    string
	Problem string
}

func (e *ValidationError) Error() string { return e.Path + ": " + e.Problem }

// Validate checks a JSON value against a part of a lexicon: "input", "output", "parameters" (as
// an object), or the name of one of its definitions, such as an event. Fields that the lexicon
// does not know are allowed, as clients ignore them; null is not. The error is ErrUnknown, a
// *ValidationError, or a JSON error.
func Validate(set Set, nsid, part string, value []byte) error {
	c := catalogs()[set]
	doc := c[nsid]
	if doc == nil {
		return fmt.Errorf("%w: %s", ErrUnknown, nsid)
	}
	target := doc.part(part)
	if target == nil {
		return fmt.Errorf("%w: %s#%s", ErrUnknown, nsid, part)
	}
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return fmt.Errorf("value: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("value: trailing data")
	}
	return c.check(target, nsid, "", tree)
}

func (d *document) part(name string) *schema {
	main := d.Defs["main"]
	if main == nil {
		return d.Defs[name]
	}
	of := func(b *body) *schema {
		if b == nil {
			return nil
		}
		return b.Schema
	}
	switch name {
	case "input":
		return of(main.Input)
	case "output":
		return of(main.Output)
	case "message":
		return of(main.Message)
	case "parameters":
		return main.Parameters
	case "main":
		return nil
	}
	return d.Defs[name]
}

// check does the work of Validate for a decoded value; nsid is the lexicon that contains s.
func (c catalog) check(s *schema, nsid, path string, value any) error {
	bad := func(format string, args ...any) error {
		return &ValidationError{path, fmt.Sprintf(format, args...)}
	}
	switch s.Type {
	case "object", "params":
		return c.checkObject(s, nsid, path, value)
	case "array":
		items, is := value.([]any)
		if !is {
			return bad("must be an array")
		}
		if err := checkLength(s, path, len(items)); err != nil {
			return err
		}
		for i, item := range items {
			if err := c.check(s.Items, nsid, path+"/"+strconv.Itoa(i), item); err != nil {
				return err
			}
		}
		return nil
	case "ref":
		target, home, err := c.find(nsid, s.Ref)
		if err != nil {
			return bad("%v", err)
		}
		return c.check(target, home, path, value)
	case "union":
		return c.checkUnion(s, nsid, path, value)
	case "string":
		text, is := value.(string)
		if !is {
			return bad("must be a string")
		}
		if err := checkFormat(s.Format, text); err != nil {
			return bad("%v", err)
		}
		return checkLength(s, path, len(text))
	case "bytes":
		data, err := bytesOf(value)
		if err != nil {
			return bad("%v", err)
		}
		return checkLength(s, path, len(data))
	case "integer":
		return checkInteger(s, path, value)
	case "boolean":
		if _, is := value.(bool); !is {
			return bad("must be a boolean")
		}
		return nil
	case "unknown":
		object, is := value.(map[string]any)
		if !is {
			return bad("must be an object")
		}
		_, isBytes := object["$bytes"]
		_, isLink := object["$link"]
		if isBytes || isLink || object["$type"] == "blob" {
			return bad("must be an object that is no bytes, link or blob")
		}
		return nil
	}
	return bad("type %q is not a value's", s.Type)
}

func (c catalog) checkObject(s *schema, nsid, path string, value any) error {
	object, is := value.(map[string]any)
	if !is {
		return &ValidationError{path, "must be an object"}
	}
	for _, name := range s.Required {
		if _, has := object[name]; !has {
			return &ValidationError{path + "/" + name, "is required"}
		}
	}
	for name, property := range s.Properties {
		item, has := object[name]
		if !has || item == nil && slices.Contains(s.Nullable, name) {
			continue
		}
		if err := c.check(property, nsid, path+"/"+name, item); err != nil {
			return err
		}
	}
	return nil
}

func (c catalog) checkUnion(s *schema, nsid, path string, value any) error {
	object, _ := value.(map[string]any)
	kind, is := object["$type"].(string)
	if !is {
		return &ValidationError{path, "must be an object with $type"}
	}
	for _, reference := range s.Refs {
		target, home, err := c.find(nsid, reference)
		if err != nil {
			return &ValidationError{path, err.Error()}
		}
		_, name, _ := strings.Cut(reference, "#")
		if kind == home+"#"+name || name == "" && kind == home {
			return c.check(target, home, path, value)
		}
	}
	// Of an open union the lexicon says nothing more; here it would be a mistake.
	return &ValidationError{path + "/$type", kind + " is not in the union"}
}

func checkLength(s *schema, path string, length int) error {
	if s.MinLength != nil && length < *s.MinLength {
		return &ValidationError{path, fmt.Sprintf("must have at least %d, has %d", *s.MinLength, length)}
	}
	if s.MaxLength != nil && length > *s.MaxLength {
		return &ValidationError{path, fmt.Sprintf("must have at most %d, has %d", *s.MaxLength, length)}
	}
	return nil
}

func checkInteger(s *schema, path string, value any) error {
	number, is := value.(json.Number)
	if !is {
		return &ValidationError{path, "must be an integer"}
	}
	n, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil {
		return &ValidationError{path, "must be a 64-bit integer"}
	}
	if s.Minimum != nil && n < *s.Minimum || s.Maximum != nil && n > *s.Maximum {
		return &ValidationError{path, fmt.Sprintf("%d is out of range", n)}
	}
	return nil
}

// bytesOf decodes {"$bytes": base64} as the strictest client does: the standard alphabet,
// padded or not.
func bytesOf(value any) ([]byte, error) {
	object, _ := value.(map[string]any)
	text, is := object["$bytes"].(string)
	if !is || len(object) != 1 {
		return nil, errors.New("must be an object with $bytes only")
	}
	data, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, errors.New("must be standard base64")
	}
	return data, nil
}

const (
	label  = `[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?`
	first  = `[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?` // the last label of a handle, and the first of an NSID
	handle = `(?:` + label + `\.)+` + first
	nsid   = first + `(?:\.` + label + `)+\.[a-zA-Z][a-zA-Z0-9]{0,62}`
)

// The formats of the AT Protocol's lexicon language; IsDID is the other one.
var (
	datetimeForm  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,20})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)
	uriForm       = regexp.MustCompile(`^[a-z][a-z.-]{0,80}:[!-~]+$`)
	handleForm    = regexp.MustCompile(`^` + handle + `$`)
	nsidForm      = regexp.MustCompile(`^` + nsid + `$`)
	recordKeyForm = regexp.MustCompile(`^[a-zA-Z0-9._:~-]{1,512}$`)
)

// IsDID reports whether text has the syntax of a DID in the AT Protocol.
func IsDID(text string) bool {
	rest, ok := strings.CutPrefix(text, "did:")
	method, id, _ := strings.Cut(rest, ":")
	if !ok || method == "" || id == "" || len(text) > 2048 {
		return false
	}
	isIn := func(text, alphabet string) bool { return strings.Trim(text, alphabet) == "" }
	const small, capital, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	return isIn(method, small) && isIn(id, small+capital+digits+"._:%-") && id[len(id)-1] != ':' && id[len(id)-1] != '%'
}

func isNSID(text string) bool { return len(text) <= 317 && nsidForm.MatchString(text) }

// isATURI reports whether text names an account, and perhaps a collection and a record of it.
func isATURI(text string) bool {
	rest, ok := strings.CutPrefix(text, "at://")
	parts := strings.Split(rest, "/")
	if !ok || len(text) > 8192 || len(parts) > 3 {
		return false
	}
	isName := IsDID(parts[0]) || len(parts[0]) <= 253 && handleForm.MatchString(parts[0])
	return isName && (len(parts) < 2 || isNSID(parts[1])) &&
		(len(parts) < 3 || recordKeyForm.MatchString(parts[2]) && parts[2] != "." && parts[2] != "..")
}

func isDatetime(text string) bool {
	t, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && t.UTC().Year() >= 0 && datetimeForm.MatchString(text) && !strings.HasSuffix(text, "-00:00")
}

func checkFormat(format, text string) error {
	var is bool
	switch format {
	case "":
		return nil
	case "did":
		is = IsDID(text)
	case "datetime":
		is = isDatetime(text)
	case "uri":
		is = len(text) <= 8192 && uriForm.MatchString(text)
	case "at-uri":
		is = isATURI(text)
	default:
		return fmt.Errorf("format %q is not known", format)
	}
	if !is {
		return fmt.Errorf("must be a valid %s", format)
	}
	return nil
}
