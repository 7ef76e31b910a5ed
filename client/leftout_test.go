package client

import (
	"errors"
	"slices"
	"testing"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// madePackage is a key package of p's account for p's device, by a key of the caller's, and
// changed before it is signed.
func (p *person) madePackage(key mls.SignatureKey, spoil func(*wire.KeyPackage)) []byte {
	t := p.w.t
	t.Helper()
	certificate, err := issueCertificate(p.account, p.options.DeviceID, key.Public(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	k, err := mls.NewKeyPackage(groupSuite, mls.Identity{Credential: []byte(p.did()), Key: key,
		Extensions: []mls.Extension{{Type: CertificateExtension, Data: certificate}}},
		mls.KeyPackageOptions{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if spoil == nil {
		return k.Message()
	}
	// The private key stands in front of its saved state's checksum.
	saved, err := key.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	private := privateKeyIn(t, saved, key.Public())
	s, err := suite.Lookup(suite.ID(groupSuite))
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(k.Message(), &m); err != nil {
		t.Fatal(err)
	}
	spoil(m.KeyPackage)
	if err := leaf.Sign(s, private, &m.KeyPackage.Leaf, nil, 0); err != nil {
		t.Fatal(err)
	}
	if m.KeyPackage.Signature, err = s.SignWithLabel(private, "KeyPackageTBS", m.KeyPackage.SignedContent()); err != nil {
		t.Fatal(err)
	}
	return wire.Marshal(&m)
}

// privateKeyIn finds the private key of public in a saved key.
func privateKeyIn(t testing.TB, saved, public []byte) []byte {
	t.Helper()
	s, err := suite.Lookup(suite.ID(groupSuite))
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 // of a long Ed25519 key
	for i := 0; i+size <= len(saved); i++ {
		if got, err := s.SignaturePublicKey(saved[i : i+size]); err == nil && slices.Equal(got, public) {
			return slices.Clone(saved[i : i+size])
		}
	}
	t.Fatal("there is no key in the saved state")
	return nil
}

// publishes makes raw packages the whole pool of p's device.
func (p *person) publishes(packages ...[]byte) {
	p.w.t.Helper()
	if err := p.WaitOnline(p.w.ctx); err != nil {
		p.w.t.Fatal(err)
	}
	// Behind the pool of the client's own.
	p.w.eventually("the pool is published", func() bool { return p.poolPublished() })
	var kept tokens
	if err := p.db.update(p.w.ctx, func(tx *tx) error { _, err := tx.Settings.Get("tokens", &kept); return err }); err != nil {
		p.w.t.Fatal(err)
	}
	var list []publication
	for _, raw := range packages {
		list = append(list, publication{message: raw})
	}
	if _, err := p.errands.publish(p.w.ctx, p.calls(), true, list); err != nil {
		p.w.t.Fatal(err)
	}
}

// poolPublished says whether the server has all packages of the home.
func (p *person) poolPublished() bool {
	all := p.packages()
	return len(all) > 0 && !slices.ContainsFunc(all, func(k home.KeyPackage) bool { return !k.IsPublished })
}

// A device whose package keeps a commit from being made is left out, whatever is wrong
// with the package: the others come in, and the application learns which and why. That
// holds for inviters at both doors.
func TestOffendersAreLeftOut(t *testing.T) {
	for _, door := range []string{"gateway", "xrpc"} {
		for name, offend := range map[string]func(eve, twin *person, bobs *wire.KeyPackage) []byte{
			"another device's signature key": func(eve, twin *person, _ *wire.KeyPackage) []byte {
				return twin.madePackage(eve.identity.Key, nil)
			},
			"another account's encryption key": func(_, twin *person, bobs *wire.KeyPackage) []byte {
				return twin.madePackage(twin.identity.Key, func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = bobs.Leaf.EncryptionKey })
			},
			"another account's init key": func(_, twin *person, bobs *wire.KeyPackage) []byte {
				return twin.madePackage(twin.identity.Key, func(k *wire.KeyPackage) { k.InitKey = bobs.InitKey })
			},
		} {
			t.Run(door+"/"+name, func(t *testing.T) {
				w := newWorld(t)
				w.overXRPC = func(who string) bool { return door == "xrpc" && who == "ann" }
				people := w.people("ann", "bob", "cid", "eve")
				ann, bob, cid, eve := people[0], people[1], people[2], people[3]
				twin := w.person("eve")
				twin.options.DeviceID = "twin-device"
				twin.open()
				bobs := bob.madePackage(bob.identity.Key, nil)
				var m wire.Message
				if err := wire.Unmarshal(bobs, &m); err != nil {
					t.Fatal(err)
				}
				bob.publishes(bobs)
				eve.publishes(eve.madePackage(eve.identity.Key, nil))
				twin.publishes(offend(eve, twin, m.KeyPackage))
				w.eventually("cid's pool is published", cid.poolPublished)
				room, err := ann.CreateRoom(w.ctx, bob.did(), cid.did(), eve.did())
				if err != nil {
					t.Fatal(err)
				}
				e := ann.nextType(EventLeftOut)
				var left *LeftOutError
				if !errors.As(e.Err(), &left) || !errors.Is(e.Err(), ErrKeyPackage) || left.Account != eve.did() || e.Conversation != room || left.Problem == "" {
					t.Fatalf("ann learns %+v, %v", e, e.Err())
				}
				if name != "another device's signature key" && left.Device != "twin-device" {
					t.Errorf("the device is %q", left.Device)
				}
				cid.nextType(EventJoined)
				// The keys of the others are not known here: they see the room in the list.
				w.eventually("all others are in", func() bool {
					c, err := ann.Conversation(w.ctx, room)
					return err == nil && len(c.Members) == 4 && len(c.Inviting) == 0
				})
				ann.says(room, "hello")
				cid.reads("hello")
			})
		}
	}
}
