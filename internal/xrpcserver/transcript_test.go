package xrpcserver

import (
	"bytes"
	"context"
	"crypto/sha512"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
)

var update = flag.Bool("update", false, "write the answers into the transcripts")

// TestTranscripts plays the transcripts in testdata: what is said to every method and on
// every subscription, with its exact answer, the same on both databases. They read as
// documentation of the protocol, and hold it still while the code behind it changes. A
// line is one of
//
//	# a comment
//	server OPTION…            before anything else: a limit NAME=N/TIME, admission=MODE,
//	                          receipts, resolver
//	later TIME                the clock, which stands still otherwise, is moved
//	code WORD USES            $WORD is from now on an invitation to the server
//	room ID NAME NAME…        a conversation as the gateway's clients make one
//	NAME with HEADER: VALUE   a header of the next request
//	NAME GET|POST PATH [BODY] a call with a token of NAME; - is a call without one
//	= STATUS [HEADERS] BODY   its answer, whose headers are those that are not as usual
//	NAME open PATH            NAME opens a WebSocket
//	NAME > cbor|json FRAME    NAME sends a frame
//	NAME < cbor|json FRAME    NAME is sent a frame; a CBOR one is its header and what
//	                          follows, "closed CODE REASON" the end
//	NAME close                NAME ends the WebSocket
//	NAME stream PATH          NAME follows events as text/event-stream
//	NAME ~ ITEM               NAME is sent an item; "ended" is the end
//
// Words begin with a $: $NAME is the account of NAME; $device1, $cursor1, $ticket1 and the
// like are values made by the door, in the order of their first use; words.make has those
// with arguments. A path /xrpc/m.METHOD is one of the API's own namespace.
func TestTranscripts(t *testing.T) {
	files := transcripts(t)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		script := files[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("sqlite", func(t *testing.T) {
				got := play(t, "sqlite:"+t.TempDir(), script)
				if *update {
					script = got
					must(t, os.WriteFile(filepath.Join("testdata", "transcripts", name+".txt"), []byte(strings.Join(got, "\n")+"\n"), 0o644))
				}
				compare(t, name, got, script)
			})
			t.Run("postgres", func(t *testing.T) { compare(t, name, play(t, pgtest.URL(t), script), script) })
		})
	}
}

// transcripts reads all transcripts, by name, as lines.
func transcripts(t testing.TB) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no transcripts")
	}
	all := map[string][]string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		all[strings.TrimSuffix(filepath.Base(file), ".txt")] = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	}
	return all
}

func compare(t *testing.T, name string, got, want []string) {
	t.Helper()
	at := func(lines []string, i int) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(nothing)"
	}
	for i := range max(len(got), len(want)) {
		if at(got, i) != at(want, i) {
			t.Fatalf("%s:%d (go test -run TestTranscripts -update writes it):\n got %s\nwant %s", name, i+1, at(got, i), at(want, i))
		}
	}
}

// player is a transcript that is being played.
type player struct {
	t       *testing.T
	w       *world
	words   *words
	header  http.Header // of the next request
	sockets map[string]*frameReader
	streams map[string]*itemReader
}

// play performs a script on a database and returns it with the answers of the door.
func play(t *testing.T, storeURL string, script []string) (got []string) {
	t.Helper()
	p := &player{t: t, header: http.Header{}, sockets: map[string]*frameReader{}, streams: map[string]*itemReader{}}
	var options []func(*setup)
	for _, line := range script {
		actor, rest, _ := strings.Cut(line, " ")
		switch {
		case actor == "=":
			continue
		case actor == "" || actor == "#":
			got = append(got, line)
			continue
		case actor == "server":
			for option := range strings.FieldsSeq(rest) {
				options = append(options, serverOption(t, option))
			}
			got = append(got, line)
			continue
		case p.w == nil:
			p.w = newWorldOn(t, storeURL, options...)
			p.words = newWords(p.w)
		}
		got = append(got, p.perform(actor, rest)...)
	}
	return got
}

func serverOption(t *testing.T, option string) func(*setup) {
	t.Helper()
	if option == "resolver" {
		change, _ := resolving(t)
		return change
	}
	return func(s *setup) {
		switch mode, isAdmission := strings.CutPrefix(option, "admission="); {
		case isAdmission:
			s.identity.Admission = identity.Admission(mode)
		case option == "receipts":
			s.door.Sign = func(content []byte) ([]byte, error) {
				sum := sha512.Sum512(content)
				return sum[:], nil
			}
		default:
			must(t, s.limits.Set(option))
		}
	}
}

// perform does one line and returns it with its answer.
func (p *player) perform(actor, rest string) []string {
	p.t.Helper()
	verb, argument, _ := strings.Cut(rest, " ")
	line := []string{strings.TrimSpace(actor + " " + rest)}
	switch {
	case actor == "later":
		d, err := time.ParseDuration(rest)
		must(p.t, err)
		p.w.later.Add(d.Milliseconds())
	case actor == "code":
		uses := int64(0)
		_, err := fmt.Sscan(argument, &uses)
		must(p.t, err)
		invite, err := identity.Admissions{Store: p.w.store, Now: p.w.now}.CreateInvite(context.Background(), uses, 0, "")
		must(p.t, err)
		p.words.remember(verb, invite.Code)
	case actor == "room":
		p.w.room(verb, strings.Fields(argument)...)
	case verb == "with":
		name, value, _ := strings.Cut(argument, ": ")
		p.header.Set(name, p.words.fill(value))
	case verb == "open":
		return append(line, p.open(actor, argument)...)
	case verb == "stream":
		return append(line, p.stream(actor, argument)...)
	case verb == "close":
		p.socket(actor).close()
	case verb == ">":
		p.socket(actor).send(argument)
	case verb == "<":
		return []string{actor + " < " + p.words.plain(p.socket(actor).next())}
	case verb == "~":
		return []string{actor + " ~ " + p.words.plain(p.item(actor))}
	case verb == strings.ToUpper(verb) && verb != "":
		path, body, _ := strings.Cut(argument, " ")
		r := p.request(actor, verb, path, p.words.fill(body))
		response, err := http.DefaultClient.Do(r)
		must(p.t, err)
		return append(line, p.answer(response))
	default:
		p.t.Fatalf("no such line: %s", line)
	}
	return line
}

// methodOf returns the method of a path and the path as it is sent.
func methodOf(path string) (nsid, sent string) {
	sent = strings.Replace(path, "/xrpc/m.", "/xrpc/blue.catbird.mlsChat.", 1)
	nsid, _, _ = strings.Cut(strings.TrimPrefix(sent, "/xrpc/"), "?")
	return nsid, sent
}

// request makes a request of an actor, with the headers that were said before.
func (p *player) request(actor, verb, path, body string) *http.Request {
	p.t.Helper()
	nsid, sent := methodOf(path)
	r, err := http.NewRequest(verb, p.w.http.URL+p.words.fill(sent), bytes.NewReader([]byte(body)))
	must(p.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if actor != "-" {
		p.words.did(actor) // so that it has a word
		r.Header.Set("Authorization", "Bearer "+p.w.token(actor, nsid))
	}
	for name, values := range p.header {
		r.Header[name] = values
	}
	p.header = http.Header{}
	return r
}

// usual are the headers of nearly every answer, which are not shown.
var usual = http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}

// shown are the headers that are, where they are not as usual.
var shown = []string{"Content-Type", "Cache-Control", "Retry-After", "WWW-Authenticate", "Allow", "Upgrade", "Sec-WebSocket-Protocol"}

// answer shows an answer in a line.
func (p *player) answer(response *http.Response) string {
	p.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(p.t, err)
	return strings.TrimSpace("= " + headOf(response) + " " + p.words.plain(strings.ReplaceAll(string(body), "\n", "\\n")))
}

// headOf shows the status of an answer and its headers.
func headOf(response *http.Response) string {
	out := fmt.Sprint(response.StatusCode)
	for _, name := range shown {
		if value := response.Header.Get(name); value != usual.Get(name) {
			out += fmt.Sprintf(" %s:%q", name, value)
		}
	}
	return out
}

// TestMethodsAreInTranscripts: every method that the door serves has an answer in a
// transcript, everything that a method can be asked to do too, every refusal that the door
// has a name for, and every event that it sends, in CBOR or in JSON.
func TestMethodsAreInTranscripts(t *testing.T) {
	w := newWorld(t)
	answered, refused := map[string]bool{}, map[string]bool{}
	for name, lines := range transcripts(t) {
		for i, line := range lines[:len(lines)-1] {
			actor, rest, _ := strings.Cut(line, " ")
			verb, argument, _ := strings.Cut(rest, " ")
			path, body, _ := strings.Cut(argument, " ")
			if m := sentEvent.FindStringSubmatch(argument); m != nil && (verb == "<" || verb == "~") {
				answered[m[1]] = true
			}
			answer, isAnswer := strings.CutPrefix(lines[i+1], "= ")
			if !isAnswer || actor == "#" || verb == "with" {
				continue
			}
			nsid, _ := methodOf(path)
			_, refusal, isRefusal := strings.Cut(answer, `{"error":"`)
			if isRefusal {
				refusal, _, _ = strings.Cut(refusal, `"`)
				refused[answer[:3]+" "+refusal] = true
				continue
			}
			if status := answer[:3]; status != "200" && status != "101" {
				if w.server.methods[nsid] != "" {
					t.Errorf("%s:%d: %s is neither an answer nor a refusal", name, i+2, answer)
				}
				continue
			}
			answered[nsid] = true
			if _, rest, has := strings.Cut(body, `"action":"`); has {
				action, _, _ := strings.Cut(rest, `"`)
				answered[nsid+" "+action] = true
			}
		}
	}
	for nsid := range w.server.methods {
		if !answered[nsid] {
			t.Errorf("%s answers in no transcript", nsid)
		}
	}
	for _, todo := range actionsOf() {
		if !answered[todo] {
			t.Errorf("%s is done in no transcript", todo)
		}
	}
	for _, kind := range events {
		if !answered["#"+kind] {
			t.Errorf("%s is sent in no transcript", kind)
		}
	}
	for _, known := range refusalsOf() {
		if !refused[known] {
			t.Errorf("%s is answered in no transcript", known)
		}
	}
}

// sentEvent finds the type of an event.
var sentEvent = regexp.MustCompile(`^[^{]*\{"(?:t|\$type)":"[^"#]*(#\w+)"`)

// events are the types that translate and its like make. Others of the lexicons are
// those of later features.
var events = []string{"messageEvent", "reactionEvent", "typingEvent", "newDeviceEvent", "infoEvent", "memberJoined", "memberLeft", "epochAdvanced",
	"conversationUpdated", "readEvent", "membershipChangeEvent", "groupInfoRefreshRequestedEvent", "readditionRequestedEvent", "treeChanged"}

// actionsOf lists what methods can be asked to do, as "METHOD ACTION".
func actionsOf() (list []string) {
	add := func(nsid string, actions ...string) {
		for _, action := range actions {
			list = append(list, nsid+" "+action)
		}
	}
	for action := range groupActions {
		add(xrpc.CommitGroupChange, string(action))
	}
	add(xrpc.CommitGroupChange, "processExternalCommit", "getPendingDeviceAdditions", "claimPendingDeviceAddition", "completePendingDeviceAddition")
	for action := range updates {
		add(xrpc.UpdateConvo, action)
	}
	add(xrpc.RegisterDevice, "register", "updateToken", "removeToken", "delete", "claimPendingAddition", "completePendingAddition")
	add(xrpc.PublishKeyPackages, "publish", "publishBatch", "sync", "stats", "requestReplenish")
	add(xrpc.SendMessage, "addReaction", "removeReaction")
	return list
}

// refusalsOf lists the refusals that the door has a name for, as "STATUS NAME".
func refusalsOf() (list []string) {
	add := func(e wireError) {
		if name := fmt.Sprint(e.status, " ", e.name); !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	for code, e := range codes {
		if code != ds.ReplayWindowExceeded && code != ds.LogRewound { // streams are told of these, not calls
			add(e)
		}
	}
	for reason, e := range reasons {
		if reason != ds.NoConversation { // no rule gives it: strangers are told NotMember
			add(e)
		}
	}
	for _, own := range renamed {
		for _, e := range own {
			add(e)
		}
	}
	slices.Sort(list)
	return list
}
