package client

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// FuzzName cleans what others may claim: the result is in bounds, stays as it is when it is cleaned
// again, and is a name that its owner could have entered.
func FuzzName(f *testing.F) {
	for _, text := range []string{"", "Ann Lee", " a\n\tb ", "\u202ea\u200b", "did:key:z", strings.Repeat("x ", 100), "e\u0301\u0301\u0301", "…", "\xff",
		"ﷺ" + strings.Repeat("ﷺ", 99), "\u1100\u1161\u11a8"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, _ := cleanName(text)
		if len(name) > nameBytesMax || utf8.RuneCountInString(name) > nameRunesMax || !utf8.ValidString(name) {
			t.Errorf("%q is out of bounds", name)
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r != ' ' && (unicode.IsSpace(r) || isHidden(r)) }) || strings.TrimSpace(name) != name {
			t.Errorf("%q has hidden characters", name)
		}
		if again, isCut := cleanName(name); again != name || isCut {
			t.Errorf("%q is cleaned to %q", name, again)
		}
		if entered, err := checkName(name); err != nil || entered != name {
			t.Errorf("%q cannot be entered: %q, %v", name, entered, err)
		}
		if skeleton(name) == "" && name != "" && strings.ContainsFunc(name, unicode.IsLetter) {
			t.Errorf("%q looks like nothing", name)
		}
	})
}

// TestSkeleton: names that look alike have one skeleton, and others do not.
func TestSkeleton(t *testing.T) {
	for _, alike := range [][]string{
		{"Ann", "ANN", "ann", "Аnn", "A n n", "Ａｎｎ", "αnn"}, {"Bob", "ВОВ", "B0b", "Вοb"}, {"Paul", "Pаul", "PauI", "ΡАUL", "Pau1"},
		{"Mira", "Мira", "rnira"}, {"Walter", "VValter", "Ԝalter"}, {"Oskar", "Οskаr", "0skar"},
	} {
		for _, other := range alike {
			if skeleton(other) != skeleton(alike[0]) {
				t.Errorf("%q is %q, and %q is %q", alike[0], skeleton(alike[0]), other, skeleton(other))
			}
		}
	}
	different := []string{"Ann", "Anne", "Anna", "Änn", "Hann", "Bob", "Rob", "Paul", "Paula", "王", "王王", "Иван", "Ольга"}
	var seen []string
	for _, name := range different {
		if s := skeleton(name); slices.Contains(seen, s) {
			t.Errorf("%q looks like another one", name)
		} else {
			seen = append(seen, s)
		}
	}
}
