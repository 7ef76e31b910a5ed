package gatewayserver

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"waxwing.im/waxwing/api/gateway"
)

var updateDocument = flag.Bool("update-document", false, "write the tables of docs/gateway-v1.md")

// documentedFrame is a frame with the name of its body's type in api/gateway.
type documentedFrame struct {
	frame, body, feature string
}

// serverFrames lists the frames that a server sends. Those of clients are in sessionKinds and
// frameKinds.
var serverFrames = []documentedFrame{
	{gateway.TypeReady, "Ready", ""}, {gateway.TypeAcked, "Acked", ""}, {gateway.TypeEvent, "Event", ""}, {gateway.TypeError, "Error", ""},
	{gateway.TypeCaughtUp, "CaughtUp", gateway.FeatureMarker}, {gateway.TypeDrain, "Drain", gateway.FeatureDrain},
	{gateway.TypeWelcome, "Welcome", gateway.FeatureDevice}, {gateway.TypeMembers, "Members", gateway.FeatureDevice},
	{gateway.TypeKeyPackagesLow, "KeyPackagesLow", gateway.FeatureDevice}, {gateway.TypeRoster, "Roster", gateway.FeatureRoster},
	{gateway.TypeStreamStarted, "StreamStarted", ""}, {gateway.TypePing, "", ""}, {gateway.TypePong, "", ""},
}

// clientBodies holds the bodies of the frames of clients.
var clientBodies = map[string]string{
	gateway.TypeSessionStart: "Start", gateway.TypeSessionResume: "Resume", gateway.TypeSubscribe: "Subscribe", gateway.TypeSend: "Send",
	gateway.TypeAck: "Ack", gateway.TypeCommit: "Commit", gateway.TypeDeviceAck: "DeviceAck", gateway.TypeReport: "Report",
	gateway.TypePing: "", gateway.TypePong: "",
}

// TestDocument holds the tables of docs/gateway-v1.md against the types of api/gateway, the
// frames that this package handles and the codes that it answers.
func TestDocument(t *testing.T) {
	const page = "../../docs/gateway-v1.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	source := readSource(t, "../../api/gateway")
	written := string(text)
	for name, table := range map[string]string{"frames": source.frames(t), "errors": source.errors(t)} {
		opening, closing := "<!-- generated: "+name+" -->\n", "<!-- end of "+name+" -->"
		before, rest, ok := strings.Cut(written, opening)
		_, after, closed := strings.Cut(rest, closing)
		if !ok || !closed {
			t.Fatalf("%s has no place for %s", page, name)
		}
		written = before + opening + "\n" + table + "\n" + closing + after
	}
	for _, file := range []string{"server.go", "inbox.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range route.FindAllStringSubmatch(string(code), -1) {
			if !strings.Contains(written, "`"+route[1]+"`") {
				t.Errorf("%s is not in %s", route[1], page)
			}
		}
	}
	if written == string(text) {
		return
	}
	if !*updateDocument {
		t.Fatalf("%s is out of step; go test ./internal/gatewayserver -run TestDocument -update-document", page)
	}
	if err := os.WriteFile(page, []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
}

// route matches the patterns of the calls in New.
var route = regexp.MustCompile(`"((?:GET|POST) /[a-z0-9/_-]+)"`)

// wireSource is the source text of the wire types.
type wireSource struct {
	types     map[string]*ast.TypeSpec
	docs      map[string]string
	constants map[string]string // texts only
}

func readSource(t *testing.T, folder string) wireSource {
	t.Helper()
	s := wireSource{map[string]*ast.TypeSpec{}, map[string]string{}, map[string]string{}}
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			general, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range general.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					s.types[spec.Name.Name], s.docs[spec.Name.Name] = spec, general.Doc.Text()
				case *ast.ValueSpec:
					for i, value := range spec.Values {
						if literal, ok := value.(*ast.BasicLit); ok && literal.Kind == token.STRING {
							s.constants[spec.Names[i].Name], _ = strconv.Unquote(literal.Value)
						}
					}
				}
			}
		}
	}
	return s
}

// constantsOf returns the values of the constants whose names begin with prefix.
func (s wireSource) constantsOf(prefix string) []string {
	var values []string
	for name, value := range s.constants {
		if strings.HasPrefix(name, prefix) {
			values = append(values, value)
		}
	}
	slices.Sort(values)
	return values
}

func (s wireSource) frames(t *testing.T) string {
	var clientFrames []documentedFrame
	for frame := range sessionKinds {
		clientFrames = append(clientFrames, documentedFrame{frame, clientBodies[frame], ""})
	}
	for frame, kind := range frameKinds {
		clientFrames = append(clientFrames, documentedFrame{frame, clientBodies[frame], kind.feature})
	}
	order := slices.Sorted(maps.Keys(clientBodies))
	slices.SortFunc(clientFrames, func(a, b documentedFrame) int { return slices.Index(order, a.frame) - slices.Index(order, b.frame) })
	documented := map[string]bool{}
	var out bytes.Buffer
	structures := map[string]bool{} // used by bodies
	list := func(title string, frames []documentedFrame) {
		fmt.Fprintf(&out, "### %s\n\n| frame | feature | body |\n|---|---|---|\n", title)
		for _, f := range frames {
			documented[f.frame] = true
			fmt.Fprintf(&out, "| `%s` | %s | %s |\n", f.frame, code(f.feature), link(f.body))
			s.collect(f.body, structures)
		}
		out.WriteString("\n")
	}
	list("From clients", clientFrames)
	list("From servers", serverFrames)
	for _, frame := range s.constantsOf("Type") {
		if !documented[frame] {
			t.Errorf("%s is in no table of docs/gateway-v1.md", frame)
		}
	}
	out.WriteString("### Bodies\n\nFields with a question mark may be absent or null.\n")
	for _, name := range slices.Sorted(maps.Keys(structures)) {
		s.describe(&out, name)
	}
	return out.String()
}

// collect adds a type and the structures in its fields.
func (s wireSource) collect(name string, into map[string]bool) {
	spec := s.types[name]
	if spec == nil || into[name] {
		return
	}
	body, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	into[name] = true
	for _, field := range body.Fields.List {
		ast.Inspect(field.Type, func(n ast.Node) bool {
			if ident, ok := n.(*ast.Ident); ok {
				s.collect(ident.Name, into)
			}
			return true
		})
	}
}

// describe writes the comment and the fields of a structure, with the names of the wire.
func (s wireSource) describe(out *bytes.Buffer, name string) {
	fields := s.types[name].Type.(*ast.StructType).Fields.List
	wire := map[string]string{}
	for _, field := range fields {
		jsonName, _ := jsonTag(field)
		wire[field.Names[0].Name] = "`" + jsonName + "`"
	}
	first, rest, _ := strings.Cut(s.docs[name], " ") // the name of the type, which a field may have too
	fmt.Fprintf(out, "\n#### %s\n\n%s %s\n\n| field | | |\n|---|---|---|\n", name, first, s.translate(rest, wire))
	for _, field := range fields {
		jsonName, optional := jsonTag(field)
		if _, isPointer := field.Type.(*ast.StarExpr); isPointer || optional {
			jsonName += "?"
		}
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", jsonName, s.typeName(field.Type), s.translate(field.Doc.Text()+field.Comment.Text(), wire))
	}
}

var word = regexp.MustCompile(`[A-Za-z]+`)

// translate returns a comment in one line, with the names of the wire for those of fields and
// constants.
func (s wireSource) translate(comment string, fields map[string]string) string {
	comment = strings.Join(strings.Fields(comment), " ")
	return word.ReplaceAllStringFunc(comment, func(w string) string {
		if name := fields[w]; name != "" {
			return name
		}
		if value := s.constants[w]; value != "" {
			return "`" + value + "`"
		}
		switch w {
		case "FrameBytesMax":
			return fmt.Sprint(gateway.FrameBytesMax, " bytes")
		case "LargeFrameBytesMax":
			return fmt.Sprint(gateway.LargeFrameBytesMax, " bytes")
		}
		return w
	})
}

// typeName returns the JSON type of a field.
func (s wireSource) typeName(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return s.typeName(e.X)
	case *ast.ArrayType:
		return "list of " + s.typeName(e.Elt)
	case *ast.Ident:
		switch e.Name {
		case "string":
			return "text"
		case "int64":
			return "integer"
		case "bool":
			return "boolean"
		}
		if _, ok := s.types[e.Name].Type.(*ast.StructType); ok {
			return link(e.Name)
		}
		return s.typeName(s.types[e.Name].Type)
	}
	return "object"
}

func jsonTag(field *ast.Field) (name string, optional bool) {
	text, _ := strconv.Unquote(field.Tag.Value)
	name, options, _ := strings.Cut(reflect.StructTag(text).Get("json"), ",")
	return name, options == "omitempty"
}

func (s wireSource) errors(t *testing.T) string {
	statuses := map[string]int{string(gateway.CodeInternal): http.StatusInternalServerError, string(gateway.CodeUnavailable): http.StatusServiceUnavailable}
	for _, known := range codes {
		statuses[string(known.code)] = known.status
	}
	all := s.constantsOf("Code")
	slices.SortStableFunc(all, func(a, b string) int { return statuses[a] - statuses[b] })
	var out strings.Builder
	out.WriteString("| code | HTTP status | |\n|---|---|---|\n")
	for _, name := range all {
		if statuses[name] == 0 || errorMeanings[name] == "" {
			t.Errorf("code %s has no status or no meaning", name)
		}
		fmt.Fprintf(&out, "| `%s` | %d | %s |\n", name, statuses[name], errorMeanings[name])
	}
	return out.String()
}

// errorMeanings says what a client does about each code.
var errorMeanings = map[string]string{
	"invalid_request":        "The frame or request is malformed, too long or contradictory. Repeating it does not help",
	"unauthorized":           "The token is missing, expired, revoked or not for this service. Start a session with a new service token",
	"resume_failed":          "The resume token is unknown, expired or replaced. Start a session",
	"forbidden":              "The account may not do this, is not a member, or needs an invite; unknown conversations answer this too",
	"not_found":              "There is no such thing, or none that the account may see",
	"epoch_conflict":         "Another commit came first. Process it, then make the commit again for `current_epoch`",
	"replay_window_exceeded": "The history before `earliest_seq` is gone. Subscribe from there",
	"log_rewound":            "The server's log ends before the position. Reserved: servers do not detect a restored database yet",
	"rate_limited":           "Too many calls. Wait `retry_after_s` seconds; over HTTP it is the header `Retry-After` too",
	"limit_exceeded":         "A bound is reached, and waiting does not help",
	"internal_error":         "A fault of the server",
	"unavailable":            "The same request may be repeated, with the same `msg_id`, after `retry_after_s` seconds if that is set",
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

func link(structure string) string {
	if structure == "" {
		return ""
	}
	return "[" + structure + "](#" + strings.ToLower(structure) + ")"
}
