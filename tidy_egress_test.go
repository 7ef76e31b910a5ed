package waxwing_test

import (
	"go/ast"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dialers holds the folders that may make connections. A server makes them through
// netguard only; the others are clients, tests' machinery, or the store's database,
// whose driver dials by itself.
var dialers = []string{"internal/netguard", "client", "cmd/waxwing", "internal/chat", "internal/drive", "internal/pgtest"}

// dialing holds what makes connections, or resolves names, by package; a name that
// ends with * stands for all that begin so.
var dialing = map[string][]string{
	"net":                          {"Dial*", "Dialer", "Lookup*", "Resolve*", "Resolver", "DefaultResolver"},
	"net/http":                     {"Get", "Head", "Post", "PostForm", "Client", "DefaultClient", "Transport", "DefaultTransport"},
	"net/http/httputil":            {"ReverseProxy", "NewSingleHostReverseProxy", "NewClientConn"},
	"net/rpc":                      {"Dial*"},
	"net/smtp":                     {"*"},
	"crypto/tls":                   {"Dial*", "Dialer", "Client"},
	"syscall":                      {"Connect", "Sendto"},
	"golang.org/x/sys/unix":        {"Connect", "Sendto"},
	"github.com/coder/websocket":   {"Dial*"},
	"golang.org/x/crypto/ssh":      {"*"},
	"code.dny.dev/ssrf":            {"*"},
	"golang.org/x/net/proxy":       {"*"},
	"golang.org/x/net/websocket":   {"*"},
	"github.com/gorilla/websocket": {"*"},
}

func isDialing(imported, name string) bool {
	if imported == "net" && name == "DialUnix" {
		return false // it stays on this machine
	}
	return slices.ContainsFunc(dialing[imported], func(pattern string) bool {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		return name == pattern || isPrefix && strings.HasPrefix(name, prefix)
	})
}

// TestTidyOnlyNetguardDialsOut: I9 holds for every connection because there is one
// place where they are made.
func TestTidyOnlyNetguardDialsOut(t *testing.T) {
	seen := 0
	for _, file := range sources(t) {
		if file.isTest {
			continue
		}
		names := map[string]string{} // of the packages, in this file
		for _, spec := range file.syntax.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			name := path.Base(imported)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = imported
			if name == "." && dialing[imported] != nil {
				t.Errorf("%s: imports all of %s", file.path, imported)
			}
		}
		ast.Inspect(file.syntax, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			of, ok := selector.X.(*ast.Ident)
			if !ok || !isDialing(names[of.Name], selector.Sel.Name) {
				return true
			}
			if file.folder == "internal/netguard" {
				seen++
			} else if !slices.Contains(dialers, file.folder) {
				t.Errorf("%s: %s.%s makes connections past netguard", file.path, of.Name, selector.Sel.Name)
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("netguard makes no connections: the test does not see what it looks for")
	}
}
