package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"waxwing.im/waxwing/client"
)

// nameError explains that a name is not accepted, as a Mistake.
func nameError(err error) error {
	if errors.Is(err, client.ErrName) || errors.Is(err, client.ErrAliasTaken) || errors.Is(err, client.ErrAccount) {
		return Mistake{err}
	}
	return err
}

// nameDescription describes the own name.
func (p people) nameDescription() string {
	if name := p.contact(p.self).Name; name != "" {
		return "others see you as " + markClaimed + name
	}
	return "you have no name: others see you as " + short(p.self)
}

func (t *Terminal) doName(ctx context.Context, words []string) (reply, error) {
	name := strings.Join(words, " ")
	if name == "-" {
		name = ""
	}
	if len(words) > 0 {
		if err := t.client.Contacts().SetName(ctx, name); err != nil {
			return reply{}, nameError(err)
		}
	}
	return reply{lines: []string{t.people.nameDescription()}}, nil
}

func (t *Terminal) doAlias(ctx context.Context, words []string) (reply, error) {
	if len(words) < 2 {
		return reply{}, mistake("/alias takes a person and the name that you give them; - takes it back")
	}
	account, rest, err := t.people.leadingPerson(ctx, words, 1)
	if err != nil {
		return reply{}, err
	}
	line, err := t.people.setAlias(ctx, account, strings.Join(rest, " "))
	return reply{lines: []string{line}}, err
}

// setAlias names an account, "-" for no longer, and describes the result.
func (p people) setAlias(ctx context.Context, account, alias string) (string, error) {
	if alias == "-" {
		alias = ""
	}
	if account == p.self {
		return "", mistake("%s is your own account: its name is set by chat name, or /name", short(account))
	}
	if err := p.sdk.Contacts().SetAlias(ctx, account, alias); err != nil {
		return "", nameError(err)
	}
	return short(account) + " is " + p.called(account) + " now", nil
}

// Name sets the name of this account, "" for none, and waits until it is sent. With none given it
// prints the present one.
func (t *Terminal) Name(ctx context.Context, name *string, wait time.Duration) error {
	if name != nil {
		if err := t.client.Contacts().SetName(ctx, *name); err != nil {
			return nameError(err)
		}
	}
	if err := t.print(t.people.nameDescription()); err != nil || name == nil {
		return err
	}
	return t.untilSent(ctx, wait)
}

// Alias names the person that word names, and waits until that is sent to the other devices of this
// account.
func (t *Terminal) Alias(ctx context.Context, word, alias string, wait time.Duration) error {
	account, err := t.people.person(ctx, word)
	if err != nil {
		return err
	}
	line, err := t.people.setAlias(ctx, account, alias)
	if err == nil {
		err = t.print(line)
	}
	if err != nil {
		return err
	}
	return t.untilSent(ctx, wait)
}

func (t *Terminal) untilSent(ctx context.Context, wait time.Duration) error {
	return t.until(ctx, wait, func() (bool, string, error) {
		count, err := t.onTheWay(ctx)
		return count == 0, "the server", err
	})
}

// onTheWay counts what is in the outbox for conversations with a group: the rest may have to wait
// for a person who has never been here.
func (t *Terminal) onTheWay(ctx context.Context) (int, error) {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return 0, err
	}
	count, err := t.client.Pending(ctx)
	for _, c := range all {
		if c.Phase != client.Joined && err == nil {
			var waits int
			waits, err = t.client.Pending(ctx, c.ID)
			count -= waits
		}
	}
	return count, err
}

// contactItem is a person as a JSON line.
type contactItem struct {
	DID       string `json:"did"`
	Short     string `json:"short"`
	Name      string `json:"name,omitempty"`
	Alias     string `json:"alias,omitempty"`
	Verified  bool   `json:"verified"`
	Resembles string `json:"resembles,omitempty"` // the DID of a person with a similar name
}

func itemOfContact(c client.Contact) contactItem {
	return contactItem{c.Account, short(c.Account), c.Name, c.Alias, c.Trusted, c.Resembles}
}

// contacts returns the people that this home knows: those of its conversations, and those with
// names.
func (p people) contacts(ctx context.Context) ([]client.Contact, error) {
	list := p.sdk.Contacts().List()
	listed := map[string]bool{}
	for _, c := range list {
		listed[c.Account] = true
	}
	all, err := p.sdk.Conversations(ctx)
	for _, account := range accountsOf(all) {
		if !listed[account] {
			list = append(list, p.sdk.Contacts().Get(account))
		}
	}
	return slices.DeleteFunc(list, func(c client.Contact) bool { return c.Account == p.self }), err
}

// Contacts prints the people that this home knows.
func (t *Terminal) Contacts(ctx context.Context, asJSON bool) error {
	list, err := t.people.contacts(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		switch {
		case asJSON:
			err = t.printJSON(itemOfContact(c))
		default:
			mark := markUnverified
			if c.Trusted {
				mark = markVerified
			}
			line := t.people.called(c.Account) + mark
			if c.Alias != "" && shownName(c.Name) != "" {
				line += " (" + markClaimed + shownName(c.Name) + ")"
			}
			err = t.print(fmt.Sprintf("%s  %s", c.Account, line))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
