package lexicons

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/testvectors"
)

// The AT Protocol's lists of texts that have a format, and of texts that have not. Handles,
// names and keys of records are read as parts of an at-uri.
func TestFormatsOfATProtocol(t *testing.T) {
	formats := map[string]struct{ format, before string }{
		"did":          {"did", ""},
		"datetime":     {"datetime", ""},
		"uri":          {"uri", ""},
		"aturi":        {"at-uri", ""},
		"atidentifier": {"at-uri", "at://"},
		"handle":       {"at-uri", "at://"},
		"nsid":         {"at-uri", "at://did:plc:asdf123/"},
		"recordkey":    {"at-uri", "at://did:plc:asdf123/com.example.post/"},
	}
	unread := []string{"cid", "language", "tid"} // no lexicon here has these formats
	read, left := 0, 0
	for _, file := range testvectors.Names(t, "atproto/syntax") {
		kind, _, _ := strings.Cut(file, "_")
		lines := testvectors.Lines(t, "atproto/syntax/"+file)
		c, is := formats[kind]
		if !is {
			if !slices.Contains(unread, kind) {
				t.Errorf("%s is neither read nor listed", file)
			}
			left += len(lines)
			continue
		}
		read += len(lines)
		isValid := strings.HasSuffix(file, "_valid.txt")
		for _, line := range lines {
			if err := checkFormat(c.format, c.before+line); (err == nil) != isValid {
				t.Errorf("%s: %q: %v", file, line, err)
			}
		}
	}
	testvectors.Published(t, "atproto/syntax", read, left)
}

// The AT Protocol's lexicons, and records of one. There are no records here: of that lexicon the
// words are read that a lexicon of an endpoint may have too.
func TestLexiconsOfATProtocol(t *testing.T) {
	read, left := 0, 0
	count := func(isRead bool) {
		if isRead {
			read++
		} else {
			left++
		}
	}
	unread := []string{"record.json", "permission-set.json", "minimal record", "basic permission-set"}
	parses := func(name string, text []byte, isValid bool) {
		isRead := !slices.Contains(unread, name)
		count(isRead)
		if _, err := parse(text); (err == nil) != (isValid && isRead) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range testvectors.Names(t, "atproto/lexicon/catalog") {
		parses(file, testvectors.Read(t, "atproto/lexicon/catalog/"+file), true)
	}
	type named struct {
		Name    string
		Lexicon json.RawMessage
		Data    map[string]any
	}
	for _, file := range []string{"lexicon-valid.json", "lexicon-invalid.json"} {
		for _, c := range testvectors.JSON[named](t, "atproto/lexicon/"+file) {
			parses(c.Name, c.Lexicon, file == "lexicon-valid.json")
		}
	}

	docs := catalog{"example.lexicon.record": demoRecord(t)}
	record := docs["example.lexicon.record"].Defs["main"]
	check := func(data map[string]any) error {
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		var tree any
		if err := decoder.Decode(&tree); err != nil {
			t.Fatal(err)
		}
		return docs.check(record, "example.lexicon.record", "", tree)
	}
	isKnown := func(data map[string]any) bool {
		for name, value := range data {
			if name == "$type" {
				continue
			}
			property := record.Properties[name]
			if property == nil {
				return false
			}
			if name == "formats" {
				for format := range value.(map[string]any) {
					if docs["example.lexicon.record"].Defs["stringFormats"].Properties[format] == nil {
						return false
					}
				}
			}
		}
		return true
	}
	for _, c := range testvectors.JSON[named](t, "atproto/lexicon/record-data-invalid.json") {
		count(isKnown(c.Data))
		if isKnown(c.Data) && check(c.Data) == nil {
			t.Errorf("%s: %v is valid", c.Name, c.Data)
		}
	}
	for _, c := range testvectors.JSON[named](t, "atproto/lexicon/record-data-valid.json") {
		count(true)
		err := check(c.Data)
		if wrong, is := errors.AsType[*ValidationError](err); is && wrong.Path == "/bytes" && c.Name == "full" {
			// Its base64 has unused bits that are set. A strict client refuses them.
			delete(c.Data, "bytes")
			err = check(c.Data)
		}
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	testvectors.Published(t, "atproto/lexicon", read, left)
}

// demoRecord returns the lexicon of the records with its record as an object, without the
// properties whose words, types or formats no lexicon here has.
func demoRecord(t *testing.T) *document {
	t.Helper()
	var raw struct {
		Defs map[string]struct {
			Record     json.RawMessage
			Type       string
			Properties map[string]json.RawMessage
			Required   []string
			Nullable   []string
		}
	}
	if err := json.Unmarshal(testvectors.Read(t, "atproto/lexicon/catalog/record.json"), &raw); err != nil {
		t.Fatal(err)
	}
	doc := &document{Defs: map[string]*schema{}}
	for name, def := range raw.Defs {
		if def.Record != nil {
			if err := json.Unmarshal(def.Record, &def); err != nil {
				t.Fatal(err)
			}
		}
		if def.Type != "object" {
			continue
		}
		s := &schema{Type: def.Type, Required: def.Required, Nullable: def.Nullable, Properties: map[string]*schema{}}
		for property, text := range def.Properties {
			read, err := parse([]byte(`{"lexicon":1,"id":"a.b.c","defs":{"main":{"type":"object","properties":{"p":` + string(text) + `}}}}`))
			if err != nil {
				continue
			}
			p := read.Defs["main"].Properties["p"]
			isFormat := checkFormat(p.Format, "") == nil || !strings.Contains(checkFormat(p.Format, "").Error(), "not known")
			if p.Type != "blob" && p.Type != "cid-link" && isFormat {
				s.Properties[property] = p
			}
		}
		doc.Defs[name] = s
	}
	if names := slices.Collect(maps.Keys(doc.Defs["main"].Properties)); len(names) < 15 {
		t.Fatalf("only %q is read", names)
	}
	return doc
}
