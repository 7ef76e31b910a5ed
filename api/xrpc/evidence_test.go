package xrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testvectors"
)

// The AT Protocol's times. Ours are wider: any of RFC 3339, which has small letters and an
// unknown offset too. What is read can be written.
func TestTimesOfATProtocol(t *testing.T) {
	wider := []string{"1985-04-12T23:20:50.123z", "1985-04-12t23:20:50.123Z", "1985-04-12T23:20:50.123-00:00"}
	for _, file := range []string{"datetime_syntax_valid.txt", "datetime_syntax_invalid.txt", "datetime_parse_invalid.txt"} {
		for _, line := range testvectors.Lines(t, "atproto/syntax/"+file) {
			text, _ := json.Marshal(line)
			var at Time
			err := json.Unmarshal(text, &at)
			if isRead := strings.HasSuffix(file, "_valid.txt") || slices.Contains(wider, line); (err == nil) != isRead {
				t.Errorf("%s: %q: %v", file, line, err)
			}
			if _, errWrite := json.Marshal(at); err == nil && errWrite != nil {
				t.Errorf("%q is read and not written: %v", line, errWrite)
			}
		}
	}
}

// The AT Protocol's data model. Links, blobs and records have no form here, and integers no
// fraction, not even one that is zero.
func TestDataModelOfATProtocol(t *testing.T) {
	type record struct {
		A Natural `json:"a"`
	}
	into := func(in any) func([]byte) error { return func(body []byte) error { return Decode(body, in) } }
	frame := func(body []byte) error {
		var in struct {
			Record json.RawMessage `json:"rcrd"`
		}
		if err := json.Unmarshal(body, &in); err != nil {
			t.Fatal(err)
		}
		_, err := DecodeClientFrame(in.Record, true)
		return err
	}
	readers := map[string]func([]byte) error{
		"top-level not an object":        into(&struct{}{}),
		"float":                          into(&struct{ Rcrd record }{}),
		"record with $type null":         frame,
		"record with $type wrong type":   frame,
		"record with empty $type string": frame,
		"bytes with wrong field type":    into(&struct{ Lnk Bytes }{}),
		"bytes with extra fields":        into(&struct{ Lnk Bytes }{}),
		"trivial record":                 into(&struct{ Rcrd record }{}),
		"empty list and object":          into(&struct{ Rcrd struct{ A List[Natural] } }{}),
		"list of nullable":               into(&struct{ Arr List[*Natural] }{}),
		"list of lists":                  into(&struct{ Arr List[List[Natural]] }{}),
		"float, but integer-like":        nil,
		"blob with string size":          nil,
		"blob with missing key":          nil,
		"link with wrong field type":     nil,
		"link with bogus CID":            nil,
		"link with extra fields":         nil,
	}
	read, left := 0, 0
	for _, file := range []string{"data-model-valid.json", "data-model-invalid.json"} {
		for _, c := range testvectors.JSON[struct {
			Note string
			JSON json.RawMessage
		}](t, "atproto/data-model/"+file) {
			reader, has := readers[c.Note]
			switch {
			case !has:
				t.Errorf("%s: %s is neither read nor listed", file, c.Note)
			case reader == nil:
				left++
			default:
				read++
				if err := reader(c.JSON); (err == nil) != (file == "data-model-valid.json") {
					t.Errorf("%s: %v", c.Note, err)
				}
			}
		}
	}
	for i, c := range testvectors.JSON[struct {
		JSON map[string]any
		CBOR string `json:"cbor_base64"`
	}](t, "atproto/data-model/data-model-fixtures.json") {
		raw, err := base64.RawStdEncoding.DecodeString(c.CBOR)
		if err != nil {
			t.Fatal(err)
		}
		value, err := readCBOR(raw)
		if hasLinks := i > 0; hasLinks {
			if left++; err == nil {
				t.Errorf("fixture %d: a link was read as %v", i, value)
			}
			continue
		}
		read++
		got, _ := json.Marshal(value)
		want, _ := json.Marshal(c.JSON)
		if !bytes.Equal(got, want) {
			t.Errorf("fixture %d: got %s, %v, want %s", i, got, err, want)
		}
		if again, err := appendCBOR(nil, encodable(value)); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("fixture %d: wrote %x, %v, want %x", i, again, err, raw)
		}
	}
	testvectors.Published(t, "atproto/data-model", read, left)
}

// The fixtures for deterministic CBOR, of which ours is the form of DAG-CBOR without floats,
// without links and with integers of 64 bits. Each is read by itself, and within a frame of a
// client.
func TestCBORFixtures(t *testing.T) {
	const profile = "dag-cbor"
	outside := []string{ // in the profile, and refused because the protocol has no such value
		"64-bit floats only", "zero float64", "64-bit subnormal number", "valid CID with short tag",
		"largest CBOR integer, 2^64-1", "smallest CBOR integer, -(2^64)",
	}
	refused := map[string]any{ // what Go has for values that must not be written
		"NaN": math.NaN(), "Inf": math.Inf(1), "-Inf": math.Inf(-1), "negative zero": math.Copysign(0, -1),
		"bignum": new(big.Int).Lsh(big.NewInt(1), 64), "map with int key": map[int]int{0: 0}, "tagged object (datetime)": time.Now(),
	}
	read, left := 0, 0
	for _, file := range testvectors.Names(t, "cbor") {
		for _, c := range testvectors.JSON[struct {
			Type, Data, Name string
			Tags             []string
		}](t, "cbor/"+file) {
			if !slices.Contains(c.Tags, profile) && !slices.Contains(c.Tags, "basic") {
				left++ // another profile
				continue
			}
			raw, err := hex.DecodeString(c.Data)
			if err != nil {
				t.Fatal(err)
			}
			value, err := readCBOR(raw)
			_, errFrame := DecodeClientFrame(append(unhex(t, "a2 61 78"), append(raw, unhex(t, "65 24 74 79 70 65  65 23 70 69 6e 67")...)...), false)
			switch {
			case c.Type == "invalid_out":
				out, has := refused[c.Name]
				if !has { // "undefined" and unassigned simple values do not exist in Go
					left++
					continue
				}
				read++
				if wrote, err := appendCBOR(nil, reflect.ValueOf(out)); err == nil {
					t.Errorf("%s: %s: wrote %x", file, c.Name, wrote)
				}
			case c.Type == "invalid_in":
				read++
				if err == nil || errFrame == nil {
					t.Errorf("%s: %s: read %v, %v, %v", file, c.Name, value, err, errFrame)
				}
			case slices.Contains(outside, c.Name):
				left++
				if err == nil || errFrame == nil {
					t.Errorf("%s: %s: read %v, %v, %v", file, c.Name, value, err, errFrame)
				}
			default:
				read++
				if err != nil || errFrame != nil {
					t.Errorf("%s: %s: %v, %v", file, c.Name, err, errFrame)
					continue
				}
				if again, err := appendCBOR(nil, encodable(value)); err != nil || !bytes.Equal(again, raw) {
					t.Errorf("%s: %s: wrote %x, %v", file, c.Name, again, err)
				}
			}
		}
	}
	testvectors.Published(t, "cbor", read, left)
}

// readCBOR reads one value and nothing after it.
func readCBOR(in []byte) (any, error) {
	reader := cborReader{in: in}
	value, err := reader.value(0)
	if err == nil && len(reader.in) != 0 {
		err = errNotCBOR
	}
	return value, err
}

// encodable returns a value of the reader in the types that the writer knows: an object as a
// struct with its names as tags.
func encodable(value any) reflect.Value {
	switch v := value.(type) {
	case nil:
		return reflect.ValueOf((*int)(nil))
	case []any:
		list := reflect.New(reflect.SliceOf(reflect.TypeFor[string]())).Elem()
		for _, item := range v {
			list = reflect.Append(list, encodable(item))
		}
		return list
	case map[string]any:
		var fields []reflect.StructField
		var values []reflect.Value
		for name, item := range v {
			values = append(values, encodable(item))
			fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", len(fields)), Type: values[len(values)-1].Type(),
				Tag: reflect.StructTag(fmt.Sprintf("json:%q", name))})
		}
		object := reflect.New(reflect.StructOf(fields)).Elem()
		for i, field := range values {
			object.Field(i).Set(field)
		}
		return object
	}
	return reflect.ValueOf(value)
}
