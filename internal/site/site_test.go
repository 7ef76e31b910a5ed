package site

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// ask answers a request with headers (name, value).
func ask(h http.Handler, verb, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(verb, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func newSite(o Options) *Site {
	o.DID, o.Document, o.Version = "did:web:chat.example", []byte(`{"id":"did:web:chat.example"}`), "v1"
	if o.URL == "" {
		o.URL = "https://chat.example"
	}
	return New(o)
}

func TestDocuments(t *testing.T) {
	s := newSite(Options{IsPublic: true})
	const html = "text/html"
	for _, row := range []struct {
		verb, path, accept string
		status             int
		contentType, want  string
	}{
		{"GET", "/", "", 200, typeHTML, "waxwing chat --server https://chat.example --as ann"},
		{"GET", "/", "", 200, typeHTML, "did:web:chat.example#atproto_mls"},
		{"HEAD", "/", "", 200, typeHTML, ""},
		{"POST", "/", "", 405, typeText, ""},
		{"GET", "/.well-known/did.json", "", 200, typeJSON, "did:web:chat.example"},
		{"PUT", "/.well-known/did.json", "", 405, typeText, ""},
		{"GET", "/lexicons/", "", 200, typeJSON, `{"a":["blue.catbird.mls`},
		{"GET", "/lexicons/", html, 200, typeHTML, `<a href="a/">`},
		{"GET", "/lexicons/b/", "", 200, typeJSON, `["blue.catbird.mls`},
		{"GET", "/lexicons/b/", html, 200, typeHTML, `<a href="blue.catbird.mlsChat.sendMessage.json">`},
		{"GET", "/lexicons/a/blue.catbird.mlsChat.sendMessage.json", "", 200, typeJSON, `"lexicon": 1`},
		{"GET", "/lexicons/both/", "", 404, typeText, ""},
		{"GET", "/lexicons/both/blue.catbird.mlsChat.defs.json", "", 404, typeText, ""},
		{"GET", "/lexicons/a/blue.catbird.mlsChat.sendMessage", "", 404, typeText, ""},
		{"GET", "/lexicons/a/%2e%2e%2flexicons.go", "", 404, typeText, ""},
		{"GET", "/docs/", "", 200, typeHTML, `<a href="gateway-v1.md">The gateway protocol, version 1</a>`},
		{"GET", "/docs/gateway-v1.md", "", 200, typeText, "# The gateway protocol"},
		{"GET", "/docs/docs.go", "", 404, typeText, ""},
		{"GET", "/docs/%2e%2e%2fREADME.md", "", 404, typeText, ""},
		{"GET", "/nowhere", "", 404, typeText, ""},
	} {
		w := ask(s, row.verb, row.path, "Accept", row.accept)
		name := row.verb + " " + row.path + " " + row.accept
		if w.Code != row.status || w.Header().Get("Content-Type") != row.contentType || !strings.Contains(w.Body.String(), row.want) {
			t.Errorf("%s: %d %s %.100q, want %d %s with %q", name, w.Code, w.Header().Get("Content-Type"), w.Body, row.status, row.contentType, row.want)
		}
		if row.verb == "HEAD" && w.Body.Len() != 0 {
			t.Errorf("%s: has a body", name)
		}
		if w.Code != http.StatusOK {
			continue
		}
		again := ask(s, row.verb, row.path, "Accept", row.accept, "If-None-Match", w.Header().Get("ETag"))
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 || again.Header().Get("Cache-Control") == "" {
			t.Errorf("%s: asked again with its ETag: %d", name, again.Code)
		}
	}
}

// TestFrontPageShowsTheAddressAsked: without a public URL the page shows how it was
// requested, if that is plain enough to be copied into a shell.
func TestFrontPageShowsTheAddressAsked(t *testing.T) {
	for _, row := range []struct {
		host     string
		isPublic bool
		want     string
	}{
		{"127.0.0.1:8420", false, "http://127.0.0.1:8420"},
		{"[::1]:8420", false, "http://[::1]:8420"},
		{"box.lan", false, "http://box.lan"},
		{"box.lan", true, "https://chat.example"},
		{"x;reboot", false, "https://chat.example"},
		{"$(reboot)", false, "https://chat.example"},
		{"a b", false, "https://chat.example"},
		{"<script>", false, "https://chat.example"},
		{"--seed", false, "http://--seed"}, // behind http:// it is no option
		{"", false, "https://chat.example"},
		{strings.Repeat("x", 300), false, "https://chat.example"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = row.host
		w := httptest.NewRecorder()
		newSite(Options{IsPublic: row.isPublic}).ServeHTTP(w, r)
		if want := "<dd><code>" + row.want + "</code>"; !strings.Contains(w.Body.String(), want) || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("host %q: want %s in %s", row.host, want, w.Body)
		}
	}
}

func TestFrontPageSaysThatAnInviteIsNeeded(t *testing.T) {
	for _, needs := range []bool{false, true} {
		if w := ask(newSite(Options{NeedsInvite: needs}), "GET", "/"); strings.Contains(w.Body.String(), "--invite") != needs {
			t.Errorf("needs an invite: %v\n%s", needs, w.Body)
		}
	}
}

// TestPagesLoadNothing: the content policy allows the style of the page, and nothing else.
func TestPagesLoadNothing(t *testing.T) {
	for _, path := range []string{"/", "/docs/"} {
		w := ask(newSite(Options{}), "GET", path)
		style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(w.Body.String())
		if style == nil {
			t.Fatal("no style")
		}
		sum := sha256.Sum256([]byte(style[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		if got := w.Header().Get("Content-Security-Policy"); got != want {
			t.Errorf("%s: policy %s\nwant %s", path, got, want)
		}
		if found := regexp.MustCompile(`(?i)<(script|img|link|iframe|form)|style=|src=|url\(`).FindString(w.Body.String()); found != "" {
			t.Errorf("%s: has %s", path, found)
		}
	}
}

// TestLinksLeadSomewhere follows every link of the pages.
func TestLinksLeadSomewhere(t *testing.T) {
	s := newSite(Options{})
	seen, left := map[string]bool{}, []string{"/"}
	for len(left) > 0 {
		path := left[0]
		left = left[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		w := ask(s, "GET", path, "Accept", "text/html")
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
		base, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		if w.Header().Get("Content-Type") != typeHTML {
			continue
		}
		for _, href := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1) {
			target, err := base.Parse(href[1])
			// A proxy may serve the site below a prefix.
			if err != nil || target.Host != "" || strings.HasPrefix(href[1], "/") {
				t.Fatalf("%s: link to %q: %v", path, href[1], err)
			}
			left = append(left, target.Path)
		}
	}
	if len(seen) < 80 {
		t.Errorf("only %d documents were found", len(seen))
	}
}
