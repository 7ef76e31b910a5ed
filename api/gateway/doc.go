// Package gateway is the public wire contract of the realtime door: the frames of
// the WebSocket /v1/ws, the bodies of the HTTP calls under /v1, their codes and the
// names of the features that a session may ask for.
//
// Both ends use it, so it holds only what both must agree on: the shapes, and how
// strictly JSON is read (Unmarshal and DecodeFrame). It knows nothing of accounts,
// storage or connections.
//
// A field whose tag says omitempty, or whose type is a pointer, may be absent or
// null; every other field must be there. Fields that a reader does not know are
// ignored, so that either end may be newer than the other. Times are integer epoch
// milliseconds. Bytes of MLS travel as padded standard base64.
//
// # Streams
//
// GET /v1/sse sends as server-sent events what a socket is sent unasked, to those whose
// network lets no WebSocket through; POST /v1/inbox takes their frames one by one. The
// query says what to follow:
//
//	conv_id     a conversation; may be repeated
//	all=1       every conversation that the account is in, later ones included
//	device=1    the device's own log; feature device
//	from_seq    where to begin, inclusive: once for all, or once for each conv_id
//	after_seq   the same, exclusive; without either it is the device's cursor
//
// Each item's event is the type of a frame and its data the whole frame in one line. Its
// id stands for everything that was sent so far: given back as Last-Event-ID within a
// week, on whichever server, the stream goes on behind it. It then wins over from_seq
// and after_seq for what it knows. Ids are opaque and under 200 bytes.
//
// A stream ends when its session does, and when the caller is removed from all that it
// follows; from one of several, a session with any feature is told by an error frame.
package gateway
