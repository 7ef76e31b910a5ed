package prove_test

var mutantsRR008 = []mutant{
	{
		name: "slow-reader-kept", gone: "a reader that does not read is cut off", file: "internal/gatewayserver/watchdog.go",
		old:  "	if since != 0 && now-since > s.writeTimeout.Milliseconds() {\n",
		new:  "	if since != 0 && now-since > s.writeTimeout.Milliseconds() && !mutant.Is(\"slow-reader-kept\") {\n",
		rows: []string{"RR-008"},
	},
	{
		name: "handshake-waited-for", gone: "a socket must start its session in time", file: "internal/gatewayserver/watchdog.go",
		old:  "	if !c.isReady.Load() && now-c.opened > s.handshakeTimeout.Milliseconds() {\n",
		new:  "	if !c.isReady.Load() && now-c.opened > s.handshakeTimeout.Milliseconds() && !mutant.Is(\"handshake-waited-for\") {\n",
		rows: []string{"RR-008"},
	},
	{
		name: "bodies-unlimited", gone: "unfinished bodies of strangers are bounded together", file: "internal/doors/intake.go",
		old:  "isStranger && in.strangers+n > StrangerBodyBytesMax:",
		new:  "isStranger && in.strangers+n > StrangerBodyBytesMax && !mutant.Is(\"bodies-unlimited\"):",
		rows: []string{"RR-008"},
	},
	{
		name: "subscribes-unlimited", gone: "subscriptions of a session are limited", file: "internal/gatewayserver/frames.go",
		old:  "	if err := c.server.limits.Take(limits.Subscribes, c.session.ID); err != nil {\n",
		new:  "	if err := c.server.limits.Take(limits.Subscribes, c.session.ID); err != nil && !mutant.Is(\"subscribes-unlimited\") {\n",
		rows: []string{"RR-008"},
	},
}
