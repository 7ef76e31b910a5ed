package prove

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"svg":     (*Plot).svg,
	"value":   Figure.value,
	"summary": (*Report).Summary,
	"anchor":  func(r *Result) string { return strings.ReplaceAll(r.ID+" "+r.Database, " ", "-") },
	"class":   func(status string) string { return strings.ReplaceAll(status, " ", "-") },
	"lines":   func(text string) []string { return strings.Split(text, "\n") },
	"bounds":  (*Result).bounds,
	"key":     (*Result).key,
	"ran":     func(r *Result) bool { return r.Status != NotBuilt },
}).Parse(pageText))

// WriteHTML writes the report as a page in one file: no script, no other file, readable on a
// phone, on paper and in the dark.
func (r *Report) WriteHTML(w io.Writer) error { return page.Execute(w, r) }

// Summary counts the rows by state, as "7 holds, 1 failed".
func (r *Report) Summary() string {
	counts := map[string]int{}
	for _, row := range r.Rows {
		counts[row.Status]++
	}
	var parts []string
	for _, status := range []string{Holds, HoldsInPart, Failed, NotRun, NotBuilt} {
		if counts[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
		}
	}
	return strings.Join(parts, ", ")
}

// bounds counts the figures with a bound, and those of them that hold.
func (r *Result) bounds() string {
	all, hold := 0, 0
	for _, f := range r.Figures {
		if f.Bound == "" {
			continue
		}
		all++
		if f.Holds {
			hold++
		}
	}
	if all == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", hold, all)
}

// keyFigures bounds the figures of a row in the table of all rows.
const keyFigures = 3

// key returns the figures that say most about a row: those that fail, else the first with bounds.
func (r *Result) key() []Figure {
	if r.Status == NotBuilt {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(r.Figures), func(f Figure) bool { return f.Bound == "" || strings.HasPrefix(f.Name, "metric ") })
	slices.SortStableFunc(list, func(a, b Figure) int {
		switch {
		case a.Holds == b.Holds:
			return 0
		case b.Holds:
			return -1
		}
		return 1
	})
	return list[:min(len(list), keyFigures)]
}

// The layout of plots, in units of the view box.
const (
	plotWidth, plotHeight = 640, 220
	plotLeft, plotRight   = 64, 12
	plotTop, plotBottom   = 12, 30
	barHeight             = 36
	ticks                 = 4
)

// svg draws the plot.
func (p *Plot) svg() template.HTML {
	if len(p.Bars) > 0 {
		return p.svgBars()
	}
	var right, top float64
	for _, l := range p.Lines {
		for _, point := range l.Points {
			right, top = max(right, point.X), max(top, point.Y)
		}
	}
	right, top = niceAbove(right), niceAbove(top)
	x := func(v float64) float64 { return plotLeft + v/right*(plotWidth-plotLeft-plotRight) }
	y := func(v float64) float64 { return plotHeight - plotBottom - v/top*(plotHeight-plotTop-plotBottom) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, plotHeight, template.HTMLEscapeString(p.Title))
	for i := range ticks + 1 {
		part := float64(i) / ticks
		label := Figure{}.value(top * part)
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, plotLeft, plotWidth-plotRight, y(top*part), y(top*part))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, plotLeft-6, y(top*part)+4, label)
		anchor := "middle"
		if i == ticks {
			anchor = "end"
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s">%s s</text>`, x(right*part), plotHeight-10, anchor, Figure{}.value(right*part))
	}
	for i, l := range p.Lines {
		var path strings.Builder
		for _, point := range l.Points {
			fmt.Fprintf(&path, "%.1f,%.1f ", x(point.X), y(point.Y))
		}
		fmt.Fprintf(&b, `<polyline class="line c%d" points="%s"/>`, i%colours, strings.TrimSpace(path.String()))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// colours is the number of colours of lines in page.html.
const colours = 5

// svgBars draws counts, the largest first.
func (p *Plot) svgBars() template.HTML {
	names := slices.SortedFunc(maps.Keys(p.Bars), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.Bars[b], p.Bars[a]), strings.Compare(a, b))
	})
	var top float64
	for _, value := range p.Bars {
		top = max(top, value)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, plotWidth, len(names)*barHeight+4, template.HTMLEscapeString(p.Title))
	for i, name := range names {
		at := i * barHeight
		fmt.Fprintf(&b, `<text x="0" y="%d">%s</text>`, at+14, template.HTMLEscapeString(shorten(name, 70)))
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotWidth, at+14, Figure{}.value(p.Bars[name]))
		fmt.Fprintf(&b, `<rect class="bar" x="0" y="%d" width="%.1f" height="10" rx="2"/>`, at+20, max(1, p.Bars[name]/max(top, 1)*plotWidth))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// shorten cuts a text of more than n letters.
func shorten(text string, n int) string {
	if letters := []rune(text); len(letters) > n {
		return string(letters[:n-1]) + "…"
	}
	return text
}

// niceAbove returns the smallest of 1, 2, 4, 5, 8 and 10 times a power of ten that is not below v.
func niceAbove(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := 1.0
	for power > v {
		power /= 10
	}
	for power*10 <= v {
		power *= 10
	}
	for _, factor := range []float64{1, 2, 4, 5, 8} {
		if factor*power >= v {
			return factor * power
		}
	}
	return 10 * power
}
