package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/memnet"
	"waxwing.im/waxwing/internal/server"
)

// newBubble is a world inside a synctest bubble: a whole server whose connections are
// made of channels of memory, so that hours pass in no time.
func newBubble(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, memory: &memnet.Network{}, ctx: t.Context()}
	w.dial = w.memory.Dial
	// Too long a path for the admin socket, which would be a real one.
	data := filepath.Join(t.TempDir(), strings.Repeat("x", 110))
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	w.config = server.DefaultConfig(data)
	w.config.Limit, w.config.Listener = []string{"all=off"}, w.memory.Listen()
	w.config.PingInterval, w.config.Heartbeat = 10*time.Minute, time.Hour // or days would take long
	w.startServer()
	t.Cleanup(func() { w.stopServer() })
	return w
}

// away stops the server of a bubble for a time, in which every client is closed: days in
// which a server and its clients turn their clocks take minutes to go through.
func (w *world) away(d time.Duration) {
	w.t.Helper()
	w.stopServer()
	time.Sleep(d)
	w.config.Listener = w.memory.Listen()
	w.startServer()
}
