// Package secretfile keeps files that only their owner may read, such as seeds and keys.
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

// secretBytes is how many random bytes a secret that Keep makes has.
const secretBytes = 32

// Write writes a file that does not exist yet, whole or not at all, for its owner only,
// and the directories above it. The error is fs.ErrExist if the file is there.
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
	// A link, unlike a rename, never replaces what another process has just made.
	return os.Link(draft.Name(), path)
}

// Read returns the content of a file without the blanks around it. An empty file is an
// error, and so is one that others may read.
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

// Keep returns the content of a file, which it makes of random bytes as text when it is
// missing. Of several processes that make it at once one wins, and all return the
// winner's.
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
