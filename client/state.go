package client

import (
	"cmp"
	"context"
	"time"
)

// Link is the state of the connection to the server.
type Link int

// The states of the connection.
const (
	Offline    Link = 0
	Connecting Link = 1
	Online     Link = 2
)

var linkNames = map[Link]string{Connecting: "connecting", Online: "online"}

// String returns the state as a word: offline, connecting or online.
func (l Link) String() string { return cmp.Or(linkNames[l], "offline") }

// Transport is the kind of connection that carries frames between a client and the server.
type Transport string

// The transports.
const (
	// WebSocket carries frames both ways, and is used wherever possible.
	WebSocket Transport = "websocket"
	// EventStream is for networks that block WebSockets: frames come as server-sent events and
	// are sent as HTTP calls.
	EventStream Transport = "sse"
	// XRPC is the server's AT Protocol interface, which WithXRPC selects: HTTP calls, and a
	// WebSocket that announces new messages.
	XRPC Transport = "xrpc"
)

// State is the state of the connection, and the reason why it is not up.
type State struct {
	Link Link
	// Transport is the transport in use, when Online.
	Transport Transport
	// Err is the error that ended the last connection or attempt; nil when Online. Reason returns
	// its kind, and Problem a sentence.
	Err error
	// Next is the time of the next attempt, when Offline.
	Next time.Time
	// Host is the host of the server, with the port if its address has one.
	Host string
}

// State returns the current state of the connection, and a channel that is closed when it
// changes.
func (c *Client) State() (State, <-chan struct{}) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	return c.state, c.stateChanged
}

// WaitOnline waits until the client is connected.
func (c *Client) WaitOnline(ctx context.Context) error {
	for {
		state, changed := c.State()
		if state.Link == Online {
			return nil
		}
		if err := c.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// wait blocks until woken is closed. The error is that of ctx or the end of the client.
func (c *Client) wait(ctx context.Context, woken <-chan struct{}) error {
	select {
	case <-woken:
		return nil
	case <-c.closed:
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setState sets the state and wakes its waiters.
func (c *Client) setState(state State) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if state.Link == Connecting {
		state.Err, state.Next = c.state.Err, c.state.Next // the reason for connecting again
	}
	state.Host = c.base.Host
	if c.state == state {
		return
	}
	c.state = state
	close(c.stateChanged)
	c.stateChanged = make(chan struct{})
}

// Stats holds counts since Open.
type Stats struct {
	Connects      int64 // sessions started or resumed
	Gaps          int64 // events that came before a missing one, which was requested again
	Duplicates    int64 // events that came again and were dropped
	Undecryptable int64
	Commits       int64 // own commits that took effect
	LostRaces     int64 // own commits that lost to another one; their changes were committed again
	Rejoins       int64 // groups that were entered again by an external commit
	Rewinds       int64 // times that the server's log had lost records
}

// Stats returns the counts so far.
func (c *Client) Stats() Stats {
	c.statsMu.Lock()
	defer c.statsMu.Unlock()
	return c.stats
}

func (c *Client) count(more Stats) {
	c.statsMu.Lock()
	defer c.statsMu.Unlock()
	c.stats.Connects += more.Connects
	c.stats.Gaps += more.Gaps
	c.stats.Duplicates += more.Duplicates
	c.stats.Undecryptable += more.Undecryptable
	c.stats.Commits += more.Commits
	c.stats.LostRaces += more.LostRaces
	c.stats.Rejoins += more.Rejoins
	c.stats.Rewinds += more.Rewinds
}
