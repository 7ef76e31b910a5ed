// Package xrpc is the public wire contract of the AT Protocol door: what goes in and out
// of blue.catbird.mlsChat.* and its relatives, and the frames of subscribeEvents. The
// lexicons (package lexicons) say the same in the AT Protocol's words, and a test holds
// these types against them.
//
// Two generations of clients call the same endpoints. Where they agree there is one
// shape. Where they do not, input is read in either and a Blob remembers in which it
// came; an answer is written in the caller's (Generation). What one generation needs and
// the other does not know is always written, as both ignore fields that they do not know.
//
// Reading is lenient where clients differ and strict where a mistake could hide: fields
// that are not known are ignored, base64 comes in four dialects, times with any offset;
// but integers are whole, not negative and of 64 bits, a {"$bytes"} object holds nothing
// else, and depth, count and size have limits. Decode reads bodies and DecodeQuery the
// parameters of queries.
//
// A field whose tag says omitempty or omitzero may be absent or null; the others must be
// there, and are always written. Times are RFC 3339 and written in UTC with milliseconds.
// The package knows nothing of accounts, storage or connections.
package xrpc
