package mlspeer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
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
