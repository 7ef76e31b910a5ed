package core

import (
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

func TestIsTooLarge(t *testing.T) {
	rows := []struct {
		name     string
		body     string
		encoding ds.Encoding
		want     bool
	}{
		{"text of the limit", strings.Repeat("x", envCharactersMax), ds.Text, false},
		{"text beyond it", strings.Repeat("x", envCharactersMax+1), ds.Text, true},
		{"characters, not bytes", strings.Repeat("é", envCharactersMax), ds.Text, false},
		{"too many characters of two bytes", strings.Repeat("é", envCharactersMax+1), ds.Text, true},
		{"bytes whose base64 is of the limit", strings.Repeat("x", envCharactersMax/4*3), ds.Base64, false},
		{"bytes whose base64 is beyond it", strings.Repeat("x", envCharactersMax/4*3+1), ds.Base64, true},
	}
	for _, row := range rows {
		if got := (&Service{messageBytes: MessageBytesDefault}).isTooLarge(Send{Body: []byte(row.body), Encoding: row.encoding}); got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}
