package mls_test

import (
	"errors"
	"fmt"
	"log"

	"waxwing.im/waxwing/mls"
)

const suite1 = mls.X25519_AES128GCM_SHA256_Ed25519

// newIdentity makes a client's identity; an application would save its key.
func newIdentity(name string) mls.Identity {
	key, err := mls.NewSignatureKey(suite1)
	if err != nil {
		log.Fatal(err)
	}
	return mls.Identity{Credential: []byte(name), Key: key}
}

// Ann starts a conversation with Bob, who is offline: she adds him with a KeyPackage that he
// published, and he joins with the Welcome.
func Example_directMessage() {
	// Bob, earlier: publish a KeyPackage, save it with its private keys.
	bobPackage, err := mls.NewKeyPackage(suite1, newIdentity("did:example:bob"), mls.KeyPackageOptions{})
	if err != nil {
		log.Fatal(err)
	}

	// The application verifies identities: this one prints and accepts them.
	hook := func(c mls.CredentialChange) error {
		fmt.Printf("is this %s? ok\n", c.New.Credential)
		return nil
	}

	// Ann: a group of one, then a commit that adds Bob.
	ann, err := mls.NewGroup(suite1, []byte("conversation 1"), newIdentity("did:example:ann"), mls.GroupOptions{Hook: hook})
	if err != nil {
		log.Fatal(err)
	}
	pending, err := ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message()}})
	if err != nil {
		log.Fatal(err)
	}
	// She sends pending.Message(), continues with Base, and applies the commit when the delivery
	// service has accepted it; then she sends pending.Welcome().
	ann = pending.Base()
	if ann, err = pending.Apply(ann); err != nil {
		log.Fatal(err)
	}

	// Bob: join.
	bob, err := mls.Join(pending.Welcome(), bobPackage, mls.JoinOptions{Hook: hook})
	if err != nil {
		log.Fatal(err)
	}

	// A message. Every operation returns the group to continue with.
	message, ann, err := ann.Seal([]byte("hello, Bob"), nil, mls.SealOptions{Padding: 54})
	if err != nil {
		log.Fatal(err)
	}
	got, err := bob.Process(message)
	if err != nil {
		log.Fatal(err)
	}
	bob = got.Group
	fmt.Printf("%s: %s\n", got.Sender.Credential, got.Plaintext)
	fmt.Println("both in epoch", ann.Epoch(), string(ann.EpochAuthenticator()) == string(bob.EpochAuthenticator()))

	// Output:
	// is this did:example:bob? ok
	// is this did:example:ann? ok
	// did:example:ann: hello, Bob
	// both in epoch 1 true
}

// Bob opens a message and saves the group. After a restart the saved group refuses the same
// message and opens the next one.
func ExampleLoadGroup() {
	bobPackage := publish("bob")
	ann := must(mls.NewGroup(suite1, []byte("club"), newIdentity("ann"), mls.GroupOptions{}))
	adding := must(ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message()}}))
	ann = must(adding.Apply(adding.Base()))
	bob := must(mls.Join(adding.Welcome(), bobPackage, mls.JoinOptions{}))

	first, ann, err := ann.Seal([]byte("first"), nil, mls.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}
	second, _, err := ann.Seal([]byte("second"), nil, mls.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}

	// State holds private keys: encrypt it at rest, with a key from the system's key store.
	bob = must(bob.Process(first)).Group
	key := [mls.StateKeyBytes]byte{}
	stored := must(mls.EncryptState(key, "club", must(bob.MarshalBinary())))

	// After a restart.
	bob = must(mls.LoadGroup(must(mls.DecryptState(key, "club", stored)), mls.LoadOptions{}))
	_, err = bob.Process(first)
	fmt.Println(errors.Is(err, mls.ErrReplay))
	fmt.Printf("%s\n", must(bob.Process(second)).Plaintext)

	// Output:
	// true
	// second
}
