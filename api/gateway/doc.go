// Package gateway is the public wire contract of the realtime door: the frames of the WebSocket
// /v1/ws, the bodies of the HTTP calls under /v1, their codes and the names of the features
// that a session may ask for.
//
// Both ends use it, so it holds only what both must agree on: the structures, and how strictly
// JSON is read (Unmarshal and DecodeFrame). It does not know accounts, storage or connections.
//
// A field with the tag omitempty, or with a pointer type, may be absent or null; every other
// field is required. Unknown fields are ignored, so that either end may be newer than the
// other. Times are integer epoch milliseconds. Bytes of MLS are sent as padded standard base64.
//
// # Streams
//
// GET /v1/sse sends as server-sent events the frames that a socket receives unasked, for
// clients behind networks that block WebSockets; POST /v1/inbox takes their frames one by one. The
// query selects what to follow:
//
//	conv_id     a conversation; may be repeated
//	all=1       every conversation that the account is in, later ones included
//	device=1    the device's own log; feature device
//	from_seq    first seq, inclusive: once for all, or once for each conv_id
//	after_seq   the same, exclusive; without either it is the device's cursor
//
// The event field of an item is the type of a frame and its data the whole frame in one line.
// Its id represents the position after everything sent so far: when it is sent as Last-Event-ID
// within a week, to any server of the service, the stream continues after it. For the
// conversations that it contains it takes precedence over from_seq and after_seq. Ids are
// opaque and under 200 bytes.
//
// A stream ends when its session does, and when the caller is removed from everything that it
// follows; on removal from one of several, a session with any feature gets an error frame.
package gateway
