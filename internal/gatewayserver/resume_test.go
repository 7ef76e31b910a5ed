package gatewayserver

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// onWS resumes on a new socket and sends frames behind that without waiting.
func (w *world) onWS(name, token string, behind ...string) string {
	w.t.Helper()
	w.open(name)
	w.say(name, `{"v":1,"t":"session.resume","body":{"resume_token":"`+token+`"}}`)
	for _, frame := range behind {
		w.say(name, frame)
	}
	return w.hear(name)
}

func (w *world) onHTTP(name, token string) string {
	w.t.Helper()
	r := httptest.NewRequest("POST", "/v1/session/resume", strings.NewReader(`{"resume_token":"`+token+`"}`))
	answer := httptest.NewRecorder()
	w.server.ServeHTTP(answer, r) // returns when it is noted that the answer was written
	w.remember(name, answer.Body.String())
	return answer.Body.String()
}

const ping, pong = `{"v":1,"t":"ping"}`, `{"v":1,"t":"pong"}`

// TestLostAnswer: a lost answer locks no client out, whatever it sent before the
// answer could have arrived, and the previous token is invalid a minute after the answer was
// written, or when its successor is presented.
func TestLostAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url)
		ways := map[string]func(token string) string{
			"ws": func(token string) string {
				answer := w.onWS("ann", token)
				if strings.Contains(answer, "session.ready") { // that it was written is noted before the next frame is read
					w.say("ann", ping)
					w.hear("ann")
				}
				return answer
			},
			"http": func(token string) string { return w.onHTTP("ann", token) },
		}
		successor := func(answer string) string {
			m := resumeTokens.FindStringSubmatch(answer)
			if m == nil {
				return answer
			}
			return m[1]
		}
		for name, resume := range ways {
			first := w.start("ann").resume
			lost := w.onWS("ann", first, ping, `{"v":1,"t":"conv.ack","id":"1","body":{"conv_id":"c","seq":1}}`, ping)
			for w.hear("ann") != pong {
			}
			w.person("ann").cut()
			w.later.Add(time.Minute.Milliseconds() - 1)
			again := resume(first)
			if successor(again) != successor(lost) {
				t.Errorf("%s: got %s, want the successor of %s", name, again, lost)
			}
			w.later.Add(time.Minute.Milliseconds() - 1) // it was written again
			if got := resume(first); successor(got) != successor(lost) {
				t.Errorf("%s: %s", name, got)
			}
			w.later.Add(time.Minute.Milliseconds())
			if got := resume(first); !strings.Contains(got, "resume_failed") {
				t.Errorf("%s: after its time %s", name, got)
			}
			second := successor(lost)
			third := successor(resume(second))
			if got := resume(first); !strings.Contains(got, "resume_failed") {
				t.Errorf("%s: %s", name, got)
			}
			if got := resume(third); successor(got) == third || strings.Contains(got, "resume_failed") {
				t.Errorf("%s: %s", name, got)
			}
			if got := resume(second); !strings.Contains(got, "resume_failed") {
				t.Errorf("%s: its successor was presented, and %s", name, got)
			}
		}
	})
}

// brokenNetwork is a conn on which nothing can be written.
type brokenNetwork struct{ recorder }

func (brokenNetwork) Write(...[]byte) error { return errors.New("broken") }

// TestNeverAnswered: a server that ends, or a network that breaks, between the commit and
// the answer leaves the token as good as before, for as long as the session lives.
func TestNeverAnswered(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorldOn(t, url)
		first := w.start("ann").resume
		c := newSocket(w.server, &brokenNetwork{}, "", "")
		c.receive(true, []byte(`{"v":1,"t":"session.resume","body":{"resume_token":"`+first+`"}}`))
		c.receive(true, []byte(ping))
		c.cancel()
		c.follower.Close()
		c.detach()
		w.later.Add((50 * time.Minute).Milliseconds())
		if got := w.onHTTP("ann", first); !strings.Contains(got, `"resume_token"`) {
			t.Errorf("got %s", got)
		}
		if got := w.onWS("ann", w.person("ann").resume); !strings.Contains(got, "session.ready") {
			t.Errorf("got %s", got)
		}
	})
}
