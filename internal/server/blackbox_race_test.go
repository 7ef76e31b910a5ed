package server_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"sync"

	"waxwing.im/waxwing/mls"
)

// sharedGroup is one group state that all committers of a check work from, as if each had
// it: the winner of an epoch advances it.
type sharedGroup struct {
	mu    sync.Mutex
	group *mls.Group // mu guards it
}

func newSharedGroup(did string, id []byte) (*sharedGroup, error) {
	key, err := mls.NewSignatureKey(mls.X25519_AES128GCM_SHA256_Ed25519)
	if err != nil {
		return nil, err
	}
	group, err := mls.NewGroup(mls.X25519_AES128GCM_SHA256_Ed25519, id, mls.Identity{Credential: []byte(did), Key: key},
		mls.GroupOptions{Hook: func(mls.CredentialChange) error { return nil }})
	return &sharedGroup{group: group}, err
}

// commit makes a commit in the newest epoch, and what moves the group on if it wins.
func (g *sharedGroup) commit() (message []byte, won func() error, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, err := g.group.Commit(mls.CommitOptions{Public: true})
	if err != nil {
		return nil, nil, err
	}
	g.group = p.Base()
	return p.Message(), func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.group = p.Group()
		return nil
	}, nil
}

// races has ten committers begin at epoch 0 at once, each trying again when it loses, and
// five senders beside them. Every epoch from 1 to 10 has one commit, whose record bears
// its number, and no message stands in an epoch that was not there yet.
func (b *blackBox) races() {
	const committers, senders = 10, 5
	convo := groupID("races")
	raw, err := hex.DecodeString(convo)
	if err != nil {
		b.t.Fatal(err)
	}
	group, err := newSharedGroup(b.did(b.name("ann")), raw)
	if err != nil {
		b.t.Fatal(err)
	}
	info, err := group.group.GroupInfo()
	if err != nil {
		b.t.Fatal(err)
	}
	members := []string{}
	for i := range committers + senders - 1 {
		members = append(members, b.did(b.name(fmt.Sprint("member ", i+1))))
	}
	b.ok("ann", "createConvo", object{"groupId": convo, "cipherSuite": suiteName, "initialMembers": members, "groupInfo": bytesOf(info),
		"welcomeMessage": bytesOf(randomBytes(256))})
	var mu sync.Mutex
	conflicts := 0
	b.all(committers+senders, func(i int) error {
		name := fmt.Sprint("member ", i)
		if i == 0 {
			name = "ann"
		}
		if i >= committers {
			return b.sendInPresent(name, convo)
		}
		for {
			message, won, err := group.commit()
			if err != nil {
				return err
			}
			status, body, err := b.try(b.name(name), chat+"commitGroupChange", object{"convoId": convo, "action": "commit",
				"commit": base64.StdEncoding.EncodeToString(message), "idempotencyKey": uuid()})
			switch {
			case err != nil:
				return err
			case status == 200:
				return won()
			case status != 409:
				return fmt.Errorf("commit: %d %s", status, body)
			}
			mu.Lock()
			conflicts++
			mu.Unlock()
		}
	})
	commits := b.messages("ann", convo, "&type=commit&limit=100")
	if len(commits) != committers {
		b.t.Fatalf("%d commits", len(commits))
	}
	for i, m := range commits {
		if epoch := m.(object)["epoch"].(float64); int(epoch) != i+1 {
			b.t.Errorf("commit %d opens epoch %v", i+1, epoch)
		}
	}
	epoch := 0.0
	all := b.messages("ann", convo, "&limit=100")
	for _, m := range all {
		at := m.(object)["epoch"].(float64)
		if m.(object)["messageType"] == "commit" {
			epoch = at
		}
		if at != epoch {
			b.t.Errorf("a message of epoch %v in epoch %v", at, epoch)
		}
	}
	if len(all) != committers+senders {
		b.t.Errorf("%d messages", len(all))
	}
	if state := b.ok("ann", "getGroupState", "convoId="+convo+"&include=epoch"); state["epoch"] != 10.0 {
		b.t.Errorf("the epoch is %v", state["epoch"])
	}
	b.t.Logf("%d commits lost a race", conflicts)
}

// sendInPresent sends a message in whatever epoch there is, however often that moves.
func (b *blackBox) sendInPresent(name, convo string) error {
	id := uuid()
	for {
		state, err := b.done(name, "getGroupState", "convoId="+convo+"&include=epoch")
		if err != nil {
			return err
		}
		status, body, err := b.try(b.name(name), chat+"sendMessage", object{"convoId": convo, "msgId": id, "ciphertext": bytesOf(randomBytes(512)),
			"epoch": state["epoch"], "paddedSize": 512})
		switch {
		case err != nil || status == 200:
			return err
		case status != 409:
			return fmt.Errorf("send: %d %s", status, body)
		}
	}
}
