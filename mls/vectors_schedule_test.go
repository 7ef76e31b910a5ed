package mls_test

import (
	"errors"
	"fmt"
	"testing"

	"waxwing.im/waxwing/mls/framing"
	"waxwing.im/waxwing/mls/schedule"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

type keySchedule struct {
	CipherSuite       uint16   `json:"cipher_suite"`
	GroupID           hexBytes `json:"group_id"`
	InitialInitSecret hexBytes `json:"initial_init_secret"`
	Epochs            []struct {
		CommitSecret            hexBytes `json:"commit_secret"`
		PSKSecret               hexBytes `json:"psk_secret"`
		ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
		TreeHash                hexBytes `json:"tree_hash"`
		GroupContext            hexBytes `json:"group_context"`
		JoinerSecret            hexBytes `json:"joiner_secret"`
		WelcomeSecret           hexBytes `json:"welcome_secret"`
		InitSecret              hexBytes `json:"init_secret"`
		SenderDataSecret        hexBytes `json:"sender_data_secret"`
		EncryptionSecret        hexBytes `json:"encryption_secret"`
		ExporterSecret          hexBytes `json:"exporter_secret"`
		EpochAuthenticator      hexBytes `json:"epoch_authenticator"`
		ExternalSecret          hexBytes `json:"external_secret"`
		ConfirmationKey         hexBytes `json:"confirmation_key"`
		MembershipKey           hexBytes `json:"membership_key"`
		ResumptionPSK           hexBytes `json:"resumption_psk"`
		ExternalPub             hexBytes `json:"external_pub"`
		Exporter                struct {
			Label           string
			Context, Secret hexBytes
			Length          int
		}
	}
}

func TestVectorsKeySchedule(t *testing.T) {
	count := tally{file: "key-schedule.json"}
	for i, e := range readVectors[keySchedule](t, count.file) {
		if s := count.lookup(e.CipherSuite); s != nil {
			count.done(t, checkKeySchedule(s, &e), i)
		}
	}
	count.log(t)
}

func checkKeySchedule(s *suite.Suite, e *keySchedule) error {
	init := []byte(e.InitialInitSecret)
	for n, want := range e.Epochs {
		context := &wire.GroupContext{
			Version: wire.MLS10, CipherSuite: e.CipherSuite, GroupID: e.GroupID, Epoch: uint64(n),
			TreeHash: want.TreeHash, ConfirmedTranscriptHash: want.ConfirmedTranscriptHash,
		}
		joiner := schedule.Joiner(s, init, want.CommitSecret, context)
		got := schedule.FromJoiner(s, joiner, want.PSKSecret, context)
		exported, exportErr := got.Export(s, want.Exporter.Label, want.Exporter.Context, want.Exporter.Length)
		public, publicErr := got.ExternalPub(s)
		err := errors.Join(exportErr, publicErr,
			equal("group_context", wire.Marshal(context), want.GroupContext),
			equal("joiner_secret", joiner, want.JoinerSecret),
			equal("welcome_secret", schedule.Welcome(s, joiner, want.PSKSecret), want.WelcomeSecret),
			equal("init_secret", got.Init, want.InitSecret),
			equal("sender_data_secret", got.SenderData, want.SenderDataSecret),
			equal("encryption_secret", got.Encryption, want.EncryptionSecret),
			equal("exporter_secret", got.Exporter, want.ExporterSecret),
			equal("epoch_authenticator", got.Authenticator, want.EpochAuthenticator),
			equal("external_secret", got.External, want.ExternalSecret),
			equal("confirmation_key", got.Confirmation, want.ConfirmationKey),
			equal("membership_key", got.Membership, want.MembershipKey),
			equal("resumption_psk", got.Resumption, want.ResumptionPSK),
			equal("external_pub", public, want.ExternalPub),
			equal("exporter", exported, want.Exporter.Secret),
		)
		if err != nil {
			return fmt.Errorf("epoch %d: %w", n, err)
		}
		init = got.Init
	}
	return nil
}

func TestVectorsPSKSecret(t *testing.T) {
	count := tally{file: "psk_secret.json"}
	for i, e := range readVectors[struct {
		CipherSuite uint16 `json:"cipher_suite"`
		PSKs        []struct {
			ID    hexBytes `json:"psk_id"`
			PSK   hexBytes `json:"psk"`
			Nonce hexBytes `json:"psk_nonce"`
		} `json:"psks"`
		PSKSecret hexBytes `json:"psk_secret"`
	}](t, count.file) {
		s := count.lookup(e.CipherSuite)
		if s == nil {
			continue
		}
		var psks []schedule.PSK
		for _, p := range e.PSKs {
			psks = append(psks, schedule.PSK{ID: wire.PreSharedKeyID{Kind: wire.ExternalPSK, ID: p.ID, Nonce: p.Nonce}, Secret: p.PSK})
		}
		count.done(t, equal("psk_secret", schedule.PSKSecret(s, psks), e.PSKSecret), i)
	}
	count.log(t)
}

type secretTree struct {
	CipherSuite      uint16   `json:"cipher_suite"`
	EncryptionSecret hexBytes `json:"encryption_secret"`
	SenderData       struct {
		Secret     hexBytes `json:"sender_data_secret"`
		Ciphertext hexBytes
		Key, Nonce hexBytes
	} `json:"sender_data"`
	Leaves [][]struct {
		Generation       uint32
		ApplicationKey   hexBytes `json:"application_key"`
		ApplicationNonce hexBytes `json:"application_nonce"`
		HandshakeKey     hexBytes `json:"handshake_key"`
		HandshakeNonce   hexBytes `json:"handshake_nonce"`
	}
}

func TestVectorsSecretTree(t *testing.T) {
	count := tally{file: "secret-tree.json"}
	for i, e := range readVectors[secretTree](t, count.file) {
		if s := count.lookup(e.CipherSuite); s != nil {
			count.done(t, checkSecretTree(s, &e), i)
		}
	}
	count.log(t)
}

func checkSecretTree(s *suite.Suite, e *secretTree) error {
	size := uint32(1)
	for size < uint32(len(e.Leaves)) {
		size *= 2
	}
	key, nonce := framing.SenderDataKey(s, e.SenderData.Secret, e.SenderData.Ciphertext)
	if err := errors.Join(equal("sender data key", key, e.SenderData.Key), equal("sender data nonce", nonce, e.SenderData.Nonce)); err != nil {
		return err
	}
	secrets := schedule.NewSecretTree(s, size, e.EncryptionSecret)
	for leaf, generations := range e.Leaves {
		for _, want := range generations {
			application, next, err := secrets.Take(uint32(leaf), schedule.Application, want.Generation)
			if err != nil {
				return err
			}
			handshake, next, err := next.Take(uint32(leaf), schedule.Handshake, want.Generation)
			if err != nil {
				return err
			}
			if _, _, err := next.Take(uint32(leaf), schedule.Handshake, want.Generation); !errors.Is(err, schedule.ErrUsed) {
				return fmt.Errorf("a key can be taken twice: %v", err)
			}
			secrets = next
			err = errors.Join(
				equal("application_key", application.Key, want.ApplicationKey),
				equal("application_nonce", application.Nonce, want.ApplicationNonce),
				equal("handshake_key", handshake.Key, want.HandshakeKey),
				equal("handshake_nonce", handshake.Nonce, want.HandshakeNonce),
			)
			if err != nil {
				return fmt.Errorf("leaf %d, generation %d: %w", leaf, want.Generation, err)
			}
		}
	}
	return nil
}

func TestVectorsTranscriptHashes(t *testing.T) {
	count := tally{file: "transcript-hashes.json"}
	for i, e := range readVectors[struct {
		CipherSuite          uint16   `json:"cipher_suite"`
		ConfirmationKey      hexBytes `json:"confirmation_key"`
		AuthenticatedContent hexBytes `json:"authenticated_content"`
		InterimBefore        hexBytes `json:"interim_transcript_hash_before"`
		ConfirmedAfter       hexBytes `json:"confirmed_transcript_hash_after"`
		InterimAfter         hexBytes `json:"interim_transcript_hash_after"`
	}](t, count.file) {
		s := count.lookup(e.CipherSuite)
		if s == nil {
			continue
		}
		var a wire.AuthenticatedContent
		err := wire.Unmarshal(e.AuthenticatedContent, &a)
		if err == nil {
			confirmed := schedule.ConfirmedTranscript(s, e.InterimBefore, &a)
			epoch := schedule.Epoch{Confirmation: e.ConfirmationKey}
			err = errors.Join(
				equal("confirmed", confirmed, e.ConfirmedAfter),
				equal("confirmation tag", epoch.ConfirmationTag(s, confirmed), a.ConfirmationTag),
				equal("interim", schedule.InterimTranscript(s, confirmed, a.ConfirmationTag), e.InterimAfter),
			)
		}
		count.done(t, err, i)
	}
	count.log(t)
}

type messageProtection struct {
	CipherSuite             uint16   `json:"cipher_suite"`
	GroupID                 hexBytes `json:"group_id"`
	Epoch                   uint64
	TreeHash                hexBytes `json:"tree_hash"`
	ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
	SignaturePriv           hexBytes `json:"signature_priv"`
	SignaturePub            hexBytes `json:"signature_pub"`
	EncryptionSecret        hexBytes `json:"encryption_secret"`
	SenderDataSecret        hexBytes `json:"sender_data_secret"`
	MembershipKey           hexBytes `json:"membership_key"`
	Proposal                hexBytes
	ProposalPriv            hexBytes `json:"proposal_priv"`
	ProposalPub             hexBytes `json:"proposal_pub"`
	Commit                  hexBytes
	CommitPriv              hexBytes `json:"commit_priv"`
	CommitPub               hexBytes `json:"commit_pub"`
	Application             hexBytes
	ApplicationPriv         hexBytes `json:"application_priv"`
}

func TestVectorsMessageProtection(t *testing.T) {
	count := tally{file: "message-protection.json"}
	for i, e := range readVectors[messageProtection](t, count.file) {
		s := count.lookup(e.CipherSuite)
		if s == nil {
			continue
		}
		count.done(t, errors.Join(
			e.checkPrivate(s, e.ProposalPriv, e.Proposal), e.checkPrivate(s, e.CommitPriv, e.Commit), e.checkPrivate(s, e.ApplicationPriv, e.Application),
			e.checkPublic(s, e.ProposalPub, e.Proposal), e.checkPublic(s, e.CommitPub, e.Commit),
		), i)
	}
	count.log(t)
}

func (e *messageProtection) context() *wire.GroupContext {
	return &wire.GroupContext{
		Version: wire.MLS10, CipherSuite: e.CipherSuite, GroupID: e.GroupID, Epoch: e.Epoch,
		TreeHash: e.TreeHash, ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
	}
}

// body encodes what content carries.
func body(content *wire.FramedContent) []byte {
	switch content.ContentType {
	case wire.ProposalContent:
		return wire.Marshal(content.Proposal)
	case wire.CommitContent:
		return wire.Marshal(content.Commit)
	}
	return content.Application
}

func (e *messageProtection) openPrivate(s *suite.Suite, raw []byte) (*wire.AuthenticatedContent, error) {
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	data, err := framing.OpenSender(s, e.SenderDataSecret, m.Private)
	if err != nil {
		return nil, err
	}
	kind := schedule.Handshake
	if m.Private.ContentType == wire.ApplicationContent {
		kind = schedule.Application
	}
	key, _, err := schedule.NewSecretTree(s, 2, e.EncryptionSecret).Take(data.Leaf, kind, data.Generation)
	if err != nil {
		return nil, err
	}
	a, err := framing.Open(s, key, data, m.Private)
	if err != nil {
		return nil, err
	}
	return a, framing.Verify(s, e.SignaturePub, a, e.context())
}

func (e *messageProtection) checkPrivate(s *suite.Suite, raw, want []byte) error {
	a, err := e.openPrivate(s, raw)
	if err != nil {
		return err
	}
	if err := errors.Join(equal("private content", body(&a.Content), want), framing.Sign(s, e.SignaturePriv, a, e.context())); err != nil {
		return err
	}
	kind := schedule.Handshake
	if a.Content.ContentType == wire.ApplicationContent {
		kind = schedule.Application
	}
	key, _, err := schedule.NewSecretTree(s, 2, e.EncryptionSecret).Next(a.Content.Sender.Index, kind)
	if err != nil {
		return err
	}
	sealed, err := framing.Private(s, e.SenderDataSecret, key, a.Content.Sender.Index, a, 10)
	if err != nil {
		return err
	}
	again, err := e.openPrivate(s, wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: sealed}))
	if err != nil {
		return err
	}
	return equal("sealed again", body(&again.Content), want)
}

func (e *messageProtection) checkPublic(s *suite.Suite, raw, want []byte) error {
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		return err
	}
	a := m.Public.Authenticated()
	again := framing.Public(s, e.MembershipKey, a, e.context())
	return errors.Join(
		framing.CheckTag(s, e.MembershipKey, m.Public, e.context()),
		framing.Verify(s, e.SignaturePub, a, e.context()),
		equal("public content", body(&a.Content), want),
		equal("membership tag", again.MembershipTag, m.Public.MembershipTag),
	)
}

func TestVectorsWelcome(t *testing.T) {
	count := tally{file: "welcome.json"}
	for i, e := range readVectors[struct {
		CipherSuite uint16   `json:"cipher_suite"`
		InitPriv    hexBytes `json:"init_priv"`
		KeyPackage  hexBytes `json:"key_package"`
		SignerPub   hexBytes `json:"signer_pub"`
		Welcome     hexBytes
	}](t, count.file) {
		if s := count.lookup(e.CipherSuite); s != nil {
			count.done(t, checkWelcome(s, e.InitPriv, e.KeyPackage, e.SignerPub, e.Welcome), i)
		}
	}
	count.log(t)
}

func checkWelcome(s *suite.Suite, initPriv, keyPackage, signer, raw []byte) error {
	var pack, message wire.Message
	if err := errors.Join(wire.Unmarshal(keyPackage, &pack), wire.Unmarshal(raw, &message)); err != nil {
		return err
	}
	w := message.Welcome
	ref := s.KeyPackageRef(wire.Marshal(pack.KeyPackage))
	for _, sealed := range w.Secrets {
		if string(sealed.NewMember) != string(ref) {
			continue
		}
		opened, err := s.DecryptWithLabel(initPriv, "Welcome", w.EncryptedGroupInfo, sealed.Secrets)
		if err != nil {
			return err
		}
		var secrets wire.GroupSecrets
		if err := wire.Unmarshal(opened, &secrets); err != nil {
			return err
		}
		key, nonce := schedule.WelcomeKey(s, schedule.Welcome(s, secrets.JoinerSecret, schedule.NoPSK()))
		opened, err = s.Open(key, nonce, nil, w.EncryptedGroupInfo)
		if err != nil {
			return err
		}
		var info wire.GroupInfo
		if err := wire.Unmarshal(opened, &info); err != nil {
			return err
		}
		if !s.VerifyWithLabel(signer, "GroupInfoTBS", info.SignedContent(), info.Signature) {
			return errors.New("the signature of the group info is wrong")
		}
		epoch := schedule.FromJoiner(s, secrets.JoinerSecret, schedule.NoPSK(), &info.Context)
		return equal("confirmation tag", epoch.ConfirmationTag(s, info.Context.ConfirmedTranscriptHash), info.ConfirmationTag)
	}
	return errors.New("the welcome is for somebody else")
}
