package doors

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

// The close codes for refused frames (RFC 6455, section 7.4.1).
const (
	closeProtocol = 1002
	closeNotUTF8  = 1007
)

// ErrFrames ends a connection on which a frame was refused.
var ErrFrames = errors.New("a WebSocket frame breaks the rules")

// Frames follows the bytes of a client on a WebSocket, to check two rules that the library
// does not: lengths are encoded in as few bytes as possible, and the reason of a close is
// UTF-8 (RFC 6455, sections 5.2 and 5.5.1). The zero value is at the beginning.
type Frames struct {
	head    [14]byte
	have    int    // bytes of head
	left    int64  // bytes of the frame's payload
	closing []byte // that of a close frame
	isClose bool
}

// Look follows the next bytes. It returns the number of them before a frame that breaks a
// rule, and the code to close with; 0 if there is no such frame.
func (f *Frames) Look(p []byte) (good, code int) {
	for at := 0; at < len(p); {
		if f.left == 0 && f.have == 0 {
			good = at // where a frame begins
		}
		if f.left == 0 {
			f.head[f.have] = p[at]
			f.have++
			at++
			if f.have < f.headBytes() {
				continue
			}
			if !f.begin() {
				return good, closeProtocol
			}
		}
		n := int(min(f.left, int64(len(p)-at)))
		if f.isClose {
			f.closing = append(f.closing, p[at:at+n]...)
		}
		f.left -= int64(n)
		at += n
		if f.left == 0 && f.isClose && !f.isReasonGood() {
			return good, closeNotUTF8
		}
	}
	return len(p), 0
}

// headBytes returns the length of the head, as far as it is known.
func (f *Frames) headBytes() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4 // the mask
	}
	return n
}

// begin reads a head that is complete, and returns false for a length that it should have
// written otherwise.
func (f *Frames) begin() bool {
	f.have, f.isClose = 0, false
	switch length := f.head[1] & 0x7f; length {
	case 126:
		f.left = int64(binary.BigEndian.Uint16(f.head[2:]))
		return f.left >= 126
	case 127:
		long := binary.BigEndian.Uint64(f.head[2:])
		f.left = int64(long)
		return long > math.MaxUint16 && long <= math.MaxInt64
	default:
		f.left = int64(length)
	}
	f.isClose = f.head[0]&0x0f == 8 && f.left > 0 // a longer one the library refuses
	f.closing = f.closing[:0]
	return true
}

// isReasonGood reports whether the reason of a close frame is UTF-8.
func (f *Frames) isReasonGood() bool {
	f.isClose = false
	if len(f.closing) < 2 {
		return true // the library refuses it
	}
	if f.head[1]&0x80 != 0 {
		for i := range f.closing {
			f.closing[i] ^= f.head[2+i%4]
		}
	}
	return utf8.Valid(f.closing[2:])
}

// CloseFrame returns a server's close frame with that code and without a reason.
func CloseFrame(code int) []byte {
	return binary.BigEndian.AppendUint16([]byte{0x88, 2}, uint16(code))
}
