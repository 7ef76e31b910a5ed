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
package gateway
