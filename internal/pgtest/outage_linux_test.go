package pgtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/pgtest"
)

func TestDiskIsFull(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{SmallSegments: true})
	url := server.Database(t)
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	execute(t, url, "CREATE TABLE big (x text)")
	if err := server.FillDisk(1 << 16); err != nil {
		t.Fatal(err)
	}
	const fill = "INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 4000)"
	if _, err = conn.Exec(context.Background(), fill); err == nil || !strings.Contains(err.Error(), "could not extend file") {
		t.Errorf("a table grew beyond the end of the disk: %v", err)
	}
	if got := query(t, url, "SELECT count(*)::text FROM big"); got != "0" {
		t.Errorf("%s rows, want the server to answer with none", got)
	}
	if err := server.FreeDisk(); err != nil {
		t.Fatal(err)
	}
	if _, err = conn.Exec(context.Background(), fill); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestServerIsPaused(t *testing.T) {
	server := pgtest.Start(t, pgtest.Options{})
	url := server.Database(t)
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- conn.Ping(context.Background()) }()
	select {
	case err := <-answer:
		t.Errorf("a paused server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Errorf("the connection did not outlive the pause: %v", err)
	}
}
