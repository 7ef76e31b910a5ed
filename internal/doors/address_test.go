package doors

import (
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestAddressOf(t *testing.T) {
	proxies := Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd00::/8")}
	tests := []struct {
		name, remote string
		forwarded    []string
		want         string
	}{
		{"a peer", "192.0.2.7:1234", nil, "192.0.2.7"},
		{"a peer that claims to be another", "192.0.2.7:1234", []string{"198.51.100.1"}, "192.0.2.7"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:1234", nil, "2001:db8:1:2::/64"},
		{"IPv6 of the same customer", "[2001:db8:1:2:ffff::1]:99", nil, "2001:db8:1:2::/64"},
		{"IPv6 with a zone", "[fe80::1%eth0]:99", nil, "fe80::/64"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.7]:1234", nil, "192.0.2.7"},
		{"loopback", "127.0.0.1:1", nil, ""},
		{"all of loopback", "127.8.8.8:1", nil, ""},
		{"loopback in IPv6", "[::1]:1", nil, ""},
		{"no network", "@", nil, ""},
		{"behind a proxy", "10.1.1.1:1", []string{"192.0.2.7"}, "192.0.2.7"},
		{"behind a proxy here", "127.0.0.1:1", []string{"192.0.2.7"}, "192.0.2.7"},
		{"behind a proxy, IPv6", "10.1.1.1:1", []string{"2001:db8::1"}, "2001:db8::/64"},
		{"behind a proxy that names ports", "10.1.1.1:1", []string{"[2001:db8::1]:80"}, "2001:db8::/64"},
		{"behind an IPv6 proxy", "[fd00::1]:1", []string{"192.0.2.7:80"}, "192.0.2.7"},
		{"behind two", "10.1.1.1:1", []string{"192.0.2.7, 10.2.2.2"}, "192.0.2.7"},
		{"behind two, in two headers", "10.1.1.1:1", []string{"192.0.2.7", "10.2.2.2"}, "192.0.2.7"},
		{"what the client wrote before", "10.1.1.1:1", []string{"203.0.113.1, 192.0.2.7"}, "192.0.2.7"},
		{"loopback written by the client", "10.1.1.1:1", []string{"127.0.0.1"}, "10.1.1.1"},
		{"rubbish at the end", "10.1.1.1:1", []string{"192.0.2.7, unknown"}, "10.1.1.1"},
		{"rubbish behind a good one", "10.1.1.1:1", []string{"unknown, 10.2.2.2"}, "10.2.2.2"},
		{"a proxy that says nothing", "10.1.1.1:1", nil, "10.1.1.1"},
		{"a proxy itself", "10.1.1.1:1", []string{"10.3.3.3"}, "10.3.3.3"},
	}
	for _, test := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.remote
		for _, f := range test.forwarded {
			r.Header.Add("X-Forwarded-For", f)
		}
		if got := proxies.AddressOf(r); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
