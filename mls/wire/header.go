package wire

import "fmt"

// Header is the part of a message that a delivery service may read. GroupID, Epoch and
// ContentType are set for Public- and PrivateMessages only, Sender for PublicMessages only: the
// sender of a PrivateMessage is hidden from all non-members.
type Header struct {
	WireFormat  WireFormat
	GroupID     []byte
	Epoch       uint64
	ContentType ContentType
	Sender      Sender
}

// ParseHeader returns the header of raw, which must be exactly one complete MLSMessage of version
// mls10: all of it is decoded strictly. It checks only the form and verifies no signature. It takes
// time linear in len(raw) and constant memory. The result shares no memory with raw. Errors wrap
// ErrMalformed. RFC 9420, section 6.
func ParseHeader(raw []byte) (Header, error) {
	if len(raw) > MessageBytesMax {
		return Header{}, fmt.Errorf("%w: %d bytes are more than %d", ErrMalformed, len(raw), MessageBytesMax)
	}
	var m Message
	// The contents of vectors are not needed, and short elements would take many times their
	// size in memory.
	if err := decode(&Coder{decoding: true, dropping: true, buf: raw, end: len(raw)}, &m); err != nil {
		return Header{}, err
	}
	h := Header{WireFormat: m.WireFormat}
	switch m.WireFormat {
	case PublicMessageFormat:
		content := &m.Public.Content
		h.Epoch, h.ContentType, h.Sender = content.Epoch, content.ContentType, content.Sender
		h.GroupID = append([]byte{}, content.GroupID...)
	case PrivateMessageFormat:
		h.Epoch, h.ContentType = m.Private.Epoch, m.Private.ContentType
		h.GroupID = append([]byte{}, m.Private.GroupID...)
	}
	return h, nil
}
