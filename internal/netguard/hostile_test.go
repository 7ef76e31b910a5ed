package netguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// hostileURLs are refused before anything is resolved or dialled.
var hostileURLs = []struct {
	url  string
	want Reason
}{
	{"", ReasonScheme},
	{"https://", ReasonURL},
	{"https:///path", ReasonURL},
	{"https:host.net", ReasonURL},
	{"//host.net/", ReasonScheme},
	{"/etc/passwd", ReasonScheme},
	{"https://:443/", ReasonHost},
	{"https://host.net:/", ReasonURL},
	{"https://host.net/#fragment", ReasonURL},
	{"https://host.net/" + strings.Repeat("a", urlBytesMax), ReasonURL},
	{"https://host.net\r\nX: y/", ReasonURL},
	{"https://host.net\x00/", ReasonURL},
	{"https://ho st.net/", ReasonURL},
	{"https://host.net\\@127.0.0.1/", ReasonURL},
	{"https://%31%32%37.0.0.1/", ReasonURL},
	{"https://127.0.0.1%2e/", ReasonURL},
	{"https://[::1", ReasonURL},
	{"https://[fe80::1%25eth0]/", ReasonURL},
	{"https://[::1%25lo]/", ReasonURL},

	{"http://host.net/", ReasonScheme},
	{"HTTP://host.net/", ReasonScheme},
	{"http://localhost/", ReasonScheme},
	{"http://127.0.0.1:80/", ReasonScheme},
	{"ftp://host.net/", ReasonScheme},
	{"file:///etc/passwd", ReasonScheme},
	{"gopher://host.net:70/_x", ReasonScheme},
	{"dict://host.net:2628/", ReasonScheme},
	{"ldap://host.net/", ReasonScheme},
	{"ws://host.net/", ReasonScheme},
	{"wss://host.net/", ReasonScheme},
	{"data:text/plain,x", ReasonScheme},
	{"javascript:alert(1)", ReasonScheme},
	{"jar:https://host.net!/", ReasonScheme},
	{"unix:///var/run/docker.sock", ReasonScheme},
	{"tftp://host.net/x", ReasonScheme},

	{"https://user@host.net/", ReasonUserinfo},
	{"https://user:password@host.net/", ReasonUserinfo},
	{"https://@host.net/", ReasonUserinfo},
	{"https://host.net@127.0.0.1/", ReasonUserinfo},
	{"https://host.net:443@169.254.169.254/", ReasonUserinfo},
	{"https://127.0.0.1@host.net/", ReasonUserinfo},

	{"https://localhost/", ReasonHost},
	{"https://LOCALHOST/", ReasonHost},
	{"https://localhost./", ReasonHost},
	{"https://a.localhost/", ReasonHost},
	{"https://localhost.localdomain/", ReasonHost},
	{"https://ip6-localhost/", ReasonHost},
	{"https://metadata/", ReasonHost},
	{"https://metadata.google.internal/", ReasonHost},
	{"https://metadata.google.internal./", ReasonHost},
	{"https://instance-data.ec2.internal/", ReasonHost},
	{"https://kubernetes/", ReasonHost},
	{"https://kubernetes.default.svc.cluster.local/", ReasonHost},
	{"https://host.docker.internal/", ReasonHost},
	{"https://router.lan/", ReasonHost},
	{"https://nas.home.arpa/", ReasonHost},
	{"https://printer.local/", ReasonHost},
	{"https://wiki.corp/", ReasonHost},
	{"https://expyuzz4wqqyqhjn.onion/", ReasonHost},
	{"https://1.0.0.127.in-addr.arpa/", ReasonHost},
	{"https://host.net./", ReasonHost},
	{"https://host..net/", ReasonHost},
	{"https://.host.net/", ReasonHost},
	{"https://-host.net/", ReasonHost},
	{"https://host-.net/", ReasonHost},
	{"https://ho_st.net/", ReasonHost},
	{"https://host.net,127.0.0.1/", ReasonHost},
	{"https://hös.net/", ReasonHost},
	{"https://ⓛocalhost/", ReasonHost},
	{"https://①②⑦.⓪.⓪.①/", ReasonHost},
	{"https://127。0。0。1/", ReasonHost},
	{"https://１２７.0.0.1/", ReasonHost},
	{"https://host\u200b.net/", ReasonHost},
	{"https://" + strings.Repeat("a", 64) + ".net/", ReasonHost},
	{"https://" + strings.Repeat("a.", 130) + "net/", ReasonHost},
	{"https://127.0.0.1./", ReasonHost},
	{"https://2130706433./", ReasonHost},

	{"https://2130706433/", ReasonLiteral},
	{"https://017700000001/", ReasonLiteral},
	{"https://0x7f000001/", ReasonLiteral},
	{"https://0X7F000001/", ReasonLiteral},
	{"https://0x7f.0x0.0x0.0x1/", ReasonLiteral},
	{"https://0177.0.0.1/", ReasonLiteral},
	{"https://0177.0000.0000.0001/", ReasonLiteral},
	{"https://127.1/", ReasonLiteral},
	{"https://127.0.1/", ReasonLiteral},
	{"https://127.0.0.01/", ReasonLiteral},
	{"https://127.0.0.0x1/", ReasonLiteral},
	{"https://0/", ReasonLiteral},
	{"https://0x0/", ReasonLiteral},
	{"https://10.1/", ReasonLiteral},
	{"https://3232235521/", ReasonLiteral},
	{"https://2852039166/", ReasonLiteral},
	{"https://0xa9fea9fe/", ReasonLiteral},
	{"https://0251.0376.0251.0376/", ReasonLiteral},
	{"https://256.256.256.256/", ReasonLiteral},
	{"https://1.2.3.4.5/", ReasonLiteral},
	{"https://host.net.1/", ReasonLiteral},
	{"https://99999999999999999999/", ReasonLiteral},
	{"https://8.8.8.8/", ReasonLiteral},
	{"https://[2606:4700:4700::1111]/", ReasonLiteral},

	{"https://host.net:80/", ReasonPort},
	{"https://host.net:22/", ReasonPort},
	{"https://host.net:25/", ReasonPort},
	{"https://host.net:0/", ReasonPort},
	{"https://host.net:0443/", ReasonPort},
	{"https://host.net:5432/", ReasonPort},
	{"https://host.net:6379/", ReasonPort},
	{"https://host.net:65536/", ReasonPort},
	{"https://host.net:99999999999999999999/", ReasonPort},
}

// hostileAddresses are refused as a literal and, more to the point, as what a name
// that looks well resolves to.
var hostileAddresses = strings.Fields(`
	0.0.0.0 0.1.2.3 127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254
	10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.254 192.168.0.1 192.168.255.255
	100.64.0.1 100.100.100.200 100.127.255.254
	169.254.0.1 169.254.169.254 169.254.170.2 168.63.129.16
	192.0.0.1 192.0.0.8 192.0.0.170 192.0.0.192 192.0.2.1 198.51.100.7 203.0.113.9 192.88.99.1
	198.18.0.1 198.19.255.254 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
	:: ::1 ::2 ::127.0.0.1 ::10.0.0.1 ::169.254.169.254 ::8.8.8.8
	::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:192.168.1.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0
	::ffff:0:127.0.0.1
	64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b::808:808 64:ff9b:1::1
	2001::1 2001:0:7f00:1:: 2001:0:4136:e378:8000:63bf:80ff:fffe 2001:10::1 2001:20::1 2001:db8::1
	2002:7f00:1:: 2002:a00:1::1 2002:a9fe:a9fe::1 2002:c0a8:101::1
	3fff::1 5f00::1 100::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fe80::a9fe:a9fe fec0::1 ff02::1 ff0e::1
	4000::1 8000::1 ::ffff:100.64.0.1`)

// TestHostileTargets: whatever a stranger makes us call, nothing is dialled.
func TestHostileTargets(t *testing.T) {
	names := newNameServer(t)
	var dialled []Dial
	guard := newGuard(t, Options{Resolver: names.resolver(), OnDial: func(d Dial) { dialled = append(dialled, d) }})
	refusal := func(url string) Reason {
		t.Helper()
		_, err := guard.Get(context.Background(), url, "*/*", Limits{})
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Fatalf("%q: got %v", url, err)
		}
		return refused.Reason
	}
	count := 0
	for _, target := range hostileURLs {
		count++
		if got := refusal(target.url); got != target.want {
			t.Errorf("%q: refused for %s, want %s", target.url, got, target.want)
		}
	}
	for _, text := range hostileAddresses {
		count++
		address := netip.MustParseAddr(text)
		host := address.String()
		if address.Is6() {
			host = "[" + host + "]"
		}
		if got := refusal("https://" + host + "/"); got != ReasonAddress {
			t.Errorf("%s: refused for %s", host, got)
		}
	}
	if len(dialled) != 0 {
		t.Fatalf("dialled %v", dialled)
	}
	for i, text := range hostileAddresses {
		count++
		name := fmt.Sprintf("h%d.attacker.net", i)
		names.set(name, text)
		dialled = nil
		got := refusal("https://" + name + "/")
		isLetOut := slices.ContainsFunc(dialled, func(d Dial) bool { return !d.Refused })
		if got != ReasonAddress || len(dialled) == 0 || isLetOut {
			t.Errorf("%s at %s: refused for %s, dialled %v", name, text, got, dialled)
		}
	}
	if count < 150 {
		t.Errorf("only %d targets", count)
	}
}

// TestRebinding: the address that decides is the one that is dialled, whatever a
// name was said to be before.
func TestRebinding(t *testing.T) {
	names := newNameServer(t)
	stopped := errors.New("stopped before the connection")
	var dialled []Dial
	guard := newGuard(t, Options{Resolver: names.resolver(), OnDial: func(d Dial) { dialled = append(dialled, d) }})
	guard.holdBack = stopped
	get := func(name string) error {
		dialled = nil
		_, err := guard.Get(context.Background(), "https://"+name+"/", "*/*", Limits{})
		return err
	}
	isRefused := func(err error) bool {
		var refused *Refused
		return errors.As(err, &refused) && refused.Reason == ReasonAddress
	}

	names.set("turns.attacker.net", "8.8.8.8", "127.0.0.1")
	first, err := names.resolver().LookupNetIP(context.Background(), "ip", "turns.attacker.net")
	if err != nil || len(first) != 1 || first[0].String() != "8.8.8.8" {
		t.Fatalf("a check before the call sees %v, %v", first, err)
	}
	if err := get("turns.attacker.net"); !isRefused(err) {
		t.Errorf("the name has turned: got %v, dialled %v", err, dialled)
	}

	names.set("honest.net", "8.8.8.8")
	if err := get("honest.net"); !errors.Is(err, stopped) || len(dialled) != 1 || dialled[0].Refused {
		t.Errorf("a public address: got %v, dialled %v", err, dialled)
	}
	names.set("second.attacker.net", "8.8.8.8", "10.0.0.1")
	if err := get("second.attacker.net"); !errors.Is(err, stopped) {
		t.Errorf("while it is public: got %v", err)
	}
	if err := get("second.attacker.net"); !isRefused(err) {
		t.Errorf("after it turned: got %v", err)
	}

	// Where some of a name's addresses are private, those are not dialled.
	names.set("mixed.attacker.net", "8.8.8.8 127.0.0.1 ::1 10.0.0.1")
	_ = get("mixed.attacker.net")
	if len(dialled) < 2 {
		t.Errorf("dialled only %v", dialled)
	}
	for _, d := range dialled {
		if d.Refused == (d.Address.Addr().String() == "8.8.8.8") {
			t.Errorf("mixed: %v", d)
		}
	}
}
