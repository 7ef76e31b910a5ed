// Package wire implements the encoding of MLS (RFC 9420): every structure of the protocol, and
// a strict codec for them.
//
// A structure names its fields once, in its Code method, and that one list both encodes and
// decodes it; the two directions cannot differ:
//
//	func (n *ParentNode) Code(c *wire.Coder) {
//		c.Bytes(&n.EncryptionKey)
//		c.Bytes(&n.ParentHash)
//		c.U32s(&n.UnmergedLeaves)
//	}
//
// Decoding accepts exactly one encoding of each value: lengths are exact and in their shortest
// form, options are 0 or 1, no bytes may follow. A decoded value therefore encodes to the same
// bytes, and signatures can be verified over the new encoding. Decoding takes linear time and
// memory; the structures of MLS are not recursive, so their definition bounds the depth.
//
// The package checks only the form: no signature, no lifetime, no key. Those checks are in
// packages leaf, keypackage, tree and mls. A delivery service needs ParseHeader and little more.
// All functions are safe for concurrent use; a Coder is not. Decoding errors wrap ErrMalformed.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrMalformed reports bytes that are not the one valid encoding of the expected structure. RFC
// 9420, section 2.1.
var ErrMalformed = errors.New("malformed MLS structure")

// MessageBytesMax bounds the input of Unmarshal and ParseHeader, in bytes: it is larger than a
// GroupInfo with the tree of a hundred thousand members.
const MessageBytesMax = 64 << 20

// vectorBytesMax is the longest vector that a length prefix can state. RFC 9420, section 2.1.2.
const vectorBytesMax = 1<<30 - 1

// Struct is a structure of the protocol. Code visits its fields in their order in RFC 9420, both to
// encode and to decode; it must have no other effect.
type Struct interface {
	Code(c *Coder)
}

// Func is a Struct that consists of its Code method, for structures that are only hashed or signed.
type Func func(*Coder)

// Code calls f.
func (f Func) Code(c *Coder) { f(c) }

// Coder visits the fields of a Struct, writing or reading them. After the first error every
// call does nothing.
type Coder struct {
	decoding bool
	dropping bool   // decoding: vectors are checked and not kept
	buf      []byte // output, or input when decoding
	off, end int    // decoding: the next byte and the end of the innermost vector
	err      error
}

// Marshal returns the encoding of v. It panics if v cannot be encoded (a chosen variant is missing,
// a vector is longer than 2^30-1 bytes): that is a fault of the program, not of its input.
func Marshal(v Struct) []byte {
	c := writers.Get().(*Coder)
	v.Code(c)
	if c.err != nil {
		panic("wire: " + c.err.Error())
	}
	out := bytes.Clone(c.buf)
	if cap(c.buf) <= writerBytesMax {
		clear(c.buf) // it may have been secret
		c.buf = c.buf[:0]
		writers.Put(c)
	}
	return out
}

// writers holds Coders that were used before. Their buffers have grown, so that writing takes
// one allocation, of the result; a buffer that grows would also leave copies of secrets behind.
var writers = sync.Pool{New: func() any { return &Coder{buf: make([]byte, 0, 1024)} }}

// writerBytesMax is the largest buffer that is kept for the next structure.
const writerBytesMax = 1 << 20

// Unmarshal decodes all of data into v. The result shares no memory with data. On error v is
// undefined and the error wraps ErrMalformed.
func Unmarshal(data []byte, v Struct) error {
	if len(data) > MessageBytesMax {
		return fmt.Errorf("%w: %d bytes are more than %d", ErrMalformed, len(data), MessageBytesMax)
	}
	data = bytes.Clone(data) // v points into it
	return decode(&Coder{decoding: true, buf: data, end: len(data)}, v)
}

// decode reads all of c into v.
func decode(c *Coder, v Struct) error {
	v.Code(c)
	if c.err == nil && c.off != c.end {
		c.Fail("%d bytes follow the structure", c.end-c.off)
	}
	return c.err
}

// Decoding reports whether c decodes.
func (c *Coder) Decoding() bool { return c.decoding }

// Failed reports whether an error stopped coding; decoded values are then undefined.
func (c *Coder) Failed() bool { return c.err != nil }

// Fail stops coding with an error that wraps ErrMalformed. The first call wins.
func (c *Coder) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s (RFC 9420, section 2.1)", ErrMalformed, fmt.Sprintf(format, args...))
	}
}

// take returns the next n bytes of the input.
func (c *Coder) take(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n > c.end-c.off {
		c.Fail("%d bytes wanted, %d left", n, c.end-c.off)
		return nil
	}
	b := c.buf[c.off : c.off+n : c.off+n]
	c.off += n
	return b
}

// U8 codes a uint8.
func (c *Coder) U8(v *uint8) {
	if !c.decoding {
		c.buf = append(c.buf, *v)
	} else if b := c.take(1); b != nil {
		*v = b[0]
	}
}

// U16 codes a uint16, most significant byte first.
func (c *Coder) U16(v *uint16) {
	if !c.decoding {
		c.buf = binary.BigEndian.AppendUint16(c.buf, *v)
	} else if b := c.take(2); b != nil {
		*v = binary.BigEndian.Uint16(b)
	}
}

// U32 codes a uint32, most significant byte first.
func (c *Coder) U32(v *uint32) {
	if !c.decoding {
		c.buf = binary.BigEndian.AppendUint32(c.buf, *v)
	} else if b := c.take(4); b != nil {
		*v = binary.BigEndian.Uint32(b)
	}
}

// U64 codes a uint64, most significant byte first.
func (c *Coder) U64(v *uint64) {
	if !c.decoding {
		c.buf = binary.BigEndian.AppendUint64(c.buf, *v)
	} else if b := c.take(8); b != nil {
		*v = binary.BigEndian.Uint64(b)
	}
}

// Fixed codes len(v) bytes without a length.
func (c *Coder) Fixed(v []byte) {
	if !c.decoding {
		c.buf = append(c.buf, v...)
	} else if b := c.take(len(v)); b != nil {
		copy(v, b)
	}
}

// Bytes codes opaque<V>: a length and that many bytes.
func (c *Coder) Bytes(v *[]byte) {
	if !c.decoding {
		if len(*v) > vectorBytesMax {
			c.Fail("a vector of %d bytes", len(*v))
			return
		}
		c.buf = AppendBytes(c.buf, *v)
		return
	}
	if b := c.take(c.length()); b != nil {
		*v = b
	}
}

// Rest codes all bytes up to the end of the structure.
func (c *Coder) Rest(v *[]byte) {
	if !c.decoding {
		c.buf = append(c.buf, *v...)
	} else if b := c.take(c.end - c.off); b != nil {
		*v = b
	}
}

// Present codes the first byte of optional<T> and reports whether a T follows.
func (c *Coder) Present(here bool) bool {
	var b uint8
	if here {
		b = 1
	}
	c.U8(&b)
	if b > 1 {
		c.Fail("an option is 0 or 1, not %d", b)
	}
	return c.err == nil && b == 1
}

// U16s codes uint16 values<V>.
func (c *Coder) U16s(v *[]uint16) { Vector(c, v, func(c *Coder, v *uint16) { c.U16(v) }) }

// U32s codes uint32 values<V>.
func (c *Coder) U32s(v *[]uint32) { Vector(c, v, func(c *Coder, v *uint32) { c.U32(v) }) }

// length reads the length of a vector.
func (c *Coder) length() int {
	if c.err != nil {
		return 0
	}
	n, size, err := VectorLength(c.buf[c.off:c.end])
	if err != nil {
		c.err = err
		return 0
	}
	c.off += size
	return n
}

// VectorLength reads the variable-size length at the start of data. It returns the length and its
// own size in bytes, which must be the smallest possible. RFC 9420, section 2.1.2.
func VectorLength(data []byte) (length, size int, err error) {
	c := &Coder{decoding: true, buf: data, end: len(data)}
	first := c.take(1)
	if first == nil {
		return 0, 0, c.err
	}
	size = 1 << (first[0] >> 6)
	if size == 8 {
		c.Fail("a length starts with the bits 11")
		return 0, 0, c.err
	}
	length = int(first[0] & 0x3f)
	for _, b := range c.take(size - 1) {
		length = length<<8 | int(b)
	}
	if c.err == nil && size != lengthSize(length) {
		c.Fail("length %d is written in %d bytes", length, size)
	}
	return length, size, c.err
}

// lengthSize returns the number of bytes that the length n itself takes.
func lengthSize(n int) int {
	switch {
	case n < 1<<6:
		return 1
	case n < 1<<14:
		return 2
	}
	return 4
}

// VectorBytes returns the size of a vector of n bytes together with its length.
func VectorBytes(n int) int { return lengthSize(n) + n }

// AppendLength appends the length of a vector of n bytes, at most 2^30-1, to b. RFC 9420, section
// 2.1.2.
func AppendLength(b []byte, n int) []byte {
	switch lengthSize(n) {
	case 1:
		return append(b, byte(n))
	case 2:
		return binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n)|1<<31)
}

// AppendBytes appends v, of at most 2^30-1 bytes, to b as opaque<V>.
func AppendBytes(b, v []byte) []byte {
	return append(AppendLength(b, len(v)), v...)
}

// Vector codes T values<V>, each with code.
func Vector[T any](c *Coder, v *[]T, code func(*Coder, *T)) {
	if !c.decoding {
		start := len(c.buf)
		for i := range *v {
			code(c, &(*v)[i])
		}
		c.prefix(start)
		return
	}
	n := c.length()
	if c.err != nil {
		return
	}
	if n > c.end-c.off {
		c.Fail("a vector of %d bytes where %d are left", n, c.end-c.off)
		return
	}
	outer := c.end
	c.end = c.off + n
	*v = nil
	start := c.off
	var dropped, zero T
	for c.off < c.end && c.err == nil {
		before, element := c.off, &dropped
		if c.dropping {
			dropped = zero
		} else {
			*v = append(room(*v, c.off-start, c.end-c.off), zero)
			element = &(*v)[len(*v)-1]
		}
		code(c, element)
		if c.off == before {
			c.Fail("an empty element")
		}
	}
	c.end = outer
}

// room grows a full list for as many elements as will follow if the bytes left hold elements
// like those of the bytes taken, but to no more than eight times its length: the memory for a
// message is bounded by its size.
func room[T any](list []T, taken, left int) []T {
	const few = 16
	if len(list) < cap(list) || len(list) < few {
		return list
	}
	return slices.Grow(list, min(left/(taken/len(list))+1, 7*len(list)))
}

// prefix inserts the length of the bytes written since start before them.
func (c *Coder) prefix(start int) {
	n := len(c.buf) - start
	if n > vectorBytesMax {
		c.Fail("a vector of %d bytes", n)
		return
	}
	size := lengthSize(n)
	c.buf = append(c.buf, "\x00\x00\x00\x00"[:size]...)
	copy(c.buf[start+size:], c.buf[start:start+n])
	AppendLength(c.buf[:start], n)
}

// Structs codes T values<V> where *T is a Struct.
func Structs[T any, P interface {
	*T
	Struct
}](c *Coder, v *[]T) {
	Vector(c, v, func(c *Coder, e *T) { P(e).Code(c) })
}

// Optional codes optional<T>; nil is absent.
func Optional[T any, P interface {
	*T
	Struct
}](c *Coder, v **T) {
	if c.Present(*v != nil) {
		Variant[T, P](c, v)
	}
}

// Variant codes the chosen variant of a select: *v is allocated when decoding and must be set
// when encoding.
func Variant[T any, P interface {
	*T
	Struct
}](c *Coder, v **T) {
	if c.decoding {
		*v = new(T)
	}
	if *v == nil {
		c.Fail("the chosen variant %T is missing", *v)
		return
	}
	P(*v).Code(c)
}
