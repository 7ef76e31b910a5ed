package chat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"waxwing.im/waxwing/client"
)

// waitStep is the interval at which until checks its condition.
const waitStep = 50 * time.Millisecond

// notYet is an error that is reported only if it remains until the wait is over.
type notYet struct{ error }

// until waits until done, at most wait. done also returns a description of what it waits for. A
// request that takes longer stays stored in the home: CodeStored.
func (t *Terminal) until(ctx context.Context, wait time.Duration, done func() (bool, string, error)) error {
	if t.onWait != nil {
		t.onWait()
	}
	ctx, cancel := context.WithTimeout(ctx, max(wait, 0))
	defer cancel()
	ticker := time.NewTicker(waitStep)
	defer ticker.Stop()
	for {
		isDone, what, err := done()
		var later notYet
		if isDone || err != nil && !errors.As(err, &later) && ctx.Err() == nil {
			return err
		}
		select {
		case <-ticker.C:
			continue
		case <-ctx.Done():
			state, _ := t.client.State()
			if later.error != nil && state.Link == client.Online {
				return later.error
			}
			if state.Link != client.Online {
				what = "the server"
				if problem := state.Problem(); problem != "" {
					what += ": " + problem
				}
			}
			return failure{CodeStored, fmt.Errorf("not done yet, it waits for %s; it is stored and will be done when a chat is open", printable(cmp.Or(what, "the server")))}
		}
	}
}
