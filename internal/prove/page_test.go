package prove

import (
	"bytes"
	"context"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// sample is a report with all that a page can have.
func sample() *Report {
	line := func(name string, top float64) *Line {
		l := &Line{Name: name}
		for i := range 100 {
			l.Points = append(l.Points, Point{float64(i) * 7.3, top * float64(i%17) / 17})
		}
		return l
	}
	long := strings.Repeat("a long word-of-many-parts ", 8)
	full := &Result{
		ID: "RR-001", Title: "resume", Database: "postgres 17.6 (Debian 17.6-1)", Status: Failed, Reason: "messages lost: 3, want = 0\n" + long,
		Attack: long, Mitigation: long, Detection: []string{`waxwing_gateway_resumes_total{result="ok"}`, strings.Repeat("x", 80)},
		Did: []string{"10 000 connections were broken", long},
		Figures: []Figure{
			{Name: "messages", Value: 1234567, Bound: "≥", Want: 1000000, Holds: true},
			{Name: long, Value: 0.00123, Unit: "ms", Bound: "≤", Want: 12.5, Holds: true},
			{Name: "lost", Value: 3, Bound: "=", Want: 0}, {Name: "shown", Value: -1234.5, Unit: "MiB"},
		},
		Plots: []*Plot{
			{Title: "latency", Unit: "ms", Lines: []*Line{line("p50", 3.4), line("p99 of all", 1234567)}},
			{Title: "memory of the server", Unit: "MiB", Lines: []*Line{line("resident", 0.002), {Name: "empty"}}},
			{Title: "refusals by reason", Bars: map[string]float64{"address": 150, "<script>": 3, long: 1}},
		},
		Seconds: 1234, Repeat: "waxwing prove RR-001 --database postgres --seed 12345678901234567890",
	}
	r := &Report{Began: time.Unix(1.8e9, 0).UTC(), Version: "development", Commit: strings.Repeat("c", 40), Machine: Machine{"linux/amd64", long, 2, 24000, "go1.26"}, Seed: 1 << 63, Rows: []*Result{full}}
	for _, status := range []string{Holds, HoldsInPart, NotRun, NotBuilt} {
		row := *full
		row.ID, row.Status = "TM-00"+string('1'+rune(len(r.Rows))), status
		r.Rows = append(r.Rows, &row)
	}
	return r
}

// TestPageIsOneFile: a page has no script and needs no other file, and what rows say is text.
func TestPageIsOneFile(t *testing.T) {
	var page bytes.Buffer
	if err := sample().WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"waxwing_waxwing_", "<script", "src=", "url(", "http:", "https:", "@import"} {
		if strings.Contains(page.String(), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// TestReportAsJSON: each figure with a bound has it, also when it is 0, and no other one does.
func TestReportAsJSON(t *testing.T) {
	var text bytes.Buffer
	if err := sample().WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var report struct {
		Rows []struct {
			Figures []map[string]any
			Plots   []struct {
				Lines []struct{ Points []map[string]float64 }
			}
		}
	}
	if err := json.Unmarshal(text.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	for _, figure := range report.Rows[0].Figures {
		_, hasBound := figure["bound"]
		_, hasWant := figure["want"]
		_, hasHolds := figure["holds"]
		if hasWant != hasBound || hasHolds != hasBound {
			t.Errorf("a figure is %v", figure)
		}
	}
	if point := report.Rows[0].Plots[0].Lines[0].Points[1]; point["x"] != 7.3 || len(point) != 2 {
		t.Errorf("a point is %v", point)
	}
}

// layoutScript looks at all texts of a page: none overlaps another one or leaves the page.
const layoutScript = `<script>
const boxes = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
	if (!walker.currentNode.data.trim()) continue;
	const range = document.createRange();
	range.selectNodeContents(walker.currentNode);
	const isScrolled = walker.currentNode.parentElement.closest('svg') && getComputedStyle(walker.currentNode.parentElement.closest('figure')).overflowX === 'auto';
	for (const b of range.getClientRects()) if (b.width > 0 && getComputedStyle(walker.currentNode.parentElement).display !== 'none') boxes.push({b, isScrolled, text: walker.currentNode.data.trim()});
}
const faults = [], slack = 2;
for (let i = 0; i < boxes.length; i++) {
	const a = boxes[i].b;
	if (a.height < 11) faults.push('is too small to read: ' + boxes[i].text.slice(0, 40));
	if (boxes[i].isScrolled) { if (a.left < -1) faults.push('begins outside of the page: ' + boxes[i].text.slice(0, 40)) } else if (a.left < -1 || a.right > document.documentElement.clientWidth + 1) faults.push('leaves the page: ' + boxes[i].text.slice(0, 40));
	for (let j = i + 1; j < boxes.length; j++) {
		const b = boxes[j].b;
		if (boxes[i].text !== boxes[j].text && a.left < b.right - slack && b.left < a.right - slack && a.top < b.bottom - slack * 2 && b.top < a.bottom - slack * 2)
			faults.push(boxes[i].text.slice(0, 40) + ' overlaps ' + boxes[j].text.slice(0, 40));
	}
}
document.body.textContent = 'FOUND' + JSON.stringify({texts: boxes.length, faults: faults.slice(0, 10), width: document.documentElement.clientWidth}) + 'END';
</script>`

// TestPageInABrowser: no text of a page overlaps another one, on a phone, on a desk, in the dark.
func TestPageInABrowser(t *testing.T) {
	browser := ""
	for _, command := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(command); err == nil {
			browser = path
			break
		}
	}
	if browser == "" && os.Getenv("CI") == "true" {
		t.Fatal("chromium is missing; scripts/prepare.sh installs it")
	}
	if browser == "" {
		t.Skip("NOT TESTED: chromium is missing; scripts/prepare.sh installs it")
	}
	var page bytes.Buffer
	if err := sample().WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, []byte(strings.Replace(page.String(), "</html>", layoutScript+"</html>", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"phone": {"--window-size=500,900"}, "desk": {"--window-size=1440,900"}, // 500 is the narrowest window
		"dark": {"--window-size=800,900", "--force-dark-mode", "--blink-settings=preferredColorScheme=0"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			home := t.TempDir()
			command := exec.CommandContext(ctx, browser, append(args, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
				"--disable-background-networking", "--no-first-run", "--user-data-dir="+home, "--dump-dom", "file://"+file)...)
			command.Env = append(os.Environ(), "HOME="+home)
			out, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			found := regexp.MustCompile(`FOUND(\{.*\})END`).FindSubmatch(out)
			if found == nil {
				t.Fatalf("the browser says %.500s", out)
			}
			var layout struct {
				Texts, Width int
				Faults       []string
			}
			if err := json.Unmarshal([]byte(html.UnescapeString(string(found[1]))), &layout); err != nil {
				t.Fatal(err)
			}
			if layout.Texts < 50 || len(layout.Faults) > 0 {
				t.Errorf("%d texts in a width of %d: %s", layout.Texts, layout.Width, strings.Join(layout.Faults, "; "))
			}
		})
	}
}
