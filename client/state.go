package client

import "context"

// Link says how the connection to the server stands.
type Link int

// The states of the connection.
const (
	Offline    Link = 0
	Connecting Link = 1
	Online     Link = 2
)

// String is the state as a word: offline, connecting or online.
func (l Link) String() string {
	switch l {
	case Connecting:
		return "connecting"
	case Online:
		return "online"
	}
	return "offline"
}

// State is how the connection stands, and why it is not up.
type State struct {
	Link Link
	// Transport is how frames travel, when Online.
	Transport Transport
	// Err is what ended the last connection or attempt; nil when Online. A *Refusal
	// with the code "unauthorized" means that the server does not know the account.
	Err error
}

// State is the state now, and a channel that is closed when it changes.
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
		err = c.state.Err // why it is connecting again
	}
	c.changeState(State{Link: link, Err: err})
}

func (c *Client) setOnline(by Transport) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	c.changeState(State{Link: Online, Transport: by})
}

// changeState tells whoever waits for it; stateMu is held.
func (c *Client) changeState(state State) {
	if c.state == state {
		return
	}
	c.state = state
	close(c.stateChanged)
	c.stateChanged = make(chan struct{})
}

// Stats counts what is worth watching, since Open.
type Stats struct {
	Connects      int64 // sessions started or resumed
	Gaps          int64 // events that came before one that is missing; it was asked for again
	Duplicates    int64 // events that came again and were dropped
	Undecryptable int64
	Commits       int64 // own commits that took effect
	LostRaces     int64 // own commits that another one was faster than; what they were to do was done again
	Rejoins       int64 // groups that were entered anew by an external commit
	Rewinds       int64 // times that the server's log had lost something
}

// Stats are the counts so far.
func (c *Client) Stats() Stats {
	return Stats{Connects: c.stats.connects.Load(), Gaps: c.stats.gaps.Load(),
		Duplicates: c.stats.duplicates.Load(), Undecryptable: c.stats.undecryptable.Load(),
		Commits: c.stats.commits.Load(), LostRaces: c.stats.lostRaces.Load(),
		Rejoins: c.stats.rejoins.Load(), Rewinds: c.stats.rewinds.Load()}
}

// end notes why the client ended, for those who wait.
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
