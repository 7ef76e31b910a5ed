package waxwing_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limitsPage is the table of all bounds.
const limitsPage = "docs/limits.md"

// bounded lists the packages whose bounds are in the table: those of the server and
// the SDK.
var bounded = []string{"internal/core", "internal/logs", "internal/directory", "internal/gatewayserver", "internal/xrpcserver", "internal/identity", "internal/doors", "internal/limits",
	"internal/netguard", "internal/store", "internal/server", "client"}

// saysBound reports whether the name of a constant says that it bounds something.
var saysBound = regexp.MustCompile(`(Max|MaxNo|Kept|Page|AtOnce|Free|[sS]hardKeys)$|^(Max|max)[A-Z]|^(page|tail|turns)\w*(Bytes|Records)$`)

// notBounds holds constants whose names say a bound and that have no row, with the reason.
var notBounds = map[string]string{
	"logs.tailRecordBytes":      "what a record costs beside its body, in logs.tailBytes",
	"xrpcserver.pageFieldBytes": "what an answer has beside its messages, in xrpcserver.answerBytesMax",
}

// TestTidyLimitsAreListed holds docs/limits.md against the code: each row names a
// constant that is there and has that value, and each constant that says a bound has a row.
// Durations are left out: what is bounded in time is in configuration.md and the protocols.
func TestTidyLimitsAreListed(t *testing.T) {
	text, err := os.ReadFile(limitsPage)
	if err != nil {
		t.Fatal(err)
	}
	constants := constantsOf(t)
	listed := map[string]bool{}
	for n, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) < 2 || !strings.Contains(cells[1], "`") {
			continue
		}
		at := fmt.Sprintf("%s:%d", limitsPage, n+1)
		if len(cells) != 6 {
			t.Errorf("%s: %d columns, want 6", at, len(cells))
			continue
		}
		for i := range cells {
			if cells[i] = strings.TrimSpace(cells[i]); cells[i] == "" {
				t.Errorf("%s: column %d is empty", at, i+1)
			}
		}
		name := strings.Trim(cells[1], "`")
		c, exists := constants[name]
		switch {
		case !exists:
			t.Errorf("%s: there is no constant %s", at, name)
		case listed[name]:
			t.Errorf("%s: %s has two rows", at, name)
		case cells[2] != c.value:
			t.Errorf("%s: %s is %s", at, name, c.value)
		}
		listed[name] = true
	}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range constants {
			if !yield(name) {
				return
			}
		}
	}) {
		c := constants[name]
		_, isExcepted := notBounds[name]
		switch {
		case !c.isDuration && saysBound.MatchString(c.short) && !listed[name] && !isExcepted:
			t.Errorf("%s: add to %s: | what it bounds | `%s` | %s | bytes it can retain | who is charged | what happens at the bound |", c.at, limitsPage, name, c.value)
		case isExcepted && listed[name]:
			t.Errorf("%s is an exception and has a row", name)
		}
	}
	for name := range notBounds {
		if _, exists := constants[name]; !exists {
			t.Errorf("the exception %s is no constant", name)
		}
	}
}

// numeric is one constant of a package.
type numeric struct {
	short, value, at string
	isDuration       bool
}

// constantsOf evaluates the package-level numeric constants of the bounded packages, by
// package.name.
func constantsOf(t *testing.T) map[string]numeric {
	t.Helper()
	files := sourcePositions
	m := &moduleImporter{files: files, folders: map[string][]*ast.File{}, done: map[string]*types.Package{}}
	for _, source := range sources(t) {
		if !source.isTest && !isOtherSystem(source.path) {
			m.folders[source.folder] = append(m.folders[source.folder], source.syntax)
		}
	}
	all := map[string]numeric{}
	for _, folder := range bounded {
		p, err := m.Import(module + "/" + folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range p.Scope().Names() {
			c, ok := p.Scope().Lookup(name).(*types.Const)
			if !ok || name == "_" || c.Val().Kind() != constant.Int && c.Val().Kind() != constant.Float {
				continue
			}
			at := files.Position(c.Pos())
			n := numeric{short: name, at: fmt.Sprintf("%s:%d", at.Filename, at.Line), isDuration: strings.HasSuffix(c.Type().String(), "time.Duration")}
			n.value = valueText(c.Val(), name, n.isDuration)
			all[path.Base(folder)+"."+name] = n
		}
	}
	return all
}

// isOtherSystem reports whether a file is for another system than the one that has all
// of the constants.
func isOtherSystem(name string) bool {
	for _, system := range []string{"_windows.go", "_other.go", "_elsewhere.go", "_bsd.go", "_js.go"} {
		if strings.HasSuffix(name, system) {
			return true
		}
	}
	return false
}

// valueText writes a value as the table has it: bytes in KiB and MiB where they are whole.
func valueText(v constant.Value, name string, isDuration bool) string {
	n, exact := constant.Int64Val(constant.ToInt(v))
	switch {
	case !exact:
		return v.String()
	case isDuration:
		return time.Duration(n).String()
	case !strings.Contains(strings.ToLower(name), "byte") || n < 1<<10 || n%(1<<10) != 0:
		return strconv.FormatInt(n, 10)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// moduleImporter type-checks the packages of this module from their sources, as far as
// their constants need it: of other packages it knows the durations of time only.
type moduleImporter struct {
	files   *token.FileSet
	folders map[string][]*ast.File
	done    map[string]*types.Package
}

func (m *moduleImporter) Import(name string) (*types.Package, error) {
	if p := m.done[name]; p != nil {
		return p, nil
	}
	folder, isOwn := strings.CutPrefix(name, module+"/")
	var p *types.Package
	switch {
	case name == "time":
		p = durations()
	case isOwn:
		config := types.Config{Importer: m, Error: func(error) {}, IgnoreFuncBodies: true}
		p, _ = config.Check(name, m.files, m.folders[folder], nil)
	default:
		p = types.NewPackage(name, path.Base(name))
		p.MarkComplete()
	}
	m.done[name] = p
	return p, nil
}

func durations() *types.Package {
	p := types.NewPackage("time", "time")
	named := types.NewTypeName(token.NoPos, p, "Duration", nil)
	duration := types.NewNamed(named, types.Typ[types.Int64], nil)
	p.Scope().Insert(named)
	for name, d := range map[string]time.Duration{"Nanosecond": 1, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond,
		"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour} {
		p.Scope().Insert(types.NewConst(token.NoPos, p, name, duration, constant.MakeInt64(int64(d))))
	}
	p.MarkComplete()
	return p
}
