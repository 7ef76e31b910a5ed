# Varnish before Waxwing, as /etc/varnish/default.vcl; varnish-haproxy.cfg ends TLS for it.
# Change: host and port of the backend (waxwing serve --listen).
# Timeouts stay as they are: 60 s without a byte, while Waxwing writes each 25 s.

vcl 4.1;

backend waxwing {
	.host = "127.0.0.1";
	.port = "8420";
}

sub vcl_recv {
	# Only for a part of a host, which clients call https://chat.example/waxwing. --public-url is
	# https://chat.example either way; /.well-known/did.json and /xrpc/ still belong to the root
	# of the host (docs/proxies.md).
	set req.url = regsub(req.url, "^/waxwing/", "/");

	if (req.http.Upgrade ~ "(?i)websocket") {
		return (pipe);
	}
	return (pass);  # nothing of it may be kept: answers are for one account
}

sub vcl_pipe {
	if (req.http.Upgrade) {
		set bereq.http.Upgrade = req.http.Upgrade;
		set bereq.http.Connection = req.http.Connection;
	}
}
