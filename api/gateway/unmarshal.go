package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// itemsMax bounds a list, so that a body of empty strings does not become many times its size
// in memory. No list of the protocol comes near it within 1 MiB.
const itemsMax = 1 << 19

// Unmarshal reads the JSON object data into the struct that into points to, with the rules of
// this protocol, which are stricter than those of encoding/json:
//
//   - names match exactly; unknown ones are ignored, the last of repeated ones is used;
//   - a field must be present and of its own type, see the package comment;
//   - numbers are written as integers and fit in an int64: 1.0, 1e3, "1" and true are not
//     numbers;
//   - data that Validate refuses is refused.
//
// Fields may be strings, bools, int64s, json.RawMessages, structs of these, and pointers to or
// slices of these. The error is ErrNotUTF8, ErrMalformed or an *InputError, and into may then
// be partly filled.
func Unmarshal(data []byte, into any) error {
	if err := Validate(data); err != nil {
		return err
	}
	return unmarshalChecked(data, into)
}

// unmarshalChecked does the work of Unmarshal for data that Validate has accepted.
func unmarshalChecked(data []byte, into any) error {
	v := reflect.ValueOf(into).Elem()
	return setStruct(skipSpace(data), v)
}

// plan is the decoding plan of a struct type. Fields are identified by their index; no struct
// here has more than 64.
type plan struct {
	fields   map[string]int
	names    []string // by index
	required uint64   // a set of indexes
}

var plans sync.Map // reflect.Type → *plan

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := &plan{fields: map[string]int{}, names: make([]string, t.NumField())}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		p.fields[name], p.names[i] = i, name
		if options == "" && t.Field(i).Type.Kind() != reflect.Pointer {
			p.required |= 1 << i
		}
	}
	plans.Store(t, p)
	return p
}

// field finds a field by its name as written, in quotes.
func (p *plan) field(quoted []byte) (index int, ok bool) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		index, ok = p.fields[string(quoted[1:len(quoted)-1])] // does not allocate
		return index, ok
	}
	name, _ := textOf(quoted)
	index, ok = p.fields[name]
	return index, ok
}

func setStruct(raw []byte, v reflect.Value) error {
	if len(raw) == 0 || raw[0] != '{' {
		return &InputError{Problem: "not an object"}
	}
	p := planOf(v.Type())
	var seen uint64 // a set of indexes
	err := eachField(raw, func(name, value []byte) error {
		index, ok := p.field(name)
		if !ok {
			return nil
		}
		v.Field(index).SetZero()
		if string(value) == "null" {
			seen &^= 1 << index
			return nil
		}
		seen |= 1 << index
		if err := setValue(value, v.Field(index)); err != nil {
			return within(p.names[index], err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if missing := p.required &^ seen; missing != 0 {
		return &InputError{Field: p.names[bits.TrailingZeros64(missing)], Problem: "missing"}
	}
	return nil
}

// span is the text of a value within the input.
type span []byte

var (
	rawMessage = reflect.TypeFor[json.RawMessage]()
	rawSpan    = reflect.TypeFor[span]()
)

func setValue(raw []byte, v reflect.Value) error {
	switch v.Type() {
	case rawMessage:
		v.SetBytes(bytes.Clone(raw))
		return nil
	case rawSpan:
		v.SetBytes(raw)
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		s, ok := textOf(raw)
		if !ok {
			return &InputError{Problem: "not a string"}
		}
		v.SetString(s)
	case reflect.Int64:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil { // among valid JSON numbers, this accepts exactly the integers
			return &InputError{Problem: "not an integer"}
		}
		v.SetInt(n)
	case reflect.Bool:
		if raw[0] != 't' && raw[0] != 'f' {
			return &InputError{Problem: "not true or false"}
		}
		v.SetBool(raw[0] == 't')
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return setValue(raw, v.Elem())
	case reflect.Struct:
		return setStruct(raw, v)
	case reflect.Slice:
		return setSlice(raw, v)
	default:
		panic(fmt.Sprintf("gateway: no wire type has a field of type %s", v.Type()))
	}
	return nil
}

func setSlice(raw []byte, v reflect.Value) error {
	if raw[0] != '[' {
		return &InputError{Problem: "not a list"}
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for in, i := skipSpace(raw[1:]), 0; in[0] != ']'; i++ {
		if i == itemsMax {
			return &InputError{Problem: "too many items"}
		}
		rest, _ := skipValue(in, 0)
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if err := setValue(in[:len(in)-len(rest)], v.Index(i)); err != nil {
			return within(item(i), err)
		}
		more, after, _ := nextItem(rest, ']')
		if !more {
			break
		}
		in = after
	}
	return nil
}

// eachField calls f with each field of the object at the start of raw, its name in quotes. raw
// has been checked.
func eachField(raw []byte, f func(name, value []byte) error) error {
	in := skipSpace(raw[1:])
	if in[0] == '}' {
		return nil
	}
	for {
		rest, _ := skipString(in)
		name := in[:len(in)-len(rest)]
		value := skipSpace(skipSpace(rest)[1:])
		rest, _ = skipValue(value, 0)
		if err := f(name, value[:len(value)-len(rest)]); err != nil {
			return err
		}
		more, after, _ := nextItem(rest, '}')
		if !more {
			return nil
		}
		in = after
	}
}

// textOf decodes a string that has been checked; ok is false for other values.
func textOf(raw []byte) (s string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		return s, json.Unmarshal(raw, &s) == nil
	}
	return string(raw[1 : len(raw)-1]), true
}
