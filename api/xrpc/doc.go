// Package xrpc is the public wire contract of the AT Protocol door: the inputs and outputs of
// blue.catbird.mlsChat.* and its relatives, and the frames of subscribeEvents. The lexicons
// (package lexicons) define the same in the AT Protocol's language, and a test checks these
// types against them.
//
// Two generations of clients call the same endpoints. If they agree on a field there is one
// shape. If not, input is read in either shape and a Blob remembers which; output is written in
// the caller's (Generation). Fields that only one generation needs are always written, as both
// ignore unknown fields.
//
// Reading is lenient where clients differ and strict where a mistake could be hidden: unknown
// fields are ignored, base64 is accepted in four dialects, times with any offset; but integers
// are whole, not negative and of 64 bits, a {"$bytes"} object has no other key, and depth,
// count and size have limits. Decode reads bodies and DecodeQuery the parameters of queries.
//
// A field with the tag omitempty or omitzero may be absent or null; the others are required,
// and are always written. Times are RFC 3339 and written in UTC with milliseconds. The package
// does not know accounts, storage or connections.
package xrpc
