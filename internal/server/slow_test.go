package server

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSlowClients: a client that sends its head or its body a byte at a time, or does
// not read its answer, or says nothing more, is cut off by the time limits of the
// listener, here a hundredth of what they are. A limit that is missing stays missing.
func TestSlowClients(t *testing.T) {
	big := strings.Repeat("x", 64<<20)
	s := &Server{logger: slog.New(slog.DiscardHandler)}
	h := s.httpServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/big" {
			_, _ = io.WriteString(w, big)
		}
	}))
	for _, limit := range []*time.Duration{&h.ReadHeaderTimeout, &h.ReadTimeout, &h.WriteTimeout, &h.IdleTimeout} {
		*limit /= 100
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go h.Serve(listener)
	t.Cleanup(func() { h.Close() })

	tests := []struct {
		name, begin string
		drip        string // sent again and again
		read        bool
	}{
		{"head", "GET / HTTP/1.1\r\nHost: x\r\nA: ", "a", true},
		{"head of many lines", "GET / HTTP/1.1\r\nHost: x\r\n", "A: b\r\n", true},
		{"body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n", "a", true},
		{"chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", true},
		{"nothing at all", "", "", true},
		{"nothing after an answer", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", true},
		{"answer that is not read", "GET /big HTTP/1.1\r\nHost: x\r\n\r\n", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			network, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer network.Close()
			if _, err := io.WriteString(network, test.begin); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for test.drip != "" {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
					if _, err := io.WriteString(network, test.drip); err != nil {
						return
					}
				}
			}()
			if !test.read { // until the server has given up, which shows in how much arrives
				time.Sleep(3 * h.WriteTimeout)
			}
			_ = network.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := io.Copy(io.Discard, bufio.NewReader(network))
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the connection stays")
			}
			if !test.read && n >= int64(len(big)) {
				t.Error("an answer that nobody read was kept until somebody did")
			}
		})
	}
}

// TestLargeHeads: what a head may be long is bounded.
func TestLargeHeads(t *testing.T) {
	s := &Server{logger: slog.New(slog.DiscardHandler)}
	h := s.httpServer(http.NotFoundHandler())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go h.Serve(listener)
	defer h.Close()
	network, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	go func() {
		_, _ = io.WriteString(network, "GET / HTTP/1.1\r\nHost: x\r\nA: ")
		for {
			if _, err := io.WriteString(network, strings.Repeat("a", 4096)); err != nil {
				return
			}
		}
	}()
	_ = network.SetReadDeadline(time.Now().Add(time.Minute))
	response, err := http.ReadResponse(bufio.NewReader(network), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(response.Status)
	}
}
