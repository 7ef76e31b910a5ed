package client

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The bounds of a name, as it is kept, and of the text that is read for one.
const (
	nameRunesMax     = 64
	nameBytesMax     = 256
	nameTextBytesMax = 4 << 10
)

// nameMarksMax is the number of combining marks that one character of a name may have.
const nameMarksMax = 2

// ErrName reports a text that cannot be a name, an alias or a title.
var ErrName = errors.New("invalid name")

// checkName is checkText for a name.
func checkName(text string) (string, error) { return checkText(text, nameRunesMax, nameBytesMax) }

// checkText returns a name or title that a person has typed, cleaned, or an error that wraps
// ErrName. An empty text is none, and valid.
func checkText(text string, runesMax, bytesMax int) (string, error) {
	isControl := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) }
	if !utf8.ValidString(text) || strings.ContainsFunc(strings.TrimSpace(text), isControl) {
		return "", fmt.Errorf("%w: it has control characters or line breaks", ErrName)
	}
	name, isCut := cleanText(text, runesMax, bytesMax)
	switch {
	case isCut:
		return "", fmt.Errorf("%w: it is longer than %d characters or %d bytes", ErrName, runesMax, bytesMax)
	case name == "" && strings.TrimSpace(text) != "":
		return "", fmt.Errorf("%w: it has no visible characters, or is the beginning of a DID", ErrName)
	}
	return name, nil
}

// cleanName is cleanText for a name.
func cleanName(text string) (name string, isCut bool) {
	return cleanText(text, nameRunesMax, nameBytesMax)
}

// cleanText returns a text as a name or title that can be shown in a line among others: without control
// characters, line breaks, overrides of the direction of writing, characters without a width,
// and the ellipsis that stands in shortened DIDs, and cut to the bounds. A text that begins like a
// DID is no name. The work is bounded by nameTextBytesMax.
func cleanText(text string, runesMax, bytesMax int) (name string, isCut bool) {
	isCut = len(text) > nameTextBytesMax
	text = strings.Map(func(r rune) rune {
		if isHidden(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text[:min(len(text), nameTextBytesMax)])
	text = norm.NFC.String(text)
	var out strings.Builder
	runes, marks, isBlank := 0, 0, false
	for _, r := range text {
		if unicode.IsSpace(r) {
			isBlank = out.Len() > 0
			continue
		}
		if marks++; !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		}
		if marks > nameMarksMax {
			continue
		}
		if isBlank {
			out.WriteByte(' ')
			runes++
		}
		if runes++; runes > runesMax || out.Len()+utf8.RuneLen(r) > bytesMax {
			isCut = true
			break
		}
		out.WriteRune(r)
		isBlank = false
	}
	name = strings.TrimRight(out.String(), " ")
	if strings.HasPrefix(strings.ToLower(name), "did:") {
		return "", isCut
	}
	return name, isCut
}

// isHidden reports whether a character has no place in a name, because it is invisible, changes
// others or stands for an omission.
func isHidden(r rune) bool {
	const blankBraille = '\u2800'
	return !unicode.IsPrint(r) || r == '…' || r == blankBraille || r == utf8.RuneError ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// skeleton returns the same text for names that look alike: it ignores case, blanks and forms of
// compatibility, and folds Cyrillic and Greek letters, digits and pairs that look like Latin
// letters. It is for comparison only.
func skeleton(name string) string {
	fold := func(r rune) rune {
		if to, ok := lookAlikes[r]; ok {
			return to
		}
		return r
	}
	name = strings.Map(fold, norm.NFKD.String(name)) // capitals look like others than small letters
	name = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return fold(unicode.ToLower(r))
	}, name)
	return strings.NewReplacer("rn", "m", "vv", "w").Replace(name)
}

// lookAlikes holds letters that look like a Latin one, and the letter.
var lookAlikes = func() map[rune]rune {
	out := map[rune]rune{}
	for to, from := range map[rune]string{
		'a': "аαΑА", 'b': "ВвΒЬь", 'c': "сСϲϹ", 'd': "ԁ", 'e': "еЕΕєҽ", 'f': "ϝ", 'g': "ɡ", 'h': "һНнΗ", 'j': "јЈϳ",
		'k': "кКκΚ", 'l': "iIıіІιΙ1|ӏӀ!", 'm': "мМΜ", 'n': "ηпΝ", 'o': "оОοΟσ0օ", 'p': "рРρΡ", 'q': "ԛԚ", 'r': "г", 's': "ѕЅ",
		't': "тТτΤ", 'u': "υ", 'v': "νѵ", 'w': "ԝԜшω", 'x': "хХχΧ", 'y': "уУүҮγΥ", 'z': "Ζ",
	} {
		for _, r := range from {
			out[r] = to
		}
	}
	return out
}()
