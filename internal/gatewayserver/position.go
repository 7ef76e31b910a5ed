package gatewayserver

import (
	"encoding/base64"
	"encoding/binary"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// The id of an event holds the stream's position behind the event: a version, the
// stream's name in 8 bytes and what has moved since the last of its stored rows, as
// logs.Position writes it, in base64url. So ids are exact at every event, on every node and
// after every crash, while the store is written to at most once a second.
const (
	idVersion    = 2
	idVersionOld = 1   // of streams that earlier versions stored, which are not resumed
	idBytesMax   = 199 // of the text
	idRawMax     = idBytesMax * 3 / 4
	idHeadSize   = 1 + 8
)

// appendID appends the id of a position; it returns false where the position
// does not fit, and a row has to be stored first.
func appendID(dst []byte, p *logs.Position) ([]byte, bool) {
	raw := make([]byte, 0, idRawMax+16)
	raw = binary.BigEndian.AppendUint64(append(raw, idVersion), uint64(p.ID()))
	raw, ok := p.AppendMoves(raw, idRawMax-idHeadSize)
	if !ok {
		return dst, false
	}
	return base64.RawURLEncoding.AppendEncode(dst, raw), true
}

// eventID is a decoded id.
type eventID struct {
	stream logs.StreamID
	moves  []byte
}

var errNotAnID = ds.Refuse(ds.InvalidRequest, "Last-Event-ID: not an id of an event")

// parseID reads what appendID writes. Ids of earlier versions name no stream.
func parseID(text string) (eventID, error) {
	if len(text) > idBytesMax {
		return eventID{}, errNotAnID
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	switch {
	case err != nil, base64.RawURLEncoding.EncodedLen(len(raw)) != len(text), len(raw) <= idHeadSize:
		return eventID{}, errNotAnID
	case raw[0] == idVersionOld:
		return eventID{}, nil
	case raw[0] != idVersion:
		return eventID{}, errNotAnID
	}
	return eventID{logs.StreamID(binary.BigEndian.Uint64(raw[1:])), raw[idHeadSize:]}, nil
}
