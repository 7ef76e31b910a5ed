package xrpc

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestSignedContentOfReceipts holds the bytes fast: a receipt is checked by others.
func TestSignedContentOfReceipts(t *testing.T) {
	r := SequencerReceipt{ConvoID: "ab", Epoch: 3, SequencerTerm: 258, CommitHash: []byte(strings.Repeat("h", 32)), SequencerDID: "did:web:x", IssuedAt: 1 << 32}
	want := hex.EncodeToString([]byte("WAXWING-RECEIPT-V2:")) + "02000000" + "6162" + "0000000000000003" + "0000000000000102" + strings.Repeat("68", 32) +
		"09000000" + hex.EncodeToString([]byte("did:web:x")) + "0000000100000000"
	if got := hex.EncodeToString(r.SignedContent()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
