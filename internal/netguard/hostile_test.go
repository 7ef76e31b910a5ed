package netguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"waxwing.im/waxwing/internal/hostile"
)

// TestHostileTargets: whatever a stranger makes us call, nothing is dialled.
func TestHostileTargets(t *testing.T) {
	names := newNameServer(t)
	var dialled []Dial
	guard := newGuard(t, Options{Resolver: resolver(names), OnDial: func(d Dial) { dialled = append(dialled, d) }})
	refusal := func(url string) Reason {
		t.Helper()
		_, err := guard.Get(context.Background(), url, "*/*", Limits{})
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Fatalf("%q: got %v", url, err)
		}
		return refused.Reason
	}
	count := 0
	for _, target := range hostile.URLs {
		count++
		if got := refusal(target.URL); string(got) != target.Reason {
			t.Errorf("%q: refused for %s, want %s", target.URL, got, target.Reason)
		}
	}
	for _, text := range hostile.Addresses {
		count++
		address := netip.MustParseAddr(text)
		host := address.String()
		if address.Is6() {
			host = "[" + host + "]"
		}
		if got := refusal("https://" + host + "/"); got != ReasonAddress {
			t.Errorf("%s: refused for %s", host, got)
		}
	}
	if len(dialled) != 0 {
		t.Fatalf("dialled %v", dialled)
	}
	for i, text := range hostile.Addresses {
		count++
		name := fmt.Sprintf("h%d.attacker.net", i)
		names.Set(name, text)
		dialled = nil
		got := refusal("https://" + name + "/")
		isLetOut := slices.ContainsFunc(dialled, func(d Dial) bool { return !d.Refused })
		if got != ReasonAddress || len(dialled) == 0 || isLetOut {
			t.Errorf("%s at %s: refused for %s, dialled %v", name, text, got, dialled)
		}
	}
	if count < 150 {
		t.Errorf("only %d targets", count)
	}
}

// TestRebinding: the address that decides is the one that is dialled, whatever a
// name was said to be before.
func TestRebinding(t *testing.T) {
	names := newNameServer(t)
	stopped := errors.New("stopped before the connection")
	var dialled []Dial
	guard := newGuard(t, Options{Resolver: resolver(names), OnDial: func(d Dial) { dialled = append(dialled, d) }})
	guard.holdBack = stopped
	get := func(name string) error {
		dialled = nil
		_, err := guard.Get(context.Background(), "https://"+name+"/", "*/*", Limits{})
		return err
	}
	isRefused := func(err error) bool {
		var refused *Refused
		return errors.As(err, &refused) && refused.Reason == ReasonAddress
	}

	names.Set("turns.attacker.net", "8.8.8.8", "127.0.0.1")
	first, err := resolver(names).LookupNetIP(context.Background(), "ip", "turns.attacker.net")
	if err != nil || len(first) != 1 || first[0].String() != "8.8.8.8" {
		t.Fatalf("a check before the call sees %v, %v", first, err)
	}
	if err := get("turns.attacker.net"); !isRefused(err) {
		t.Errorf("the name has turned: got %v, dialled %v", err, dialled)
	}

	names.Set("honest.net", "8.8.8.8")
	if err := get("honest.net"); !errors.Is(err, stopped) || len(dialled) != 1 || dialled[0].Refused {
		t.Errorf("a public address: got %v, dialled %v", err, dialled)
	}
	names.Set("second.attacker.net", "8.8.8.8", "10.0.0.1")
	if err := get("second.attacker.net"); !errors.Is(err, stopped) {
		t.Errorf("while it is public: got %v", err)
	}
	if err := get("second.attacker.net"); !isRefused(err) {
		t.Errorf("after it turned: got %v", err)
	}

	// Where some of a name's addresses are private, those are not dialled.
	names.Set("mixed.attacker.net", "8.8.8.8 127.0.0.1 ::1 10.0.0.1")
	_ = get("mixed.attacker.net")
	if len(dialled) < 2 {
		t.Errorf("dialled only %v", dialled)
	}
	for _, d := range dialled {
		if d.Refused == (d.Address.Addr().String() == "8.8.8.8") {
			t.Errorf("mixed: %v", d)
		}
	}
}
