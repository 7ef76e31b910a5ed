package xrpc

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// field holds the tag of a struct field.
type field struct {
	name     string // in JSON, CBOR and queries
	index    int
	optional bool
}

var fieldCache sync.Map // reflect.Type to []field

// fieldsOf returns the fields of a struct type in the order of DAG-CBOR: shorter names first,
// then by their bytes.
func fieldsOf(t reflect.Type) []field {
	if known, has := fieldCache.Load(t); has {
		return known.([]field)
	}
	var fields []field
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		fields = append(fields, field{name, i, options != ""})
	}
	slices.SortFunc(fields, func(a, b field) int {
		return cmp.Or(cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	fieldCache.Store(t, fields)
	return fields
}
