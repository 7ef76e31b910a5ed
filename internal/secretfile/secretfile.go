// Package secretfile reads and writes files that only their owner may read, such as seeds and
// keys.
package secretfile

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// secretBytes is the number of random bytes in a secret that Keep makes.
const secretBytes = 32

// Write creates a file, readable for its owner only, completely or not at all, and its missing
// parent directories. The error is fs.ErrExist if the file exists.
func Write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.Write(content)
	if err := errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces a file that another process has just made.
	return os.Link(draft.Name(), path)
}

// Read returns the content of a file without surrounding blanks. It is an error if the file is
// empty or readable for others.
func Read(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others: chmod 600 it", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}

// Keep returns the content of a file, which it creates with random bytes as text if it is
// missing. If several processes create it at once, one wins and all return the winner's.
func Keep(path string) (string, error) {
	text, err := Read(path)
	if !errors.Is(err, os.ErrNotExist) {
		return text, err
	}
	random := make([]byte, secretBytes)
	rand.Read(random)
	err = Write(path, []byte(base64.RawURLEncoding.EncodeToString(random)+"\n"))
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return Read(path)
}
