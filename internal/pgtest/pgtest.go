// Package pgtest gives tests a real PostgreSQL of their own.
//
// Most tests call URL: it returns the address of a fresh, empty database that is dropped with
// the test. All tests of a binary share one server, started on first use from the installed
// binaries; it does not outlive the binary. Packages that use it end with
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// which also removes the server's files and looks for goroutines that the tests left. Start is
// for tests that kill and restart a server, or that measure one with fsync on.
//
// Only tests and measuring programs use this package; no product code imports it.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing.im/waxwing/internal/pgserver"
)

// Existing is the environment variable that names a server to use instead of a
// private one, as a postgres:// URL of a role that may create databases. "off"
// skips the tests that need PostgreSQL.
const Existing = "WAXWING_TEST_POSTGRES"

// statementTimeout bounds each administrative statement. CREATE DATABASE on a
// busy machine with fsync on is the slowest of them.
const statementTimeout = time.Minute

// shared is the server of this test binary.
var shared struct {
	mu     sync.Mutex // guards the others
	server *pgserver.Server
	err    error // the error of the first start, which is not repeated
}

// URL returns the URL of a fresh, empty database, dropped when t ends. Without
// PostgreSQL on the machine the test is skipped, and fails where CI=true.
func URL(t testing.TB) string {
	t.Helper()
	admin := os.Getenv(Existing)
	skipIfOff(t)
	if admin == "" {
		server, err := sharedServer()
		if err != nil {
			missing(t, err)
		}
		admin = server.URL()
	}
	return database(t, admin)
}

// Options configures a private server.
type Options = pgserver.Options

// Server is a private server of one test.
type Server struct{ *pgserver.Server }

// Start runs a private server for one test and removes it when t ends. Like URL it skips or
// fails if PostgreSQL is not installed.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	skipIfOff(t)
	server, err := pgserver.New(options)
	if err != nil {
		missing(t, err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close PostgreSQL: %v", err)
		}
	})
	return &Server{server}
}

// Database creates a fresh, empty database on s, dropped when t ends, and returns its URL. It
// is not an error if the server is down by then.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	return database(t, s.URL())
}

// OnBoth runs a test with the URL of an empty SQLite database, and of an empty PostgreSQL one.
func OnBoth(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+t.TempDir()) })
	t.Run("postgres", func(t *testing.T) { test(t, URL(t)) })
}

// Main runs the tests of a binary and exits; see Run.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run runs the tests of a binary, for a TestMain that has more to do than Main, and returns its
// exit code. Then it ends the shared server, and fails if a goroutine is still running.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	if err := errors.Join(stop(), goleak.Find()); err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		code = max(code, 1)
	}
	return code
}

func stop() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return nil
	}
	err := shared.server.Close()
	shared.server = nil
	return err
}

func sharedServer() (*pgserver.Server, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = pgserver.New(Options{})
	}
	return shared.server, shared.err
}

// IsWanted reports whether URL would return a database, or fail for want of one: if it is false
// URL skips the test.
func IsWanted() bool {
	switch os.Getenv(Existing) {
	case "off":
		return false
	case "":
		return pgserver.IsInstalled() || os.Getenv("CI") == "true"
	}
	return true
}

func skipIfOff(t testing.TB) {
	t.Helper()
	if os.Getenv(Existing) == "off" {
		t.Skip("not tested on PostgreSQL: " + Existing + "=off")
	}
}

// missing ends a test that cannot have its server. It skips only if PostgreSQL is absent, and
// never if CI=true: there a silent skip would hide half the tests.
func missing(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, pgserver.ErrNotInstalled) && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED, NOT TESTED ON POSTGRESQL: %v", err)
	}
	t.Fatalf("PostgreSQL for this test: %v", err)
}

func database(t testing.TB, admin string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	url, err := pgserver.CreateDatabase(ctx, admin, "waxwing_test_")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
		defer cancel()
		err := pgserver.DropDatabase(ctx, admin, url)
		var refused interface{ SQLState() string }
		if errors.As(err, &refused) { // any other error: the test took the server down
			t.Error(err)
		}
	})
	return url
}
