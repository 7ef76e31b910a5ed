package drive

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"
)

// Route is a way to a server: its address as clients know it, and how they connect.
type Route struct {
	Name    string
	URL     string      // http://HOST:PORT, or https://HOST/PREFIX
	Address string      // HOST:PORT to connect to; "": that of URL
	TLS     *tls.Config // for https
	HTTP2   bool        // offers HTTP/2, which WebSockets do not use
}

// transport returns a transport of its own for a client on the route. No proxy of the environment
// is used.
func (r Route) transport() *http.Transport {
	t := &http.Transport{ForceAttemptHTTP2: r.HTTP2, DisableCompression: true}
	if r.TLS != nil {
		t.TLSClientConfig = r.TLS.Clone()
	}
	if r.Address != "" {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.Address)
		}
	}
	return t
}

// Client returns an HTTP client on the route for a program that may call nothing beside the URL:
// the rest of the host is not the server's. Without sockets the network refuses WebSockets.
func (r Route) Client(withoutSockets bool) *http.Client {
	return &http.Client{Transport: narrow{r.transport(), r.URL, withoutSockets}}
}

// narrow is a host of which only the part below base is the server's.
type narrow struct {
	http.RoundTripper
	base      string
	noUpgrade bool
}

func (n narrow) RoundTrip(r *http.Request) (*http.Response, error) {
	isOther := !strings.HasPrefix(r.URL.String(), n.base+"/")
	if isOther || n.noUpgrade && r.Header.Get("Upgrade") != "" {
		if r.Body != nil {
			r.Body.Close()
		}
		return &http.Response{Status: "404 Not Found", StatusCode: http.StatusNotFound, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	return n.RoundTripper.RoundTrip(r)
}

// through returns the route with another place to connect to.
func (r Route) through(address string) Route {
	r.Address = address
	return r
}

// Certificate is a self-signed certificate of a host, for a proxy and its clients.
type Certificate struct {
	pair tls.Certificate
	text []byte // PEM of key and certificate
	pool *x509.CertPool
}

const certificateLife = 24 * time.Hour

// NewCertificate makes a certificate for host.
func NewCertificate(host string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificateLife), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	for name, block := range map[string][]byte{"PRIVATE KEY": private, "CERTIFICATE": der} {
		if err := pem.Encode(&text, &pem.Block{Type: name, Bytes: block}); err != nil {
			return nil, err
		}
	}
	c := &Certificate{text: text.Bytes(), pool: x509.NewCertPool()}
	c.pool.AppendCertsFromPEM(c.text)
	c.pair, err = tls.X509KeyPair(c.text, c.text)
	return c, err
}

// client returns what clients need to trust the certificate.
func (c *Certificate) client() *tls.Config { return &tls.Config{RootCAs: c.pool} }
