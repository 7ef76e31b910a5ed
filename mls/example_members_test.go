package mls_test

import (
	"fmt"
	"log"
	"time"

	"waxwing.im/waxwing/mls"
)

// publish is called by a client ahead of time: it makes a KeyPackage, uploads
// Message, and keeps the rest until a Welcome uses it.
func publish(name string) *mls.KeyPackage {
	kp, err := mls.NewKeyPackage(suite1, newIdentity(name), mls.KeyPackageOptions{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
	})
	if err != nil {
		log.Fatal(err)
	}
	return kp
}

// must ends an example that goes wrong.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// names lists who is in a group.
func names(g *mls.Group) []string {
	var list []string
	for _, l := range g.Members() {
		list = append(list, string(l.Credential))
	}
	return list
}

// Ann adds Bob and Cay, later removes Bob; Cay, who only receives, follows. In a
// commit everything happens at once, and the members are in it only after it is applied.
func ExampleGroup_Commit() {
	bobPackage, cayPackage := publish("bob"), publish("cay")
	ann := must(mls.NewGroup(suite1, []byte("club"), newIdentity("ann"), mls.GroupOptions{}))

	// One commit adds both. The delivery service hands it to the members (there are
	// no others yet) and the Welcome to the newcomers.
	adding := must(ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message(), cayPackage.Message()}}))
	ann = must(adding.Apply(adding.Base()))
	bob := must(mls.Join(adding.Welcome(), bobPackage, mls.JoinOptions{}))
	cay := must(mls.Join(adding.Welcome(), cayPackage, mls.JoinOptions{}))
	fmt.Println(names(cay))

	// Members are removed by their place in the tree.
	var place uint32
	for _, l := range ann.Members() {
		if string(l.Credential) == "bob" {
			place = l.Index
		}
	}
	removing := must(ann.Commit(mls.CommitOptions{Remove: []uint32{place}}))
	ann = must(removing.Apply(removing.Base()))
	followed := must(cay.Process(removing.Message()))
	cay = followed.Group
	fmt.Printf("%s removed %s\n", followed.Sender.Credential, followed.Removed[0].Credential)

	// Bob learns it, and reads nothing of the new epoch.
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

// Ann and Bob commit at the same time. The delivery service takes one commit per
// epoch, here Bob's: Ann processes it, forgets hers, and tries again in the new
// epoch. Nothing has to be undone, because her group never changed.
func ExamplePendingCommit_Apply() {
	bobPackage, cayPackage := publish("bob"), publish("cay")
	ann := must(mls.NewGroup(suite1, []byte("club"), newIdentity("ann"), mls.GroupOptions{}))
	adding := must(ann.Commit(mls.CommitOptions{Add: [][]byte{bobPackage.Message()}}))
	ann = must(adding.Apply(adding.Base()))
	bob := must(mls.Join(adding.Welcome(), bobPackage, mls.JoinOptions{}))

	// Both go on with Base while they wait for the delivery service to decide.
	hers := must(ann.Commit(mls.CommitOptions{Add: [][]byte{cayPackage.Message()}}))
	ann = hers.Base()
	his := must(bob.Commit(mls.CommitOptions{}))
	bob = his.Base()

	// It delivers Bob's commit to both. Bob recognizes his own bytes and applies.
	bob = must(his.Apply(bob))
	ann = must(ann.Process(his.Message())).Group

	// Ann's commit is of an epoch that is over; its Welcome must not be used.
	_, err := hers.Apply(ann)
	fmt.Println(err)

	// What she wanted, she wants again.
	again := must(ann.Commit(mls.CommitOptions{Add: [][]byte{cayPackage.Message()}}))
	ann = must(again.Apply(again.Base()))
	bob = must(bob.Process(again.Message())).Group
	cay := must(mls.Join(again.Welcome(), cayPackage, mls.JoinOptions{}))
	fmt.Println(names(cay), string(ann.EpochAuthenticator()) == string(bob.EpochAuthenticator()))

	// Output:
	// message of another epoch: the pending commit is for epoch 1 (RFC 9420, section 12.4)
	// [ann bob cay] true
}

// Cay has no invitation, but a GroupInfo, which members upload after each commit:
// she adds herself by an external commit. The hook of every member decides whether
// she may.
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

	// When the delivery service delivers her commit back, Cay is in.
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
