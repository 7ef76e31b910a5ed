package identity

import (
	"errors"
	"strconv"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/netguard"
)

// Errors for DIDs that are not looked up at all.
var (
	errDIDInvalid     = errors.New("not a DID in its canonical form")
	errDIDUnsupported = errors.New("a DID of a method that is not supported")
)

const (
	plcPrefix     = "did:plc:"
	webPrefix     = "did:web:"
	plcLength     = 24
	webPathMax    = 8 // segments
	documentFile  = "/did.json"
	documentPlace = "/.well-known/did.json"
)

// location is the address of the document of a DID.
type location struct {
	url  string
	host string // of a did:web: the host of the document; "" for the directory
}

// locate returns the address of a DID's document: that of a did:plc in the directory, that of a
// did:web at its host. The DID must be in the normal form of its method, in lower case if case
// has no meaning, so that one identity has one name.
func locate(did, directory string, isLocalHTTP bool) (location, error) {
	if len(did) > ds.AccountBytesMax {
		return location{}, errDIDInvalid
	}
	if id, ok := strings.CutPrefix(did, plcPrefix); ok {
		if len(id) != plcLength || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			return location{}, errDIDInvalid
		}
		return location{url: directory + "/" + did}, nil
	}
	if id, ok := strings.CutPrefix(did, webPrefix); ok {
		return locateWeb(id, isLocalHTTP)
	}
	if !strings.HasPrefix(did, "did:") {
		return location{}, errDIDInvalid
	}
	return location{}, errDIDUnsupported
}

// locateWeb parses HOST[%3APORT][:SEGMENT…]. Without segments the document has the well-known
// path, with them it is a file in that folder.
func locateWeb(id string, isLocalHTTP bool) (location, error) {
	parts := strings.Split(id, ":")
	host, port, hasPort := strings.Cut(parts[0], "%3A")
	if !netguard.IsHostName(host) || host != strings.ToLower(host) {
		return location{}, errDIDInvalid
	}
	authority := host
	if hasPort {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
			return location{}, errDIDInvalid
		}
		authority += ":" + port
	}
	if len(parts) > webPathMax+1 {
		return location{}, errDIDInvalid
	}
	path := documentPlace
	if len(parts) > 1 {
		for _, segment := range parts[1:] {
			if segment == "" || strings.Trim(segment, ".") == "" || strings.ContainsFunc(segment, isNoPathCharacter) {
				return location{}, errDIDInvalid
			}
		}
		path = "/" + strings.Join(parts[1:], "/") + documentFile
	}
	scheme := "https://"
	if isLocalHTTP && (host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "127.0.0.1") {
		scheme = "http://"
	}
	return location{url: scheme + authority + path, host: host}, nil
}

// isNoPathCharacter reports whether a segment must not contain c: with escapes one path would
// have several names.
func isNoPathCharacter(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
}
