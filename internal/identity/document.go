package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"
)

// Bounds of a DID document.
const (
	documentBytesMax = 64 << 10
	documentItemsMax = 32  // methods, and services, that are read
	documentIDMax    = 512 // bytes of the name of one
	endpointBytesMax = 1024
)

// Names of verification methods, as fragments.
const (
	keyAccount = "#atproto"     // key with which an account signs service tokens
	keyService = "#atproto_mls" // separate key with which a delivery service may sign
	// keyServiceJWK is the service's key again, in another form.
	keyServiceJWK = "#atproto_mls_jwk"
)

var (
	errDocument   = errors.New("not a DID document")
	errDocumentID = errors.New("the document is about another DID")
)

// Document holds the parts of a DID document that this service uses. It is immutable.
type Document struct {
	ID       string
	methods  []documentMethod
	services []documentService
}

// documentMethod is a verification method with a supported key.
type documentMethod struct {
	fragment string // with the #
	key      publicKey
}

type documentService struct{ fragment, endpoint string }

// parseDocument reads a DID document that must be about did. Unknown parts are ignored:
// documents have other users too.
func parseDocument(did string, text []byte) (*Document, error) {
	var raw struct {
		ID       string            `json:"id"`
		Methods  []json.RawMessage `json:"verificationMethod"`
		Services []json.RawMessage `json:"service"`
	}
	if len(text) > documentBytesMax || json.Unmarshal(text, &raw) != nil {
		return nil, errDocument
	}
	if raw.ID != did {
		return nil, errDocumentID
	}
	d := &Document{ID: did}
	for _, item := range raw.Methods[:min(len(raw.Methods), documentItemsMax)] {
		if method, ok := parseMethod(did, item); ok {
			d.methods = append(d.methods, method)
		}
	}
	for _, item := range raw.Services[:min(len(raw.Services), documentItemsMax)] {
		var service struct {
			ID       string          `json:"id"`
			Endpoint json.RawMessage `json:"serviceEndpoint"`
		}
		if json.Unmarshal(item, &service) != nil {
			continue
		}
		fragment, ok := fragmentOf(did, service.ID)
		var endpoint string // some services have a list or an object here
		if ok && json.Unmarshal(service.Endpoint, &endpoint) == nil && endpoint != "" && len(endpoint) <= endpointBytesMax {
			d.services = append(d.services, documentService{strings.Clone(fragment), endpoint})
		}
	}
	return d, nil
}

// parseMethod reads a verification method; ok is false if its key is unsupported or it has
// another controller.
func parseMethod(did string, item json.RawMessage) (documentMethod, bool) {
	var raw struct {
		ID         string          `json:"id"`
		Type       string          `json:"type"`
		Controller string          `json:"controller"`
		Multibase  string          `json:"publicKeyMultibase"`
		JWK        json.RawMessage `json:"publicKeyJwk"`
	}
	if json.Unmarshal(item, &raw) != nil || raw.Controller != "" && raw.Controller != did {
		return documentMethod{}, false
	}
	fragment, ok := fragmentOf(did, raw.ID)
	if !ok {
		return documentMethod{}, false
	}
	var key publicKey
	var err error
	switch {
	case raw.Type == "Multikey":
		key, err = parseMultikey(raw.Multibase)
	case raw.Type == "EcdsaSecp256r1VerificationKey2019" && raw.Multibase != "":
		key, err = parseUncompressed(ES256, raw.Multibase)
	case raw.Type == "EcdsaSecp256k1VerificationKey2019" && raw.Multibase != "":
		key, err = parseUncompressed(ES256K, raw.Multibase)
	case raw.JWK != nil:
		key, err = parseJWK(raw.JWK)
	default:
		return documentMethod{}, false
	}
	return documentMethod{strings.Clone(fragment), key}, err == nil
}

// fragmentOf returns the fragment of the name of a method or service, which is written with or
// without the DID before it.
func fragmentOf(did, id string) (string, bool) {
	if len(id) > documentIDMax {
		return "", false
	}
	fragment := strings.TrimPrefix(id, did)
	return fragment, len(fragment) > 1 && fragment[0] == '#'
}

// parseMultikey reads a P-256 or secp256k1 key; Ed25519 is for did:key only.
func parseMultikey(multibase string) (publicKey, error) {
	key, err := parseMultibase(multibase)
	if err == nil && key.alg == EdDSA {
		return publicKey{}, errors.New("Ed25519 is for did:key only")
	}
	return key, err
}

// parseUncompressed reads a point in the form that documents had before Multikey: without a
// prefix that names the curve.
func parseUncompressed(alg, multibase string) (publicKey, error) {
	const bytesMax = 100 // of base58, for 65 bytes
	if len(multibase) > bytesMax || !strings.HasPrefix(multibase, "z") {
		return publicKey{}, errors.New("not base58btc")
	}
	point, err := base58.Decode(multibase[1:])
	if err != nil {
		return publicKey{}, errors.New("not base58btc")
	}
	return parsePoint(alg, point)
}

// parseJWK reads an EC key (RFC 7517; RFC 8812, 3.1 for secp256k1).
func parseJWK(text json.RawMessage) (publicKey, error) {
	var jwk struct {
		Type  string `json:"kty"`
		Curve string `json:"crv"`
		X     string `json:"x"`
		Y     string `json:"y"`
		Alg   string `json:"alg"`
		Use   string `json:"use"`
	}
	if json.Unmarshal(text, &jwk) != nil || jwk.Type != "EC" || jwk.Use != "" && jwk.Use != "sig" {
		return publicKey{}, errors.New("not a JWK of an elliptic curve to sign with")
	}
	alg, ok := map[string]string{"P-256": ES256, "secp256k1": ES256K}[jwk.Curve]
	if !ok || jwk.Alg != "" && jwk.Alg != alg {
		return publicKey{}, errors.New("JWK of a curve that is not supported")
	}
	encoding := base64.RawURLEncoding.Strict()
	x, errX := encoding.DecodeString(jwk.X)
	y, errY := encoding.DecodeString(jwk.Y)
	if errX != nil || errY != nil || len(x) != 32 || len(y) != 32 {
		return publicKey{}, errors.New("JWK without coordinates of 32 bytes")
	}
	return parsePoint(alg, slices.Concat([]byte{4}, x, y))
}

// parsePoint reads an uncompressed point (SEC 1, section 2.3.4) or a compressed one.
func parsePoint(alg string, point []byte) (publicKey, error) {
	var key atcrypto.PublicKey
	var err error
	switch {
	case alg == ES256 && len(point) == 65:
		key, err = atcrypto.ParsePublicUncompressedBytesP256(point)
	case alg == ES256 && len(point) == 33:
		key, err = atcrypto.ParsePublicBytesP256(point)
	case alg == ES256K && len(point) == 65:
		key, err = atcrypto.ParsePublicUncompressedBytesK256(point)
	case alg == ES256K && len(point) == 33:
		key, err = atcrypto.ParsePublicBytesK256(point)
	default:
		return publicKey{}, errors.New("not a point")
	}
	if err != nil {
		return publicKey{}, errors.New("not a point of the curve")
	}
	return publicKey{alg, key.HashAndVerifyLenient, key.Multibase()}, nil
}

// key returns the key that verifies the tokens of this document's subject: that of the first of
// the fragments that names a usable method. A kid, if present, must name that same method;
// other keys of the document may not sign tokens.
func (d *Document) key(kid string, fragments []string) (publicKey, error) {
	for _, fragment := range fragments {
		for _, method := range d.methods {
			if method.fragment != fragment {
				continue
			}
			if named, ok := fragmentOf(d.ID, kid); kid != "" && (!ok || named != fragment) {
				return publicKey{}, errKeyID
			}
			return method.key, nil
		}
	}
	return publicKey{}, errNoKey
}

// text encodes the used parts of a document as a document: the signing keys and the endpoints
// of the known services.
func (d *Document) text() ([]byte, error) {
	type service struct {
		ID       string `json:"id"`
		Endpoint string `json:"serviceEndpoint"`
	}
	used := struct {
		ID       string        `json:"id"`
		Methods  []documentKey `json:"verificationMethod"`
		Services []service     `json:"service"`
	}{ID: d.ID}
	for _, fragment := range peerKeys {
		if key, err := d.key("", []string{fragment}); err == nil {
			used.Methods = append(used.Methods, documentKey{ID: fragment, Type: "Multikey", Controller: d.ID, Multibase: key.multibase})
		}
	}
	for _, fragment := range []string{MLSService, pdsService} {
		if endpoint, ok := d.service(fragment); ok {
			used.Services = append(used.Services, service{fragment, endpoint})
		}
	}
	return json.Marshal(used)
}

// service returns the endpoint of the first service with that fragment.
func (d *Document) service(fragment string) (string, bool) {
	for _, service := range d.services {
		if service.fragment == fragment {
			return service.endpoint, true
		}
	}
	return "", false
}

// bytes returns about how much memory a document takes.
func (d *Document) bytes() int {
	n := 256 + len(d.ID)
	for _, method := range d.methods {
		n += 128 + keyBytes + len(method.fragment)
	}
	for _, service := range d.services {
		n += 64 + len(service.fragment) + len(service.endpoint)
	}
	return n
}
