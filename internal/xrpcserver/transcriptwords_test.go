package xrpcserver

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/mls/wire"
)

// words knows what the words of a script stand for, and puts them back into what the
// door answers.
type words struct {
	w      *world
	values map[string]string // by word, without its $: what the door has made up
	counts map[string]int    // of those by kind
	made   []madeValue       // all that has a word, the longest first
}

type madeValue struct{ text, word string }

func newWords(w *world) *words {
	s := &words{w: w, values: map[string]string{}, counts: map[string]int{}}
	s.remember("suite", suiteName)
	return s
}

// inScript finds words: $name and $name(argument,…). $bytes and $type are JSON's.
var inScript = regexp.MustCompile(`\$([a-z]+\d*)(?:\(([^()]*)\))?`)

func (s *words) fill(text string) string {
	return inScript.ReplaceAllStringFunc(text, func(word string) string {
		m := inScript.FindStringSubmatch(word)
		if m[1] == "bytes" || m[1] == "type" || m[1] == "link" {
			return word
		}
		if value, is := s.values[m[1]]; is {
			return value
		}
		if !strings.HasSuffix(word, ")") {
			return s.did(m[1])
		}
		value, isNamed := s.make(m[1], strings.Split(m[2], ","))
		if isNamed {
			s.name(value, word)
		}
		return value
	})
}

// name has a value stand as word in answers.
func (s *words) name(value, word string) {
	if value == "" || slices.ContainsFunc(s.made, func(m madeValue) bool { return m.text == value }) {
		return
	}
	s.made = append(s.made, madeValue{value, word})
	slices.SortStableFunc(s.made, func(a, b madeValue) int { return cmp.Compare(len(b.text), len(a.text)) })
}

func (s *words) did(name string) string {
	did := s.w.did(name)
	s.name(did, "$"+name)
	return did
}

// accountOf returns the account of a device, which is called PERSON or PERSON:DEVICE.
func (s *words) accountOf(device string) string {
	name, _, _ := strings.Cut(device, ":")
	return s.did(name)
}

// make returns what a word with arguments stands for, and whether it stands as that word
// in answers.
func (s *words) make(name string, arguments []string) (value string, isNamed bool) {
	s.w.t.Helper()
	at := func(i int) string {
		if i < len(arguments) {
			return arguments[i]
		}
		return ""
	}
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(at(i), 10, 64)
		must(s.w.t, err)
		return n
	}
	encoded := func(data []byte) (string, bool) { return base64.StdEncoding.EncodeToString(data), true }
	switch name {
	case "group":
		s.name(`"`+group(at(0))+`"`, `"$group(`+at(0)+`)"`) // it is too short for a word in a longer text
		return group(at(0)), false
	case "id":
		return uuid(int(number(0))), true
	case "repeat":
		return strings.Repeat(at(0), int(number(1))), true
	case "list": // so many strings of a JSON list
		var items []string
		for n := range number(0) {
			items = append(items, fmt.Sprintf("%q", fmt.Sprint(at(1), n+1, at(2))))
		}
		return strings.Join(items, ","), false
	case "query": // so many parameters of a name
		var items []string
		for n := range number(0) {
			items = append(items, fmt.Sprint(at(1), "=", at(2), n+1, at(3)))
		}
		return strings.Join(items, "&"), false
	case "plc":
		return plc(at(0)), true
	case "b64":
		return text([]byte(at(0))), false
	case "fill":
		return encoded(filled(int(number(0))))
	case "url": // the same in the other alphabet
		return base64.RawURLEncoding.EncodeToString(filled(int(number(0)))), false
	case "key":
		return encoded(madeKey(s.w.t, at(0)))
	case "pack", "packed", "ref":
		return s.pack(name, at(0), at(1), at(2)), false
	case "items": // so many key packages as they are published
		var items []string
		for n := range number(1) {
			items = append(items, fmt.Sprintf(`{"keyPackage":{"$bytes":%q},"cipherSuite":%q,"expires":%q}`,
				s.pack("pack", at(0), fmt.Sprint(n+1), ""), suiteName, s.w.now().Add(time.Hour).UTC().Format(time.RFC3339)))
		}
		return strings.Join(items, ","), false
	case "app":
		return encoded(madePrivate(at(0), number(1), wire.ApplicationContent))
	case "proposal":
		return encoded(madePrivate(at(0), number(1), wire.ProposalContent))
	case "sealed":
		return encoded(madePrivate(at(0), number(1), wire.CommitContent))
	case "commit":
		return encoded(madeCommit(at(0), number(1), at(2)))
	case "external":
		return encoded(madeExternal(s.w.t, at(0), number(1), s.accountOf(at(2)), at(2), arguments[3:]...))
	case "info":
		return encoded(madeInfo(s.w.t, at(0), number(1), s.accountOf, arguments[2:]...))
	case "welcome":
		var refs [][]byte
		for i := 0; i+1 < len(arguments); i += 2 {
			ref, err := hex.DecodeString(s.pack("ref", at(i), at(i+1), ""))
			must(s.w.t, err)
			refs = append(refs, ref)
		}
		return encoded(madeWelcome(refs...))
	case "in": // a time so far from now
		d, err := time.ParseDuration(at(0))
		must(s.w.t, err)
		return s.w.now().Add(d).UTC().Format("2006-01-02T15:04:05.000Z"), false
	case "token":
		return s.token(at(0), at(1), arguments[min(2, len(arguments)):]), true
	}
	s.w.t.Fatalf("no such word: $%s(%s)", name, strings.Join(arguments, ","))
	return "", false
}

// pack makes a key package of a device, whose three forms have words from then on.
func (s *words) pack(form, device, number, kind string) string {
	bare, message, ref := madePackage(s.w.t, s.accountOf(device), device, number, kind, testTime)
	arguments := strings.TrimSuffix(device+","+number+","+kind, ",")
	forms := map[string]string{"pack": text(bare), "packed": text(message), "ref": hex.EncodeToString(ref)}
	for name, value := range forms {
		s.name(value, "$"+name+"("+arguments+")")
	}
	return forms[form]
}

// token returns a service token whose claims are changed by KEY=VALUE: iat and exp are
// durations from now, alg is of the header, an empty value takes a claim out, and none=
// takes the signature off.
func (s *words) token(name, method string, changes []string) string {
	isSigned := true
	token := s.w.signed(name, xrpc.Chat+method, func(header, claims object) {
		for _, change := range changes {
			key, value, _ := strings.Cut(change, "=")
			switch {
			case key == "none":
				isSigned = false
			case key == "alg":
				header[key] = value
			case value == "":
				delete(claims, key)
			case key == "iat" || key == "exp":
				d, err := time.ParseDuration(value)
				must(s.w.t, err)
				claims[key] = s.w.now().Add(d).Unix()
			default:
				claims[key] = s.fill(value)
			}
		}
	})
	if !isSigned {
		token = token[:strings.LastIndexByte(token, '.')+1]
	}
	return token
}

// randoms finds what the door makes up: kind is what the word begins with.
var randoms = []struct {
	kind    string
	pattern *regexp.Regexp // its group is the value
}{
	{"cursor", regexp.MustCompile(`"cursor":"([^"$]+)"`)},
	{"ticket", regexp.MustCompile(`"ticket":"([^"$]+)"`)},
	{"ulid", regexp.MustCompile(`"id":"(01[B-HJKMNP-TV-Z][0-9A-HJKMNP-TV-Z]{23})"`)},
	{"device", regexp.MustCompile(`\b([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})\b`)},
	{"addition", regexp.MustCompile(`"([A-Z2-7]{26})"`)},
}

// plain puts words into what the door has answered, for what scripts have named and for
// what is not the same in every run, and remembers the latter.
func (s *words) plain(text string) string {
	for _, m := range s.made {
		text = strings.ReplaceAll(text, m.text, m.word)
	}
	for _, r := range randoms {
		for m := r.pattern.FindStringSubmatch(text); m != nil; m = r.pattern.FindStringSubmatch(text) {
			s.counts[r.kind]++
			word := fmt.Sprint(r.kind, s.counts[r.kind])
			s.remember(word, m[1])
			text = strings.ReplaceAll(text, m[1], "$"+word)
		}
	}
	return text
}

// remember has a word stand for a value that the door has made up.
func (s *words) remember(word, value string) {
	s.values[word] = value
	s.name(value, "$"+word)
}
