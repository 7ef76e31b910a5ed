package prove_test

var mutantsTM004 = []mutant{
	{
		name: "resolve-then-connect", gone: "the address that is dialled is checked, not an earlier answer of the name server", file: "internal/netguard/netguard.go",
		old: "	g.https = g.transport(g.checkAddress)\n",
		new: `	g.https = g.transport(g.checkAddress)
	if mutant.Is("resolve-then-connect") {
		g.https = g.transport(func(netip.AddrPort) error { return nil })
		connect := g.https.DialContext
		g.https.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			found, err := g.o.Resolver.LookupNetIP(ctx, "ip", host)
			if err != nil {
				return nil, err
			}
			for _, a := range found {
				if err := g.checkAddress(netip.AddrPortFrom(a.Unmap(), 443)); err != nil {
					return nil, err
				}
			}
			return connect(ctx, network, address)
		}
	}
`,
		rows: []string{"TM-004"},
	},
	{
		name: "range-cgnat", gone: "addresses of carriers' inner networks are refused", file: "internal/netguard/netguard.go",
		old:  "	if g.isAllowed(to.Addr()) {\n",
		new:  "	if mutant.Is(\"range-cgnat\") && netip.MustParsePrefix(\"100.64.0.0/10\").Contains(to.Addr()) {\n		return nil\n	}\n	if g.isAllowed(to.Addr()) {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "range-nat64", gone: "IPv6 addresses that stand for IPv4 ones are refused", file: "internal/netguard/netguard.go",
		old:  "	if g.isAllowed(to.Addr()) {\n",
		new:  "	if mutant.Is(\"range-nat64\") && netip.MustParsePrefix(\"64:ff9b::/96\").Contains(to.Addr()) {\n		return nil\n	}\n	if g.isAllowed(to.Addr()) {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "range-host-agent", gone: "a cloud's agent at an address of a public range is refused", file: "internal/netguard/netguard.go",
		old:  "return p.Contains(to.Addr()) }) {\n",
		new:  "return p.Contains(to.Addr()) && !mutant.Is(\"range-host-agent\") }) {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "loopback-dialled", gone: "this machine is refused", file: "internal/netguard/netguard.go",
		old:  "	if g.isAllowed(to.Addr()) {\n",
		new:  "	if mutant.Is(\"loopback-dialled\") && to.Addr().IsLoopback() {\n		return nil\n	}\n	if g.isAllowed(to.Addr()) {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "redirects-followed", gone: "redirects are not followed", file: "internal/netguard/roundtrip.go",
		old: "	var refused *Refused\n	encoding :=",
		new: `	if next, err := response.Location(); err == nil && mutant.Is("redirects-followed") {
		response.Body.Close()
		again := request.Clone(request.Context())
		again.URL, again.Host = next, ""
		return r.exchange(again)
	}
	var refused *Refused
	encoding :=`,
		rows: []string{"TM-004"},
	},
	{
		name: "answer-unbounded", gone: "answers end after 64 KiB", file: "internal/netguard/roundtrip.go",
		old:  "		response.Body = &boundedBody{response.Body, r.guard, r.bodyBytes}\n",
		new:  "		limit := r.bodyBytes\n		if mutant.Is(\"answer-unbounded\") {\n			limit = 1 << 40\n		}\n		response.Body = &boundedBody{response.Body, r.guard, limit}\n",
		rows: []string{"TM-004"},
	},
	{
		name: "silence-waited-for", gone: "a host that says nothing is given up after three seconds", file: "internal/netguard/netguard.go",
		old:  "	if l.FirstByte > 0 {\n",
		new:  "	if l.FirstByte > 0 && !mutant.Is(\"silence-waited-for\") {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "document-of-another", gone: "a document is about the account that it is read for", file: "internal/identity/document.go",
		old:  "	if raw.ID != did {\n",
		new:  "	if raw.ID != did && !mutant.Is(\"document-of-another\") {\n",
		rows: []string{"TM-004"},
	},
	{
		name: "endpoint-unchecked", gone: "endpoints that are given to others are public", file: "internal/identity/deliveryservice.go",
		old:  "	if _, err := o.Guard.CheckURL(service.Endpoint); err != nil {\n",
		new:  "	if _, err := o.Guard.CheckURL(service.Endpoint); err != nil && !mutant.Is(\"endpoint-unchecked\") {\n",
		rows: []string{"TM-004"},
	},
}
