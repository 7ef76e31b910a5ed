package mls_test

import (
	"fmt"
	"log"

	"waxwing.im/waxwing/mls"
)

// publish makes a KeyPackage. A client then uploads its Message, and keeps the rest until a
// Welcome uses it.
func publish(name string) *mls.KeyPackage {
	kp, err := mls.NewKeyPackage(suite1, newIdentity(name), mls.KeyPackageOptions{})
	if err != nil {
		log.Fatal(err)
	}
	return kp
}

// must ends an example on an error.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// names lists the members of a group.
func names(g *mls.Group) []string {
	var list []string
	for _, l := range g.Members() {
		list = append(list, string(l.Credential))
	}
	return list
}

// Ann adds Bob and Cay in one commit and removes Bob in another, which Cay processes.
func ExampleGroup_Commit() {
	bobPackage, cayPackage := publish("bob"), publish("cay")
	ann := must(mls.NewGroup(suite1, []byte("club"), newIdentity("ann"), mls.GroupOptions{}))

	// One commit adds both. The delivery service delivers it to the members (there are no others
	// yet) and the Welcome to the new ones.
	adding := must(ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message(), cayPackage.Message()}}))
	ann = must(adding.Apply(adding.Base()))
	bob := must(mls.Join(adding.Welcome(), bobPackage, mls.JoinOptions{}))
	cay := must(mls.Join(adding.Welcome(), cayPackage, mls.JoinOptions{}))
	fmt.Println(names(cay))

	// Members are removed by their leaf index.
	var index uint32
	for _, l := range ann.Members() {
		if string(l.Credential) == "bob" {
			index = l.Index
		}
	}
	removing := must(ann.Commit(mls.CommitOptions{Remove: []uint32{index}}))
	ann = must(removing.Apply(removing.Base()))
	followed := must(cay.Process(removing.Message()))
	cay = followed.Group
	fmt.Printf("%s removed %s\n", followed.Sender.Credential, followed.Removed[0].Credential)

	// Bob's group reports the removal, and cannot open messages of the new epoch.
	out := must(bob.Process(removing.Message()))
	fmt.Println("bob was removed:", out.SelfRemoved, out.Group.Removed())
	secret, _, err := ann.Seal([]byte("about bob's present"), nil, mls.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}
	_, err = out.Group.Process(secret)
	fmt.Println("bob cannot read it:", err != nil)
	fmt.Printf("cay can: %s\n", must(cay.Process(secret)).Plaintext)

	// Output:
	// [ann bob cay]
	// ann removed bob
	// bob was removed: true true
	// bob cannot read it: true
	// cay can: about bob's present
}

// Ann and Bob commit in the same epoch. The delivery service accepts one commit per epoch, here
// Bob's: Ann processes it, drops hers, and makes another one in the new epoch. Her group needs no
// repair, because it did not change.
func ExamplePendingCommit_Apply() {
	bobPackage, cayPackage := publish("bob"), publish("cay")
	ann := must(mls.NewGroup(suite1, []byte("club"), newIdentity("ann"), mls.GroupOptions{}))
	adding := must(ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message()}}))
	ann = must(adding.Apply(adding.Base()))
	bob := must(mls.Join(adding.Welcome(), bobPackage, mls.JoinOptions{}))

	// Both continue with Base until the delivery service has decided.
	hers := must(ann.Commit(mls.CommitOptions{Add: [][]byte{cayPackage.Message()}}))
	ann = hers.Base()
	his := must(bob.Commit(mls.CommitOptions{}))
	bob = his.Base()

	// It delivers Bob's commit to both. Bob recognizes his own bytes and applies.
	bob = must(his.Apply(bob))
	ann = must(ann.Process(his.Message())).Group

	// Ann's commit is of a past epoch; its Welcome must not be sent.
	_, err := hers.Apply(ann)
	fmt.Println(err)

	// She makes the same change in the new epoch.
	again := must(ann.Commit(mls.CommitOptions{Add: [][]byte{cayPackage.Message()}}))
	ann = must(again.Apply(again.Base()))
	bob = must(bob.Process(again.Message())).Group
	cay := must(mls.Join(again.Welcome(), cayPackage, mls.JoinOptions{}))
	fmt.Println(names(cay), string(ann.EpochAuthenticator()) == string(bob.EpochAuthenticator()))

	// Output:
	// message of another epoch: the pending commit is for epoch 1 (RFC 9420, section 12.4)
	// [ann bob cay] true
}

// Cay has a GroupInfo, which members upload after each commit, and joins by an external commit. The
// hooks of the members accept or refuse her.
func ExampleJoinExternal() {
	invited := func(c mls.CredentialChange) error {
		if c.Kind == mls.CredentialExternalCommit && string(c.New.Credential) != "cay" {
			return fmt.Errorf("%s is not on the list", c.New.Credential)
		}
		return nil
	}
	ann := must(mls.NewGroup(suite1, []byte("open club"), newIdentity("ann"), mls.GroupOptions{Hook: invited}))
	info := must(ann.GroupInfo())

	// Mallory has the GroupInfo too.
	intruding := must(mls.JoinExternal(info, newIdentity("mallory"), mls.ExternalJoinOptions{}))
	_, err := ann.Process(intruding.Message())
	fmt.Println(err)

	joining := must(mls.JoinExternal(info, newIdentity("cay"), mls.ExternalJoinOptions{}))
	out := must(ann.Process(joining.Message()))
	ann = out.Group
	fmt.Printf("%s joined\n", out.Added[0].Credential)

	// When the delivery service has delivered her commit back, Cay applies it.
	cay := must(joining.Apply(nil))
	message, _, err := cay.Seal([]byte("hello"), nil, mls.SealOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", must(ann.Process(message)).Plaintext)

	// Output:
	// credential refused (RFC 9420, section 5.3.1): mallory is not on the list
	// cay joined
	// hello
}
