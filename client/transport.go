package client

import (
	"time"

	"waxwing.im/waxwing/api/gateway"
)

// Transport is how frames travel between a client and the server.
type Transport string

// The transports.
const (
	// WebSocket carries frames both ways, and is used wherever it can be had.
	WebSocket Transport = "websocket"
	// EventStream is for networks that let no WebSocket through: frames come as
	// server-sent events and are sent as HTTP calls.
	EventStream Transport = "sse"
	// XRPC is the server's AT Protocol door, which is used where WithXRPC asks for it:
	// calls by HTTP, and a WebSocket that tells when there is something to read.
	XRPC Transport = "xrpc"
)

// transport carries the frames of one gateway session. Which one it is makes no difference: frames of a conversation come in order, each request is answered by a
// frame with its id, and whatever was not answered when a transport ends is repeated
// on the next one. begin and send are called by one goroutine at a time.
type transport interface {
	kind() Transport
	// begin lets frames flow. token is the session's, and on disk by now.
	begin(token string) error
	// incoming gives what the server sends. It is closed when the transport ends, and
	// failure says why.
	incoming() <-chan gateway.Frame
	failure() error
	// send never waits. id is repeated in the answer; "" for none.
	send(frameType, id string, body any)
	// isSilent says that the server has sent nothing for so long that it must be gone.
	isSilent(pingInterval time.Duration) bool
	// close ends the transport and everything that it has started.
	close()
}

// silentAfter is after how many intervals without a sign the server is given up, in halves.
const silentAfter = 5
