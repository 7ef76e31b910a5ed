package mls

import (
	"bytes"
	"slices"
	"time"

	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/tree"
	"waxwing.im/waxwing/mls/wire"
)

// JoinOptions holds the parameters of Join.
type JoinOptions struct {
	Hook        CredentialHook
	PSK         PSKSource        // nil: no keys known
	Now         func() time.Time // time.Now if nil
	Padding     PaddingPolicy    // of PrivateMessages; nil: no padding
	Limits      Limits
	RatchetTree []byte // the encoded tree, if the Welcome does not carry it
	// Resume is the group that the new one continues: a reinitialized group, or the origin of a
	// branch. Without it, Welcomes into such groups are refused. RFC 9420, sections 11.2, 11.3.
	Resume *Group
	// SameMember reports whether two leaves, of Resume and of the new group, belong to the same
	// client; nil compares their credentials.
	SameMember func(was, is Leaf) bool
	// InUse reports whether the caller is a member of a group with that id already: the join is
	// then refused with ErrGroupInUse. nil: of none.
	InUse func(groupID []byte) bool
}

// Join joins the group to which welcome, an MLSMessage, invites the owner of kp. Afterwards kp
// must be deleted, unless it is one of last resort. Errors wrap ErrNotForUs if welcome does not
// name kp, ErrGroupInUse, ErrUnknownPSK, ErrRefused, ErrUnexpectedMessage, ErrMalformed,
// ErrDecrypt or an ErrInvalid variable. RFC 9420, section 12.4.3.1.
func Join(welcome []byte, kp *KeyPackage, o JoinOptions) (*Group, error) {
	var m wire.Message
	if err := wire.Unmarshal(welcome, &m); err != nil {
		return nil, err
	}
	if m.Welcome == nil {
		return nil, broken(ErrUnexpectedMessage, "12.4.3.1", "a Welcome is expected")
	}
	if m.Welcome.CipherSuite != kp.suite.ID() {
		return nil, broken(ErrInvalidWelcome, "12.4.3.1", "cipher suite %d instead of %d", m.Welcome.CipherSuite, kp.suite.ID())
	}
	secrets, err := kp.openSecrets(m.Welcome)
	if err != nil {
		return nil, err
	}
	defer clear(secrets.JoinerSecret)
	g := &Group{
		settings: newSettings(o.Hook, o.PSK, o.Now, o.Padding, o.Limits),
		suite:    kp.suite, key: kp.key, source: o.Resume,
	}
	if g.usage, err = continuedUsage(o.Resume, secrets.PSKs); err != nil {
		return nil, err
	}
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
	if err := checkUnused(o.InUse, g.context.GroupID); err != nil {
		return nil, err
	}
	if err := g.enter(kp, &info, secrets, psk, o.RatchetTree); err != nil {
		return nil, err
	}
	if g.usage != 0 {
		if err := checkContinued(o.Resume, g.usage, g, o.SameMember); err != nil {
			return nil, err
		}
	}
	g.source, g.usage = nil, 0
	if err := g.hook.checkMembers(g.tree, &g.context, g.own); err != nil {
		return nil, err
	}
	return g, nil
}

// checkUnused refuses a group id that is in use. RFC 9420, section 12.4.3.1.
func checkUnused(inUse func([]byte) bool, groupID []byte) error {
	if inUse != nil && inUse(bytes.Clone(groupID)) {
		return broken(ErrGroupInUse, "12.4.3.1", "group id %x", groupID)
	}
	return nil
}

// openSecrets finds and opens the secrets of a Welcome that are sealed to k.
func (k *KeyPackage) openSecrets(w *wire.Welcome) (*wire.GroupSecrets, error) {
	ref := k.Ref()
	i := slices.IndexFunc(w.Secrets, func(s wire.EncryptedGroupSecrets) bool { return bytes.Equal(s.NewMember, ref) })
	if i < 0 {
		return nil, broken(ErrNotForUs, "12.4.3.1", "no secrets for key package %x", ref)
	}
	opened, err := k.suite.DecryptWithLabel(k.initPrivate, "Welcome", w.EncryptedGroupInfo, w.Secrets[i].Secrets)
	if err != nil {
		return nil, err
	}
	defer clear(opened)
	secrets := new(wire.GroupSecrets)
	return secrets, wire.Unmarshal(opened, secrets)
}

// enter fills in g from a Welcome that names kp, and verifies all of it.
func (g *Group) enter(kp *KeyPackage, info *wire.GroupInfo, secrets *wire.GroupSecrets, psk, outOfBand []byte) error {
	var err error
	if g.tree, err = verifiedTree(g.suite, info, outOfBand, ErrInvalidWelcome); err != nil {
		return err
	}
	if g.own, err = ownLeaf(g.tree, kp); err != nil {
		return err
	}
	if info.Signer == g.own {
		return broken(ErrInvalidWelcome, "12.4.3.1", "signed by our own leaf %d", info.Signer)
	}
	inviter := newLeaf(info.Signer, g.tree.Leaf(info.Signer))
	g.inviter = &inviter
	g.begin(schedule.FromJoiner(g.suite, secrets.JoinerSecret, psk, &g.context))
	if !g.suite.MACEqual(g.confirmationTag, info.ConfirmationTag) {
		return broken(ErrInvalidTag, "12.4.3.1", "confirmation tag")
	}
	g.keys = tree.Keys{2 * g.own: {Private: kp.encryptionPrivate, Public: kp.public.Leaf.EncryptionKey}}
	if secrets.PathSecret == nil {
		return nil
	}
	defer clear(secrets.PathSecret.Secret)
	g.keys, err = g.tree.Learn(g.own, info.Signer, secrets.PathSecret.Secret, g.keys)
	return err
}

// ownLeaf returns the index of kp's leaf in t.
func ownLeaf(t *tree.Tree, kp *KeyPackage) (uint32, error) {
	own := wire.Marshal(&kp.public.Leaf)
	for i, n := range t.Leaves() {
		if bytes.Equal(n.SignatureKey, kp.public.Leaf.SignatureKey) && bytes.Equal(wire.Marshal(n), own) {
			return i, nil
		}
	}
	return 0, broken(ErrInvalidWelcome, "12.4.3.1", "our leaf is not in the tree")
}
