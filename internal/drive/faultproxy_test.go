package drive

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

const headerEnd = "\r\n\r\n"

// answerer accepts connections and answers each line with itself, after a header.
// It counts the lines that it has read, and what ended its connections.
type answerer struct {
	listener net.Listener
	lines    chan string
	ends     chan error
}

func newAnswerer(t *testing.T) *answerer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	a := &answerer{listener, make(chan string, 100), make(chan error, 100)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go a.answer(conn)
		}
	}()
	return a
}

func (a *answerer) answer(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101"+headerEnd)
	reader := bufio.NewReader(conn)
	for {
		line, err := reader.ReadString('\n')
		if line != "" {
			a.lines <- line
		}
		if err != nil {
			a.ends <- err
			return
		}
		io.WriteString(conn, line)
	}
}

// dialer is a client of the proxy that has read the header.
func dialer(t *testing.T, p *FaultProxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	header := make([]byte, len("HTTP/1.1 101"+headerEnd))
	if _, err := io.ReadFull(conn, header); err != nil {
		t.Fatalf("header: %v", err)
	}
	return conn
}

func receive[T any](t *testing.T, what string, from chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestFaultProxy(t *testing.T) {
	const line = "a line that is to be cut\n"
	cases := []struct {
		fault Fault
		// clientHas is the part of the answer that the client may have read; serverHas whether
		// the server has read the whole line.
		clientHas func(answer []byte) bool
		serverHas func(line string) bool
	}{
		{ResetMidFrame, func(answer []byte) bool { return len(answer) < len(line) }, nil},
		{BeforeAck, func(answer []byte) bool { return len(answer) == 0 }, func(got string) bool { return got == line }},
	}
	for _, c := range cases {
		t.Run(c.fault.String(), func(t *testing.T) {
			a := newAnswerer(t)
			p, err := NewFaultProxy(a.listener.Addr().String(), 7)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			conn := dialer(t, p)
			p.Break(c.fault)
			io.WriteString(conn, line)
			answer, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection did not end")
			}
			if !c.clientHas(answer) || bytes.Contains(answer, []byte(line)) {
				t.Errorf("the client has %q", answer)
			}
			if c.serverHas != nil {
				if got := receive(t, "line", a.lines); !c.serverHas(got) {
					t.Errorf("the server has %q", got)
				}
			}
			receive(t, "end at the server", a.ends)
		})
	}

	t.Run("half-open", func(t *testing.T) {
		a := newAnswerer(t)
		p, err := NewFaultProxy(a.listener.Addr().String(), 7)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		conn := dialer(t, p)
		p.Break(HalfOpen)
		io.WriteString(conn, line)
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes, %v from a silent connection", n, err)
		}
		conn.Close()
		select {
		case err := <-a.ends:
			t.Errorf("the server heard of it: %v", err)
		case got := <-a.lines:
			t.Errorf("the server read %q", got)
		case <-time.After(300 * time.Millisecond):
		}
	})

	t.Run("lost session.ready", func(t *testing.T) {
		a := newAnswerer(t)
		p, err := NewFaultProxy(a.listener.Addr().String(), 7)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		first := dialer(t, p)
		p.Break(LostReady)
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the first connection ended with %v", err)
		}
		second := dialer(t, p) // has the header
		io.WriteString(second, line)
		if answer, err := io.ReadAll(second); len(answer) > 0 || err == nil {
			t.Errorf("the second connection read %q, %v", answer, err)
		}
		if got := receive(t, "line", a.lines); got != line {
			t.Errorf("the server has %q", got)
		}
		third := dialer(t, p)
		io.WriteString(third, line)
		if answer, err := bufio.NewReader(third).ReadString('\n'); answer != line || err != nil {
			t.Errorf("the third connection read %q, %v", answer, err)
		}
	})
}
