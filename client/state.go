package client

import "context"

// Link is the state of the connection to the server.
type Link int

// The states of the connection.
const (
	Offline    Link = 0
	Connecting Link = 1
	Online     Link = 2
)

// String returns the state as a word: offline, connecting or online.
func (l Link) String() string {
	switch l {
	case Connecting:
		return "connecting"
	case Online:
		return "online"
	}
	return "offline"
}

// State is the state of the connection, and the reason why it is not up.
type State struct {
	Link Link
	// Transport is the transport in use, when Online.
	Transport Transport
	// Err is the error that ended the last connection or attempt; nil when Online. A *Refusal
	// with the code "unauthorized" means that the server does not know the account.
	Err error
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
		select {
		case <-changed:
		case <-c.closed:
			return c.endError()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) setState(link Link, err error) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if err == nil && link == Connecting {
		err = c.state.Err // the reason for connecting again
	}
	c.changeState(State{Link: link, Err: err})
}

func (c *Client) setOnline(by Transport) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	c.changeState(State{Link: Online, Transport: by})
}

// changeState sets the state and wakes its waiters; stateMu is held.
func (c *Client) changeState(state State) {
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
	return Stats{Connects: c.stats.connects.Load(), Gaps: c.stats.gaps.Load(),
		Duplicates: c.stats.duplicates.Load(), Undecryptable: c.stats.undecryptable.Load(),
		Commits: c.stats.commits.Load(), LostRaces: c.stats.lostRaces.Load(),
		Rejoins: c.stats.rejoins.Load(), Rewinds: c.stats.rewinds.Load()}
}

// end records why the client ended, and wakes its waiters.
func (c *Client) end(err error) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	c.ended = err
}

func (c *Client) endError() error {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if c.ended == nil {
		return ErrClosed
	}
	return c.ended
}
