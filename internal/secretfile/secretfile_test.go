package secretfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestKeepOnce: of many who make a secret at once, all get the same, and no draft stays.
func TestKeepOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "seed")
	secrets := make([]string, 20)
	var all sync.WaitGroup
	for i := range secrets {
		all.Go(func() {
			var err error
			if secrets[i], err = Keep(path); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, secret := range secrets {
		if secret != secrets[0] || len(secret) < secretBytes {
			t.Fatalf("the secrets %q and %q", secret, secrets[0])
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d files were left, %v", len(entries), err)
	}
	if err := Write(path, []byte("another")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing it again: %v", err)
	}
	if again, err := Keep(path); err != nil || again != secrets[0] {
		t.Errorf("read again: %q, %v", again, err)
	}
}

func TestReadRefuses(t *testing.T) {
	for _, test := range []struct {
		name, content string
		mode          fs.FileMode
		want          string
	}{
		{"empty", " \n", 0o600, "is empty"},
		{"of a group", "secret", 0o640, "chmod 600"},
		{"of all", "secret", 0o604, "chmod 600"},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := errors.Join(os.WriteFile(path, []byte(test.content), 0o600), os.Chmod(path, test.mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := Keep(path); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, to be kept: %v", test.name, err)
		}
	}
}
