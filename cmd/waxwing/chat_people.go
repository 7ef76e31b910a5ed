package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"waxwing.im/waxwing/client"
)

// memberLines are the people of a conversation, each with their devices.
func (t *chat) memberLines(c client.Conversation) []string {
	var accounts, out []string
	for _, m := range c.Members {
		if !slices.Contains(accounts, m.Account) {
			accounts = append(accounts, m.Account)
		}
	}
	for _, account := range accounts {
		line := account
		if account == t.self {
			line += " (me)"
			if c.Role != "" {
				line += ", " + c.Role
			}
		} else {
			line += t.accountMark(c, account)
		}
		out = append(out, line)
		for _, m := range c.Members {
			if m.Account == account {
				out = append(out, "    "+deviceName(m)+"  "+m.Fingerprint)
			}
		}
	}
	for _, account := range c.Inviting {
		out = append(out, account+markUnverified+", to be invited")
	}
	for _, account := range c.Removing {
		out = append(out, account+", to be removed")
	}
	return append(out, orElse(phaseNote(c), "all is well"))
}

func deviceName(m client.Member) string {
	switch {
	case m.Device == "":
		return "a device without a name, unverified"
	case !m.Verified:
		return m.Device + ", unverified"
	}
	return m.Device
}

// doVerify shows the number to compare, or takes the word of whoever has.
func (t *chat) doVerify(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/verify takes a DID, and behind it yes or the number that the other one reads to you")
	}
	account, err := t.person(ctx, words[0])
	if err != nil {
		return reply{}, err
	}
	if len(words) == 1 {
		number, lines, err := t.safetyLines(ctx, account)
		if err != nil {
			return reply{}, err
		}
		t.shown = number
		return reply{title: "Safety number", lines: append(lines, "", "If both of you read the same: /verify "+short(account)+" yes")}, nil
	}
	number, err := t.client.SharedSafetyNumber(ctx, account)
	switch {
	case err != nil:
		return reply{}, err
	case len(words) > 2 || words[1] != "yes":
		err = compare(number, strings.Join(words[1:], ""))
	case !t.shown.Equal(number):
		err = mistake("/verify %s shows the number that both of you should read", short(account))
	}
	if err == nil {
		err = t.client.Verify(ctx, number)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{lines: []string{short(account) + markVerified + " is verified"}}, nil
}

func (t *chat) doUnverify(ctx context.Context, words []string) (reply, error) {
	if len(words) != 1 {
		return reply{}, mistake("/unverify takes one DID")
	}
	account, err := t.person(ctx, words[0])
	if err == nil {
		err = t.client.Unverify(ctx, account)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{lines: []string{short(account) + markUnverified + " is no longer verified"}}, nil
}

// safetyLines show an account, the number that both people should read, and what is
// known of its devices.
func (t *chat) safetyLines(ctx context.Context, account string) (client.SafetyNumber, []string, error) {
	if account == t.self {
		return client.SafetyNumber{}, nil, mistake("that is you: there is nobody to compare with")
	}
	number, err := t.client.SharedSafetyNumber(ctx, account)
	if err != nil {
		return number, nil, err
	}
	trust, err := t.client.Trust(ctx, account)
	if err != nil {
		return number, nil, err
	}
	digits := number.String()
	half := len(digits) / 2
	out := []string{account, "", "    " + digits[:half], "    " + strings.TrimSpace(digits[half:]), "", trustText(trust)}
	for _, d := range trust.Devices {
		mark := ""
		if slices.Contains(trust.Unpinned, d) {
			mark = ", not covered: compare again"
		}
		out = append(out, fmt.Sprintf("device %s, seen first on %s%s", deviceName(d.Member), d.FirstSeen.Local().Format("2006-01-02"), mark))
	}
	return number, out, nil
}

func trustText(trust client.Trust) string {
	if trust.Verified {
		return "verified on " + trust.Since.Local().Format("2006-01-02 15:04")
	}
	return "unverified: read the number to each other, in person or on a line that you trust"
}

// compare holds a number that somebody has typed against ours.
func compare(ours client.SafetyNumber, typed string) error {
	theirs, err := client.ParseSafetyNumber(typed)
	if err != nil {
		return mistake("%v, such as the other person reads to you", err)
	}
	if !theirs.Equal(ours) {
		return errors.New("the numbers differ: somebody may stand between you, or one of you has mistyped it. Nothing was verified")
	}
	return nil
}

type chatVerifyCommand struct {
	DID    string   `arg:"" optional:"" name:"did" help:"Who. Without it the people that this home has met are listed."`
	Number []string `arg:"" optional:"" help:"The number that the other one reads: it is compared, and has to be the same."`
	Yes    bool     `help:"The numbers were compared and are the same. Where the account cannot vouch for its devices the NUMBER is needed."`
	chatOptions
}

// Help is shown below the flags.
func (chatVerifyCommand) Help() string {
	return "Shows the safety number of you and another person, 60 digits, which both of you read alike if nobody stands " +
		"between you. In a terminal it asks whether you do. Without a terminal, a NUMBER or --yes it shows the number and verifies nothing."
}

// Run shows, compares and notes.
func (c *chatVerifyCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		if c.DID == "" {
			return t.listPeople(ctx, std)
		}
		account, err := t.person(ctx, c.DID)
		if err != nil {
			return usageOf(err)
		}
		number, lines, err := t.safetyLines(ctx, account)
		if err != nil {
			return usageOf(err)
		}
		if err := printLines(std, lines); err != nil {
			return err
		}
		switch {
		case len(c.Number) > 0:
			if err := compare(number, strings.Join(c.Number, "")); err != nil {
				return usageOf(err)
			}
		case c.Yes && len(number.Devices()) > 0:
			return usageOf(mistake("%s cannot vouch for devices, so this number changes with them: give the one that was compared", account))
		case c.Yes:
		case isTerminal(std.in):
			fmt.Fprint(std.out, "Do both of you read the same? Type yes: ")
			answer, _ := bufio.NewReader(std.in).ReadString('\n')
			if strings.TrimSpace(strings.ToLower(answer)) != "yes" {
				return errors.New("nothing was verified")
			}
		default:
			return nil
		}
		if err := t.client.Verify(ctx, number); err != nil {
			return err
		}
		return printLines(std, []string{account + " is verified"})
	})
}

func (t *chat) listPeople(ctx context.Context, std streams) error {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	for _, account := range accountsOf(all) {
		if account == t.self {
			continue
		}
		trust, err := t.client.Trust(ctx, account)
		if err != nil {
			return err
		}
		state := "unverified"
		switch {
		case trust.Verified && len(trust.Unpinned) > 0:
			state = "verified, but has new devices"
		case trust.Verified:
			state = "verified"
		}
		if err := printLines(std, []string{account + "  " + state}); err != nil {
			return err
		}
	}
	return nil
}

type chatUnverifyCommand struct {
	DID string `arg:"" name:"did" help:"Who."`
	chatOptions
}

// Run takes a verification back.
func (c *chatUnverifyCommand) Run(ctx context.Context, std streams, g *globals) error {
	return c.within(ctx, g, func(t *chat) error {
		account, err := t.person(ctx, c.DID)
		if err != nil {
			return usageOf(err)
		}
		if err := t.client.Unverify(ctx, account); err != nil {
			return err
		}
		return printLines(std, []string{account + " is unverified"})
	})
}
