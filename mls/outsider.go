package mls

import (
	"time"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// ExternalProposal makes a proposal by a party outside the group, an MLSMessage that is valid in
// one epoch of one group. sender is the index of key's owner in the group's ExternalSenders. c may
// be made with Add, Remove, ExternalPSK, ResumptionPSK, SetExtensions and Reinit. RFC 9420,
// section 12.1.8.
func ExternalProposal(groupID []byte, epoch uint64, sender uint32, key SignatureKey, c Change) ([]byte, error) {
	cipher, err := lookup(key.suite)
	if err != nil {
		return nil, err
	}
	body, err := c.body(cipher, groupID, time.Now(), LifetimeUnlimited) // the members check it
	if err != nil {
		return nil, err
	}
	return outsiderMessage(cipher, key, groupID, epoch, wire.Sender{Type: wire.ExternalSender, Index: sender}, body)
}

// NewMemberProposal makes a proposal to add the owner of kp, who keeps kp for the Welcome: an
// MLSMessage that is valid in one epoch of one group. Members refuse it unless their
// CredentialHook accepts it; members without a hook accept any client. RFC 9420, section
// 12.1.8.
func NewMemberProposal(groupID []byte, epoch uint64, kp *KeyPackage) ([]byte, error) {
	body := &wire.Proposal{Type: wire.AddProposal, Add: kp.public}
	return outsiderMessage(kp.suite, kp.key, groupID, epoch, wire.Sender{Type: wire.NewMemberProposalSender}, body)
}

// outsiderMessage signs a proposal from outside the group.
func outsiderMessage(s *suite.Suite, key SignatureKey, groupID []byte, epoch uint64, sender wire.Sender, body *wire.Proposal) ([]byte, error) {
	a := &wire.AuthenticatedContent{
		WireFormat: wire.PublicMessageFormat,
		Content:    wire.FramedContent{GroupID: groupID, Epoch: epoch, Sender: sender, ContentType: wire.ProposalContent, Proposal: body},
	}
	if err := framing.Sign(s, key.private, a, nil); err != nil {
		return nil, err
	}
	return wire.Marshal(&wire.Message{
		WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{Content: a.Content, Signature: a.Signature},
	}), nil
}
