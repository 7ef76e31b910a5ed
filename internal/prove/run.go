package prove

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/drive"
)

// Run is one run of a proof on one database: the place of its servers, and of what it finds. Its
// methods are safe for concurrent use.
type Run struct {
	Quick bool   // the size of CI: seconds
	Seed  uint64 // of everything that is random
	// Database is what the servers of the row keep their data in.
	Database Database

	binary string // of the servers
	began  time.Time
	notify func(Progress)
	base   string // directory of the run

	mu       sync.Mutex // guards the rest
	folders  int
	cleanups []func()
	progress Progress
	result   *Result
	isOver   bool // what a row that does not end says from then on is dropped
}

// Size returns quick or full, the size of the run.
func Size[T any](r *Run, quick, full T) T {
	if r.Quick {
		return quick
	}
	return full
}

// Random returns a source of random numbers that depends on the seed and on stream alone.
func (r *Run) Random(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(r.Seed, stream)) }

// Folder makes a directory, which is removed after the run.
func (r *Run) Folder() (string, error) {
	r.mu.Lock()
	r.folders++
	name := filepath.Join(r.base, fmt.Sprint(r.folders))
	r.mu.Unlock()
	return name, os.Mkdir(name, 0o700)
}

// Cleanup calls undo when the run ends, however it ends; the last one first. It calls it at once
// if the run is over.
func (r *Run) Cleanup(undo func()) {
	r.mu.Lock()
	isOver := r.isOver
	if !isOver {
		r.cleanups = append(r.cleanups, undo)
	}
	r.mu.Unlock()
	if isOver {
		undo()
	}
}

// cleanUp calls what Cleanup was given.
func (r *Run) cleanUp() {
	r.mu.Lock()
	cleanups := r.cleanups
	r.cleanups, r.isOver = nil, true
	r.mu.Unlock()
	for _, undo := range slices.Backward(cleanups) {
		undo()
	}
}

// Did adds a line to what the row says it did.
func (r *Run) Did(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Did = append(r.result.Did, fmt.Sprintf(format, args...))
}

// Progress is what a row does at the moment: Done of Total, or just Step if Total is 0.
type Progress struct {
	ID, Database string
	Step         string
	Done, Total  int
	Elapsed      time.Duration
}

// Step says what the row does from now on.
func (r *Run) Step(format string, args ...any) { r.At(0, 0, format, args...) }

// At says how far the row is with what it does.
func (r *Run) At(done, total int, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Step, r.progress.Done, r.progress.Total = fmt.Sprintf(format, args...), done, total
	r.progress.Elapsed = time.Since(r.began)
	r.notify(r.progress)
}

// Figure adds a figure that is only shown. unit may be "".
func (r *Run) Figure(name string, value float64, unit string) {
	r.add(Figure{Name: name, Value: value, Unit: unit})
}

// AtMost adds a figure with its largest value.
func (r *Run) AtMost(name string, value, bound float64, unit string) {
	r.add(Figure{Name: name, Value: value, Unit: unit, Bound: "≤", Want: bound, Holds: value <= bound})
}

// AtLeast adds a figure with its smallest value.
func (r *Run) AtLeast(name string, value, bound float64, unit string) {
	r.add(Figure{Name: name, Value: value, Unit: unit, Bound: "≥", Want: bound, Holds: value >= bound})
}

// Exactly adds a figure that has one right value.
func (r *Run) Exactly(name string, value, want float64, unit string) {
	r.add(Figure{Name: name, Value: value, Unit: unit, Bound: "=", Want: want, Holds: value == want})
}

func (r *Run) add(f Figure) {
	if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) { // as 0/0; JSON has no such numbers
		f.Name, f.Value, f.Holds = f.Name+" (not a number)", 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Figures = append(r.result.Figures, f)
}

// Moved adds a bound for each metric of after that must be larger than in before: the row's
// detection. Each is a name, with labels behind it as {name="value"}.
func (r *Run) Moved(before, after drive.Metrics, metrics ...string) {
	for _, metric := range metrics {
		name, labels, _ := strings.Cut(strings.TrimSuffix(metric, "}"), "{")
		var list []string
		if labels != "" {
			list = strings.Split(labels, ",")
		}
		was, _ := before.Sum("waxwing_"+name, list...)
		is, _ := after.Sum("waxwing_"+name, list...)
		r.add(Figure{Name: "metric " + metric + " moved by", Value: is - was, Bound: "≥", Want: 1, Holds: is-was >= 1})
	}
}

// Plot returns a plot of the row with a line, made if there is none with the title. x is seconds
// since the row began.
func (r *Run) Plot(title, unit, line string) *Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.result.Plots, func(p *Plot) bool { return p.Title == title })
	if i < 0 {
		i = len(r.result.Plots)
		r.result.Plots = append(r.result.Plots, &Plot{Title: title, Unit: unit})
	}
	l := &Line{Name: line, run: r}
	r.result.Plots[i].Lines = append(r.result.Plots[i].Lines, l)
	return l
}

// Add adds a point at this moment.
func (l *Line) Add(value float64) {
	x := time.Since(l.run.began).Seconds()
	l.run.mu.Lock()
	defer l.run.mu.Unlock()
	if l.run.isOver || math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	l.Points = append(l.Points, Point{x, value})
	if len(l.Points) > pointsMax { // half of them show as much
		kept := l.Points[:0]
		for i := 0; i < len(l.Points); i += 2 {
			kept = append(kept, l.Points[i])
		}
		l.Points = kept
	}
}

// Bars adds a picture of counts by name.
func (r *Run) Bars(title string, counts map[string]float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Plots = append(r.result.Plots, &Plot{Title: title, Bars: counts})
}

// Settle waits for d, so that what ends by itself has ended; a quick run waits for a twentieth.
func (r *Run) Settle(ctx context.Context, d time.Duration) error {
	return pause(ctx, Size(r, d/20, d))
}

// pause waits for d. Its error says why ctx has ended before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish decides whether the row holds. A bound that does not hold weighs more than something that
// is missing.
func (r *Run) finish(p Proof, err error, isInterrupted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := r.result
	r.result = &Result{} // a row that does not end goes on to write
	result.Seconds = time.Since(r.began).Seconds()
	bounds, isMissing := 0, errors.Is(err, ErrMissing)
	for _, f := range result.Figures {
		if f.Bound == "" {
			continue
		}
		bounds++
		if !f.Holds {
			isMissing = false
			err = errors.Join(err, fmt.Errorf("%s: %s, want %s %s", f.Name, f.value(f.Value), f.Bound, f.value(f.Want)))
		}
	}
	switch {
	case isInterrupted:
		result.Status, result.Reason = NotRun, "it was interrupted"
	case isMissing:
		result.Status, result.Reason = NotRun, err.Error()
	case err != nil:
		result.Status, result.Reason = Failed, err.Error()
	case bounds == 0:
		result.Status, result.Reason = Failed, "it asserts nothing"
	case p.Missing != "":
		result.Status, result.Reason = HoldsInPart, "not built yet: "+p.Missing
	default:
		result.Status = Holds
	}
}
