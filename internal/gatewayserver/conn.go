package gatewayserver

import (
	"io"
	"net/http"
	"time"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/limits"
)

// conn is the part of a WebSocket that this package uses.
type conn interface {
	// Next waits for a message and returns a reader of it, to be read to its end
	// before the next call. The reader returns doors.ErrTooLong behind
	// gateway.FrameBytesMax, and doors.ErrSlow where the message arrives too slowly.
	Next() (isText bool, message io.Reader, err error)
	// Write sends text messages in order, many of them in one write of the network,
	// and returns when they are written. It may be called by several goroutines;
	// the messages of one call stay together.
	Write(messages ...[]byte) error
	// WritingSince returns the server's clock when the current write began, or 0.
	WritingSince() int64
	// WrittenAt returns the server's clock when the last write ended.
	WrittenAt() int64
	// Ping writes a WebSocket ping, which clients answer by themselves and applications
	// do not see. It does nothing during another write or after Close.
	Ping()
	// Close sends a close frame, waits a few seconds for the peer's, and ends every call. Only
	// the first Close of a conn sends one.
	Close(code int, reason string)
	// Abort cuts the connection, which ends every call. It does not block.
	Abort()
}

const (
	// bytesAtOnce bounds the bytes that one socket may send at once; then as much again each
	// minute, which leaves the 64 MiB of doors.AccountBodyBytesMax to messages of any sensible size. Nothing
	// is refused for it; a client that sends more is read from more slowly.
	bytesAtOnce = 128 << 20
	// readBufferBytes is the size of the incoming buffer, which each idle socket holds.
	readBufferBytes = 1 << 10
)

// upgrade makes a WebSocket of a request. If it fails, the request has been answered.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (conn, error) {
	return doors.Accept(w, r, doors.SocketOptions{Clock: s.clock, Intake: s.intake, BytesMax: gateway.FrameBytesMax,
		Rate: limits.Rate{Count: bytesAtOnce, Period: time.Minute}, ReadBufferBytes: readBufferBytes})
}
