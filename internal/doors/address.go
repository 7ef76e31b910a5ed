package doors

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies holds the addresses of reverse proxies, which may name clients in X-Forwarded-For.
type Proxies []netip.Prefix

// AddressOf returns the key of a request in limits per address: the peer's address, or the
// one that a trusted proxy reports in X-Forwarded-For, with IPv6 cut to the /64 that one
// customer has. It is "" for loopback, which is never counted.
func (p Proxies) AddressOf(r *http.Request) string {
	peer, ok := parseAddress(r.RemoteAddr)
	if !ok {
		return "" // not a network's
	}
	client := p.behind(peer, r.Header.Values("X-Forwarded-For"))
	switch {
	case client.IsLoopback():
		return ""
	case client.Is6():
		prefix, _ := client.Prefix(64) // 64 bits are within every IPv6 address
		return prefix.String()
	}
	return client.String()
}

// behind walks back along the proxies that a request came through: each has written the
// address before it at the end of the list, and the first that is not trusted is the
// client. Entries of untrusted proxies are ignored.
func (p Proxies) behind(peer netip.Addr, forwarded []string) netip.Addr {
	if !p.have(peer) {
		return peer
	}
	client := peer
	hops := strings.Split(strings.Join(forwarded, ","), ",")
	for _, hop := range slices.Backward(hops) {
		address, ok := parseAddress(strings.TrimSpace(hop))
		if !ok || address.IsLoopback() && !peer.IsLoopback() {
			break // a proxy elsewhere cannot have been called from this machine
		}
		client = address
		if !p.have(address) {
			break
		}
	}
	return client
}

func (p Proxies) have(address netip.Addr) bool {
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(address) })
}

// parseAddress reads an IP address, with or without a port and brackets.
func parseAddress(text string) (netip.Addr, bool) {
	if pair, err := netip.ParseAddrPort(text); err == nil {
		return pair.Addr().Unmap().WithZone(""), true
	}
	address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	return address.Unmap().WithZone(""), err == nil
}
