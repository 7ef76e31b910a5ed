package netguard

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Reason is the reason of a refused call; it is the label of the counter.
type Reason string

// The reasons.
const (
	ReasonURL      Reason = "url"      // not an absolute URL with a host
	ReasonScheme   Reason = "scheme"   // not https
	ReasonUserinfo Reason = "userinfo" // names a user
	ReasonHost     Reason = "host"     // not a host name of the public internet
	ReasonLiteral  Reason = "literal"  // an address in place of a name
	ReasonListed   Reason = "unlisted" // a host that the operator has not listed
	ReasonPort     Reason = "port"
	ReasonAddress  Reason = "address" // an address that is not public
	ReasonRedirect Reason = "redirect"
	ReasonEncoding Reason = "encoding" // a compressed answer
	ReasonTooLong  Reason = "too_long"
)

// Reasons lists every reason.
var Reasons = []Reason{ReasonURL, ReasonScheme, ReasonUserinfo, ReasonHost, ReasonLiteral, ReasonListed, ReasonPort,
	ReasonAddress, ReasonRedirect, ReasonEncoding, ReasonTooLong}

// Refused is the error of a call that a Guard did not permit. It does not name the destination.
type Refused struct{ Reason Reason }

func (r *Refused) Error() string { return "outbound call refused: " + string(r.Reason) }

const urlBytesMax = 2048

// specialNames lists the top-level and other names that never name a host of the public
// internet (RFC 6761, 6762, 7686, 8375, 9476 and names used in private networks).
var specialNames = []string{"localhost", "local", "internal", "intranet", "private", "corp", "home", "lan", "localdomain",
	"home.arpa", "arpa", "onion", "alt", "invalid", "test", "example"}

// CheckURL checks whether a call of the URL would be made, as far as possible without resolving
// its host. It returns the parsed URL, or *Refused.
func (g *Guard) CheckURL(raw string) (*url.URL, error) {
	if len(raw) > urlBytesMax {
		return nil, &Refused{Reason: ReasonURL}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, &Refused{Reason: ReasonURL}
	}
	if err := g.checkURL(u); err != nil {
		return nil, err
	}
	return u, nil
}

func (g *Guard) checkURL(u *url.URL) error {
	host := lower(u.Hostname())
	isLocal := g.loopback != nil && isLoopbackName(host)
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !isLocal):
		return &Refused{Reason: ReasonScheme}
	case u.Opaque != "" || u.Host == "" || u.Fragment != "" || strings.ContainsAny(u.Host, "%\\"):
		return &Refused{Reason: ReasonURL}
	case u.User != nil:
		return &Refused{Reason: ReasonUserinfo}
	}
	if u.Scheme == "http" {
		return nil // its transport dials this machine only
	}
	if err := g.checkHost(host); err != nil {
		return err
	}
	return g.checkPort(u)
}

func (g *Guard) checkPort(u *url.URL) error {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return &Refused{Reason: ReasonURL}
		}
		port = "443"
	}
	n, err := strconv.Atoi(port)
	if err != nil || strconv.Itoa(n) != port || !slices.Contains(g.o.Ports, n) {
		return &Refused{Reason: ReasonPort}
	}
	return nil
}

// checkHost decides whether the name in a URL, in lower case, may be called.
func (g *Guard) checkHost(host string) error {
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" {
			return &Refused{Reason: ReasonLiteral}
		}
		if g.isAllowed(address) {
			return nil
		}
		if err := g.checkAddress(netip.AddrPortFrom(address, 443)); err != nil {
			return err
		}
		return &Refused{Reason: ReasonLiteral}
	}
	if !IsHostName(host) {
		return &Refused{Reason: ReasonHost}
	}
	labels := strings.Split(host, ".")
	if isNumber(labels[len(labels)-1]) {
		// Resolvers take such names for an address: 0x7f.1, 017700000001, 2130706433.
		return &Refused{Reason: ReasonLiteral}
	}
	if !slices.Contains(g.names, host) {
		if len(labels) == 1 || slices.ContainsFunc(specialNames, func(name string) bool { return isWithin(host, name) }) {
			return &Refused{Reason: ReasonHost}
		}
	}
	if len(g.hosts) > 0 && !slices.ContainsFunc(g.hosts, func(name string) bool { return isWithin(host, name) }) {
		return &Refused{Reason: ReasonListed}
	}
	return nil
}

// isWithin reports whether host is name or a subdomain of it.
func isWithin(host, name string) bool { return host == name || strings.HasSuffix(host, "."+name) }

// isNumber reports whether a label is decimal, octal or hexadecimal digits.
func isNumber(label string) bool {
	if digits, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

func isLoopbackName(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && address.Unmap().IsLoopback() && address.Zone() == ""
}

// IsHostName reports whether host is a DNS name in ASCII, without a dot at its end. An
// internationalised name is written as xn--….
func IsHostName(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}

func lower(s string) string { return strings.ToLower(s) }

// parseAllow separates an operator's list into networks and host names.
func parseAllow(list []string) (networks []netip.Prefix, names []string, err error) {
	for _, text := range list {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			networks = append(networks, prefix.Masked())
		} else if address, err := netip.ParseAddr(text); err == nil && address.Zone() == "" {
			address = address.Unmap()
			networks = append(networks, netip.PrefixFrom(address, address.BitLen()))
		} else if IsHostName(text) && !isNumber(text[strings.LastIndexByte(text, '.')+1:]) {
			names = append(names, lower(text))
		} else {
			return nil, nil, fmt.Errorf("netguard: %q is neither a network, as 10.0.0.0/8, nor an address or a host name", text)
		}
	}
	return networks, names, nil
}
