package wire_test

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

type vectorOfBytes struct{ b []byte }

func (v *vectorOfBytes) Code(c *wire.Coder) { c.Bytes(&v.b) }

func TestLengthsAreMinimalAndExact(t *testing.T) {
	tests := []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"empty", []byte{0}, true},
		{"one", []byte{1, 9}, true},
		{"nothing at all", nil, false},
		{"one in two bytes", []byte{0x40, 1, 9}, false},
		{"64 in two bytes", append([]byte{0x40, 64}, make([]byte, 64)...), true},
		{"64 in four bytes", append([]byte{0x80, 0, 0, 64}, make([]byte, 64)...), false},
		{"16384 in four bytes", append([]byte{0x80, 0, 0x40, 0}, make([]byte, 16384)...), true},
		{"reserved prefix", append([]byte{0xc0, 0, 0, 0, 0, 0, 0, 1}, 9), false},
		{"too short", []byte{2, 9}, false},
		{"trailing", []byte{1, 9, 9}, false},
		{"a gigabyte of nothing", []byte{0xbf, 0xff, 0xff, 0xff}, false},
	}
	for _, test := range tests {
		var v vectorOfBytes
		err := wire.Unmarshal(test.raw, &v)
		if (err == nil) != test.ok || (err != nil && !errors.Is(err, wire.ErrMalformed)) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if err == nil && !bytes.Equal(wire.Marshal(&v), test.raw) {
			t.Errorf("%s: encodes to other bytes", test.name)
		}
	}
}

func privateMessage(kind wire.ContentType) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
		GroupID: []byte("group"), Epoch: 7, ContentType: kind, EncryptedSenderData: []byte{1}, Ciphertext: []byte{2},
	}})
}

func publicCommit(sender wire.SenderType) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content: wire.FramedContent{
			GroupID: []byte("group"), Epoch: 8, Sender: wire.Sender{Type: sender, Index: 3},
			ContentType: wire.CommitContent, Commit: &wire.Commit{},
		},
		Signature: []byte{1}, ConfirmationTag: []byte{2}, MembershipTag: []byte{3},
	}})
}

func TestParseHeader(t *testing.T) {
	h, err := wire.ParseHeader(privateMessage(wire.ApplicationContent))
	if err != nil || h.WireFormat != wire.PrivateMessageFormat || string(h.GroupID) != "group" || h.Epoch != 7 || h.ContentType != wire.ApplicationContent {
		t.Errorf("private message: got %+v, %v", h, err)
	}
	for _, sender := range []wire.SenderType{wire.MemberSender, wire.NewMemberCommitSender} {
		h, err = wire.ParseHeader(publicCommit(sender))
		if err != nil || h.WireFormat != wire.PublicMessageFormat || h.Epoch != 8 || h.ContentType != wire.CommitContent || h.Sender.Type != sender {
			t.Errorf("public commit: got %+v, %v", h, err)
		}
	}
	good := privateMessage(wire.CommitContent)
	bad := map[string][]byte{
		"empty":         {},
		"text":          []byte("hello, this is not MLS"),
		"trailing byte": append(bytes.Clone(good), 0),
		"cut":           good[:len(good)-1],
		"version 2":     append([]byte{0, 2}, good[2:]...),
		"format 6":      append([]byte{0, 1, 0, 6}, good[4:]...),
		"content 4":     privateMessageWithContent(good, 4),
	}
	for name, raw := range bad {
		if h, err := wire.ParseHeader(raw); !errors.Is(err, wire.ErrMalformed) || h.GroupID != nil {
			t.Errorf("%s: got %+v, %v", name, h, err)
		}
	}
}

// privateMessageWithContent sets the content type, which follows the version, the
// format, a group id of five bytes and the epoch.
func privateMessageWithContent(raw []byte, kind byte) []byte {
	raw = bytes.Clone(raw)
	raw[4+6+8] = kind
	return raw
}

// A megabyte of the shortest possible elements must not become many megabytes.
func TestParseHeaderTakesNoMemory(t *testing.T) {
	commit := &wire.Commit{Proposals: make([]wire.ProposalOrRef, 500_000)}
	raw := wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content: wire.FramedContent{
			GroupID: []byte("group"), Sender: wire.Sender{Type: wire.NewMemberCommitSender},
			ContentType: wire.CommitContent, Commit: commit,
		},
	}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := wire.ParseHeader(raw); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 100_000 {
		t.Errorf("%d bytes take %d bytes of memory", len(raw), used)
	}
}

func TestUnmarshalSharesNothing(t *testing.T) {
	raw := privateMessage(wire.ApplicationContent)
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if string(m.Private.GroupID) != "group" {
		t.Errorf("the group id changed with the input: %q", m.Private.GroupID)
	}
}

func TestIsGrease(t *testing.T) {
	for v, want := range map[uint16]bool{0x0a0a: true, 0x1a1a: true, 0xeaea: true, 0xfafa: false, 0x0a1a: false, 1: false, 0xf3a1: false} {
		if wire.IsGrease(v) != want {
			t.Errorf("IsGrease(%#x) is not %v", v, want)
		}
	}
}
