// Package lexicons holds the contract of the XRPC door in the AT Protocol's own language,
// Lexicon version 1, and checks values against it.
//
// There are two generations of clients, and two sets: a file in both belongs to either, one in
// a or b to that one only. A set names each endpoint, its input and output, and the errors that
// it may answer with. The server publishes the files; tests check the types of api/xrpc and the
// server's answers against them.
//
// This package does not decide which requests the server accepts: api/xrpc reads more leniently
// than the lexicons say, and core holds the rules.
package lexicons

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
)

//go:embed a/*.json b/*.json both/*.json
var files embed.FS

// Set is one generation's lexicons.
type Set string

// The sets.
const (
	A Set = "a"
	B Set = "b"
)

// File returns the lexicon of nsid in set as it is published, and fs.ErrNotExist if the set has
// none.
func File(set Set, nsid string) ([]byte, error) {
	if set != A && set != B || nsid == "" || strings.ContainsAny(nsid, "/\\") {
		return nil, fs.ErrNotExist
	}
	for _, folder := range []string{string(set), "both"} {
		text, err := files.ReadFile(path.Join(folder, nsid+".json"))
		if err == nil {
			return text, nil
		}
	}
	return nil, fs.ErrNotExist
}

// NSIDs returns the names in set, sorted; among them the shared definitions, which are not
// endpoints.
func NSIDs(set Set) []string {
	var names []string
	for _, folder := range []string{string(set), "both"} {
		entries, err := files.ReadDir(folder)
		if err != nil {
			panic("lexicons: no set " + folder)
		}
		for _, entry := range entries {
			names = append(names, strings.TrimSuffix(entry.Name(), ".json"))
		}
	}
	slices.Sort(names)
	return names
}

// Endpoint holds the data of a lexicon that a router needs.
type Endpoint struct {
	NSID string
	// Kind is query (GET), procedure (POST) or subscription (a WebSocket).
	Kind string
}

// Endpoints returns the endpoints of either set, sorted by name.
func Endpoints() []Endpoint {
	kinds := map[string]string{}
	for _, set := range []Set{A, B} {
		for nsid, doc := range catalogs()[set] {
			if main, has := doc.Defs["main"]; has {
				kinds[nsid] = main.Type
			}
		}
	}
	endpoints := make([]Endpoint, 0, len(kinds))
	for nsid, kind := range kinds {
		endpoints = append(endpoints, Endpoint{nsid, kind})
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int { return strings.Compare(a.NSID, b.NSID) })
	return endpoints
}

// catalog holds the lexicons of a set by name.
type catalog map[string]*document

type document struct {
	Lexicon     int                `json:"lexicon"`
	ID          string             `json:"id"`
	Description string             `json:"description"`
	Defs        map[string]*schema `json:"defs"`
}

// schema is any definition; Type determines which of the fields are used.
type schema struct {
	Type        string `json:"type"`
	Description string `json:"description"`

	// Of an endpoint.
	Parameters *schema     `json:"parameters"`
	Input      *body       `json:"input"`
	Output     *body       `json:"output"`
	Message    *body       `json:"message"`
	Errors     []errorName `json:"errors"`

	// Of an object or of params.
	Required   []string           `json:"required"`
	Nullable   []string           `json:"nullable"`
	Properties map[string]*schema `json:"properties"`

	// Of an array.
	Items *schema `json:"items"`

	// Of a ref or a union.
	Ref    string   `json:"ref"`
	Refs   []string `json:"refs"`
	Closed bool     `json:"closed"`

	// Of a string, bytes or an array: lengths in bytes, or items.
	Format      string   `json:"format"`
	MinLength   *int     `json:"minLength"`
	MaxLength   *int     `json:"maxLength"`
	KnownValues []string `json:"knownValues"`
	Default     any      `json:"default"`

	// Of an integer.
	Minimum *int64 `json:"minimum"`
	Maximum *int64 `json:"maximum"`
}

type body struct {
	Description string  `json:"description"`
	Encoding    string  `json:"encoding"`
	Schema      *schema `json:"schema"`
}

type errorName struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// catalogs reads the files once. They are embedded in the program, so an unreadable one is a
// fault of ours.
var catalogs = sync.OnceValue(func() map[Set]catalog {
	all := map[Set]catalog{}
	for _, set := range []Set{A, B} {
		all[set] = catalog{}
		for _, nsid := range NSIDs(set) {
			text, err := File(set, nsid)
			if err != nil {
				panic(fmt.Sprintf("lexicons: %s of %s: %v", nsid, set, err))
			}
			doc, err := parse(text)
			if err != nil {
				panic(fmt.Sprintf("lexicons: %s of %s: %v", nsid, set, err))
			}
			all[set][nsid] = doc
		}
	}
	return all
})

// parse reads a lexicon and refuses words that this package does not know, because values would
// not be checked against them.
func parse(text []byte) (*document, error) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	doc := &document{}
	if err := decoder.Decode(doc); err != nil {
		return nil, err
	}
	if doc.Lexicon != 1 || !isNSID(doc.ID) {
		return nil, fmt.Errorf("version %d, id %q", doc.Lexicon, doc.ID)
	}
	for name, def := range doc.Defs {
		if def == nil || def.Type == "ref" || def.Type == "union" || def.Type == "unknown" {
			return nil, fmt.Errorf("%s is no definition", name)
		}
	}
	return doc, nil
}

// find resolves a reference made in the lexicon called from.
func (c catalog) find(from, reference string) (*schema, string, error) {
	nsid, name, has := strings.Cut(reference, "#")
	if !has {
		name = "main"
	}
	if nsid == "" {
		nsid = from
	}
	doc := c[nsid]
	if doc == nil || doc.Defs[name] == nil {
		return nil, "", fmt.Errorf("no definition %s", reference)
	}
	return doc.Defs[name], nsid, nil
}

// Errors returns the names of the errors that nsid declares in set, nil if the set has no such
// endpoint.
func Errors(set Set, nsid string) []string {
	main, _, err := catalogs()[set].find(nsid, nsid)
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(main.Errors))
	for _, e := range main.Errors {
		names = append(names, e.Name)
	}
	return names
}
