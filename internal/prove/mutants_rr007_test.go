package prove_test

var mutantsRR007 = []mutant{
	{
		name: "streams-buffered", gone: "streams forbid proxies to buffer them", file: "internal/doors/stream.go",
		old:  "	h.Set(\"X-Accel-Buffering\", \"no\")\n",
		new:  "	if !mutant.Is(\"streams-buffered\") {\n		h.Set(\"X-Accel-Buffering\", \"no\")\n	}\n",
		rows: []string{"RR-007"},
	},
	{
		name: "streams-silent", gone: "idle streams are written to", file: "internal/gatewayserver/watchdog.go",
		old:  "	if now < c.nextPing {\n",
		new:  "	if now < c.nextPing || mutant.Is(\"streams-silent\") {\n",
		rows: []string{"RR-007"},
	},
	{
		name: "prefix-lost", gone: "the SDK calls below the path of the server's URL", file: "client/gateway.go",
		old:  "	address := g.base.JoinPath(path)\n",
		new:  "	address := g.base.JoinPath(path)\n	if mutant.Is(\"prefix-lost\") {\n		address = g.base.ResolveReference(&url.URL{Path: path})\n	}\n",
		rows: []string{"RR-007"},
	},
}
