package waxwing_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "waxwing.im/waxwing"

// edges holds the imports between our own packages that are allowed. They point
// inwards, from commands over doors and rules to nouns; a new one is a decision and
// has a page in docs/decisions.
var edges = map[string][]string{
	"cmd/waxwing": {"client", "internal/chat", "internal/identity", "internal/mlspeer", "internal/prove", "internal/secretfile", "internal/server", "mls"},
	// chat is made of client alone, as any program may be: what it does, others can.
	"internal/chat": {"client", "internal/peercred", "internal/secretfile"},
	// secretfile is shared by the commands and chat: seeds and keys in files of their owner.
	"internal/peercred":      {},
	"internal/secretfile":    {},
	"internal/server":        {"internal/condition", "internal/core", "internal/directory", "internal/doors", "internal/gatewayserver", "internal/identity", "internal/limits", "internal/logs", "internal/netguard", "internal/peercred", "internal/site", "internal/store", "internal/xrpcserver"},
	"internal/gatewayserver": {"api/gateway", "internal/core", "internal/directory", "internal/doors", "internal/ds", "internal/identity", "internal/limits", "internal/logs"},
	"internal/xrpcserver":    {"api/xrpc", "internal/core", "internal/directory", "internal/doors", "internal/ds", "internal/identity", "internal/limits", "internal/logs", "lexicons"},
	// site publishes what is the same for all callers; it knows no caller and no operation.
	"internal/site": {"docs", "internal/doors", "lexicons"},
	"docs":          {},
	// doors is what the doors do alike; it knows no rule, so that a rule cannot depend on
	// the door that a request came by, and no way out.
	"internal/doors": {"internal/ds", "internal/limits"},
	"internal/core":  {"internal/condition", "internal/directory", "internal/ds", "internal/limits", "internal/logs", "internal/store", "mls/wire"},
	// logs is given rules as values and counts no calls: whatever it could know of core, a
	// record of another kind or a copy of a conversation would have to obey too.
	"internal/logs": {"internal/condition", "internal/ds", "internal/store"},
	// directory changes no conversation, so that it needs no core: it is given what wakes the
	// readers of an account.
	"internal/directory": {"internal/ds", "internal/limits", "internal/store", "mls/keypackage", "mls/wire"},
	"internal/identity":  {"internal/condition", "internal/ds", "internal/limits", "internal/netguard", "internal/store"},
	"internal/netguard":  {},
	"internal/store":     {"internal/condition", "internal/ds"},
	"internal/ds":        {},
	// limits is the one way to count calls: it knows none of its callers.
	"internal/limits": {"internal/ds"},
	// condition is the one way to log what fails again and again.
	"internal/condition": {"internal/ds"},
	// drive knows a server from outside only; its tests may see everything.
	"internal/drive": {"api/gateway", "api/xrpc", "deploy/proxies", "internal/identity", "mls/wire"},
	// deploy is for operators to copy.
	"deploy/proxies": {},
	// prove attacks servers in processes of their own: what it knew of their inside it could not
	// show to others.
	"internal/prove":    {"api/gateway", "api/xrpc", "client", "internal/drive", "internal/hostile", "internal/identity", "internal/pgserver", "mls"},
	"internal/pgserver": {},
	// hostile is what the way out is attacked with, by its tests and by prove.
	"internal/hostile": {},
	// mutant is imported by no source: only an overlay does, in a build that shows what prove notices.
	"internal/mutant": {},
	"internal/pgtest": {"internal/pgserver"},
	// testsize is for tests: how much of a thing they do.
	"internal/testsize": {},
	// testvectors is for tests: the test data of others, and the page that counts it.
	"internal/testvectors": {},
	// testwait is for tests: how they wait for what no event announces.
	"internal/testwait": {},
	// testmetric is for tests: it reads the value of one metric.
	"internal/testmetric": {},
	// testtmux is for tests: programs in a terminal of another author.
	"internal/testtmux": {"internal/testwait"},
	// mlspeer shows mls to other implementations; interop runs it against them.
	"internal/mlspeer": {"mls"},
	"interop":          {"internal/mlspeer"},
	// wycheproof is a module of its own, which names another one and has no code.
	"interop/wycheproof": {},
	"client":             {"api/gateway", "api/xrpc", "client/internal/home", "mls", "mls/keypackage", "mls/wire"},
	// clienttest starts a server for tests of others' programs, so it alone below client may know
	// the server; client may not import it.
	"client/clienttest": {"client", "internal/memnet", "internal/server"},
	// memnet is for tests in bubbles: connections that a server and its clients make of memory.
	"internal/memnet": {},
	// home keeps what a device knows and decides nothing.
	"client/internal/home": {},
	"api/gateway":          {},
	"api/xrpc":             {},
	"lexicons":             {},
	"mls":                  {"mls/framing", "mls/keypackage", "mls/leaf", "mls/schedule", "mls/suite", "mls/tree", "mls/wire"},
	"mls/framing":          {"mls/leaf", "mls/schedule", "mls/suite", "mls/wire"},
	"mls/tree":             {"mls/leaf", "mls/suite", "mls/wire"},
	"mls/schedule":         {"mls/suite", "mls/wire"},
	"mls/keypackage":       {"mls/leaf", "mls/suite", "mls/wire"},
	"mls/leaf":             {"mls/suite", "mls/wire"},
	"mls/suite":            {"mls/wire"},
	"mls/wire":             {},
}

// testEdges holds what the tests of the public packages below a folder may import
// besides: they know what any user of them knows, except that the SDK is tested
// against a whole server, and against members that sign what they like.
var testEdges = map[string][]string{
	"client": {"client", "client/clienttest", "internal/memnet", "internal/server", "internal/pgtest", "internal/testsize", "internal/testvectors", "mls/leaf", "mls/suite"},
	"api":    {"lexicons", "internal/testvectors"},
	"mls":    append([]string{"mls", "internal/testsize", "internal/testvectors"}, edges["mls"]...),
}

// doorsOfClient names, for each API, the files of the SDK that may know it: its session and
// home speak to both doors in the Go values of service.go, and a third door is a third set
// of files.
var doorsOfClient = map[string]*regexp.Regexp{
	"api/gateway": regexp.MustCompile(`^client/gateway\w*\.go$`),
	"api/xrpc":    regexp.MustCompile(`^client/xrpc\w*\.go$`),
}

// exclusive holds the libraries that belong to few packages, so that SQL stays in
// the store and rules know nothing of HTTP.
var exclusive = []struct {
	library string // and what is below it
	in      []string
}{
	{"database/sql", []string{"internal/store", "client/internal/home"}},
	{"github.com/jackc/pgx", []string{"internal/store", "internal/pgserver"}},
	{"modernc.org/sqlite", []string{"internal/store", "client/internal/home"}},
	{"github.com/coder/websocket", []string{"internal/doors", "internal/drive", "internal/prove", "client", "cmd/waxwing"}},
	{"net/http", []string{"api/gateway", "client", "cmd/waxwing", "internal/doors", "internal/gatewayserver", "internal/netguard", "internal/server", "internal/site", "internal/drive", "internal/prove", "internal/xrpcserver"}},
	{"code.dny.dev/ssrf", []string{"internal/netguard"}},
	{"github.com/alecthomas/kong", []string{"cmd/waxwing"}},
	{"github.com/charmbracelet", []string{"internal/chat"}},
}

// linesMax bounds a file that is not a test; a reader pays for the scrolling.
// CONTRIBUTING.md names the same number.
const linesMax = 600

// source is one Go file of the module.
type source struct {
	path   string // with slashes, from the root
	folder string
	isTest bool
	text   []byte
	syntax *ast.File
}

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.syntax.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, name)
	}
	return paths
}

// sources returns every Go file that the go command would see.
func sources(t *testing.T) []source {
	t.Helper()
	all, err := readSources()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sourcePositions holds the positions in what sources returns.
var sourcePositions = token.NewFileSet()

// readSources reads and parses the files once for all tests.
var readSources = sync.OnceValues(func() (all []source, err error) {
	err = filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		syntax, err := parser.ParseFile(sourcePositions, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		slashed := filepath.ToSlash(name)
		all = append(all, source{slashed, path.Dir(slashed), strings.HasSuffix(name, "_test.go"), text, syntax})
		return nil
	})
	return all, err
})

func TestTidyImportsPointInwards(t *testing.T) {
	for _, file := range sources(t) {
		allowed, known := edges[file.folder]
		if !known && file.folder != "." {
			t.Errorf("%s: package %s has no place in the table of edges", file.path, file.folder)
			continue
		}
		if file.isTest {
			more, restricted := testEdges[strings.SplitN(file.folder, "/", 2)[0]]
			if !restricted {
				continue
			}
			allowed = append(slices.Clone(allowed), more...)
		}
		for _, imported := range file.imports() {
			own, isOwn := strings.CutPrefix(imported, module+"/")
			if isOwn && own != file.folder && !slices.Contains(allowed, own) {
				t.Errorf("%s: %s must not import %s", file.path, file.folder, own)
			}
		}
	}
}

func TestTidyDoorsOfTheClient(t *testing.T) {
	for _, file := range sources(t) {
		if file.isTest || file.folder != "client" {
			continue
		}
		for api, mayKnow := range doorsOfClient {
			if slices.Contains(file.imports(), module+"/"+api) && !mayKnow.MatchString(file.path) {
				t.Errorf("%s imports %s: only files %s may, so that the session knows no protocol", file.path, api, mayKnow)
			}
		}
	}
}

func TestTidyLibrariesStayInTheirPackages(t *testing.T) {
	for _, file := range sources(t) {
		if file.isTest {
			continue
		}
		for _, imported := range file.imports() {
			for _, rule := range exclusive {
				if (imported == rule.library || strings.HasPrefix(imported, rule.library+"/")) && !slices.Contains(rule.in, file.folder) {
					t.Errorf("%s: %s belongs to %s only", file.path, imported, strings.Join(rule.in, ", "))
				}
			}
		}
	}
}

// Package mls is for every Go program, in a browser too: it needs the standard
// library and golang.org/x/crypto, and nothing that belongs to a system. make lint
// builds it for js/wasm.
func TestTidyMLSStandsAlone(t *testing.T) {
	found := false
	for _, file := range sources(t) {
		if file.isTest || file.folder != "mls" && !strings.HasPrefix(file.folder, "mls/") {
			continue
		}
		found = true
		for _, imported := range file.imports() {
			host, _, _ := strings.Cut(imported, "/")
			isOwn := strings.HasPrefix(imported, module+"/mls/")
			isCrypto := strings.HasPrefix(imported, "golang.org/x/crypto/")
			if strings.Contains(host, ".") && !isOwn && !isCrypto || imported == "C" || imported == "unsafe" || imported == "syscall" || imported == "os" {
				t.Errorf("%s: mls must not import %s", file.path, imported)
			}
		}
	}
	if !found {
		t.Error("package mls was not found")
	}
}

func TestTidyEnvironmentIsReadInOnePlace(t *testing.T) {
	for _, file := range sources(t) {
		if file.isTest || file.folder == "cmd/waxwing" || file.folder == "internal/pgtest" || file.folder == "internal/testsize" || file.folder == "internal/testvectors" || file.folder == "internal/testtmux" || file.folder == "internal/mutant" {
			continue
		}
		for _, call := range []string{"os." + "Getenv(", "os." + "LookupEnv("} {
			if bytes.Contains(file.text, []byte(call)) {
				t.Errorf("%s: options reach packages as values; only the command reads the environment", file.path)
			}
		}
	}
}

func TestTidyFilesAreShort(t *testing.T) {
	for _, file := range sources(t) {
		if lines := bytes.Count(file.text, []byte("\n")); !file.isTest && lines > linesMax {
			t.Errorf("%s has %d lines, at most %d", file.path, lines, linesMax)
		}
	}
}

func TestTidyFilesAreFormatted(t *testing.T) {
	for _, file := range sources(t) {
		formatted, err := format.Source(file.text)
		if err != nil || !bytes.Equal(formatted, file.text) {
			t.Errorf("%s is not formatted by gofmt (%v)", file.path, err)
		}
	}
}

func TestTidyPackagesAreNamedAndExplained(t *testing.T) {
	explained := map[string]bool{}
	for _, file := range sources(t) {
		if file.isTest || file.folder == "." {
			continue
		}
		switch name := file.syntax.Name.Name; name {
		case "util", "utils", "common", "types", "models", "helpers":
			t.Errorf("%s: a package called %s says nothing", file.path, name)
		}
		explained[file.folder] = explained[file.folder] || file.syntax.Doc != nil
	}
	for folder, has := range explained {
		if !has {
			t.Errorf("%s has no package comment", folder)
		}
	}
}

// TestTidyDependenciesArePublished holds the tables of docs/dependencies.md against go.mod, and
// that of the module for tests: every module that they require directly has a row there, and
// every row of a module is one of those.
func TestTidyDependenciesArePublished(t *testing.T) {
	var mod []byte
	for _, name := range []string{"go.mod", "interop/wycheproof/go.mod"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		mod = append(mod, text...)
	}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var required, described []string
	for _, line := range regexp.MustCompile(`(?m)^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v\S+(.*)$`).FindAllStringSubmatch(string(mod), -1) {
		if !strings.Contains(line[2], "// indirect") {
			required = append(required, line[1])
		}
	}
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z0-9.-]+\.[a-z]+/[^ |]+)`).FindAllStringSubmatch(string(page), -1) {
		described = append(described, row[1])
	}
	slices.Sort(required)
	slices.Sort(described)
	if len(required) < 10 || !slices.Equal(required, described) {
		t.Errorf("go.mod requires\n%q\nand docs/dependencies.md describes\n%q", required, described)
	}
}

// TestTidyContributingSaysWhatIsTested holds CONTRIBUTING.md against linesMax.
func TestTidyContributingSaysWhatIsTested(t *testing.T) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := "Files under " + strconv.Itoa(linesMax) + " lines"; !strings.Contains(string(text), want) {
		t.Errorf("CONTRIBUTING.md does not say %q", want)
	}
}
