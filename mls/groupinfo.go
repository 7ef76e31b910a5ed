package mls

import (
	"bytes"
	"fmt"

	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// GroupInfoOptions selects parts to leave out of a GroupInfo.
type GroupInfoOptions struct {
	WithoutTree        bool // no ratchet_tree: joiners need ExternalJoinOptions.RatchetTree
	WithoutExternalPub bool // no external_pub: external joins are impossible
}

// GroupInfo returns the description of the group in this epoch for clients that join by
// external commit: an MLSMessage with the extensions external_pub and ratchet_tree. RFC 9420,
// section 12.4.3.
func (g *Group) GroupInfo() ([]byte, error) { return g.GroupInfoWith(GroupInfoOptions{}) }

// GroupInfoWith returns a GroupInfo without the parts that o leaves out. Errors wrap ErrRemoved
// or ErrReinitialized. RFC 9420, section 12.4.3.
func (g *Group) GroupInfoWith(o GroupInfoOptions) ([]byte, error) {
	if err := g.checkOpen("12.4.3"); err != nil {
		return nil, err
	}
	info, err := g.groupInfo(o)
	if err != nil {
		return nil, err
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: info}), nil
}

// RatchetTree returns the encoded public tree, for JoinOptions and ExternalJoinOptions.
// RFC 9420, section 12.4.3.3.
func (g *Group) RatchetTree() []byte {
	list := g.tree.Wire()
	return wire.Marshal(&list)
}

// groupInfo builds a GroupInfo and signs it with our key.
func (g *Group) groupInfo(o GroupInfoOptions) (*wire.GroupInfo, error) {
	info := &wire.GroupInfo{Context: g.context, ConfirmationTag: g.confirmationTag, Signer: g.own}
	if !o.WithoutExternalPub {
		public, err := g.epoch.ExternalPub(g.suite)
		if err != nil {
			return nil, err
		}
		info.Extensions = append(info.Extensions, wire.Extension{Type: wire.ExternalPubExtension, Data: wire.Marshal(&wire.ExternalPub{Key: public})})
	}
	if !o.WithoutTree {
		info.Extensions = append(info.Extensions, wire.Extension{Type: wire.RatchetTreeExtension, Data: g.RatchetTree()})
	}
	var err error
	info.Signature, err = g.suite.SignWithLabel(g.key.private, "GroupInfoTBS", info.SignedContent())
	return info, err
}

// externalPub returns the key with which info lets others join. ts-mls writes the key without
// its length: bare bytes that are a valid key are accepted. RFC 9420, section 12.4.3.2.
func externalPub(s *suite.Suite, info *wire.GroupInfo) ([]byte, error) {
	data, found := wire.FindExtension(info.Extensions, wire.ExternalPubExtension)
	if !found {
		return nil, broken(ErrInvalidGroupInfo, "12.4.3.2", "there is no external_pub")
	}
	var public wire.ExternalPub
	if err := wire.Unmarshal(data, &public); err == nil {
		return public.Key, s.CheckPublicKey(public.Key)
	}
	if err := s.CheckPublicKey(data); err != nil {
		return nil, fmt.Errorf("%w: external_pub: %w", ErrInvalidGroupInfo, err)
	}
	return bytes.Clone(data), nil
}

// verifiedTree returns the ratchet tree of info after verifying it and the signature of info.
// kind is the error for faults of info itself. RFC 9420, sections 12.4.3.1 and 12.4.3.3.
func verifiedTree(s *suite.Suite, info *wire.GroupInfo, outOfBand []byte, kind error) (*tree.Tree, error) {
	if info.Context.Version != wire.MLS10 || info.Context.CipherSuite != s.ID() {
		return nil, broken(kind, "12.4.3.1", "version %d, cipher suite %d", info.Context.Version, info.Context.CipherSuite)
	}
	if err := checkExtensions(kind, info.Extensions); err != nil {
		return nil, err
	}
	if err := checkContextExtensions(kind, info.Context.Extensions); err != nil {
		return nil, err
	}
	data, found := wire.FindExtension(info.Extensions, wire.RatchetTreeExtension)
	if !found {
		data = outOfBand
	}
	if data == nil {
		return nil, broken(kind, "12.4.3.3", "there is no ratchet tree")
	}
	var list wire.RatchetTree
	if err := wire.Unmarshal(data, &list); err != nil {
		return nil, err
	}
	t, err := tree.Decode(s, list)
	if err != nil {
		return nil, err
	}
	if err := t.CheckForm(); err != nil {
		return nil, err
	}
	if !bytes.Equal(t.Hash(), info.Context.TreeHash) {
		return nil, broken(ErrInvalidTree, "12.4.3.1", "the tree hash differs from that of the group context")
	}
	if err := t.Validate(info.Context.GroupID, info.Context.Extensions); err != nil {
		return nil, err
	}
	signer := t.Leaf(info.Signer)
	if signer == nil {
		return nil, broken(kind, "12.4.3.1", "the signer is leaf %d, which is blank", info.Signer)
	}
	if !s.VerifyWithLabel(signer.SignatureKey, "GroupInfoTBS", info.SignedContent(), info.Signature) {
		return nil, broken(ErrInvalidSignature, "12.4.3.1", "group info")
	}
	return t, nil
}
