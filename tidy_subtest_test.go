package waxwing_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"testing"
)

// TestTidySubtestsUseTheirOwnT reports subtests that use the test around them: a
// skip or a failure there ends the wrong test, which the testing package calls a
// failure ("subtest may have called FailNow on a parent test"). Where PostgreSQL is
// missing that turns a skipped half into a failed whole.
func TestTidySubtestsUseTheirOwnT(t *testing.T) {
	for _, file := range sources(t) {
		if !file.isTest {
			continue
		}
		for _, fault := range outerTestUses(sourcePositions, file.syntax) {
			t.Error(fault)
		}
	}
}

func TestOuterTestUses(t *testing.T) {
	const head = "package p\nimport \"testing\"\nfunc url(testing.TB) string\nfunc TestX(t *testing.T) {\n"
	for _, row := range []struct {
		name, body string
		want       int
	}{
		{"own t", `t.Run("a", func(t *testing.T) { t.Skip() })`, 0},
		{"another name", `t.Run("a", func(s *testing.T) { t.Skip() })`, 1},
		{"a closure", `skip := func() { t.Skip() }; t.Run("a", func(t *testing.T) { skip() })`, 1},
		{"a closure of the subtest", `t.Run("a", func(t *testing.T) { skip := func() { t.Skip() }; skip() })`, 0},
		{"a closure outside of subtests", `skip := func() { t.Skip() }; skip()`, 0},
		{"a table of closures", `for name, u := range map[string]func() string{"a": func() string { return url(t) }} {
			t.Run(name, func(t *testing.T) { u() }) }`, 1},
		{"a field of a table", `rows := []struct{ name string; do func() }{{"a", func() { t.Fatal() }}}
			for _, row := range rows { t.Run(row.name, func(t *testing.T) { _ = row.name; row.do() }) }`, 1},
		{"a closure that is given its t", `do := func(t *testing.T) { t.Skip() }; t.Run("a", func(t *testing.T) { do(t) })`, 0},
	} {
		files := token.NewFileSet()
		syntax, err := parser.ParseFile(files, "x_test.go", head+row.body+"\n}\n", parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := outerTestUses(files, syntax); len(got) != row.want {
			t.Errorf("%s: %q, want %d faults", row.name, got, row.want)
		}
	}
}

// outerTestUses returns the places where a function that is given a test of its own
// uses another one, directly or by calling a closure over it. Imports are not
// resolved: the scopes of one file are enough.
func outerTestUses(files *token.FileSet, syntax *ast.File) []string {
	s := &subtests{files: files, info: &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}},
		closures: map[types.Object]map[types.Object]bool{}, tables: map[types.Object]map[types.Object]bool{}, tests: map[types.Object]bool{}}
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	_, _ = config.Check("p", files, []*ast.File{syntax}, s.info)
	ast.Inspect(syntax, s.declare)
	ast.Inspect(syntax, s.note)
	for _, declaration := range syntax.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok && f.Body != nil {
			s.look(f.Body, testParameters(f.Type))
		}
	}
	return s.faults
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, os.ErrNotExist }

// subtests is one file that is searched.
type subtests struct {
	files *token.FileSet
	info  *types.Info
	// closures and tables map variables to the tests that the functions in them use.
	closures, tables map[types.Object]map[types.Object]bool
	tests            map[types.Object]bool // parameters of types of testing
	faults           []string
}

// note remembers the variables that hold closures over tests. Files are read from top
// to bottom, so that what a variable is made from is known before.
func (s *subtests) note(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if len(n.Rhs) == len(n.Lhs) {
				s.hold(left, n.Rhs[i])
			}
		}
	case *ast.ValueSpec:
		for i, left := range n.Names {
			if len(n.Values) == len(n.Names) {
				s.hold(left, n.Values[i])
			}
		}
	case *ast.RangeStmt:
		for _, left := range []ast.Expr{n.Key, n.Value} {
			if left != nil {
				s.hold(left, n.X)
			}
		}
	}
	return true
}

func (s *subtests) hold(left, right ast.Expr) {
	ident, ok := left.(*ast.Ident)
	if !ok {
		return
	}
	object := s.object(ident)
	if object == nil {
		return
	}
	switch value := right.(type) {
	case *ast.FuncLit:
		s.closures[object] = s.captured(value)
	case *ast.CompositeLit:
		all := map[types.Object]bool{}
		ast.Inspect(value, func(node ast.Node) bool {
			literal, ok := node.(*ast.FuncLit)
			if ok {
				for test := range s.captured(literal) {
					all[test] = true
				}
			}
			return !ok
		})
		s.tables[object] = all
	case *ast.Ident:
		if from := s.object(value); from != nil && s.tables[from] != nil {
			s.tables[object] = s.tables[from]
		}
	}
}

func (s *subtests) object(ident *ast.Ident) types.Object {
	if object := s.info.Defs[ident]; object != nil {
		return object
	}
	return s.info.Uses[ident]
}

// captured returns the tests of functions around a literal that it uses.
func (s *subtests) captured(literal *ast.FuncLit) map[types.Object]bool {
	all := map[types.Object]bool{}
	ast.Inspect(literal.Body, func(node ast.Node) bool {
		if ident, ok := node.(*ast.Ident); ok {
			object := s.info.Uses[ident]
			if object != nil && s.tests[object] && (object.Pos() < literal.Pos() || object.Pos() > literal.End()) {
				all[object] = true
			}
		}
		return true
	})
	return all
}

// declare remembers the parameters that are tests.
func (s *subtests) declare(node ast.Node) bool {
	if f, ok := node.(*ast.FuncType); ok {
		for _, ident := range testParameters(f) {
			s.tests[s.info.Defs[ident]] = true
		}
	}
	return true
}

func testParameters(f *ast.FuncType) []*ast.Ident {
	var all []*ast.Ident
	for _, field := range f.Params.List {
		switch types.ExprString(field.Type) {
		case "*testing.T", "*testing.B", "*testing.F", "testing.TB":
			all = append(all, field.Names...)
		}
	}
	return all
}

// look searches the body of a function whose own tests are given.
func (s *subtests) look(body ast.Node, own []*ast.Ident) {
	isOwn := map[types.Object]bool{}
	for _, ident := range own {
		isOwn[s.info.Defs[ident]] = true
	}
	ast.Inspect(body, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.FuncLit:
			if parameters := testParameters(n.Type); len(parameters) > 0 {
				s.look(n.Body, parameters)
				return false
			}
		case *ast.Ident:
			object := s.info.Uses[n]
			if object == nil {
				return true
			}
			if s.tests[object] && !isOwn[object] {
				s.fault(n)
			}
			s.check(n, s.closures[object], isOwn)
		case *ast.CallExpr:
			if root := rootOf(n.Fun); root != nil {
				s.check(root, s.tables[s.info.Uses[root]], isOwn)
			}
		}
		return true
	})
}

// check reports a closure that uses another test than one's own.
func (s *subtests) check(ident *ast.Ident, uses, isOwn map[types.Object]bool) {
	for test := range uses {
		if !isOwn[test] {
			s.fault(ident)
			return
		}
	}
}

func (s *subtests) fault(ident *ast.Ident) {
	at := s.files.Position(ident.Pos())
	s.faults = append(s.faults, fmt.Sprintf("%s:%d: %s uses the test around this one: pass the t of the subtest to it", at.Filename, at.Line, ident.Name))
}

// rootOf returns the x of x, x.field and x.field.method.
func rootOf(expression ast.Expr) *ast.Ident {
	switch e := expression.(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return rootOf(e.X)
	}
	return nil
}
