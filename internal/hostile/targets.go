// Package hostile holds targets that strangers name and that a server must not call, and a name
// server that leads to them. Tests of the way out, and the row of waxwing prove about it, attack
// with the same ones.
package hostile

import "strings"

// URLBytesMax is the length of the longest URL that is looked at.
const URLBytesMax = 2048

// URL is a URL that is refused before anything is resolved or dialled, with the reason for that.
type URL struct{ URL, Reason string }

// URLs lists URLs that must not be called.
var URLs = []URL{
	{"", "scheme"},
	{"https://", "url"},
	{"https:///path", "url"},
	{"https:host.net", "url"},
	{"//host.net/", "scheme"},
	{"/etc/passwd", "scheme"},
	{"https://:443/", "host"},
	{"https://host.net:/", "url"},
	{"https://host.net/#fragment", "url"},
	{"https://host.net/" + strings.Repeat("a", URLBytesMax), "url"},
	{"https://host.net\r\nX: y/", "url"},
	{"https://host.net\x00/", "url"},
	{"https://ho st.net/", "url"},
	{"https://host.net\\@127.0.0.1/", "url"},
	{"https://%31%32%37.0.0.1/", "url"},
	{"https://127.0.0.1%2e/", "url"},
	{"https://[::1", "url"},
	{"https://[fe80::1%25eth0]/", "url"},
	{"https://[::1%25lo]/", "url"},

	{"http://host.net/", "scheme"},
	{"HTTP://host.net/", "scheme"},
	{"http://localhost/", "scheme"},
	{"http://127.0.0.1:80/", "scheme"},
	{"ftp://host.net/", "scheme"},
	{"file:///etc/passwd", "scheme"},
	{"gopher://host.net:70/_x", "scheme"},
	{"dict://host.net:2628/", "scheme"},
	{"ldap://host.net/", "scheme"},
	{"ws://host.net/", "scheme"},
	{"wss://host.net/", "scheme"},
	{"data:text/plain,x", "scheme"},
	{"javascript:alert(1)", "scheme"},
	{"jar:https://host.net!/", "scheme"},
	{"unix:///var/run/docker.sock", "scheme"},
	{"tftp://host.net/x", "scheme"},

	{"https://user@host.net/", "userinfo"},
	{"https://user:password@host.net/", "userinfo"},
	{"https://@host.net/", "userinfo"},
	{"https://host.net@127.0.0.1/", "userinfo"},
	{"https://host.net:443@169.254.169.254/", "userinfo"},
	{"https://127.0.0.1@host.net/", "userinfo"},

	{"https://localhost/", "host"},
	{"https://LOCALHOST/", "host"},
	{"https://localhost./", "host"},
	{"https://a.localhost/", "host"},
	{"https://localhost.localdomain/", "host"},
	{"https://ip6-localhost/", "host"},
	{"https://metadata/", "host"},
	{"https://metadata.google.internal/", "host"},
	{"https://metadata.google.internal./", "host"},
	{"https://instance-data.ec2.internal/", "host"},
	{"https://kubernetes/", "host"},
	{"https://kubernetes.default.svc.cluster.local/", "host"},
	{"https://host.docker.internal/", "host"},
	{"https://router.lan/", "host"},
	{"https://nas.home.arpa/", "host"},
	{"https://printer.local/", "host"},
	{"https://wiki.corp/", "host"},
	{"https://expyuzz4wqqyqhjn.onion/", "host"},
	{"https://1.0.0.127.in-addr.arpa/", "host"},
	{"https://host.net./", "host"},
	{"https://host..net/", "host"},
	{"https://.host.net/", "host"},
	{"https://-host.net/", "host"},
	{"https://host-.net/", "host"},
	{"https://ho_st.net/", "host"},
	{"https://host.net,127.0.0.1/", "host"},
	{"https://hös.net/", "host"},
	{"https://ⓛocalhost/", "host"},
	{"https://①②⑦.⓪.⓪.①/", "host"},
	{"https://127。0。0。1/", "host"},
	{"https://１２７.0.0.1/", "host"},
	{"https://host\u200b.net/", "host"},
	{"https://" + strings.Repeat("a", 64) + ".net/", "host"},
	{"https://" + strings.Repeat("a.", 130) + "net/", "host"},
	{"https://127.0.0.1./", "host"},
	{"https://2130706433./", "host"},

	{"https://2130706433/", "literal"},
	{"https://017700000001/", "literal"},
	{"https://0x7f000001/", "literal"},
	{"https://0X7F000001/", "literal"},
	{"https://0x7f.0x0.0x0.0x1/", "literal"},
	{"https://0177.0.0.1/", "literal"},
	{"https://0177.0000.0000.0001/", "literal"},
	{"https://127.1/", "literal"},
	{"https://127.0.1/", "literal"},
	{"https://127.0.0.01/", "literal"},
	{"https://127.0.0.0x1/", "literal"},
	{"https://0/", "literal"},
	{"https://0x0/", "literal"},
	{"https://10.1/", "literal"},
	{"https://3232235521/", "literal"},
	{"https://2852039166/", "literal"},
	{"https://0xa9fea9fe/", "literal"},
	{"https://0251.0376.0251.0376/", "literal"},
	{"https://256.256.256.256/", "literal"},
	{"https://1.2.3.4.5/", "literal"},
	{"https://host.net.1/", "literal"},
	{"https://99999999999999999999/", "literal"},
	{"https://8.8.8.8/", "literal"},
	{"https://[2606:4700:4700::1111]/", "literal"},

	{"https://host.net:80/", "port"},
	{"https://host.net:22/", "port"},
	{"https://host.net:25/", "port"},
	{"https://host.net:0/", "port"},
	{"https://host.net:0443/", "port"},
	{"https://host.net:5432/", "port"},
	{"https://host.net:6379/", "port"},
	{"https://host.net:65536/", "port"},
	{"https://host.net:99999999999999999999/", "port"},
}

// Addresses lists addresses that must not be dialled, be they named themselves or, more to the
// point, what a name that looks well resolves to.
var Addresses = strings.Fields(`
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
