package xrpcserver

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"

	"waxwing.im/waxwing/internal/ds"
)

// A cursor is 26 characters of Crockford's base32 over 128 bits, as long as a ULID.
// It holds a reader's place among the events of one conversation:
//
//	16 bits  a tag that no ULID has for the next millennia: those begin with the time
//	48 bits  pos: every event of the records up to it has been read
//	48 bits  sub: the place among the events behind that record, see below
//	16 bits  a check of the conversation's id
//
// As strings they are ordered like (pos, sub). Sub is 0 behind the last event of a
// record; the time in ms, or one more than the last, for an event without a record (typing,
// read, ephemeral messages); and partSub+i behind the event i of the record that follows
// pos, where that has more than one.
//
// In a stream of several conversations, the 26 characters are followed by the stream's
// positions in all of them; see places.
const (
	cursorTag   = 0xfade
	cursorSize  = 26
	partSub     = int64(1) << 47
	cursorMaxNo = int64(1)<<48 - 1
)

// crockford is Crockford's base32, in capitals only. Texts sort like the bytes that they
// encode.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// formatCursor returns the cursor behind the record pos of a conversation and, where sub is
// not 0, behind the place sub among the events that follow it.
func formatCursor(id ds.ConversationID, pos, sub int64) string {
	return string(appendCursor(nil, checkOf(id), pos, sub))
}

func appendCursor(dst []byte, check uint16, pos, sub int64) []byte {
	return appendBase32(dst, uint64(cursorTag)<<48|uint64(pos)&uint64(cursorMaxNo), uint64(sub)<<16|uint64(check))
}

// appendBase32 appends 128 bits in the form of a ULID: shifted right by two bits against
// base32.
func appendBase32(dst []byte, high, low uint64) []byte {
	var raw [17]byte
	binary.BigEndian.PutUint64(raw[0:], high>>2)
	binary.BigEndian.PutUint64(raw[8:], high<<62|low>>2)
	raw[16] = byte(low << 6)
	var text [28]byte
	crockford.Encode(text[:], raw[:])
	return append(dst, text[:cursorSize]...)
}

// newULID makes an identifier: 48 bits of time in ms, then 80 random bits.
func newULID(ms int64) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:], uint64(ms)<<16)
	_, _ = rand.Read(raw[6:]) // never fails (crypto/rand)
	high, low := binary.BigEndian.Uint64(raw[:]), binary.BigEndian.Uint64(raw[8:])
	return string(appendBase32(nil, high, low))
}

// parseCursor reads a cursor of a conversation. It returns false for any other text,
// such as a ULID made by the client.
func parseCursor(id ds.ConversationID, text string) (pos, sub int64, ok bool) {
	pos, sub, check, ok := readCursor(text)
	return pos, sub, ok && check == checkOf(id)
}

// readCursor reads the first part of a cursor of any conversation.
func readCursor(text string) (pos, sub int64, check uint16, ok bool) {
	if len(text) < cursorSize || len(text) > cursorTextMax {
		return 0, 0, 0, false
	}
	var raw [17]byte
	if _, err := crockford.Decode(raw[:], []byte(text[:cursorSize]+"00")); err != nil || raw[0]>>6 != 0 {
		return 0, 0, 0, false
	}
	high := binary.BigEndian.Uint64(raw[0:])<<2 | uint64(raw[8]>>6)
	low := binary.BigEndian.Uint64(raw[8:])<<2 | uint64(raw[16]>>6)
	if high>>48 != cursorTag {
		return 0, 0, 0, false
	}
	return int64(high & uint64(cursorMaxNo)), int64(low >> 16), uint16(low), true
}

// checkOf tells the cursors of one conversation from those of others.
func checkOf(id ds.ConversationID) uint16 {
	sum := sha256.Sum256([]byte("cursor " + string(id)))
	return binary.BigEndian.Uint16(sum[:])
}

// cursorTextMax bounds a cursor: the lexicons have it so.
const cursorTextMax = 64
