package prove

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The states of a row.
const (
	Holds       = "holds"
	HoldsInPart = "holds in part" // all that is built of its mitigation
	Failed      = "failed"
	NotBuilt    = "not built"
	NotRun      = "not run" // the machine lacks something, or it was interrupted
)

// pointsMax bounds the points of a line.
const pointsMax = 600

// Report is the outcome of a Suite; its JSON is what --json writes.
type Report struct {
	Began   time.Time `json:"began"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Machine Machine   `json:"machine"`
	Quick   bool      `json:"quick"`
	Seed    uint64    `json:"seed"`
	Rows    []*Result `json:"rows"`
}

// Machine describes the machine of a run.
type Machine struct {
	System   string `json:"system"`
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	MemoryMB int64  `json:"memory_mb"`
	Go       string `json:"go"`
}

// Result is the outcome of one row on one database.
type Result struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Database   string   `json:"database"` // with its version; "" for a row that uses none
	Status     string   `json:"status"`
	Reason     string   `json:"reason,omitempty"` // why it does not hold, in lines
	Attack     string   `json:"attack"`
	Mitigation string   `json:"mitigation"`
	Detection  []string `json:"detection,omitempty"`
	Did        []string `json:"did,omitempty"`
	Figures    []Figure `json:"figures,omitempty"`
	Plots      []*Plot  `json:"plots,omitempty"`
	Seconds    float64  `json:"seconds"`
	Repeat     string   `json:"repeat"` // the command that repeats it
}

// Figure is a measured value, with a bound if it is asserted.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	Bound string  `json:"bound,omitempty"` // ≤, ≥ or =; "": it is only shown
	Want  float64 `json:"want"`
	Holds bool    `json:"holds"`
}

// MarshalJSON writes want and holds of a figure that has a bound, and of no other.
func (f Figure) MarshalJSON() ([]byte, error) {
	type all Figure
	if f.Bound != "" {
		return json.Marshal(all(f))
	}
	return json.Marshal(struct {
		Name  string  `json:"name"`
		Value float64 `json:"value"`
		Unit  string  `json:"unit,omitempty"`
	}{f.Name, f.Value, f.Unit})
}

// Plot is a picture: lines over time in seconds, or bars.
type Plot struct {
	Title string             `json:"title"`
	Unit  string             `json:"unit,omitempty"`
	Lines []*Line            `json:"lines,omitempty"`
	Bars  map[string]float64 `json:"bars,omitempty"`
}

// Line is a line of a Plot.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`

	run *Run
}

// Point is a place in a plot.
type Point struct {
	X float64 `json:"x"` // seconds since the row began
	Y float64 `json:"y"`
}

// value returns a value of the figure with its unit: digits in groups, three significant ones
// of what is not whole.
func (f Figure) value(v float64) string {
	text := strconv.FormatFloat(v, 'f', -1, 64)
	if v != float64(int64(v)) {
		digits := 2
		if v >= 100 || v <= -100 {
			digits = 1
		} else if v > -1 && v < 1 {
			digits = 4
		}
		text = strconv.FormatFloat(v, 'f', digits, 64)
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	whole, fraction, isFraction := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "\u202f" + whole[i:]
	}
	if isFraction {
		whole += "." + fraction
	}
	if f.Unit != "" {
		whole += " " + f.Unit
	}
	return whole
}

// String returns the figure with its bound.
func (f Figure) String() string {
	if f.Bound == "" {
		return f.Name + ": " + f.value(f.Value)
	}
	text := fmt.Sprintf("%s: %s (%s %s)", f.Name, f.value(f.Value), f.Bound, f.value(f.Want))
	if !f.Holds {
		text += " FAILED"
	}
	return text
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}
