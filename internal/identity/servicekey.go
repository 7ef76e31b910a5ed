package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// ServiceKey is the P-256 key that this service signs with and publishes in its DID document.
// It is immutable and safe for concurrent use.
type ServiceKey struct {
	private *atcrypto.PrivateKeyP256
	public  atcrypto.PublicKey
}

// serviceKeyBytesMax bounds the size of the key file.
const serviceKeyBytesMax = 16 << 10

// LoadOrCreateServiceKey reads the key in the file, or makes one and writes it there with mode
// 0600, durably and in one step: processes that start at once all end up with one key. The file
// is PEM: PKCS #8 ("PRIVATE KEY", as written here) or SEC 1 ("EC PRIVATE KEY", as openssl
// writes it). A file that others than its owner can read or write is refused.
func LoadOrCreateServiceKey(path string) (*ServiceKey, error) {
	key, err := loadServiceKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createServiceKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create service key: %w", err)
	}
	return loadServiceKey(path)
}

func loadServiceKey(path string) (*ServiceKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("service key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("service key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("service key: %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("service key: others can use %s (mode %04o); run chmod 600 on it", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, serviceKeyBytesMax))
	if err != nil {
		return nil, fmt.Errorf("service key: %w", err)
	}
	key, err := parseServiceKey(text)
	if err != nil {
		return nil, fmt.Errorf("service key: %s: %w", path, err)
	}
	return key, nil
}

// parseServiceKey reads the first private key in the text; other blocks, such as the parameters
// that openssl writes, are ignored.
func parseServiceKey(text []byte) (*ServiceKey, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("no private key in PEM")
		}
		var parsed any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		k, ok := parsed.(*ecdsa.PrivateKey)
		if err != nil || !ok || k.Curve != elliptic.P256() {
			return nil, errors.New("not a P-256 private key")
		}
		return newServiceKey(k)
	}
}

func newServiceKey(k *ecdsa.PrivateKey) (*ServiceKey, error) {
	raw, err := k.ECDH()
	if err != nil {
		return nil, errors.New("not a P-256 private key")
	}
	private, err := atcrypto.ParsePrivateBytesP256(raw.Bytes())
	if err != nil {
		return nil, errors.New("not a P-256 private key")
	}
	public, err := private.PublicKey()
	if err != nil {
		return nil, errors.New("not a P-256 private key")
	}
	return &ServiceKey{private, public}, nil
}

// createServiceKey writes a new key under another name and links it to path, which fails with
// fs.ErrExist if another process was first.
func createServiceKey(path string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".service-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Alg returns ES256.
func (k *ServiceKey) Alg() string { return ES256 }

// Sign signs content: 64 bytes, low-S.
func (k *ServiceKey) Sign(content []byte) ([]byte, error) { return k.private.HashAndSign(content) }

// PublicKeyMultibase returns the public key as a Multikey.
func (k *ServiceKey) PublicKeyMultibase() string { return k.public.Multibase() }
