package main

import (
	"errors"
	"os"
	"path/filepath"
)

// writeOnce writes a file that does not exist yet, whole or not at all, for its
// owner only.
func writeOnce(path string, content []byte) error {
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
	// A link, unlike a rename, never replaces what somebody else has just made.
	return os.Link(draft.Name(), path)
}
