package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestServiceDID(t *testing.T) {
	tests := []struct{ url, want string }{
		{"https://ds.example", "did:web:ds.example"},
		{"https://ds.example/", "did:web:ds.example"},
		{"https://DS.Example:443", "did:web:ds.example"},
		{"https://ds.example:8443", "did:web:ds.example%3A8443"},
		{"https://localhost", "did:web:localhost"},
		{"http://localhost:8420", "did:web:localhost%3A8420"},
		{"http://localhost", "did:web:localhost%3A80"},
		{"http://a.localhost:80", "did:web:a.localhost%3A80"},
		{"http://127.0.0.1:8420", "did:web:127.0.0.1%3A8420"},
		{"http://[::1]:8420", "did:web:%5B%3A%3A1%5D%3A8420"},
		{"http://ds.example", ""},
		{"http://192.0.2.1:80", ""},
		{"https://192.0.2.1", ""},
		{"https://[2001:db8::1]", ""},
		{"https://user@ds.example", ""},
		{"https://ds.example/path", ""},
		{"https://ds.example?", ""},
		{"https://ds.example?q", ""},
		{"https://ds.example#f", ""},
		{"https://ds.example:0", ""},
		{"https://ds.example:", ""},
		{"https://ds.example:65536", ""},
		{"https://ds.example:080", ""},
		{"https://", ""},
		{"https://-ds.example", ""},
		{"https://ds..example", ""},
		{"https://ds_x.example", ""},
		{"https://dé.example", ""},
		{"ftp://ds.example", ""},
		{"ds.example", ""},
		{"", ""},
		{"https://ds.example\n", ""},
	}
	for _, test := range tests {
		did, err := ServiceDID(test.url)
		if did != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q: got %q, %v, want %q", test.url, did, err, test.want)
		}
		if err == nil {
			if _, err := syntax.ParseDID(did); err != nil {
				t.Errorf("%q is not a DID: %v", did, err)
			}
		}
	}
}

func TestDocument(t *testing.T) {
	key, err := LoadOrCreateServiceKey(filepath.Join(t.TempDir(), "service.key"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Document("https://ds.example:8443/")
	if err != nil {
		t.Fatal(err)
	}
	const did = "did:web:ds.example%3A8443"
	var raw struct {
		ID                 string
		VerificationMethod []struct{ ID, Type, Controller string }
		Service            []struct{ ID, Type, ServiceEndpoint string }
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	if raw.ID != did || len(raw.VerificationMethod) != 3 || len(raw.Service) != 1 {
		t.Fatalf("got %s", text)
	}
	if service := raw.Service[0]; service.ID != "#atproto_mls" || service.Type != "AtprotoMlsService" || service.ServiceEndpoint != "https://ds.example:8443" {
		t.Errorf("service: %+v", service)
	}
	document, err := parseDocument(did, text)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := key.Sign([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ fragment, kind string }{{"#atproto", "Multikey"}, {"#atproto_mls", "Multikey"}, {"#atproto_mls_jwk", "JsonWebKey2020"}} {
		if method := raw.VerificationMethod[i]; method.ID != did+want.fragment || method.Type != want.kind || method.Controller != did {
			t.Errorf("method: %+v", method)
		}
		public, err := document.key("", []string{want.fragment})
		if err != nil || public.verify([]byte("content"), sig) != nil {
			t.Errorf("%s does not verify: %v", want.fragment, err)
		}
	}
	if _, err := key.Document("http://ds.example"); err == nil {
		t.Error("made a document for a bad URL")
	}
}

func TestServiceKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "service.key")
	keys := make([]*ServiceKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadOrCreateServiceKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, key := range keys {
		if key.PublicKeyMultibase() != keys[0].PublicKeyMultibase() {
			t.Error("two processes made two keys")
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreateServiceKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %04o: got %v", mode, err)
		}
	}
}

func TestServiceKeyForms(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}})
	tests := []struct {
		name string
		text []byte
		good bool
	}{
		{"PKCS #8", pkcs8(p256), true},
		{"SEC 1", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), true},
		{"as openssl writes it", append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...), true},
		{"P-384", pkcs8(p384), false},
		{"RSA", pkcs8(rsaKey), false},
		{"empty", nil, false},
		{"no PEM", []byte("hunter2"), false},
		{"cut off", pkcs8(p256)[:100], false},
		{"only parameters", parameters, false},
		{"garbage inside", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("garbage")}), false},
	}
	dir := t.TempDir()
	for _, test := range tests {
		path := filepath.Join(dir, "key")
		if err := os.WriteFile(path, test.text, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := LoadOrCreateServiceKey(path)
		if (err == nil) != test.good {
			t.Errorf("%s: got %v", test.name, err)
		}
		if test.good && err == nil {
			if _, err := key.Sign([]byte("x")); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		after, err := os.ReadFile(path)
		if err != nil || string(after) != string(test.text) {
			t.Errorf("%s: the file was changed", test.name)
		}
	}
	if _, err := LoadOrCreateServiceKey(dir); err == nil {
		t.Error("loaded a folder")
	}
}
