package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"waxwing.im/waxwing/client"
)

// within opens a home that is there already, does one thing and closes it again.
func (o *chatOptions) within(ctx context.Context, g *globals, do func(t *chat) error) error {
	dir, err := o.homeDir(g)
	if err != nil {
		return err
	}
	if _, err := readHome(dir); err != nil {
		if errors.Is(err, errNotAHome) {
			err = fmt.Errorf("%w: waxwing chat init makes one", err)
		}
		return err
	}
	return o.inside(ctx, g, do)
}

// inside is within, making the home when it is missing.
func (o *chatOptions) inside(ctx context.Context, g *globals, do func(t *chat) error) error {
	t, err := o.open(ctx, g)
	if err != nil {
		return err
	}
	return errors.Join(do(t), t.client.Close())
}

// usageOf makes a mistake of whoever types one of the command line.
func usageOf(err error) error {
	if words := (errWords{}); errors.As(err, &words) || errors.Is(err, client.ErrAccount) {
		return usageError{err}
	}
	return err
}

// waitOption says how long a command waits for what it asks for.
type waitOption struct {
	Wait time.Duration `default:"15s" placeholder:"TIME" help:"How long to wait until it is done. With 0 it is only noted and done when a chat is open next."`
}

// waitStep is how often it is looked whether something is done.
const waitStep = 50 * time.Millisecond

// notYet is an error that is one only if it is still there when the wait is over.
type notYet struct{ error }

// until waits for what was asked for. done also says what it still waits for. What a
// wait is too short for stays noted in the home.
func (o waitOption) until(ctx context.Context, t *chat, done func() (bool, string, error)) error {
	if o.Wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	ticker := time.NewTicker(waitStep)
	defer ticker.Stop()
	for {
		isDone, what, err := done()
		var later notYet
		if isDone || err != nil && !errors.As(err, &later) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			state, _ := t.client.State()
			if later.error != nil && state.Link == client.Online {
				return later.error
			}
			if state.Link != client.Online {
				what = "the server"
				if state.Err != nil {
					what += ": " + state.Err.Error()
				}
			}
			return fmt.Errorf("not done yet, it waits for %s; it is noted and will be done when a chat is open", printable(what))
		}
	}
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// printLines prints lines whose texts others may have written.
func printLines(std streams, lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintln(std.out, printable(line)); err != nil {
			return err
		}
	}
	return nil
}

func printJSONLine(out io.Writer, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}
