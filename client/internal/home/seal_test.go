package home

import (
	"bytes"
	"errors"
	"testing"
)

func TestSeal(t *testing.T) {
	s, err := newSealer(bytes.Repeat([]byte{7}, StorageKeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.seal("outbox", "1", "body", []byte("hello"))
	if plain, err := s.open("outbox", "1", "body", sealed); err != nil || string(plain) != "hello" {
		t.Errorf("got %q, %v", plain, err)
	}
	if bytes.Contains(sealed, []byte("hello")) {
		t.Error("the sealed value shows its content")
	}
	other, err := newSealer(bytes.Repeat([]byte{8}, StorageKeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, open := range map[string]func() ([]byte, error){
		"another table":  func() ([]byte, error) { return s.open("events", "1", "body", sealed) },
		"another row":    func() ([]byte, error) { return s.open("outbox", "11", "body", sealed) },
		"another column": func() ([]byte, error) { return s.open("outbox", "1", "info", sealed) },
		"another key":    func() ([]byte, error) { return other.open("outbox", "1", "body", sealed) },
		"a flipped bit":  func() ([]byte, error) { return s.open("outbox", "1", "body", flipped) },
		"cut":            func() ([]byte, error) { return s.open("outbox", "1", "body", sealed[:10]) },
		"empty":          func() ([]byte, error) { return s.open("outbox", "1", "body", nil) },
	} {
		if plain, err := open(); !errors.Is(err, ErrStorageKey) {
			t.Errorf("%s: got %q, %v", name, plain, err)
		}
	}
	if _, err := newSealer([]byte("short")); err == nil {
		t.Error("a short storage key is taken")
	}
}
