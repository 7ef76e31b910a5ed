package client

import (
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// Transport is the kind of connection that carries frames between a client and the server.
type Transport string

// The transports.
const (
	// WebSocket carries frames both ways, and is used wherever possible.
	WebSocket Transport = "websocket"
	// EventStream is for networks that block WebSockets: frames come as server-sent events and
	// are sent as HTTP calls.
	EventStream Transport = "sse"
	// XRPC is the server's AT Protocol door, which WithXRPC selects: calls by HTTP, and a
	// WebSocket that announces new records.
	XRPC Transport = "xrpc"
)

// transport carries the frames of one gateway session. All transports behave the same: frames
// of a conversation come in order, each request is answered by a frame with its id, and
// requests without an answer when a transport ends are repeated on the next one. begin and send
// are called by one goroutine at a time.
type transport interface {
	kind() Transport
	// begin starts the frames. token is the session's, and on disk by now.
	begin(token string) error
	// incoming returns the server's frames. It is closed when the transport ends, and failure
	// returns the cause.
	incoming() <-chan gateway.Frame
	failure() error
	// send never waits. id is repeated in the answer; "" for none.
	send(frameType, id string, body any)
	// isSilent reports that the server has sent nothing for so long that it must be gone.
	isSilent(pingInterval time.Duration) bool
	// close ends the transport and everything that it has started.
	close()
}

// silentAfter is the number of half intervals without a sign of life after which the connection
// is given up.
const silentAfter = 5
