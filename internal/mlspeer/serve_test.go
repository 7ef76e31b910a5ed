package mlspeer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// TestLinesAreBounded: a line that is too long is answered and does not hide the
// next one, whether or not a line feed ends the input.
func TestLinesAreBounded(t *testing.T) {
	long := io.LimitReader(zeros{}, lineBytesMax+1)
	in := io.MultiReader(
		strings.NewReader(`{"id":1,"method":"hello"}`+"\n"), long,
		strings.NewReader("\n"+`{"id":2,"method":"hello"}`),
	)
	var out bytes.Buffer
	if err := Serve(context.Background(), in, &out, "1"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d answers, want 3: %s", len(lines), out.String())
	}
	for i, want := range []string{`"id":1,"result"`, `"id":null,"error":"` + errLineTooLong.Error(), `"id":2,"result"`} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("answer %d is %.200s, want %s", i, lines[i], want)
		}
	}
}

// TestCapabilities: packages list both types of credentials.
func TestCapabilities(t *testing.T) {
	in := `{"id":1,"method":"newClient","params":{"client":"a","identity":"ann","ciphersuite":1}}` + "\n" +
		`{"id":2,"method":"keyPackage","params":{"client":"a"}}`
	var out bytes.Buffer
	if err := Serve(context.Background(), strings.NewReader(in), &out, "1"); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Result struct {
			KeyPackage []byte `json:"keyPackage"`
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &answer); err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(answer.Result.KeyPackage, &m); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if has := m.KeyPackage.Leaf.Capabilities.Credentials; !slices.Contains(has, wire.BasicCredential) || !slices.Contains(has, wire.X509Credential) {
		t.Errorf("the credentials are %v", has)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}

// TestEveryMethodIsAnswered gives every method parameters of the wrong kind.
func TestEveryMethodIsAnswered(t *testing.T) {
	for name := range methods {
		for _, params := range []string{`[]`, `{"client":7}`, `{"client":"nobody"}`, `"text"`, `null`, `{"ciphersuite":"x"}`} {
			in := `{"id":"` + name + `","method":"` + name + `","params":` + params + "}\n" + `{"id":2,"method":"hello"}`
			var out bytes.Buffer
			if err := Serve(context.Background(), strings.NewReader(in), &out, "1"); err != nil {
				t.Fatal(err)
			}
			decoder := json.NewDecoder(&out)
			for _, id := range []any{name, 2.0} {
				var answer struct {
					ID     any
					Result json.RawMessage
					Error  string
				}
				if err := decoder.Decode(&answer); err != nil || answer.ID != id || (answer.Result == nil) == (answer.Error == "") {
					t.Errorf("%s %s: answer %+v, %v", name, params, answer, err)
				}
			}
		}
	}
}
