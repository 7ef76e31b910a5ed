package mls_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"waxwing.im/waxwing/internal/testvectors"
	"waxwing.im/waxwing/mls"
)

type passiveClient struct {
	CipherSuite  uint16 `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  hexBytes `json:"psk_id"`
		PSK hexBytes
	} `json:"external_psks"`
	KeyPackage     hexBytes `json:"key_package"`
	SignaturePriv  hexBytes `json:"signature_priv"`
	EncryptionPriv hexBytes `json:"encryption_priv"`
	InitPriv       hexBytes `json:"init_priv"`
	Welcome        hexBytes
	RatchetTree    hexBytes `json:"ratchet_tree"`
	Authenticator  hexBytes `json:"initial_epoch_authenticator"`
	Epochs         []struct {
		Proposals     []hexBytes
		Commit        hexBytes
		Authenticator hexBytes `json:"epoch_authenticator"`
	}
}

// follow joins and processes as a member that never sends, saving and loading its
// state now and then.
func (e *passiveClient) follow() error {
	kp, err := mls.ImportKeyPackage(e.KeyPackage, e.SignaturePriv, e.EncryptionPriv, e.InitPriv)
	if err != nil {
		return err
	}
	source := func(id []byte) ([]byte, error) {
		for _, p := range e.ExternalPSKs {
			if string(p.ID) == string(id) {
				return p.PSK, nil
			}
		}
		return nil, errors.New("not in the vector")
	}
	// The packages of the vectors never expire.
	limits := mls.Limits{Lifetime: mls.LifetimeUnlimited}
	g, err := mls.Join(e.Welcome, kp, mls.JoinOptions{PSK: source, RatchetTree: e.RatchetTree, Limits: limits})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := equal("initial epoch authenticator", g.EpochAuthenticator(), e.Authenticator); err != nil {
		return err
	}
	for n, epoch := range e.Epochs {
		for _, message := range append(epoch.Proposals, epoch.Commit) {
			if n%20 < 2 { // often enough to meet every kind of message
				state, err := g.MarshalBinary()
				if err != nil {
					return err
				}
				if g, err = mls.LoadGroup(state, mls.LoadOptions{PSK: source, Limits: limits}); err != nil {
					return fmt.Errorf("epoch %d: %w", n, err)
				}
			}
			processed, err := g.Process(message)
			if err != nil {
				return fmt.Errorf("epoch %d: %w", n, err)
			}
			g = processed.Group
		}
		if err := equal(fmt.Sprintf("authenticator after epoch %d", n), g.EpochAuthenticator(), epoch.Authenticator); err != nil {
			return err
		}
	}
	return nil
}

func runPassiveClient(t *testing.T, file string) tally {
	t.Helper()
	count := tally{file: file}
	for i, e := range readVectors[passiveClient](t, file) {
		if count.lookup(e.CipherSuite) != nil {
			count.done(t, e.follow(), i)
		}
	}
	count.log(t)
	return count
}

func TestVectorsPassiveClient(t *testing.T) {
	for _, file := range []string{"passive-client-welcome.json", "passive-client-handling-commit.json", "passive-client-random.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			runPassiveClient(t, file)
		})
	}
}

// The cases of the MLS working group's interop runner: what its clients saw in groups of
// clients of several implementations.
func TestVectorsPassiveInterop(t *testing.T) {
	files := testvectors.Names(t, "mlswg/passive")
	counts := make([]tally, len(files))
	t.Run("files", func(t *testing.T) {
		for i, file := range files {
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				counts[i] = runPassiveClient(t, "passive/"+file)
			})
		}
	})
	passed, unsupported := 0, 0
	for _, count := range counts {
		passed += count.passed
		unsupported += count.unsupported
		for reason := range count.reasons {
			if !strings.HasPrefix(reason, "cipher suite ") {
				t.Errorf("%s: unsupported, %s", count.file, reason)
			}
		}
	}
	testvectors.Published(t, "mlswg/passive", passed, unsupported)
}
