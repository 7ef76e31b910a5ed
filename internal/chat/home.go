package chat

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/term"

	"waxwing.im/waxwing/internal/secretfile"
)

// homeFile is the file that describes a home. It holds no secret; everything else in the
// home is sealed under a key that is kept elsewhere, so a copy of the home alone is of no
// use.
const homeFile = "chat.json"

// home describes an account's device: its names, its server and its directory.
type home struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	Server  string `json:"server"`
	Device  string `json:"device,omitempty"` // "" for a generated name
	XRPC    bool   `json:"xrpc,omitempty"`   // it speaks XRPC
	Key     string `json:"key"`              // names the file with the key, in the configuration directory

	dir string
}

const homeVersion = 1

// errNotAHome is returned if the directory is not a home.
var errNotAHome = errors.New("no home of waxwing chat")

// homeDir returns the directory of the home: Home, or one for each name.
func (o *Options) homeDir() (string, error) {
	if o.Home != "" {
		return o.Home, nil
	}
	config, err := o.ConfigDir()
	if err != nil {
		return "", err
	}
	name := o.name()
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", mistake("as: %q cannot name a directory: give one by --home", name)
	}
	return filepath.Join(config, "homes", name), nil
}

func (o *Options) name() string {
	if o.Name == "" {
		return "me"
	}
	return o.Name
}

// openHome opens the home, and creates it if it is missing.
func (o *Options) openHome() (*home, error) {
	dir, err := o.homeDir()
	if err != nil {
		return nil, err
	}
	home, err := readHome(dir)
	if errors.Is(err, errNotAHome) {
		return o.createHome(dir)
	}
	if err != nil {
		return nil, err
	}
	if o.Name != "" && o.Name != home.Name {
		return nil, mistake("as: %s is the home of %q, not of %q", dir, home.Name, o.Name)
	}
	if o.Server != "" {
		home.Server = o.Server // for this run: a server may have moved
	}
	home.XRPC = home.XRPC || o.XRPC
	return home, nil
}

// checkHome returns an error if there is no home.
func (o *Options) checkHome() error {
	dir, err := o.homeDir()
	if err != nil {
		return err
	}
	_, err = readHome(dir)
	if errors.Is(err, errNotAHome) {
		err = fmt.Errorf("%w: waxwing chat init makes one", err)
	}
	return err
}

func readHome(dir string) (*home, error) {
	text, err := os.ReadFile(filepath.Join(dir, homeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, errNotAHome)
	}
	if err != nil {
		return nil, err
	}
	home := &home{dir: dir}
	if err := json.Unmarshal(text, home); err != nil || home.Version < 1 || home.Name == "" || home.Key != filepath.Base(home.Key) {
		return nil, fmt.Errorf("%s is damaged", filepath.Join(dir, homeFile))
	}
	if home.Version > homeVersion {
		return nil, fmt.Errorf("%s was made by a newer version of waxwing", dir)
	}
	return home, nil
}

// createHome creates the key and then the home that names it. If two processes do so at once,
// one wins and both use the winner's.
func (o *Options) createHome(dir string) (*home, error) {
	id := make([]byte, 8)
	rand.Read(id)
	home := &home{Version: homeVersion, Name: o.name(), Server: o.Server, Device: o.Device, XRPC: o.XRPC, Key: hex.EncodeToString(id), dir: dir}
	if home.Server == "" {
		home.Server = o.DefaultServer
	}
	passphrase, err := o.newPassphrase()
	if err != nil {
		return nil, err
	}
	keyPath, err := home.keyPath(o)
	if err != nil {
		return nil, err
	}
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key)
	sealed, err := sealKey(key, home.Key, passphrase)
	if err != nil {
		return nil, err
	}
	if err := secretfile.Write(keyPath, sealed); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(home, "", "  ")
	if err != nil {
		return nil, err
	}
	err = secretfile.Write(filepath.Join(dir, homeFile), append(text, '\n'))
	if errors.Is(err, fs.ErrExist) {
		return readHome(dir) // the new key file stays, unused
	}
	return home, err
}

func (h *home) keyPath(o *Options) (string, error) {
	config, err := o.ConfigDir()
	return filepath.Join(config, "keys", h.Key), err
}

// storageKey reads the key of the home, asking for its passphrase if it has one.
func (h *home) storageKey(o *Options) ([]byte, error) {
	path, err := h.keyPath(o)
	if err != nil {
		return nil, err
	}
	text, err := secretfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the key of %s is missing: %s", h.dir, path)
	}
	if err != nil {
		return nil, err
	}
	var file keyFile
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	passphrase := o.Passphrase
	if file.Argon2id != nil && passphrase == "" {
		if passphrase, err = ask("Passphrase of " + h.dir + ": "); err != nil {
			return nil, err
		}
	}
	key, err := file.open(h.Key, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// keyFile holds a key as it is, or sealed under a passphrase.
type keyFile struct {
	Key      []byte   `json:"key,omitempty"`
	Argon2id *stretch `json:"argon2id,omitempty"`
	Sealed   []byte   `json:"sealed,omitempty"` // nonce, XChaCha20-Poly1305
}

// stretch holds the parameters by which a passphrase becomes a key (RFC 9106).
type stretch struct {
	Salt      []byte `json:"salt"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory_kib"`
	Threads   uint8  `json:"threads"`
}

// The second recommended option of RFC 9106, section 4: for when memory is scarce.
const (
	stretchTime      = 3
	stretchMemoryKiB = 64 << 10
	stretchThreads   = 4
	saltBytes        = 16
	// A file from elsewhere must not make us allocate without bound.
	stretchTimeMax      = 100
	stretchMemoryKiBMax = 4 << 20
)

func (s *stretch) key(passphrase string) []byte {
	return argon2.IDKey([]byte(passphrase), s.Salt, s.Time, s.MemoryKiB, s.Threads, chacha20poly1305.KeySize)
}

// sealKey writes the file for key; id binds it to its name.
func sealKey(key []byte, id, passphrase string) ([]byte, error) {
	file := keyFile{Key: key}
	if passphrase != "" {
		s := &stretch{make([]byte, saltBytes), stretchTime, stretchMemoryKiB, stretchThreads}
		rand.Read(s.Salt)
		aead, err := chacha20poly1305.NewX(s.key(passphrase))
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, aead.NonceSize())
		rand.Read(nonce)
		file = keyFile{Argon2id: s, Sealed: aead.Seal(nonce, nonce, key, keyData(id))}
	}
	text, err := json.Marshal(file)
	return append(text, '\n'), err
}

func (f keyFile) open(id, passphrase string) ([]byte, error) {
	s := f.Argon2id
	if s == nil {
		if len(f.Key) != chacha20poly1305.KeySize {
			return nil, errors.New("damaged")
		}
		return f.Key, nil
	}
	if s.Time < 1 || s.Time > stretchTimeMax || s.MemoryKiB > stretchMemoryKiBMax || s.Threads < 1 || len(f.Sealed) < chacha20poly1305.NonceSizeX {
		return nil, errors.New("damaged")
	}
	aead, err := chacha20poly1305.NewX(s.key(passphrase))
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, f.Sealed[:chacha20poly1305.NonceSizeX], f.Sealed[chacha20poly1305.NonceSizeX:], keyData(id))
	if err != nil {
		return nil, errors.New("wrong passphrase")
	}
	return key, nil
}

func keyData(id string) []byte { return []byte("waxwing chat key v1 " + id) }

// newPassphrase returns the passphrase that seals the key of a new home, or "".
func (o *Options) newPassphrase() (string, error) {
	if o.Passphrase != "" || !o.AskPassphrase {
		return o.Passphrase, nil
	}
	first, err := ask("Passphrase of the new home: ")
	if err != nil {
		return "", err
	}
	again, err := ask("Again: ")
	switch {
	case err != nil:
		return "", err
	case first == "":
		return "", errors.New("the passphrase is empty")
	case first != again:
		return "", errors.New("the passphrases differ")
	}
	return first, nil
}

// ask reads a passphrase from the terminal, independent of standard input and output, without
// showing it.
func ask(prompt string) (string, error) {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", errors.New("a passphrase is needed and there is no terminal to ask at: set WAXWING_PASSPHRASE")
	}
	defer terminal.Close()
	fmt.Fprint(terminal, prompt)
	passphrase, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(terminal)
	return string(passphrase), err
}
