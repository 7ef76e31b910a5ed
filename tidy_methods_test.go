package waxwing_test

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A type with many methods is several rooms under one roof: a reader cannot hold its doors in
// mind, and whatever is new finds a place in it. methodsMax bounds them, those of embedded
// types included.
const methodsMax = 60

// methodSet collects the methods and embedded types of one type.
type methodSet struct {
	methods  []string
	embedded []string // as folder.Name
}

func TestTidyTypesHaveFewMethods(t *testing.T) {
	sets := map[string]*methodSet{}
	of := func(name string) *methodSet {
		if sets[name] == nil {
			sets[name] = &methodSet{}
		}
		return sets[name]
	}
	for _, file := range sources(t) {
		if file.isTest {
			continue
		}
		imports := map[string]string{} // folders of the module by the name in the file
		for _, spec := range file.syntax.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			folder, isOurs := strings.CutPrefix(target, module+"/")
			if !isOurs {
				continue
			}
			name := path.Base(folder)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imports[name] = folder
		}
		for _, decl := range file.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil {
					set := of(file.folder + "." + typeName(d.Recv.List[0].Type, file.folder, nil))
					set.methods = append(set.methods, d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					s, isType := spec.(*ast.TypeSpec)
					if !isType {
						continue
					}
					fields, isStruct := s.Type.(*ast.StructType)
					if !isStruct {
						continue
					}
					for _, field := range fields.Fields.List {
						if len(field.Names) == 0 {
							set := of(file.folder + "." + s.Name.Name)
							set.embedded = append(set.embedded, typeName(field.Type, file.folder, imports))
						}
					}
				}
			}
		}
	}
	for name := range sets {
		if n := len(methodsOf(sets, name, nil)); n > methodsMax {
			t.Errorf("%s has %d methods, want at most %d: divide it by what they are about", name, n, methodsMax)
		}
	}
}

// methodsOf returns the names of a type's methods, each once, with those of the types of this
// module that it embeds.
func methodsOf(sets map[string]*methodSet, name string, seen []string) []string {
	set := sets[name]
	if set == nil || slices.Contains(seen, name) {
		return nil
	}
	all := slices.Clone(set.methods)
	for _, embedded := range set.embedded {
		for _, m := range methodsOf(sets, embedded, append(seen, name)) {
			if !slices.Contains(all, m) {
				all = append(all, m)
			}
		}
	}
	return all
}

// typeName returns the name of a receiver, or folder.Name for an embedded field where imports
// is given.
func typeName(e ast.Expr, folder string, imports map[string]string) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return typeName(x.X, folder, imports)
	case *ast.IndexExpr:
		return typeName(x.X, folder, imports)
	case *ast.IndexListExpr:
		return typeName(x.X, folder, imports)
	case *ast.SelectorExpr:
		if of, ok := x.X.(*ast.Ident); ok && imports[of.Name] != "" {
			return imports[of.Name] + "." + x.Sel.Name
		}
	case *ast.Ident:
		if imports != nil {
			return folder + "." + x.Name
		}
		return x.Name
	}
	return ""
}
