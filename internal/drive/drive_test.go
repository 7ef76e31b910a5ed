package drive

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/pgtest"
	_ "waxwing.im/waxwing/internal/server" // what is tested: without it go test would give cached results of older servers
)

// folder holds what all tests share: the server's binary.
var folder string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if folder, err = os.MkdirTemp("", "waxwing-drive-"); err != nil {
		fmt.Fprintln(os.Stderr, "drive:", err)
		return 1
	}
	defer os.RemoveAll(folder)
	return pgtest.Run(m)
}

var buildOnce = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return BuildServer(ctx, folder, RaceEnabled)
})

// serverBinary is the path of the built server.
func serverBinary(t *testing.T) string {
	t.Helper()
	name, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// numberOf is a variable of the environment as a number, or otherwise.
func numberOf(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: not a number: %v", variable, err)
	}
	return n
}

// within bounds a test, so that its servers end with it and not after it.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
