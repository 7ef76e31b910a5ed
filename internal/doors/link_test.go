package doors

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/limits"
)

// TestPingBetweenFrames: a ping goes out only where a frame has ended, and not behind the
// close frame.
func TestPingBetweenFrames(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	l := newLink(there, NewClock(), limits.Rate{Count: 1 << 20, Period: time.Minute})
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&got, here)
	}()
	must2 := func(_ int, err error) { t.Helper(); must(t, err) }
	l.ping()
	l.hold()
	must2(l.Write([]byte("half of ")))
	l.ping()
	must2(l.Write([]byte("a frame")))
	must(t, l.release())
	l.mu.Lock() // as a write does
	l.ping()
	l.mu.Unlock()
	l.leave()
	l.ping()
	must2(l.Write([]byte(" and the last")))
	must(t, l.Close())
	<-read
	if want := "\x89\x00half of a frame and the last"; got.String() != want {
		t.Errorf("wrote %q, want %q", got.String(), want)
	}
}

// TestBudgetOfASocket: whatever comes through the network is paid for, also what never
// becomes a message.
func TestBudgetOfASocket(t *testing.T) {
	here, there := net.Pipe()
	const bytesAtOnce = 128 << 20
	l := newLink(here, NewClock(), limits.Rate{Count: bytesAtOnce, Period: time.Minute})
	// One frame, hardly begun: many small ones, watched by the race detector, are read more
	// slowly than the budget grows.
	frame := append([]byte{0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0}, make([]byte, 1<<20)...)
	go flood(there, frame)
	piece, read := make([]byte, 1<<20), 0
	for l.spent.Wait(l.rate, 0, time.Since(l.opened)) < -time.Second { // to within a second of being made to wait
		n, err := l.Read(piece)
		must(t, err)
		read += n
	}
	if read < bytesAtOnce/2 {
		t.Errorf("slowed down after %d bytes", read)
	}
	l.spent += limits.Bucket(time.Hour)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_, _ = l.Read(piece)
	}()
	select {
	case <-waited:
		t.Error("a link that is an hour ahead does not wait")
	case <-time.After(20 * time.Millisecond):
	}
	must(t, l.Close()) // ends the wait at once
	<-waited
	must(t, there.Close())
}

// TestCloseReadsToo: Close of a socket reads too, beside the
// goroutine that reads it anyway; the race detector looks on.
func TestCloseReadsToo(t *testing.T) {
	here, there := net.Pipe()
	l := newLink(here, NewClock(), limits.Rate{Count: 1 << 20, Period: time.Minute})
	go flood(there, make([]byte, 1<<10))
	closing := make(chan struct{})
	go func() {
		defer close(closing)
		_, _ = l.Read(make([]byte, 1<<10))
	}()
	l.slow(frameBytesMin)
	<-closing
	must(t, l.Close())
	must(t, there.Close())
}

// flood writes data again and again until the network is closed.
func flood(network net.Conn, data []byte) {
	for {
		if _, err := network.Write(data); err != nil {
			return
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
