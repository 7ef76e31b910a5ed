package xrpc

import (
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// QueryMax bounds the bytes of a query: 200 hashes fit, each with its name.
	QueryMax = 32 << 10
	// QueryValuesMax bounds the number of values in a query.
	QueryValuesMax = 512
)

// DecodeQuery reads the raw query of a GET into the struct that in points to. Lists are
// repeated names (dids=a&dids=b); a name that is not a list may be repeated only with the same
// value. Unknown names are ignored, and an empty value of a field that is not text counts as
// absent. Fields are strings, []string, Natural, *Natural, bool and *bool. The error is an
// *InputError.
func DecodeQuery(raw string, in any) error {
	if len(raw) > QueryMax {
		return &InputError{Problem: "the query is too long"}
	}
	if strings.Count(raw, "&") >= QueryValuesMax {
		return &InputError{Problem: "the query has too many values"}
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return &InputError{Problem: "malformed query"}
	}
	target := reflect.ValueOf(in).Elem()
	for _, field := range fieldsOf(target.Type()) {
		values := query[field.name]
		for _, value := range values {
			if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
				return &InputError{field.name, "is not text"}
			}
		}
		if len(values) == 0 {
			if !field.optional {
				return &InputError{field.name, "is required"}
			}
			continue
		}
		if err := setFromQuery(target.Field(field.index), field.name, values); err != nil {
			return err
		}
	}
	return nil
}

func setFromQuery(target reflect.Value, name string, values []string) error {
	if target.Kind() == reflect.Slice {
		target.Set(reflect.ValueOf(values))
		return nil
	}
	for _, value := range values[1:] {
		if value != values[0] {
			return &InputError{name, "is there twice"}
		}
	}
	if target.Kind() == reflect.String {
		target.SetString(values[0])
		return nil
	}
	if values[0] == "" {
		return nil
	}
	if target.Kind() == reflect.Pointer {
		target.Set(reflect.New(target.Type().Elem()))
		target = target.Elem()
	}
	if target.Kind() == reflect.Bool {
		switch values[0] {
		case "true":
			target.SetBool(true)
		case "false":
			target.SetBool(false)
		default:
			return &InputError{name, "must be true or false"}
		}
		return nil
	}
	n, err := parseNatural(values[0])
	if err != nil {
		return &InputError{name, errNotInteger.Error()}
	}
	target.SetInt(int64(n))
	return nil
}

// EncodeQuery encodes the parameters that DecodeQuery reads; optional fields that are zero are
// left out.
func EncodeQuery(in any) string {
	query := url.Values{}
	source := reflect.Indirect(reflect.ValueOf(in))
	for _, field := range fieldsOf(source.Type()) {
		value := source.Field(field.index)
		if field.optional && value.IsZero() {
			continue
		}
		value = reflect.Indirect(value)
		switch value.Kind() {
		case reflect.Slice:
			query[field.name] = value.Interface().([]string)
		case reflect.Bool:
			query.Set(field.name, strconv.FormatBool(value.Bool()))
		case reflect.Int64:
			query.Set(field.name, strconv.FormatInt(value.Int(), 10))
		default:
			query.Set(field.name, value.String())
		}
	}
	return query.Encode()
}

// CommaList splits a list that is sent in one string, such as include and messageIds: trimmed,
// without empty items, at most max of them.
func CommaList(text string, max int) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if len(items) == max {
			break
		}
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
