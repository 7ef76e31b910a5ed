package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func execute(t *testing.T, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, sql string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), sql).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestURLGivesEachTestADatabase(t *testing.T) {
	first, second := pgtest.URL(t), pgtest.URL(t)
	if first == second {
		t.Fatalf("one database for two tests: %s", first)
	}
	execute(t, first, "CREATE TABLE only_here (x int)")
	if got := query(t, second, "SELECT count(*)::text FROM pg_tables WHERE tablename = 'only_here'"); got != "0" {
		t.Errorf("the second database shows the first one's table")
	}
	if got := query(t, first, "SELECT datcollate::text FROM pg_database WHERE datname = current_database()"); got != "C" {
		t.Errorf("collation is %q, want bytewise", got)
	}
}

func TestServerIsKilledAndRestarted(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{Fsync: true, Settings: []string{"work_mem=5MB"}})
	url := server.Database(t)
	for _, setting := range []struct{ name, want string }{{"fsync", "on"}, {"work_mem", "5MB"}} {
		if got := query(t, url, "SHOW "+setting.name); got != setting.want {
			t.Errorf("%s is %s, want %s", setting.name, got, setting.want)
		}
	}
	execute(t, url, "CREATE TABLE kept AS SELECT 'still here' AS x")
	for _, end := range []struct {
		name string
		end  func() error
	}{
		{"killed", func() error { server.Kill(); return nil }},
		{"stopped", server.Stop},
	} {
		if err := end.end(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		if _, err := pgx.Connect(context.Background(), url); err == nil {
			t.Fatalf("%s: the server still answers", end.name)
		}
		if err := server.Restart(); err != nil {
			t.Fatalf("%s: %v", end.name, err)
		}
		if got := query(t, url, "SELECT x FROM kept"); got != "still here" {
			t.Errorf("%s: row is %q", end.name, got)
		}
	}
}

func TestURLOnAnExistingServer(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	t.Setenv(pgtest.Existing, server.URL())
	url := pgtest.URL(t)
	if got, want := query(t, url, "SHOW port"), query(t, server.URL(), "SHOW port"); got != want {
		t.Errorf("the database is on port %s, want that of %s, %s", got, pgtest.Existing, want)
	}
	databases := query(t, server.URL(), "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'waxwing_test_%'")
	if databases != "1" {
		t.Errorf("%s test databases on the server named by %s, want 1", databases, pgtest.Existing)
	}
}
