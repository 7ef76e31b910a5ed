package mls_test

import (
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

func TestVectorsDeserialization(t *testing.T) {
	count := tally{file: "deserialization.json"}
	for i, e := range readVectors[struct {
		Header hexBytes `json:"vlbytes_header"`
		Length int      `json:"length"`
	}](t, count.file) {
		got, _, err := wire.VectorLength(e.Header)
		if err == nil && got != e.Length {
			err = fmt.Errorf("got length %d, want %d", got, e.Length)
		}
		count.done(t, err, i)
	}
	count.log(t)
}

// proposalBody wraps a proposal of a known type, which some vectors hold without
// its type.
func proposalBody(kind wire.ProposalType, body []byte) []byte {
	return append([]byte{byte(kind >> 8), byte(kind)}, body...)
}

func TestVectorsMessages(t *testing.T) {
	count := tally{file: "messages.json"}
	for i, e := range readVectors[map[string]hexBytes](t, count.file) {
		for field, raw := range e {
			count.done(t, roundTrip(field, raw), i)
		}
	}
	count.log(t)
}

// roundTrip decodes a field of messages.json and encodes it again.
func roundTrip(field string, raw []byte) error {
	proposals := map[string]wire.ProposalType{
		"add_proposal": wire.AddProposal, "update_proposal": wire.UpdateProposal,
		"remove_proposal": wire.RemoveProposal, "pre_shared_key_proposal": wire.PSKProposal,
		"re_init_proposal": wire.ReInitProposal, "external_init_proposal": wire.ExternalInitProposal,
		"group_context_extensions_proposal": wire.GroupContextExtensionsProposal,
	}
	var v wire.Struct = new(wire.Message)
	message := true
	switch field {
	case "ratchet_tree":
		v, message = new(wire.RatchetTree), false
	case "group_secrets":
		v, message = new(wire.GroupSecrets), false
	case "commit":
		v, message = new(wire.Commit), false
	default:
		if kind := proposals[field]; kind != 0 {
			v, message = new(wire.Proposal), false
			raw = proposalBody(kind, raw)
		}
	}
	if err := wire.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	if err := equal(field, wire.Marshal(v), raw); err != nil {
		return err
	}
	for _, bad := range [][]byte{append(append([]byte{}, raw...), 0), raw[:len(raw)-1]} {
		if err := wire.Unmarshal(bad, v); err == nil {
			return fmt.Errorf("%s: accepted with %d bytes instead of %d", field, len(bad), len(raw))
		}
	}
	if !message {
		return nil
	}
	_, err := wire.ParseHeader(raw)
	return err
}
