package mls

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

func TestPadBuckets(t *testing.T) {
	for bytes, want := range map[int]int{
		0: 512, 1: 512, 512: 512, 513: 1024, 1024: 1024, 2049: 4096, 4097: 8192, 8192: 8192, 8193: 16384, 16385: 24576, 10 << 20: 10 << 20,
	} {
		if got := PadBuckets(bytes); got != want {
			t.Errorf("%d bytes go into %d, want %d", bytes, got, want)
		}
	}
}

func isBucket(n int) bool {
	switch n {
	case 512, 1024, 2048, 4096, 8192:
		return true
	}
	return n > 8192 && n%8192 == 0
}

// Every PrivateMessage has the size of a bucket, for all sizes of its parts.
func TestPaddedMessages(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob", "cay")
	for _, g := range w.groups {
		g.padding = PadBuckets
	}
	r := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 300, 400, 500, 900, 3000, 7900, 8000, 8100, 15_000, 16_100, 16_200, 16_250, 16_300, 16_383, 16_384, 16_400, 30_000, 100_000}
	for range 40 {
		sizes = append(sizes, r.IntN(20_000))
	}
	for _, size := range sizes {
		for _, aad := range [][]byte{nil, make([]byte, 70), make([]byte, 8100+r.IntN(100))} {
			text := bytes.Repeat([]byte("x"), size)
			m, next, err := w.groups["ann"].Seal(text, aad, SealOptions{})
			if err != nil {
				t.Fatal(err)
			}
			w.groups["ann"] = next
			if !isBucket(len(m)) {
				t.Errorf("%d bytes with %d readable ones make a message of %d", size, len(aad), len(m))
			}
			if out := w.process("bob", m); !bytes.Equal(out.Plaintext, text) {
				t.Errorf("%d bytes arrive as %d", size, len(out.Plaintext))
			}
		}
	}
	m, next, err := w.groups["ann"].Propose(Update(nil), ProposeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["ann"] = next
	w.process("bob", m)
	w.process("cay", m)
	p := w.commit("cay", CommitOptions{})
	if !isBucket(len(m)) || !isBucket(len(p.Message())) {
		t.Errorf("handshakes of %d and %d bytes", len(m), len(p.Message()))
	}
	if p := w.commit("cay", CommitOptions{Public: true}); isBucket(len(p.Message())) {
		t.Errorf("a public message cannot be padded: %d bytes", len(p.Message()))
	}
	// The policy of a message precedes that of the group, and Padding precedes both.
	m, _, err = w.groups["ann"].Seal(nil, nil, SealOptions{Policy: func(int) int { return 2000 }})
	if err != nil || len(m) != 2000 {
		t.Errorf("%d bytes, %v", len(m), err)
	}
	plain, _, _ := w.groups["ann"].Seal(nil, nil, SealOptions{Policy: func(int) int { return 0 }})
	m, _, err = w.groups["ann"].Seal(nil, nil, SealOptions{Padding: 7, Policy: PadBuckets})
	if err != nil || len(m) != len(plain)+7 {
		t.Errorf("%d and %d bytes, %v", len(m), len(plain), err)
	}
}

// Sizes that the length prefix jumps over lead to the next larger one.
func TestPaddingToASizeThatCannotBe(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	ann := w.groups["ann"]
	bare, _, err := ann.Seal(nil, nil, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(bare, &m); err != nil {
		t.Fatal(err)
	}
	// With 16 383 bytes of ciphertext its length takes 2 bytes, with one more 4.
	last := len(bare) - len(m.Private.Ciphertext) + 16_383
	for wanted, want := range map[int]int{last: last, last + 1: last + 3, last + 2: last + 3, last + 3: last + 3} {
		got, _, err := ann.Seal(nil, nil, SealOptions{Policy: func(n int) int { return max(n, wanted) }})
		if err != nil || len(got) != want {
			t.Errorf("wanted %d, got %d, %v", wanted, len(got), err)
		}
	}
	// A size that cannot be reached results in no padding instead of a loop.
	got, _, err := ann.Seal(nil, nil, SealOptions{Policy: func(int) int { return last + 1 }})
	if err != nil || len(got) != len(bare) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, _, err := ann.Seal(nil, nil, SealOptions{Policy: func(int) int { return 1 << 40 }}); err != nil && !errors.Is(err, ErrTooLarge) {
		t.Errorf("a policy that wants a terabyte: %v", err)
	}
}

func TestPaddingHidesTheLength(t *testing.T) {
	w := newWorld(t, testSuite, "ann", "bob")
	short, next, err := w.groups["ann"].Seal([]byte("a"), []byte("aad"), SealOptions{Padding: 39})
	if err != nil {
		t.Fatal(err)
	}
	w.groups["ann"] = next
	long, _, err := next.Seal(bytes.Repeat([]byte("a"), 40), []byte("aad"), SealOptions{})
	if err != nil || len(short) != len(long) {
		t.Errorf("%d and %d bytes, %v", len(short), len(long), err)
	}
	w.reads("bob", short, "a")
	if _, _, err := next.Seal(nil, nil, SealOptions{Padding: -1}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("negative padding: %v", err)
	}
}
