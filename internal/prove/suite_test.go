package prove_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/prove"
)

// folder holds the built command.
var folder string

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "waxwing-prove-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := pgtest.Run(m)
	os.RemoveAll(folder)
	os.Exit(code)
}

var build = sync.OnceValues(func() (string, error) { return drive.BuildServer(context.Background(), folder, false) })

// suite returns a suite of one row that uses the built command. Everything that it makes is in
// the returned directory.
func suite(t *testing.T, row prove.Proof) (prove.Suite, string) {
	t.Helper()
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	temporary, err := os.MkdirTemp(folder, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{folder, temporary} { // PostgreSQL's user must get through
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", temporary)
	return prove.Suite{Rows: []prove.Proof{row}, Databases: []string{prove.SQLite}, Quick: true, Seed: 1, Binary: binary,
		OnProgress: func(prove.Progress) {}, OnResult: func(*prove.Result) {}}, temporary
}

// TestVerdicts: a row holds only if it ended well and asserted something that held.
func TestVerdicts(t *testing.T) {
	row := func(run func(context.Context, *prove.Run) error) prove.Proof {
		return prove.Proof{ID: "RR-000", Run: run}
	}
	holds := func(_ context.Context, r *prove.Run) error { r.AtMost("losses", 0, 0, ""); return nil }
	inPart := row(holds)
	inPart.Missing = "a part"
	lacking := row(holds)
	lacking.Needs = func() error { return errors.New("no proxy is installed") }
	for name, test := range map[string]struct {
		row            prove.Proof
		status, reason string
	}{
		"holds":         {row(holds), prove.Holds, ""},
		"holds in part": {inPart, prove.HoldsInPart, "not built yet: a part"},
		"asserts nothing": {row(func(_ context.Context, r *prove.Run) error { r.Figure("losses", 0, ""); return nil }), prove.Failed,
			"it asserts nothing"},
		"a bound does not hold": {row(func(_ context.Context, r *prove.Run) error {
			r.AtLeast("messages", 1999.5, 2000, "")
			r.Exactly("losses", 0, 0, "")
			return nil
		}), prove.Failed, "messages: 1\u202f999.5, want ≥ 2\u202f000"},
		"an error": {row(func(_ context.Context, r *prove.Run) error {
			r.AtMost("losses", 0, 0, "")
			return errors.New("two forks")
		}),
			prove.Failed, "two forks"},
		"something is missing": {lacking, prove.NotRun, "missing: no proxy is installed"},
		"a bound does not hold, then something is missing": {row(func(_ context.Context, r *prove.Run) error {
			r.Exactly("losses", 3, 0, "")
			return fmt.Errorf("%w: node", prove.ErrMissing)
		}), prove.Failed, "missing: node\nlosses: 3, want = 0"},
		"something of its own was cancelled": {row(func(ctx context.Context, r *prove.Run) error {
			r.Exactly("losses", 0, 0, "")
			return fmt.Errorf("read: %w", context.Canceled)
		}), prove.Failed, "read: context canceled"},
		"a figure is not a number": {row(func(_ context.Context, r *prove.Run) error {
			r.AtMost("share", 0/zero, 1, "")
			r.AtMost("ratio", 1/zero, 1, "")
			return nil
		}), prove.Failed, "share (not a number): 0, want ≤ 1\nratio (not a number): 0, want ≤ 1"},
		"missing on the way": {row(func(context.Context, *prove.Run) error { return fmt.Errorf("%w: node", prove.ErrMissing) }), prove.NotRun, "missing: node"},
		"not built":          {prove.Proof{ID: "RR-000", NotBuilt: "presence"}, prove.NotBuilt, "it comes with presence"},
	} {
		t.Run(name, func(t *testing.T) {
			s, temporary := suite(t, test.row)
			report, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := report.Rows[0]
			if got.Status != test.status || got.Reason != test.reason {
				t.Errorf("%s: %q, want %s: %q", got.Status, got.Reason, test.status, test.reason)
			}
			isEmpty(t, temporary)
		})
	}
}

// zero keeps the compiler from dividing by it.
var zero float64

// TestPanic: a row that panics fails, the next one runs, and its server does not outlive it.
func TestPanic(t *testing.T) {
	s, temporary := suite(t, prove.Proof{ID: "RR-000", Run: func(ctx context.Context, r *prove.Run) error {
		if _, err := r.Serve(ctx); err != nil {
			return err
		}
		panic("no such index")
	}})
	s.Rows = append(s.Rows, prove.Proof{ID: "RR-999", Run: func(_ context.Context, r *prove.Run) error { r.AtMost("losses", 0, 0, ""); return nil }})
	report, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Rows[0]; got.Status != prove.Failed || !strings.HasPrefix(got.Reason, "the row panicked: no such index\n") {
		t.Errorf("%s: %s", got.Status, got.Reason)
	}
	if got := report.Rows[1]; got.Status != prove.Holds {
		t.Errorf("the next row: %s: %s", got.Status, got.Reason)
	}
	isEmpty(t, temporary)
	for _, line := range processes(t, temporary) {
		t.Errorf("still runs: %s", line)
	}
}

// TestNoDatabase: rows on a database that is not there are not run, those on another one and those
// that need none are.
func TestNoDatabase(t *testing.T) {
	s, temporary := suite(t, prove.Proof{ID: "RR-000", Run: func(_ context.Context, r *prove.Run) error { r.AtMost("losses", 0, 0, ""); return nil }})
	once := s.Rows[0]
	once.ID, once.Once = "RR-999", true
	s.Rows = append(s.Rows, once, prove.Proof{ID: "TM-000", NotBuilt: "federation"})
	s.Databases = []string{"postgres://me:secret@127.0.0.1:1/db", prove.SQLite}
	report, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range report.Rows {
		got = append(got, row.ID+" "+row.Status)
	}
	if want := "RR-000 not run, RR-999 holds, TM-000 not built, RR-000 holds"; strings.Join(got, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(got, ", "), want)
	}
	if reason := report.Rows[0].Reason; !strings.Contains(reason, "does not answer") || strings.Contains(reason, "\n") || strings.Contains(reason, "secret") {
		t.Errorf("the reason is %q", reason)
	}
	isEmpty(t, temporary)
}

// TestInterrupted: an interrupted run leaves no process, no directory and no database, on both
// databases, and a row that hangs ends too.
func TestInterrupted(t *testing.T) {
	databases := []string{prove.SQLite}
	if pgtest.IsWanted() {
		databases = append(databases, prove.PostgreSQL)
	}
	for _, database := range databases {
		t.Run(database, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			var address string
			s, temporary := suite(t, prove.Proof{ID: "RR-000", Run: func(ctx context.Context, r *prove.Run) error {
				server, err := r.Serve(ctx)
				if err != nil {
					return err
				}
				r.Watch(ctx, server)
				address = server.URL
				interrupt()
				<-ctx.Done()
				return context.Cause(ctx)
			}})
			s.Databases = []string{database}
			report, err := s.Run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got := report.Rows[0]; got.Status != prove.NotRun || address == "" {
				t.Errorf("%s: %s", got.Status, got.Reason)
			}
			isEmpty(t, temporary)
			for _, line := range processes(t, temporary) {
				t.Errorf("still runs: %s", line)
			}
		})
	}
}

// TestHeapAndMetrics: a run reads the memory and the metrics of its server.
func TestHeapAndMetrics(t *testing.T) {
	s, _ := suite(t, prove.Proof{ID: "RR-000", Run: func(ctx context.Context, r *prove.Run) error {
		server, err := r.Serve(ctx)
		if err != nil {
			return err
		}
		memory := r.Watch(ctx, server)
		before, err := server.Ops.Metrics(ctx)
		if err != nil {
			return err
		}
		if err := memory.Baseline(ctx); err != nil {
			return err
		}
		status, _, err := server.Ops.Get(ctx, "/readyz")
		r.Exactly("/readyz", float64(status), 200, "")
		if _, has := before.Sum("waxwing_build_info", `version="`+"development"); !has {
			return errors.New("waxwing_build_info has no version")
		}
		return errors.Join(err, memory.Check(ctx))
	}})
	report, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := report.Rows[0]
	if got.Status != prove.Holds || len(got.Plots) != 1 || len(got.Plots[0].Lines) != 2 || len(got.Plots[0].Lines[0].Points) == 0 {
		t.Errorf("%s: %s, %d plots", got.Status, got.Reason, len(got.Plots))
	}
}

// isEmpty checks that nothing is left in a directory.
func isEmpty(t *testing.T, name string) {
	t.Helper()
	entries, err := os.ReadDir(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("left behind: %s", entry.Name())
	}
}

// processes lists the command lines that name a directory, on systems that tell.
func processes(t *testing.T, name string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), name) {
			found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	return found
}
