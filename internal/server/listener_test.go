package server

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/condition"
)

// poorListener lacks file descriptors so many times.
type poorListener struct {
	net.Listener
	want int
}

func (l *poorListener) Accept() (net.Conn, error) {
	if l.want > 0 {
		l.want--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestNoFileDescriptors: a server that runs out of file descriptors says so once, counts
// every try, and goes on when there are some again.
func TestNoFileDescriptors(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	refused := prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"})
	poor := &poorListener{inner, 5}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	l := newListener(poor, logger, refused)
	l.accepts = condition.New(logger, "accepting connections", 0) // the test ends sooner
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	network, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	network.Close()
	if lines := strings.Count(log.String(), "\n"); lines != 2 || !strings.Contains(log.String(), "accepting connections fails") ||
		!strings.Contains(log.String(), "accepting connections works again") {
		t.Errorf("logged %s", log.String())
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(refused)
	if families, err := registry.Gather(); err != nil || families[0].GetMetric()[0].GetCounter().GetValue() != 5 {
		t.Errorf("counted %v, %v", families, err)
	}
	poor.want = 1 << 30
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestHidesAddresses(t *testing.T) {
	for _, test := range []struct {
		listen, public string
		trusted        []string
		want           bool
	}{
		{"127.0.0.1:8420", "https://ds.example", nil, true},
		{"[::1]:8420", "https://ds.example:8443", nil, true},
		{"localhost:8420", "https://ds.example", nil, true},
		{"127.0.0.1:8420", "https://ds.example", []string{"127.0.0.1"}, false},
		{"0.0.0.0:8420", "https://ds.example", nil, false},
		{":8420", "https://ds.example", nil, false},
		{"127.0.0.1:8420", "", nil, false},
		{"127.0.0.1:8420", "http://localhost:8420", nil, false},
		{"127.0.0.1:8420", "http://a.localhost:8420", nil, false},
		{"127.0.0.1:8420", "http://127.0.0.1:8420", nil, false},
	} {
		c := Config{Listen: test.listen, PublicURL: test.public, TrustedProxies: test.trusted}
		if got := c.hidesAddresses(); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
}

// TestWarnsOfHiddenAddresses: an operator is told at start that no limit per address holds.
func TestWarnsOfHiddenAddresses(t *testing.T) {
	var log bytes.Buffer
	c := DefaultConfig(t.TempDir())
	c.PublicURL, c.LogTo, c.Admission = "https://ds.example", &log, "invite"
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "trusted-proxies") || strings.Count(log.String(), "WARN") != 1 {
		t.Errorf("logged %s", log.String())
	}
}

// TestDatabaseName: the line of the start names the database and none of its secrets.
func TestDatabaseName(t *testing.T) {
	for database, want := range map[string]string{
		"": "sqlite:data",
		"postgres://ann:geheim@db:5433/chat?sslmode=require&password=geheim":     "postgres://db:5433/chat",
		"postgresql:///chat?host=/run/postgresql&user=ann&password=geheim":       "postgres:///chat?host=%2Frun%2Fpostgresql",
		"postgres://ann:geheim@db/chat?host=elsewhere&options=-csearch_path%3Dx": "postgres://db/chat",
	} {
		if got := (Config{Data: "data", Database: database}).databaseName(); got != want {
			t.Errorf("%s: got %s, want %s", database, got, want)
		}
	}
}
