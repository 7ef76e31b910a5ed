package condition

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutageIsTwoLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := New(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: withoutTime})), "the thing", 5*time.Second)
		lines := func(want ...string) {
			t.Helper()
			got := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
			if log.Len() == 0 {
				got = nil
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			log.Reset()
		}
		if !c.Worked() || c.IsFailing() {
			t.Error("it fails from the start")
		}
		lines()
		for range 100 {
			c.Failed(errors.New("boom"))
			time.Sleep(time.Second)
		}
		lines(`level=WARN msg="the thing fails; this is logged again when it works" err=boom`)
		if c.Worked() || !c.IsFailing() {
			t.Error("one success so soon ends it")
		}
		c.Failed(errors.New("boom"))
		time.Sleep(5 * time.Second)
		if !c.Worked() || c.IsFailing() {
			t.Error("success does not end it")
		}
		c.Worked()
		lines(`level=WARN msg="the thing works again" after=1m45s failures=101`)
		time.Sleep(time.Hour)
		if lost := c.Lost(); lost != 105*time.Second {
			t.Errorf("it failed for %s", lost)
		}
		if !c.Failed(errors.New("bang")) || c.Failed(errors.New("bang")) {
			t.Error("the second outage is not known as one")
		}
		lines(`level=WARN msg="the thing fails; this is logged again when it works" err=bang`)
	})
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}
