package xrpcserver

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// What MLS messages of transcripts consist of is derived from their names, so that they
// are the same in every run. They are what a server can see of a message: those of a
// group have no secrets, and no client could open them.

// derived returns 32 bytes that stand for a name.
func derived(name string) []byte {
	sum := sha256.Sum256([]byte("transcript " + name))
	return sum[:]
}

// madeSuite is the cipher suite of every transcript.
func madeSuite(t testing.TB) *suite.Suite {
	t.Helper()
	s, err := suite.Lookup(suite.X25519AES128GCM)
	must(t, err)
	return s
}

// madeKey returns the public half of the key by which a device of a person signs.
func madeKey(t testing.TB, device string) []byte {
	t.Helper()
	key, err := madeSuite(t).SignaturePublicKey(derived("signature of " + device))
	must(t, err)
	return key
}

// madeLeaf returns the leaf of a device, without what its place in a group adds.
func madeLeaf(t testing.TB, account, device string) wire.LeafNode {
	t.Helper()
	_, key, err := madeSuite(t).DeriveKeyPair(derived("encryption of " + device))
	must(t, err)
	return wire.LeafNode{EncryptionKey: key, SignatureKey: madeKey(t, device), Credential: wire.Credential{Type: wire.BasicCredential, Identity: []byte(account)},
		Capabilities: wire.Capabilities{Versions: []uint16{wire.MLS10}, CipherSuites: []uint16{suite.X25519AES128GCM}, Credentials: []uint16{wire.BasicCredential}}}
}

// madePackage returns a key package of a device, good for an hour from now, by itself and
// in a message. kind may be "last", for one that is handed out more than once, or "old",
// for one whose time is over.
func madePackage(t testing.TB, account, device, number, kind string, now time.Time) (bare, message, ref []byte) {
	t.Helper()
	s, name := madeSuite(t), device+" "+number
	_, initKey, err := s.DeriveKeyPair(derived("init of " + name))
	must(t, err)
	k := &wire.KeyPackage{Version: wire.MLS10, CipherSuite: suite.X25519AES128GCM, InitKey: initKey, Leaf: madeLeaf(t, account, device)}
	k.Leaf.Source = wire.KeyPackageLeaf
	k.Leaf.NotBefore, k.Leaf.NotAfter = uint64(now.Add(-2*time.Hour).Unix()), uint64(now.Add(time.Hour).Unix())
	switch kind {
	case "":
	case "last":
		k.Extensions = []wire.Extension{{Type: wire.LastResortExtension}}
		k.Leaf.Capabilities.Extensions = []uint16{wire.LastResortExtension}
	case "old":
		k.Leaf.NotAfter = uint64(now.Add(-time.Hour).Unix())
	default:
		t.Fatalf("no such kind of key package: %s", kind)
	}
	private := derived("signature of " + device)
	must(t, leaf.Sign(s, private, &k.Leaf, nil, 0))
	k.Signature, err = s.SignWithLabel(private, "KeyPackageTBS", k.SignedContent())
	must(t, err)
	bare = wire.Marshal(k)
	return bare, wire.Marshal(&wire.Message{WireFormat: wire.KeyPackageFormat, KeyPackage: k}), s.KeyPackageRef(bare)
}

// madePrivate returns a message of a group that only members can read, of 512 bytes.
func madePrivate(group string, epoch uint64, content wire.ContentType) []byte {
	message := func(bytes int) []byte {
		return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
			GroupID: []byte(group), Epoch: epoch, ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: make([]byte, bytes)}})
	}
	const any, size = 300, 512
	return message(any + size - len(message(any)))
}

// madeCommit returns a commit that everybody can read, by the member at a leaf. Label
// tells it from other commits of its epoch.
func madeCommit(group string, epoch uint64, label string) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content:   wire.FramedContent{GroupID: []byte(group), Epoch: epoch, Sender: wire.Sender{Type: wire.MemberSender}, ContentType: wire.CommitContent, Commit: &wire.Commit{}},
		Signature: derived("signature " + label), ConfirmationTag: derived("tag " + label), MembershipTag: derived("membership " + label)}})
}

// madeExternal returns an external commit, by which a device enters a group. It removes
// the leaves that are named by their index.
func madeExternal(t testing.TB, group string, epoch uint64, account, device string, removes ...string) []byte {
	t.Helper()
	commit := &wire.Commit{Proposals: []wire.ProposalOrRef{{Proposal: &wire.Proposal{Type: wire.ExternalInitProposal, ExternalInit: derived("kem " + device)}}},
		Path: &wire.UpdatePath{Leaf: madeLeaf(t, account, device)}}
	commit.Path.Leaf.Source = wire.CommitLeaf
	for _, text := range removes {
		index, err := strconv.ParseUint(text, 10, 32)
		must(t, err)
		commit.Proposals = append(commit.Proposals, wire.ProposalOrRef{Proposal: &wire.Proposal{Type: wire.RemoveProposal, Remove: uint32(index)}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.PublicMessageFormat, Public: &wire.PublicMessage{
		Content:   wire.FramedContent{GroupID: []byte(group), Epoch: epoch, Sender: wire.Sender{Type: wire.NewMemberCommitSender}, ContentType: wire.CommitContent, Commit: commit},
		Signature: derived("external " + device), ConfirmationTag: derived("tag of " + device)}})
}

// madeInfo returns a GroupInfo whose tree has the leaves of these devices, in order.
func madeInfo(t testing.TB, group string, epoch uint64, accountOf func(device string) string, devices ...string) []byte {
	t.Helper()
	var tree wire.RatchetTree
	for _, device := range devices {
		member := madeLeaf(t, accountOf(device), device)
		member.Source = wire.UpdateLeaf
		if len(tree) > 0 {
			tree = append(tree, nil) // the inner nodes are blank
		}
		tree = append(tree, &wire.Node{Leaf: &member})
	}
	info := infoOf(group, epoch)
	info.Extensions = []wire.Extension{{Type: wire.RatchetTreeExtension, Data: wire.Marshal(&tree)}}
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: info})
}

// madeWelcome returns a Welcome for the key packages with these refs.
func madeWelcome(refs ...[]byte) []byte {
	m := &wire.Welcome{CipherSuite: suite.X25519AES128GCM, EncryptedGroupInfo: []byte(strings.Repeat("g", 40))}
	for _, ref := range refs {
		m.Secrets = append(m.Secrets, wire.EncryptedGroupSecrets{NewMember: ref, Secrets: wire.HPKECiphertext{KEMOutput: []byte("k"), Ciphertext: []byte("c")}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: m})
}
