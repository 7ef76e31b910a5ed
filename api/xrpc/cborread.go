package xrpc

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

const (
	cborDepthMax = 8
	cborItemsMax = 1 << 14
)

var (
	errNotUTF8  = errors.New("text is not UTF-8")
	errNotCBOR  = errors.New("malformed cbor")
	errNotDAG   = errors.New("cbor is not canonical DAG-CBOR")
	errCBORSize = errors.New("cbor is too deep or has too many items")
)

// cborReader reads canonical DAG-CBOR and nothing else. The memory for a value is proportional
// to its encoded bytes, whatever lengths its heads claim.
type cborReader struct {
	in    []byte
	items int
}

// head reads a major type and its number, which must be written in the fewest bytes.
func (r *cborReader) head() (major byte, n uint64, err error) {
	if len(r.in) == 0 {
		return 0, 0, errNotCBOR
	}
	major, info := r.in[0]&0xe0, r.in[0]&0x1f
	r.in = r.in[1:]
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, errNotDAG // of indefinite length, or reserved
	}
	size := 1 << (info - 24)
	if len(r.in) < size {
		return 0, 0, errNotCBOR
	}
	var wide [8]byte
	copy(wide[8-size:], r.in[:size])
	r.in = r.in[size:]
	n = binary.BigEndian.Uint64(wide[:])
	if least := [4]uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]; major != 7<<5 && n < least {
		return 0, 0, errNotDAG
	}
	return major, n, nil
}

// value reads one value: int64, Bytes, string, []any, map[string]any, bool or nil.
func (r *cborReader) value(depth int) (any, error) {
	r.items++
	if depth > cborDepthMax || r.items > cborItemsMax {
		return nil, errCBORSize
	}
	if len(r.in) > 0 && r.in[0]&0xe0 == 7<<5 {
		return r.simple()
	}
	major, n, err := r.head()
	if err != nil {
		return nil, err
	}
	switch major {
	case cborUnsigned, cborNegative:
		if n > math.MaxInt64 {
			return nil, errNotDAG
		}
		if major == cborNegative {
			return -1 - int64(n), nil
		}
		return int64(n), nil
	case cborBytes:
		data, err := r.take(n)
		return Bytes(data), err
	case cborText:
		data, err := r.take(n)
		if err == nil && !utf8.Valid(data) {
			err = errNotUTF8
		}
		return string(data), err
	case cborArray:
		return r.array(n, depth)
	case cborMap:
		return r.object(n, depth)
	}
	return nil, errNotDAG // a tag: the only one of DAG-CBOR is for links, which are not used here
}

func (r *cborReader) simple() (any, error) {
	first := r.in[0]
	r.in = r.in[1:]
	switch first {
	case cborFalse:
		return false, nil
	case cborTrue:
		return true, nil
	case cborNull:
		return nil, nil
	}
	return nil, errNotDAG // floats, undefined and unassigned values
}

func (r *cborReader) take(n uint64) ([]byte, error) {
	if n > uint64(len(r.in)) {
		return nil, errNotCBOR
	}
	data := r.in[:n]
	r.in = r.in[n:]
	return data, nil
}

func (r *cborReader) array(n uint64, depth int) (any, error) {
	if n > uint64(len(r.in)) {
		return nil, errNotCBOR
	}
	items := []any{}
	for range n {
		item, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

func (r *cborReader) object(n uint64, depth int) (any, error) {
	if n > uint64(len(r.in))/2 {
		return nil, errNotCBOR
	}
	object := map[string]any{}
	before := ""
	for i := range n {
		key, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		name, is := key.(string)
		if !is || i > 0 && nameOrder(before, name) >= 0 {
			return nil, errNotDAG
		}
		before = name
		if object[name], err = r.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return object, nil
}
