package gatewayserver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
)

func TestSessionStart(t *testing.T) {
	label, code := "my phone", "wxi_code"
	got, err := sessionStart(&gateway.Start{AuthToken: " Bearer a.b.c ", DeviceID: "phone", ClientLabel: &label, InviteCode: &code,
		Features: []string{"marker", "future", "bundle", "marker"}}, "Waxwing-CLI")
	want := identity.Start{Token: "a.b.c", Device: "phone", ClientLabel: label, InviteCode: code, Features: []string{"bundle", "marker"}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v, %s", err, d)
	}
}

func TestSessionStartRefuses(t *testing.T) {
	labelled := func(label string) gateway.Start { return gateway.Start{DeviceID: "d", ClientLabel: &label} }
	code := strings.Repeat("x", identity.InviteCodeBytesMax+1)
	tests := []struct {
		name, message string
		start         gateway.Start
	}{
		{"no device", "invalid device_id", gateway.Start{}},
		{"device with NUL", "invalid device_id", gateway.Start{DeviceID: "a\x00"}},
		{"device of 129 bytes", "invalid device_id", gateway.Start{DeviceID: strings.Repeat("d", 129)}},
		{"device not UTF-8", "invalid device_id", gateway.Start{DeviceID: "\xff"}},
		{"code too long", "invalid invite_code", gateway.Start{DeviceID: "d", InviteCode: &code}},
		{"empty label", "invalid client_label", labelled("")},
		{"label in capitals", "invalid client_label", labelled("Phone")},
		{"label of 33 characters", "invalid client_label", labelled(strings.Repeat("a", 33))},
		{"label like a session token", "invalid client_label", labelled("st_x")},
		{"label like a resume token", "invalid client_label", labelled("my rt_")},
		{"label with a line break", "invalid client_label", labelled("a\n")},
		{"too many features", "too many features", gateway.Start{DeviceID: "d", Features: make([]string, featuresMax+1)}},
		{"empty feature", "invalid features", gateway.Start{DeviceID: "d", Features: []string{""}}},
		{"long feature", "invalid features", gateway.Start{DeviceID: "d", Features: []string{strings.Repeat("f", 65)}}},
	}
	for _, test := range tests {
		_, err := sessionStart(&test.start, "")
		if ds.CodeOf(err) != ds.InvalidRequest || !strings.HasSuffix(err.Error(), ": "+test.message) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.message)
		}
	}
}

func TestLabelOf(t *testing.T) {
	tests := []struct{ userAgent, want string }{
		{"", "unknown"},
		{"Waxwing", "waxwing"},
		{"Waxwing-CLI other/2", "waxwing-cli"},
		{"  waxwing", "waxwing"},
		{"Mozilla/5.0 (X11)", "unknown"},
		{"st_abc", "unknown"},
		{"ST_abc", "unknown"},
		{"wax\u00e9wing", "waxwing"},
		{strings.Repeat("a", 40), strings.Repeat("a", 32)},
		{strings.Repeat("a", 32) + "/", strings.Repeat("a", 32)},
	}
	for _, test := range tests {
		if got := labelOf(test.userAgent); got != test.want {
			t.Errorf("%q: got %q, want %q", test.userAgent, got, test.want)
		}
	}
}
