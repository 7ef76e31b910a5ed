package prove

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
)

const (
	outsideDomain = ".attacker.net"
	endlessMax    = 64 << 20 // of a body without end, so that a server without bounds does not take all memory
	recordPath    = "/xrpc/com.atproto.repo.getRecord"
	portAttempts  = 100
)

// insideListeners stand for hosts of the inner network.
var insideListeners = []string{insideAddress, "::1", "127.0.0.3"}

// outside is a host that stands for the public internet, under all names of its domain, and
// listeners in the inner network at the same port, which must see no connection.
type outside struct {
	port         string
	certificates string // file of what to trust
	inner        atomic.Int64

	mu        sync.Mutex // guards the rest
	documents map[string][]byte
	records   map[string][]byte
	longest   int64 // bytes of a body without end that were taken
}

// newOutside listens until the end of the run.
func newOutside(r *Run) (*outside, error) {
	o := &outside{documents: map[string][]byte{}, records: map[string][]byte{}}
	listener, victims, err := o.listen()
	if err != nil {
		return nil, err
	}
	r.Cleanup(func() { listener.Close() })
	for _, victim := range victims {
		var done sync.WaitGroup
		done.Go(func() {
			for {
				conn, err := victim.Accept()
				if err != nil {
					return
				}
				o.inner.Add(1)
				conn.Close()
			}
		})
		r.Cleanup(func() {
			victim.Close()
			done.Wait()
		})
	}
	certificate, err := o.certify(r)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: o, ReadHeaderTimeout: lookupMax, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.ServeTLS(listener, "", "") }) // until it is closed
	r.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return o, nil
}

// listen listens outside and, at the same port, inside. Another process may have the port at one of
// the addresses; then another port is tried.
func (o *outside) listen() (listener net.Listener, inside []net.Listener, err error) {
	for range portAttempts {
		port, err := drive.FreePort()
		if err != nil {
			return nil, nil, err
		}
		o.port = fmt.Sprint(port)
		listener, err := net.Listen("tcp", net.JoinHostPort(outsideAddress, o.port))
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return nil, nil, fmt.Errorf("%w: %s, which shall stand for the internet: %w", ErrMissing, outsideAddress, err)
		}
		if err != nil {
			continue
		}
		inside = inside[:0]
		for _, address := range insideListeners {
			victim, failed := net.Listen("tcp", net.JoinHostPort(address, o.port))
			switch {
			case failed == nil:
				inside = append(inside, victim)
			case address != "::1" || errors.Is(failed, syscall.EADDRINUSE): // a machine may lack IPv6
				err = failed
			}
		}
		if err == nil {
			return listener, inside, nil
		}
		for _, l := range append(inside, listener) {
			l.Close()
		}
	}
	return nil, nil, fmt.Errorf("no port is free at %s and %s", outsideAddress, insideListeners)
}

// certify makes a certificate for the domain, and a file that trusts it.
func (o *outside) certify(r *Run) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"*" + outsideDomain}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	folder, err := r.Folder()
	if err != nil {
		return tls.Certificate{}, err
	}
	o.certificates = filepath.Join(folder, "roots.pem")
	err = os.WriteFile(o.certificates, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// url returns the address of a host of the domain.
func (o *outside) url(host string) string { return "https://" + host + outsideDomain + ":" + o.port }

// visits returns how many connections the inner network has seen.
func (o *outside) visits() int64 { return o.inner.Load() }

// document sets the document of a DID, with a key, a delivery service and a PDS.
func (o *outside) document(did string, key *identity.AccountKey, endpoint, pds string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.documents[did] = documentOf(did, key, endpoint, pds)
}

func documentOf(did string, key *identity.AccountKey, endpoint, pds string) []byte {
	var services []map[string]string
	if endpoint != "" {
		services = append(services, map[string]string{"id": "#atproto_mls", "type": "AtprotoMlsService", "serviceEndpoint": endpoint})
	}
	if pds != "" {
		services = append(services, map[string]string{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": pds})
	}
	text, _ := json.Marshal(map[string]any{
		"id": did, "service": services,
		"verificationMethod": []map[string]string{{"id": did + "#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": strings.TrimPrefix(key.DID(), "did:key:")}},
	})
	return text
}

// record sets the record of an account at its PDS.
func (o *outside) record(account, endpoint string) {
	text, _ := json.Marshal(map[string]any{"value": map[string]any{"deliveryService": endpoint}})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.records[account] = text
}

// ServeHTTP serves the directory, a PDS, documents of hosts, and answers that are bad in the way
// that the first word of the host names.
func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(r.Host, ".")
	kind, _, isBad := strings.Cut(host, "-bad")
	did := strings.TrimPrefix(r.URL.Path, "/")
	if host != "directory" {
		did = "did:web:" + strings.Replace(r.Host, ":", "%3A", 1)
		if folder := strings.TrimSuffix(r.URL.Path, "/did.json"); folder != "/.well-known" {
			did += strings.ReplaceAll(folder, "/", ":")
		}
	}
	o.mu.Lock()
	text, ok := o.documents[did]
	if r.URL.Path == recordPath && !isBad {
		text, ok = o.records[r.URL.Query().Get("repo")]
	}
	if r.URL.Path == recordPath && isBad {
		text = o.records[r.URL.Query().Get("repo")]
	}
	o.mu.Unlock()
	switch {
	case isBad && r.URL.Path != redirectedPath:
		o.bad(w, r, kind, text)
	case r.URL.Path == redirectedPath:
		_, _ = w.Write([]byte(r.URL.Query().Get("text")))
	case ok:
		_, _ = w.Write(text)
	default:
		http.NotFound(w, r)
	}
}

// badKinds lists the bad answers of a host, with the time in which they must be given up.
var badKinds = map[string]time.Duration{
	"slow": lookupMax, "silent": firstByteMax, "endless": lookupMax, "long": firstByteMax, "bomb": firstByteMax, "headers": firstByteMax, "early": firstByteMax,
	"other": firstByteMax, "nested": firstByteMax, "r301": firstByteMax, "r302": firstByteMax, "r303": firstByteMax, "r307": firstByteMax, "r308": firstByteMax, "inward": firstByteMax,
}

// redirectedPath has what a redirect leads to: the right answer.
const redirectedPath = "/redirected"

// bad answers in a bad way; text would be the right answer.
func (o *outside) bad(w http.ResponseWriter, r *http.Request, kind string, text []byte) {
	control := http.NewResponseController(w)
	switch kind {
	case "slow": // a byte now and then, for ever
		for i := 0; r.Context().Err() == nil; i++ {
			if _, err := w.Write(text[i%len(text):][:1]); err != nil || control.Flush() != nil || pause(r.Context(), 100*time.Millisecond) != nil {
				return
			}
		}
	case "silent":
		_ = pause(r.Context(), 2*lookupMax) // an error: the caller has gone
	case "endless":
		o.endless(w, r, text)
	case "long":
		w.Header().Set("Content-Length", fmt.Sprint(1<<40))
		o.endless(w, r, text)
	case "bomb":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb())
	case "headers":
		for i := range 1024 {
			w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1024))
		}
		_, _ = w.Write(text)
	case "early":
		w.Header().Set("Content-Length", fmt.Sprint(len(text)+1))
		_, _ = w.Write(text)
	case "other": // about another one
		_, _ = w.Write(bytes.Replace(text, []byte("other-bad"), []byte("others-bad"), 1))
	case "nested":
		_, _ = w.Write(bytes.Repeat([]byte("["), 60<<10))
	case "inward":
		http.Redirect(w, r, "https://inside"+outsideDomain+":"+o.port+"/", http.StatusFound)
	default: // r301: to a place that has the right answer
		var status int
		_, _ = fmt.Sscanf(kind, "r%d", &status)
		target := *r.URL
		target.Path = redirectedPath
		query := target.Query()
		query.Set("text", string(text))
		target.RawQuery = query.Encode()
		http.Redirect(w, r, target.String(), status)
	}
}

// endless writes until the reader has enough.
func (o *outside) endless(w http.ResponseWriter, r *http.Request, text []byte) {
	piece := bytes.Repeat([]byte(" "), 64<<10)
	copy(piece, text[:len(text)-1]) // a document that does not end
	written := int64(0)
	for written < endlessMax && r.Context().Err() == nil {
		n, err := w.Write(piece)
		written += int64(n)
		o.mu.Lock()
		o.longest = max(o.longest, written)
		o.mu.Unlock()
		if err != nil {
			return
		}
		piece = bytes.Repeat([]byte(" "), len(piece))
	}
}

// bomb returns a gibibyte of spaces, compressed.
var bomb = sync.OnceValue(func() []byte {
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	spaces := bytes.Repeat([]byte(" "), 1<<20)
	for range 64 {
		_, _ = z.Write(spaces) // to memory
	}
	_ = z.Close()
	return text.Bytes()
})

// badAnswers lets hosts that may be called answer in bad ways, as hosts of documents and as a PDS.
func (p *outbound) badAnswers(round int) error {
	p.names.Set("inside"+outsideDomain, insideAddress)
	var jobs []func()
	var mu sync.Mutex
	longest := map[string]float64{} // seconds by kind
	for kind, most := range badKinds {
		for i := range 3 {
			// Few lookups at a time are made at one host.
			host := fmt.Sprintf("%s-bad-%d-%d%s", kind, round, i, outsideDomain)
			p.names.Set(host, outsideAddress)
			jobs = append(jobs, func() {
				began := time.Now()
				if did := p.web(host); i < 2 {
					p.outside.document(did, p.key, "https://honest.example.org", "")
					p.attack(documentPaths[i], did)
				} else {
					account := p.plc()
					pds := "https://" + host + ":" + p.outside.port
					p.outside.document(account, p.key, "", pds)
					p.outside.record(account, "https://honest.example.org")
					if kind == "other" {
						return // a record does not say about which account it is
					}
					endpoint, err := p.resolve(account)
					p.count("answer of a PDS", pds, endpoint != "", err)
				}
				took := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				longest[kind] = max(longest[kind], took.Seconds())
				if took > most+lookupSlack {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.errs = append(p.errs, fmt.Errorf("a host that answers badly (%s) is waited for for %s, want at most %s", kind, took.Round(time.Millisecond), most))
				}
			})
		}
	}
	if err := p.do("hosts that answer badly", jobs); err != nil || round > 0 {
		return err
	}
	p.outside.mu.Lock()
	read := p.outside.longest
	p.outside.mu.Unlock()
	p.Bars("time until a bad answer was given up, seconds", longest)
	p.AtMost("time for a host that says a byte now and then", longest["slow"], (lookupMax + lookupSlack).Seconds(), "s")
	p.AtMost("time for a host that says nothing", longest["silent"], (firstByteMax + lookupSlack).Seconds(), "s")
	p.AtMost("bytes taken of a body without end, with what the network holds", float64(read)/(1<<20), answerBytes>>20, "MiB")
	return nil
}

// dialLog collects the record of the dialler from the log of a server.
type dialLog struct {
	mu      sync.Mutex // guards the rest
	partial []byte
	list    []dial
}

// dial is an attempt to connect.
type dial struct {
	Address string `json:"address"`
	Refused bool   `json:"refused"`
}

// Write takes a part of a log.
func (l *dialLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, text...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(text), nil
		}
		var entry struct {
			Message string `json:"msg"`
			dial
		}
		if json.Unmarshal(line, &entry) == nil && entry.Message == "dial" {
			l.list = append(l.list, entry.dial)
		}
		l.partial = append(l.partial[:0], rest...)
	}
}

// all returns the dials of a server that has ended.
func (l *dialLog) all() []dial {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.list
}
