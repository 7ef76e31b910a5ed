package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the sample into docs/configuration.md")

// TestConfigurationIsDocumented keeps the page in step with the options.
func TestConfigurationIsDocumented(t *testing.T) {
	var sample, complaints bytes.Buffer
	if code := run(context.Background(), []string{"config", "--sample"}, streams{in: strings.NewReader(""), out: &sample, err: &complaints}); code != 0 {
		t.Fatal(complaints.String())
	}
	const page, opening, closing = "../../docs/configuration.md", "```toml\n", "```\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), opening)
	documented, after, closed := strings.Cut(rest, closing)
	if !ok || !closed {
		t.Fatalf("%s has no block for the sample", page)
	}
	if documented == sample.String() {
		return
	}
	if !*update {
		t.Fatalf("%s is out of step with waxwing config --sample; go test ./cmd/waxwing -run Documented -update", page)
	}
	if err := os.WriteFile(page, []byte(before+opening+sample.String()+closing+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
