package prove

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// The longest time that a row may take; a row that hangs fails.
const (
	quickRowMax = 90 * time.Second
	fullRowMax  = 3 * time.Hour
	rowEndMax   = 30 * time.Second // from the end of its context; a row that takes longer is left behind
)

// Suite runs rows.
type Suite struct {
	Rows []Proof
	// Databases names what rows run on, as OpenDatabase takes it.
	Databases []string
	Quick     bool
	Seed      uint64
	// Binary is the waxwing command that serves.
	Binary          string
	Version, Commit string // of Binary
	// OnProgress is called with what the running row does, and OnResult with its outcome.
	OnProgress func(Progress)
	OnResult   func(*Result)
}

// Run runs the rows on each database. The error is that of the machine; that rows fail, or were
// not run because a database is not there, is in the report only.
func (s Suite) Run(ctx context.Context) (report *Report, err error) {
	report = &Report{Rows: []*Result{}, Began: time.Now().UTC().Truncate(time.Second), Version: s.Version, Commit: s.Commit, Machine: thisMachine(), Quick: s.Quick, Seed: s.Seed}
	base, err := os.MkdirTemp("", "waxwing-prove-")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	for i, name := range s.Databases {
		if err := s.runOn(ctx, report, name, i == 0, base); err != nil {
			return report, err
		}
	}
	return report, nil
}

// runOn runs the rows on one database; those that need none on the first one only.
func (s Suite) runOn(ctx context.Context, report *Report, name string, isFirst bool, base string) (err error) {
	isWanted := func(p Proof) bool { return !p.Once && p.NotBuilt == "" }
	database := Database{Kind: PostgreSQL}
	if name == SQLite {
		database.Kind = SQLite
	}
	var missing error
	if ctx.Err() == nil && slices.ContainsFunc(s.Rows, isWanted) {
		opened, end, failed := OpenDatabase(ctx, name)
		switch {
		case failed == nil:
			database = opened
			defer func() { err = errors.Join(err, end()) }()
		case errors.Is(failed, ErrMissing):
			missing = failed
		default:
			return failed
		}
	}
	for _, p := range s.Rows {
		if !isFirst && !isWanted(p) {
			continue
		}
		if isWanted(p) && missing != nil {
			p.Needs = func() error { return missing }
		}
		result := s.runRow(ctx, p, name, database, base)
		report.Rows = append(report.Rows, result)
		s.OnResult(result)
	}
	return nil
}

// runRow runs one row on a database that was asked for by name.
func (s Suite) runRow(ctx context.Context, p Proof, name string, database Database, base string) *Result {
	result := &Result{ID: p.ID, Title: p.Title, Attack: p.Attack, Mitigation: p.Mitigation, Detection: p.Detection, Repeat: s.repeat(p, name)}
	if p.NotBuilt != "" {
		result.Status, result.Reason = NotBuilt, "it comes with "+p.NotBuilt
		return result
	}
	if !p.Once {
		result.Database = database.String()
	}
	folder, err := os.MkdirTemp(base, p.ID+"-")
	if err != nil {
		result.Status, result.Reason = NotRun, err.Error()
		return result
	}
	r := &Run{Quick: s.Quick, Seed: s.Seed, Database: database, binary: s.Binary, began: time.Now(), notify: s.OnProgress, base: folder, result: result,
		progress: Progress{ID: p.ID, Database: result.Database}}
	r.Step("starting")
	limit := Size(r, quickRowMax, fullRowMax)
	running, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it has not ended in %s", limit))
	defer cancel()
	if p.Needs != nil {
		if err = p.Needs(); err != nil && !errors.Is(err, ErrMissing) {
			err = fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	if err == nil && ctx.Err() == nil {
		if err = attack(running, p, r); ctx.Err() == nil {
			err = errors.Join(context.Cause(running), err)
		}
	}
	isInterrupted := ctx.Err() != nil
	r.cleanUp()
	r.finish(p, errors.Join(err, os.RemoveAll(folder)), isInterrupted)
	return result
}

// attack calls p.Run. It returns its panic as an error, and returns without it if it does not end
// with its context.
func attack(ctx context.Context, p Proof, r *Run) error {
	ended := make(chan error, 1)
	go func() {
		defer func() {
			if fault := recover(); fault != nil {
				ended <- fmt.Errorf("the row panicked: %v\n%s", fault, debug.Stack())
			}
		}()
		ended <- p.Run(ctx, r)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(rowEndMax)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("the row has not ended %s after it was told to", rowEndMax)
	}
}

// repeat returns the command that repeats a row.
func (s Suite) repeat(p Proof, database string) string {
	words := []string{"waxwing prove", p.ID}
	if s.Quick {
		words = append(words, "--quick")
	}
	if !p.Once {
		if database != SQLite && database != PostgreSQL {
			database = "URL" // which has a password
		}
		words = append(words, "--database", database)
	}
	return strings.Join(append(words, "--seed", fmt.Sprint(s.Seed)), " ")
}

// thisMachine describes the machine.
func thisMachine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kilobytes int64
		if _, err := fmt.Sscanf(string(text), "MemTotal: %d kB", &kilobytes); err == nil {
			m.MemoryMB = kilobytes >> 10
		}
	}
	return m
}
