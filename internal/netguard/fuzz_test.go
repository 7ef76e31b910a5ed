package netguard

import (
	"net/netip"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/hostile"
)

// FuzzCheckURL looks for URLs that are permitted although their host is not a name of
// the public internet.
func FuzzCheckURL(f *testing.F) {
	for _, target := range hostile.URLs {
		f.Add(target.URL)
	}
	for _, good := range []string{"https://host.net", "https://Host.NET:443/a?b=c", "https://xn--dm-yka.host.net/"} {
		f.Add(good)
	}
	guard, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := guard.CheckURL(raw)
		if err != nil {
			return
		}
		host := strings.ToLower(u.Hostname())
		if u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Port() != "" && u.Port() != "443" {
			t.Fatalf("let %q through", raw)
		}
		if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".") || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" {
			t.Fatalf("let the host %q through", host)
		}
		if last := host[strings.LastIndexByte(host, '.')+1:]; isNumber(last) {
			t.Fatalf("let the number %q through", host)
		}
	})
}
