package xrpc

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// The major types of CBOR (RFC 8949, section 3.1) that DAG-CBOR uses here.
const (
	cborUnsigned = 0 << 5
	cborNegative = 1 << 5
	cborBytes    = 2 << 5
	cborText     = 3 << 5
	cborArray    = 4 << 5
	cborMap      = 5 << 5
	cborFalse    = 0xf4
	cborTrue     = 0xf5
	cborNull     = 0xf6
)

// appendCBORHead appends a major type and its number in the fewest bytes.
func appendCBORHead(out []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(out, major|byte(n))
	case n < 1<<8:
		return append(out, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(out, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(out, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(out, major|27), n)
}

func appendCBORText(out []byte, text string) []byte {
	return append(appendCBORHead(out, cborText, uint64(len(text))), text...)
}

func appendCBORInt(out []byte, n int64) []byte {
	if n < 0 {
		return appendCBORHead(out, cborNegative, uint64(-1-n))
	}
	return appendCBORHead(out, cborUnsigned, uint64(n))
}

var (
	cborBytesType = reflect.TypeFor[Bytes]()
	cborTimeType  = reflect.TypeFor[Time]()
	cborBlobType  = reflect.TypeFor[Blob]()
)

// appendCBOR appends a value as canonical DAG-CBOR: definite lengths, the shortest integers,
// names in order, no floats. A struct is a map of the fields that JSON would have; bytes are
// byte strings.
func appendCBOR(out []byte, v reflect.Value) ([]byte, error) {
	switch v.Type() {
	case cborBytesType:
		return append(appendCBORHead(out, cborBytes, uint64(v.Len())), v.Bytes()...), nil
	case cborBlobType:
		data := v.Interface().(Blob).Data
		return append(appendCBORHead(out, cborBytes, uint64(len(data))), data...), nil
	case cborTimeType:
		text, err := v.Interface().(Time).text()
		return appendCBORText(out, text), err
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(out, cborNull), nil
		}
		return appendCBOR(out, v.Elem())
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return nil, errNotUTF8
		}
		return appendCBORText(out, v.String()), nil
	case reflect.Bool:
		if v.Bool() {
			return append(out, cborTrue), nil
		}
		return append(out, cborFalse), nil
	case reflect.Int, reflect.Int64:
		return appendCBORInt(out, v.Int()), nil
	case reflect.Slice:
		out = appendCBORHead(out, cborArray, uint64(v.Len()))
		for i := range v.Len() {
			var err error
			if out, err = appendCBOR(out, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case reflect.Struct:
		if len(fieldsOf(v.Type())) == 0 {
			break // its content would be lost, as that of a time.Time
		}
		out, _, err := appendCBORStruct(out, v, "")
		return out, err
	}
	return nil, fmt.Errorf("%s has no form in cbor", v.Type())
}

// appendCBORStruct appends a map. With a name for spare, the map counts one entry more, and
// spareAt is the offset in out at which that entry has to be inserted for the names to be in
// order.
func appendCBORStruct(out []byte, v reflect.Value, spare string) (_ []byte, spareAt int, err error) {
	fields := fieldsOf(v.Type())
	count := uint64(0)
	for _, field := range fields {
		if !isLeftOut(v, field) {
			count++
		}
	}
	if spare != "" {
		count++
	}
	out = appendCBORHead(out, cborMap, count)
	spareAt = len(out)
	for _, field := range fields {
		if isLeftOut(v, field) {
			continue
		}
		out = appendCBORText(out, field.name)
		if out, err = appendCBOR(out, v.Field(field.index)); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", field.name, err)
		}
		if nameOrder(field.name, spare) < 0 {
			spareAt = len(out)
		}
	}
	return out, spareAt, nil
}

// nameOrder compares names of a DAG-CBOR map: the shorter first, then by bytes.
func nameOrder(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func isLeftOut(v reflect.Value, field field) bool {
	value := v.Field(field.index)
	return field.optional && (value.IsZero() || value.Kind() == reflect.Slice && value.Len() == 0)
}
