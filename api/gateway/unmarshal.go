package gateway

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// itemsMax bounds a list, so that a body of empty strings does not become many
// times its size in memory. No list of the protocol comes near it within 1 MiB.
const itemsMax = 1 << 19

// Unmarshal reads the JSON object data into the struct that into points to, with
// the rules of this protocol, which are stricter than those of encoding/json:
//
//   - names match exactly; unknown ones are ignored, of repeated ones the last counts;
//   - a field must be there and of its own type, see the package comment;
//   - numbers are written as integers and fit in an int64: 1.0, 1e3, "1" and true are no numbers;
//   - what Validate refuses is refused.
//
// Fields may be strings, bools, int64s, json.RawMessages, structs of these, and
// pointers to or slices of these. The error is ErrNotUTF8, ErrMalformed or an
// *InputError, and into may then be half filled.
func Unmarshal(data []byte, into any) error {
	if err := Validate(data); err != nil {
		return err
	}
	return unmarshalChecked(data, into)
}

// unmarshalChecked is Unmarshal for data that Validate has passed.
func unmarshalChecked(data []byte, into any) error {
	v := reflect.ValueOf(into).Elem()
	return setStruct(skipSpace(data), v)
}

// plan is what Unmarshal knows about a struct.
type plan struct {
	fields map[string]planField
	names  []string // in order, so that the first missing one is named
}

type planField struct {
	index    int
	required bool
}

var plans sync.Map // reflect.Type → *plan

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	p := &plan{fields: map[string]planField{}}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		required := options == "" && t.Field(i).Type.Kind() != reflect.Pointer
		p.fields[name] = planField{index: i, required: required}
		p.names = append(p.names, name)
	}
	plans.Store(t, p)
	return p
}

func setStruct(raw []byte, v reflect.Value) error {
	if len(raw) == 0 || raw[0] != '{' {
		return &InputError{Problem: "not an object"}
	}
	p := planOf(v.Type())
	var seen uint64 // by index of the field; no struct of ours has more than 64
	err := eachField(raw, func(name string, value []byte) error {
		field, ok := p.fields[name]
		if !ok {
			return nil
		}
		v.Field(field.index).SetZero()
		if string(value) == "null" {
			seen &^= 1 << field.index
			return nil
		}
		seen |= 1 << field.index
		return within(name, setValue(value, v.Field(field.index)))
	})
	if err != nil {
		return err
	}
	for _, name := range p.names {
		if field := p.fields[name]; field.required && seen&(1<<field.index) == 0 {
			return &InputError{Field: name, Problem: "missing"}
		}
	}
	return nil
}

var rawMessage = reflect.TypeFor[json.RawMessage]()

func setValue(raw []byte, v reflect.Value) error {
	if v.Type() == rawMessage {
		v.SetBytes(append([]byte(nil), raw...))
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
		if err != nil { // of what is valid JSON, this takes exactly the integers
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

// eachField calls f with each field of the object that raw begins with. raw has
// been checked.
func eachField(raw []byte, f func(name string, value []byte) error) error {
	in := skipSpace(raw[1:])
	if in[0] == '}' {
		return nil
	}
	for {
		rest, _ := skipString(in)
		name, _ := textOf(in[:len(in)-len(rest)])
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
	for _, c := range raw {
		if c == '\\' {
			return s, json.Unmarshal(raw, &s) == nil
		}
	}
	return string(raw[1 : len(raw)-1]), true
}
