package xrpc

import "encoding/binary"

// receiptLabel begins the signed bytes of a receipt, so that they cannot be mistaken for other
// signed data. The previous version had no term.
const receiptLabel = "WAXWING-RECEIPT-V2:"

// SignedContent returns the bytes that the sequencer signs with its P-256 key (ES256: ECDSA
// over their SHA-256, r and s of 32 bytes each): the label; the length of convoId and convoId;
// epoch and term; the hash of the commit; the length of sequencerDid and sequencerDid;
// issuedAt. Lengths have 32 bits, little-endian; numbers 64 bits, big-endian. CommitHash must
// have 32 bytes.
func (r *SequencerReceipt) SignedContent() []byte {
	b := make([]byte, 0, len(receiptLabel)+len(r.ConvoID)+len(r.CommitHash)+len(r.SequencerDID)+32)
	b = append(b, receiptLabel...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.ConvoID)))
	b = append(b, r.ConvoID...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(r.SequencerTerm))
	b = append(b, r.CommitHash...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.SequencerDID)))
	b = append(b, r.SequencerDID...)
	return binary.BigEndian.AppendUint64(b, uint64(r.IssuedAt))
}
