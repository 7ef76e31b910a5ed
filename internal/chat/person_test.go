package chat

import (
	"crypto/rand"
	"strings"
	"testing"

	"waxwing.im/waxwing/client"
)

// TestPersons: what is shown of a person names this person in commands, and what may be several
// is refused with all of them.
func TestPersons(t *testing.T) {
	account, err := client.AccountFromSeed([]byte("the seed of this test"), "ann")
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, client.StorageKeyBytes)
	rand.Read(key)
	sdk, err := client.Open(t.Context(), client.Options{Dir: t.TempDir(), StorageKey: key, Server: "http://127.0.0.1:1", Account: account})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sdk.Close() })
	terminal := &Terminal{client: sdk, self: sdk.DID(), people: people{sdk, sdk.DID(), sdk.Contacts().Get}}
	const (
		bob = "did:ex:bobbobbobbobbobbobbobbobBob1"
		cid = "did:ex:cidcidcidcidcidcidcidcidBob1"
		dan = "did:web:dan.example"
		eve = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	)
	for _, did := range []string{bob, cid, dan} {
		if _, err := sdk.StartDM(t.Context(), did); err != nil {
			t.Fatal(err)
		}
	}
	for did, alias := range map[string]string{cid: "Cid of Rome", eve: "Eve"} {
		if _, err := terminal.people.setAlias(t.Context(), did, alias); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		words string
		want  string // the persons, or a part of the error
	}{
		{bob, bob}, {short(bob), bob}, {"ex:bobbo…obBob1", bob}, {"ex:bob...bBob1", bob}, {"…obbobBob1", bob},
		{"obbobBob1", bob}, {"bobBob1", bob}, {"Bob1", `"Bob1" may be ex:bobbo…obBob1 (ex:bobbo…obBob1) or Cid of Rome (ex:cidci…idBob1): give the DID`},
		{"ob1", "not a known person"}, {"…", "not a known person"}, {"cid of rome", cid}, {short(dan), dan}, {"dan.example", dan},
		{"web:dan.example", dan}, {"Cid of Rome Eve " + dan, cid + " " + eve + " " + dan}, {"eve", eve}, {"plc:aaaa…aaaaaa", eve},
		{"nobody", "not a known person"}, {"~Eve", "not a known person"},
	} {
		found, err := terminal.people.persons(t.Context(), strings.Fields(test.words))
		got := strings.Join(found, " ")
		if err != nil {
			got = err.Error()
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%q is %q", test.words, got)
		}
	}
	if got := terminal.people.nameOf(client.Member{Account: cid, Verified: true}); got != "Cid of Rome ?" {
		t.Errorf("shown as %q", got)
	}
	for _, line := range []string{"/alias", "/alias " + bob, "/alias " + bob + " \u202eeve", "/alias " + bob + " cid of rome",
		"/alias " + bob + " " + strings.Repeat("x", 10<<10), "/name a\u0007b", "/alias ann x"} {
		if r, err := terminal.obey(t.Context(), line); err == nil {
			t.Errorf("%.40q is answered %q", line, r.lines)
		}
	}
}

// TestNameMarks: a name that a person has chosen is told from an alias, and cannot imitate a mark.
func TestNameMarks(t *testing.T) {
	names := map[string]client.Contact{
		"claimed": {Name: "Bob ✓"}, "aliased": {Name: "x", Alias: "Bob"}, "nothing": {Name: "✓✓"},
		"alike": {Name: "Bоb", Resembles: "aliased"}, "hostile": {Name: "a\x1b[2Jb"},
	}
	terminal := &Terminal{self: screenAnn, people: people{nil, screenAnn, func(account string) client.Contact { return names[account] }}}
	for account, want := range map[string]string{"claimed": "~Bob ?", "aliased": "Bob ?", "nothing": "nothing ?",
		"alike": "~Bоb ≈alike ?", "hostile": "~a\ufffd[2Jb ?", screenAnn: "me"} {
		if got := terminal.people.nameOf(client.Member{Account: account, Verified: true}); got != want {
			t.Errorf("%s is shown as %q", account, got)
		}
	}
	if colourOf(screenBob) == colourOf(screenCat) {
		t.Errorf("the colours are %q and %q", colourOf(screenBob), colourOf(screenCat))
	}
	m := screenUI(80, 24)
	m.open = "dm1"
	show(m, screenSnapshot())
	coloured := m.View()
	if !strings.Contains(coloured, colourOf(screenBob)+"zDnaeBobBobBobB ?\x1b[0m: hello") {
		t.Error("names have no colours")
	}
	m.hasColours, m.wraps = false, nil
	if plain := m.View(); strings.Contains(plain, colourOf(screenBob)) {
		t.Error("names have colours where none are wanted")
	}
}
