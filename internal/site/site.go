// Package site serves the public documents of a server, which are the same for all callers:
// the page at /, the lexicons, the documentation and the DID document.
//
// The pages are made for people: HTML without scripts and without anything from elsewhere.
// Whatever depends on the caller belongs to the doors.
package site

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/docs"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/lexicons"
)

// Options hold what the documents say of the server.
type Options struct {
	Version string
	DID     string
	// Document is the DID document.
	Document []byte
	// URL is the address of the server. IsPublic says that it was configured; otherwise the page
	// shows the address by which it was requested.
	URL      string
	IsPublic bool
	// NeedsInvite says that new accounts need an invite.
	NeedsInvite bool
}

// Site is a handler of the documents. It is safe for concurrent use.
type Site struct {
	o   Options
	mux *http.ServeMux
}

// The times for which caches may keep documents.
const (
	ageNone     = "no-cache" // revalidated by the ETag
	ageHour     = "public, max-age=3600"
	ageDocument = "max-age=300" // a rotated key is seen within five minutes
)

const (
	typeHTML = "text/html; charset=utf-8"
	typeJSON = "application/json"
	typeText = "text/plain; charset=utf-8"
)

// New makes a Site.
func New(o Options) *Site {
	s := &Site{o, http.NewServeMux()}
	s.mux.HandleFunc("GET /{$}", s.serveFront)
	s.mux.HandleFunc("GET /.well-known/did.json", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, typeJSON, ageDocument, o.Document)
	})
	s.mux.HandleFunc("GET /lexicons/{$}", s.serveLexicons)
	s.mux.HandleFunc("GET /lexicons/{set}/{$}", s.serveSet)
	s.mux.HandleFunc("GET /lexicons/{set}/{file}", s.serveLexicon)
	list := renderDocs()
	s.mux.HandleFunc("GET /docs/{$}", func(w http.ResponseWriter, r *http.Request) { serve(w, r, typeHTML, ageHour, list) })
	s.mux.HandleFunc("GET /docs/{page}", s.serveDoc)
	return s
}

// Paths returns the patterns of the paths that the site serves, for a mux.
func (s *Site) Paths() []string {
	return []string{"/{$}", "/.well-known/did.json", "/lexicons/", "/docs/"}
}

// ServeHTTP answers the documents, and 404 for everything else.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	doors.ServeAnyOrigin(s.mux, w, r)
}

// serve answers a document, or 304 to a caller that has it.
func serve(w http.ResponseWriter, r *http.Request, contentType, age string, text []byte) {
	sum := sha256.Sum256(text)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", age)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	if contentType == typeHTML {
		w.Header().Set("Content-Security-Policy", contentPolicy)
		w.Header().Set("Referrer-Policy", "no-referrer")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}

func (s *Site) serveFront(w http.ResponseWriter, r *http.Request) {
	address := s.o.URL
	if !s.o.IsPublic && plainHost.MatchString(r.Host) {
		address = "http://" + r.Host
	}
	serve(w, r, typeHTML, ageNone, render("front", struct {
		Options
		Address string
	}{s.o, address}))
}

// plainHost matches the Host headers that may stand in a command that people copy into a
// shell.
var plainHost = regexp.MustCompile(`^([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// listing is a page of links.
type listing struct {
	Title, About string
	Top          string // the front page; relative, since a proxy may serve us below a prefix
	Links        []link
}

type link struct{ Href, Text string }

var sets = []lexicons.Set{lexicons.A, lexicons.B}

// serveLexicons lists the lexicons: in JSON for programs, as a page for browsers.
func (s *Site) serveLexicons(w http.ResponseWriter, r *http.Request) {
	index, page := map[lexicons.Set][]string{}, listing{Top: "../", Title: "Lexicons", About: "The contract of the AT Protocol API, for each generation of its clients."}
	for _, set := range sets {
		index[set] = lexicons.NSIDs(set)
		page.Links = append(page.Links, link{string(set) + "/", "generation " + strings.ToUpper(string(set))})
	}
	serveList(w, r, index, page)
}

func (s *Site) serveSet(w http.ResponseWriter, r *http.Request) {
	set := lexicons.Set(r.PathValue("set"))
	if !slices.Contains(sets, set) {
		http.NotFound(w, r)
		return
	}
	page := listing{Top: "../../", Title: "Lexicons of generation " + strings.ToUpper(string(set)), About: "Each is a file in the language Lexicon of the AT Protocol."}
	names := lexicons.NSIDs(set)
	for _, name := range names {
		page.Links = append(page.Links, link{name + ".json", name})
	}
	serveList(w, r, names, page)
}

func serveList(w http.ResponseWriter, r *http.Request, list any, page listing) {
	w.Header().Set("Vary", "Accept")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		serve(w, r, typeHTML, ageHour, render("list", page))
		return
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings always marshal
	}
	serve(w, r, typeJSON, ageHour, text)
}

func (s *Site) serveLexicon(w http.ResponseWriter, r *http.Request) {
	name, isJSON := strings.CutSuffix(r.PathValue("file"), ".json")
	text, err := lexicons.File(lexicons.Set(r.PathValue("set")), name)
	if err != nil || !isJSON {
		http.NotFound(w, r)
		return
	}
	serve(w, r, typeJSON, ageHour, text)
}

// renderDocs returns the page that lists the documentation with the title of each page.
func renderDocs() []byte {
	page := listing{Top: "../", Title: "Documentation", About: "The pages of the version that runs here."}
	entries, err := docs.Pages.ReadDir(".")
	if err != nil {
		panic(err) // they are in the program
	}
	for _, entry := range entries {
		text, _ := docs.Pages.ReadFile(entry.Name())
		title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
		page.Links = append(page.Links, link{entry.Name(), title})
	}
	return render("list", page)
}

func (s *Site) serveDoc(w http.ResponseWriter, r *http.Request) {
	text, err := docs.Pages.ReadFile(r.PathValue("page"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	serve(w, r, typeText, ageHour, text)
}
