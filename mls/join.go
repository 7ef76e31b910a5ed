package mls

import (
	"bytes"
	"slices"
	"time"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// JoinOptions say how a group is joined.
type JoinOptions struct {
	Hook        CredentialHook
	PSK         PSKSource        // nil knows none
	RatchetTree []byte           // the encoded tree, if the Welcome does not carry it
	Now         func() time.Time // time.Now if nil
}

// Join enters the group that welcome, an MLSMessage, lets kp into. ErrNotForUs is
// wrapped if it is for other packages. Afterwards kp must be deleted, unless it is
// one of last resort. Whether the group id is one we know is for the caller to
// compare. RFC 9420, section 12.4.3.1.
func Join(welcome []byte, kp *KeyPackage, o JoinOptions) (*Group, error) {
	var m wire.Message
	if err := wire.Unmarshal(welcome, &m); err != nil {
		return nil, err
	}
	if m.Welcome == nil {
		return nil, broken(ErrUnexpectedMessage, "12.4.3.1", "not a welcome")
	}
	if m.Welcome.CipherSuite != kp.suite.ID() {
		return nil, broken(ErrInvalidWelcome, "12.4.3.1", "cipher suite %d instead of %d", m.Welcome.CipherSuite, kp.suite.ID())
	}
	secrets, err := kp.openSecrets(m.Welcome)
	if err != nil {
		return nil, err
	}
	g := &Group{suite: kp.suite, hook: o.Hook, psk: o.PSK, now: clock(o.Now), key: kp.key}
	psk, err := g.pskSecret(secrets.PSKs)
	if err != nil {
		return nil, err
	}
	key, nonce := schedule.WelcomeKey(kp.suite, schedule.Welcome(kp.suite, secrets.JoinerSecret, psk))
	opened, err := kp.suite.Open(key, nonce, nil, m.Welcome.EncryptedGroupInfo)
	if err != nil {
		return nil, err
	}
	var info wire.GroupInfo
	if err := wire.Unmarshal(opened, &info); err != nil {
		return nil, err
	}
	g.context = info.Context
	if err := g.enter(kp, &info, secrets, psk, o.RatchetTree); err != nil {
		return nil, err
	}
	for _, l := range g.Members() {
		if l.Index == g.own {
			continue
		}
		if err := g.ask(CredentialChange{Kind: CredentialWelcome, New: &l, Epoch: g.context.Epoch}); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// openSecrets finds and opens what a Welcome says to k.
func (k *KeyPackage) openSecrets(w *wire.Welcome) (*wire.GroupSecrets, error) {
	ref := k.Ref()
	i := slices.IndexFunc(w.Secrets, func(s wire.EncryptedGroupSecrets) bool { return bytes.Equal(s.NewMember, ref) })
	if i < 0 {
		return nil, broken(ErrNotForUs, "12.4.3.1", "key package %x", ref)
	}
	opened, err := k.suite.DecryptWithLabel(k.initPrivate, "Welcome", w.EncryptedGroupInfo, w.Secrets[i].Secrets)
	if err != nil {
		return nil, err
	}
	secrets := new(wire.GroupSecrets)
	return secrets, wire.Unmarshal(opened, secrets)
}

// enter fills in g from a Welcome that names kp, verifying all of it.
func (g *Group) enter(kp *KeyPackage, info *wire.GroupInfo, secrets *wire.GroupSecrets, psk, outOfBand []byte) error {
	if g.context.Version != wire.MLS10 || g.context.CipherSuite != kp.suite.ID() {
		return broken(ErrInvalidWelcome, "12.4.3.1", "version or cipher suite of the group")
	}
	if err := g.enterTree(kp, info, outOfBand); err != nil {
		return err
	}
	signer := g.tree.Leaf(info.Signer)
	if signer == nil || info.Signer == g.own {
		return broken(ErrInvalidWelcome, "12.4.3.1", "signed by leaf %d", info.Signer)
	}
	if !g.suite.VerifyWithLabel(signer.SignatureKey, "GroupInfoTBS", info.SignedContent(), info.Signature) {
		return broken(ErrInvalidSignature, "12.4.3.1", "group info")
	}
	g.begin(schedule.FromJoiner(g.suite, secrets.JoinerSecret, psk, &g.context))
	confirmed := g.context.ConfirmedTranscriptHash
	g.confirmationTag = g.epoch.ConfirmationTag(g.suite, confirmed)
	if !g.suite.MACEqual(g.confirmationTag, info.ConfirmationTag) {
		return broken(ErrInvalidTag, "12.4.3.1", "confirmation tag")
	}
	g.interim = schedule.InterimTranscript(g.suite, confirmed, g.confirmationTag)
	g.keys = tree.Keys{2 * g.own: {Private: kp.encryptionPrivate, Public: kp.public.Leaf.EncryptionKey}}
	if secrets.PathSecret == nil {
		return nil
	}
	keys, err := g.tree.Learn(g.own, info.Signer, secrets.PathSecret.Secret, g.keys)
	g.keys = keys
	return err
}

// enterTree verifies the tree of a Welcome and finds our leaf in it.
func (g *Group) enterTree(kp *KeyPackage, info *wire.GroupInfo, outOfBand []byte) error {
	if err := checkExtensions(ErrInvalidWelcome, info.Extensions); err != nil {
		return err
	}
	if err := checkExtensions(ErrInvalidWelcome, g.context.Extensions); err != nil {
		return err
	}
	data, found := wire.FindExtension(info.Extensions, wire.RatchetTreeExtension)
	if !found {
		data = outOfBand
	}
	if data == nil {
		return broken(ErrInvalidWelcome, "12.4.3.3", "there is no ratchet tree")
	}
	var list wire.RatchetTree
	if err := wire.Unmarshal(data, &list); err != nil {
		return err
	}
	t, err := tree.Decode(g.suite, list)
	if err != nil {
		return err
	}
	if !bytes.Equal(t.Hash(), g.context.TreeHash) {
		return broken(ErrInvalidTree, "12.4.3.1", "the tree hash differs from the group's")
	}
	if err := t.Validate(g.context.GroupID, g.context.Extensions); err != nil {
		return err
	}
	own := wire.Marshal(&kp.public.Leaf)
	for i := range t.Size() {
		if n := t.Leaf(i); n != nil && bytes.Equal(n.SignatureKey, kp.public.Leaf.SignatureKey) && bytes.Equal(wire.Marshal(n), own) {
			g.tree, g.own = t, i
			return nil
		}
	}
	return broken(ErrInvalidWelcome, "12.4.3.1", "our leaf is not in the tree")
}
