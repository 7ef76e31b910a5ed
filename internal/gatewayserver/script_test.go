package gatewayserver

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/limits"
)

var update = flag.Bool("update", false, "write the answers into the scripts")

// TestScripts runs the conversations in testdata: every endpoint and every frame,
// with its exact answer. They read as documentation of the protocol. A line is one of
//
//	# a comment
//	server OPTION               before anything else: sends=N, record-senders, strict
//	NAME start [FEATURE…]       NAME gets a session over HTTP
//	NAME GET|POST PATH [BODY]   an HTTP call with that session; - is none
//	= STATUS [HEADERS] BODY     what it was answered
//	NAME open                   NAME gets a socket
//	NAME > FRAME                NAME says
//	NAME < FRAME                NAME hears; "closed CODE" is the end
//	NAME <* FRAME               the same for several lines together, in any order
//	NAME cut                    NAME's network breaks
//	NAME stream QUERY           NAME follows a stream of events
//	NAME resumes QUERY          the same, on from the last event that NAME was sent
//	NAME ~ EVENT FRAME          NAME is sent an item; "ended" is the end
//
// $NAME is the account of NAME; $token(NAME) a new service token, $session(NAME),
// $resume(NAME) and $sid(NAME) are those of the session it was last given; $commit(GROUP,EPOCH) and
// $app(GROUP,EPOCH) an MLS message, $welcome(REF) a Welcome.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no scripts")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	must(t, err)
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	var got []string
	w := (*world)(nil)
	var options []func(*setup)
	var unordered []string // what the lines of one <* group still have to show
	for i, line := range lines {
		actor, rest, _ := strings.Cut(line, " ")
		if verb, _, _ := strings.Cut(rest, " "); verb == "<*" {
			if len(unordered) == 0 {
				for n := i; n < len(lines) && strings.HasPrefix(lines[n], actor+" <*"); n++ {
					unordered = append(unordered, actor+" <* "+w.plain(w.hear(actor)))
				}
				slices.Sort(unordered)
			}
			got, unordered = append(got, unordered[0]), unordered[1:]
			continue
		}
		if actor == "server" {
			options = append(options, serverOption(t, rest))
		} else if line != "" && actor != "#" && actor != "=" {
			if w == nil {
				w = newWorld(t, options...)
			}
			got = append(got, w.perform(actor, rest)...)
			continue
		}
		if actor != "=" {
			got = append(got, line)
		}
	}
	if *update {
		must(t, os.WriteFile(file, []byte(strings.Join(got, "\n")+"\n"), 0o644))
		return
	}
	for i := range max(len(got), len(lines)) {
		if i >= len(got) || i >= len(lines) || got[i] != lines[i] {
			t.Fatalf("%s:%d:\n got %s\nwant %s", file, i+1, at(got, i), at(lines, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

func serverOption(t *testing.T, option string) func(*setup) {
	name, value, _ := strings.Cut(option, "=")
	return func(s *setup) {
		switch name {
		case "record-senders":
			s.core.RecordSenders = true
		case "strict":
			s.directory.OnlyMLS = true
		case limits.Sends, limits.Subscribes, limits.SessionStarts, limits.KeyPackageFetches:
			must(t, s.limits.Set(name+"="+value))
		default:
			t.Fatalf("unknown option %q", option)
		}
	}
}

// perform does one line and returns it with its answer.
func (w *world) perform(actor, rest string) []string {
	verb, argument, _ := strings.Cut(rest, " ")
	line := strings.TrimSpace(actor + " " + rest)
	switch verb {
	case "start":
		w.start(actor, strings.Fields(argument)...)
	case "open":
		w.open(actor)
	case "cut":
		w.person(actor).cut()
	case ">":
		w.say(actor, w.fill(argument))
	case "stream", "resumes":
		if answer := w.stream(actor, w.fill(argument), verb == "resumes"); answer != "" {
			return []string{line, "= " + w.plain(answer)}
		}
	case "~":
		return []string{actor + " ~ " + w.plain(w.item(actor))}
	case "<":
		return []string{actor + " < " + w.plain(w.hear(actor))}
	case "GET", "POST":
		if actor == "-" {
			actor = ""
		}
		path, body, _ := strings.Cut(argument, " ")
		status, answer, header := w.call(actor, verb, w.fill(path), w.fill(body))
		for name := range w.people {
			if strings.Contains(body, "("+name+")") {
				w.remember(name, answer)
			}
		}
		shown := fmt.Sprint(status)
		for _, name := range []string{"Retry-After", "WWW-Authenticate", "Allow"} {
			if value := header.Get(name); value != "" {
				shown += " " + name + ":" + value
			}
		}
		return []string{line, "= " + strings.TrimSpace(shown+" "+w.plain(answer))}
	default:
		w.t.Fatalf("no such line: %s", line)
	}
	return []string{line}
}
