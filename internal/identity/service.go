package identity

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"waxwing.im/waxwing/internal/netguard"
)

// MLSService is the fragment that names the delivery service in a DID document.
const MLSService = "#atproto_mls"

// serviceType is the type of the service entry MLSService.
const serviceType = "AtprotoMlsService"

// ServiceDID returns the did:web of a service that is reached at publicURL: an https URL of a
// host name with or without a port, and nothing more. http is allowed only for this machine,
// "localhost" or a loopback address. A port other than 443 is part of the DID, its colon
// written as %3A.
func ServiceDID(publicURL string) (string, error) {
	u, err := parsePublicURL(publicURL)
	if err != nil {
		return "", err
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" && !(u.Scheme == "https" && port == "443") {
		host += ":" + port
	} else if u.Scheme == "http" {
		host += ":80" // a did:web without a port is on 443
	}
	return "did:web:" + url.QueryEscape(host), nil
}

// parsePublicURL checks a public URL by the rules of ServiceDID.
func parsePublicURL(publicURL string) (*url.URL, error) {
	refused := func(why string) (*url.URL, error) {
		return nil, fmt.Errorf("public URL: %s; want https://HOST[:PORT], or http://localhost:PORT", why)
	}
	u, err := url.Parse(publicURL)
	if err != nil {
		return refused("does not parse") // the error would quote it
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	isLocal := host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return refused("is neither https nor http")
	case u.Scheme == "http" && !isLocal:
		return refused("http is only for this machine")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return refused("has more than a host and a port")
	case ip != nil && !isLocal:
		return refused("a did:web needs a host name, not an address")
	case ip == nil && !netguard.IsHostName(host):
		return refused("has no valid host name")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
			return refused("has no valid port")
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return refused("has no valid port")
	}
	return u, nil
}

// Audiences returns the names of the service with that DID as the audience of a token: the bare
// DID and its entry in the DID document.
func Audiences(serviceDID string) []string {
	if serviceDID == "" {
		return nil
	}
	return []string{serviceDID, serviceDID + MLSService}
}

// documentKey is a verification method as it is published.
type documentKey struct {
	ID         string        `json:"id"`
	Type       string        `json:"type"`
	Controller string        `json:"controller"`
	Multibase  string        `json:"publicKeyMultibase,omitempty"`
	JWK        *atcrypto.JWK `json:"publicKeyJwk,omitempty"`
}

// Document returns the DID document of the service at publicURL, for /.well-known/did.json. It
// has one key under three names: "#atproto" and "#atproto_mls" are Multikeys, for readers that
// look for the key of an account or of a delivery service, and "#atproto_mls_jwk" is a JWK, for
// services that do not support Multikeys of P-256. The service entry is "#atproto_mls" of type
// AtprotoMlsService.
func (k *ServiceKey) Document(publicURL string) ([]byte, error) {
	did, err := ServiceDID(publicURL)
	if err != nil {
		return nil, err
	}
	jwk, err := k.public.JWK()
	if err != nil {
		return nil, fmt.Errorf("DID document: %w", err)
	}
	type service struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Endpoint string `json:"serviceEndpoint"`
	}
	document, err := json.MarshalIndent(struct {
		Context  []string      `json:"@context"`
		ID       string        `json:"id"`
		Keys     []documentKey `json:"verificationMethod"`
		Asserts  []string      `json:"assertionMethod"`
		Services []service     `json:"service"`
	}{
		Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1", "https://w3id.org/security/suites/jws-2020/v1"},
		ID:      did,
		Keys: []documentKey{
			{ID: did + keyAccount, Type: "Multikey", Controller: did, Multibase: k.PublicKeyMultibase()},
			{ID: did + keyService, Type: "Multikey", Controller: did, Multibase: k.PublicKeyMultibase()},
			{ID: did + keyServiceJWK, Type: "JsonWebKey2020", Controller: did, JWK: jwk},
		},
		Asserts:  []string{did + keyAccount, did + keyService, did + keyServiceJWK},
		Services: []service{{MLSService, serviceType, strings.TrimSuffix(publicURL, "/")}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("DID document: %w", err)
	}
	return append(document, '\n'), nil
}
