package chat

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"waxwing.im/waxwing/client"
)

// doVerify shows the safety number to compare, or records that it was compared.
func (t *Terminal) doVerify(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/verify takes a person, and after it yes or the number that the other person reads to you")
	}
	account, rest, err := t.people.leadingPerson(ctx, words, 0)
	if err != nil {
		return reply{}, err
	}
	if len(rest) == 0 {
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
	case len(rest) > 1 || rest[0] != "yes":
		err = compare(number, strings.Join(rest, ""))
	case !t.shown.Equal(number):
		err = mistake("/verify %s shows the number that both of you should read", short(account))
	}
	if err == nil {
		err = t.client.Verify(ctx, number)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{lines: []string{t.people.called(account) + markVerified + " is verified"}}, nil
}

func (t *Terminal) doUnverify(ctx context.Context, words []string) (reply, error) {
	if len(words) == 0 {
		return reply{}, mistake("/unverify takes one person")
	}
	account, err := t.people.person(ctx, strings.Join(words, " "))
	if err == nil {
		err = t.client.Unverify(ctx, account)
	}
	if err != nil {
		return reply{}, err
	}
	return reply{lines: []string{t.people.called(account) + markUnverified + " is no longer verified"}}, nil
}

// safetyLines describes an account: the number that both people should read, and its
// known devices.
func (t *Terminal) safetyLines(ctx context.Context, account string) (client.SafetyNumber, []string, error) {
	if account == t.self {
		return client.SafetyNumber{}, nil, mistake("this is your own account: there is nothing to compare")
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
	out := []string{t.people.called(account), account, "", "    " + digits[:half], "    " + strings.TrimSpace(digits[half:]), "", trustText(trust)}
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

// compare checks a typed number against ours.
func compare(ours client.SafetyNumber, typed string) error {
	theirs, err := client.ParseSafetyNumber(typed)
	if err != nil {
		return mistake("%v, such as the other person reads to you", err)
	}
	if !theirs.Equal(ours) {
		return errors.New("the numbers differ: the connection may be intercepted, or one of you has mistyped it. Nothing was verified")
	}
	return nil
}

// Verify prints the safety number of the account and the person that did names. It records that
// the account is verified if digits, parts of the number as the other person reads it, are the
// same, if the person at a terminal types yes, or with isCompared. Without any of these it
// verifies nothing.
func (t *Terminal) Verify(ctx context.Context, did string, digits []string, isCompared bool) error {
	account, err := t.people.person(ctx, did)
	if err != nil {
		return err
	}
	number, lines, err := t.safetyLines(ctx, account)
	if err != nil {
		return err
	}
	if err := t.print(lines...); err != nil {
		return err
	}
	switch {
	case len(digits) > 0:
		if err := compare(number, strings.Join(digits, "")); err != nil {
			return err
		}
	case isCompared && len(number.Devices()) > 0:
		return mistake("%s cannot vouch for devices, so this number changes with them: give the one that was compared", account)
	case isCompared:
	case isTerminal(t.in):
		fmt.Fprint(t.out, "Do both of you read the same? Type yes: ")
		answer, _ := bufio.NewReader(t.in).ReadString('\n')
		if strings.TrimSpace(strings.ToLower(answer)) != "yes" {
			return errors.New("nothing was verified")
		}
	default:
		return nil
	}
	if err := t.client.Verify(ctx, number); err != nil {
		return err
	}
	return t.print(account + " is verified")
}

// People prints the people that this home has met, and whether they are verified.
func (t *Terminal) People(ctx context.Context) error {
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
		line := account + "  " + state
		if label := t.people.labelOf(account); label != "" {
			line += "  " + t.people.called(account)
		}
		if err := t.print(line); err != nil {
			return err
		}
	}
	return nil
}

// Unverify revokes the verification of a person's account.
func (t *Terminal) Unverify(ctx context.Context, did string) error {
	account, err := t.people.person(ctx, did)
	if err != nil {
		return err
	}
	if err := t.client.Unverify(ctx, account); err != nil {
		return err
	}
	return t.print(account + " is unverified")
}
