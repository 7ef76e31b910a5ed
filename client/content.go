package client

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"waxwing.im/waxwing/client/internal/home"
)

// contentType is the type of the content of an application message (docs/decisions/0015).
//
// A plaintext that does not begin with a zero byte is a text. One that does has the type as its
// second byte, and the payload after it: for contentText a text that begins with a zero byte,
// for the others JSON of at most contentBytesMax. Only texts are messages for people; the others
// advance the log, and are neither in the history nor counted as unread. Unknown types are
// ignored, so that later versions can add some.
type contentType byte

// The types of content.
const (
	contentText     contentType = 0
	contentProfile  contentType = 1
	contentRoom     contentType = 2
	contentContacts contentType = 3
)

// contentBytesMax bounds the JSON of a content that is not a text; longer ones are ignored.
const contentBytesMax = 64 << 10

// encodeContent returns the plaintext of a message.
func encodeContent(of contentType, payload []byte) []byte {
	if of == contentText && (len(payload) == 0 || payload[0] != 0) {
		return payload
	}
	return append([]byte{0, byte(of)}, payload...)
}

// decodeContent returns the type and the payload of a plaintext. A lone zero byte, which this
// package does not send, is a text.
func decodeContent(plaintext []byte) (of contentType, payload []byte) {
	if len(plaintext) < 2 || plaintext[0] != 0 {
		return contentText, plaintext
	}
	return contentType(plaintext[1]), plaintext[2:]
}

// addContent puts a content that is not a text into the outbox. It is delivered as messages are:
// sealed, in its turn, and once.
func (k keeper) addContent(tx *tx, conv *conversation, of contentType, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode content: %w", err)
	}
	if len(payload) > contentBytesMax {
		return ErrTooLarge
	}
	return k.addOutgoing(tx, conv, home.Outgoing{Message: newMessageID(), Content: byte(of), Text: payload})
}

// applyContent applies a content that is not a text, of another member or, once the log has it,
// of this device (e.Own). e.From is the sender, and digest that of the message. An invalid one
// has no effect.
func (k keeper) applyContent(tx *tx, conv *conversation, e Event, digest [sha256.Size]byte, of contentType, payload []byte) error {
	if len(payload) > contentBytesMax {
		return nil
	}
	switch of {
	case contentProfile:
		return k.applyProfile(tx, conv, e, payload)
	case contentRoom:
		return k.applyRoomContent(tx, conv, e, digest, payload)
	case contentContacts:
		return k.applyContacts(tx, conv, e, payload)
	}
	return nil // of a later version
}
