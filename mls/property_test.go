package mls

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

var operationsFlag = flag.Int("operations", 800, "how many operations TestRandomGroups carries out")

// groupExtension is a type of GroupContext extension that all peers understand.
const groupExtension uint16 = 0xf3b7

// peersMax bounds the members that are added; two concurrent Adds can make it 24.
const peersMax = 22

// peer is a client of the random group: in it, not yet in it, or not any more.
type peer struct {
	name      string
	id        Identity
	group     *Group // nil before it joined
	pending   *PendingCommit
	cursor    int             // handshakes of the log that it has seen
	inbox     []*letter       // messages on their way to it, in no order
	joined    uint64          // epoch in which it joined
	keys      map[string]bool // with which it was a member
	published *KeyPackage     // its current key package
}

// letter is an application message.
type letter struct {
	from, text string
	epoch      uint64
	message    []byte
}

// logged is an entry of the delivery service's log.
type logged struct {
	from     string
	message  []byte
	isCommit bool
}

// service is a delivery service: it orders handshakes, accepts one commit per epoch, loses and
// reorders application messages, and stores the newest GroupInfo.
type service struct {
	t     *testing.T
	r     *rand.Rand
	epoch uint64
	log   []logged
	info  []byte
	key   SignatureKey // of the external sender that the group lists
	peers []*peer      // all peers that ever were, by age
	did   map[string]int
	// ghosts are the keys of members that never joined.
	ghosts map[string]bool
}

func newService(t *testing.T, r *rand.Rand) *service {
	s := &service{t: t, r: r, did: map[string]int{}, ghosts: map[string]bool{}}
	var err error
	if s.key, err = NewSignatureKey(testSuite); err != nil {
		t.Fatal(err)
	}
	first := s.newPeer()
	first.keys[string(first.id.Key.public)] = true
	first.group, err = NewGroup(testSuite, []byte("random"), first.id, GroupOptions{
		Extensions: s.extensions(), Hook: sameName, PSK: deterministicPSK, Now: testNow, Padding: PadBuckets,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.info, err = first.group.GroupInfo()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// extensions are a random GroupContext that lets the service propose.
func (s *service) extensions() []Extension {
	return []Extension{
		ExternalSenders(ExternalSender{Credential: []byte("did:ex:service"), SignatureKey: s.key.Public()}),
		{Type: groupExtension, Data: fmt.Append(nil, "name ", s.r.IntN(1000))},
	}
}

// sameName is the peers' credential hook: a leaf may change, its owner may not.
func sameName(c CredentialChange) error {
	if c.Old != nil && !bytes.Equal(c.Old.Credential, c.New.Credential) {
		return errors.New("somebody took another's place")
	}
	return nil
}

// deterministicPSK returns a key for every id.
func deterministicPSK(id []byte) ([]byte, error) {
	key := sha256.Sum256(id)
	return key[:], nil
}

func (s *service) loadOptions() LoadOptions {
	return LoadOptions{Hook: sameName, PSK: deterministicPSK, Now: testNow, Padding: PadBuckets}
}

func (s *service) newPeer() *peer {
	p := &peer{name: fmt.Sprintf("m%d", len(s.peers)), keys: map[string]bool{}}
	p.id = identity(s.t, testSuite, p.name)
	p.id.Supports = []uint16{groupExtension}
	s.peers = append(s.peers, p)
	return p
}

// isIn reports whether p believes that it is in the group.
func (p *peer) isIn() bool { return p.group != nil && !p.group.Removed() }

// some chooses a peer that fits; nil if none does.
func (s *service) some(fits func(*peer) bool) *peer {
	var list []*peer
	for _, p := range s.peers {
		if fits(p) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.r.IntN(len(list))]
}

func (s *service) members() int {
	n := 0
	for _, p := range s.peers {
		if p.isIn() {
			n++
		}
	}
	return n
}

// someCurrent chooses a member and lets it catch up.
func (s *service) someCurrent() *peer {
	p := s.some((*peer).isIn)
	s.catchUp(p, len(s.log))
	if !p.isIn() || p.pending != nil {
		return nil
	}
	return p
}

func (s *service) must(p *peer, what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s %s in epoch %d, after %d handshakes: %v", p.name, what, s.epoch, len(s.log), err)
	}
}

// catchUp lets p process handshakes up to the given place in the log.
func (s *service) catchUp(p *peer, end int) {
	for p.isIn() && p.cursor < end {
		h := s.log[p.cursor]
		p.cursor++
		if h.from == p.name {
			if h.isCommit {
				next, err := p.pending.Apply(p.group)
				s.must(p, "applies its commit", err)
				p.group, p.pending = next, nil
			} else if _, err := p.group.Process(h.message); !errors.Is(err, ErrOwnMessage) {
				s.t.Fatalf("%s gets its own proposal back: %v", p.name, err)
			}
			continue
		}
		if s.r.IntN(20) == 0 {
			s.tamper(p, h.message)
		}
		out, err := p.group.Process(h.message)
		s.must(p, "processes a handshake of "+h.from, err)
		p.group = out.Group
		if h.isCommit {
			p.pending = nil // ours lost, if there was one
		}
		if out.SelfRemoved {
			p.published = nil
		}
	}
}

// tamper checks that a changed handshake is refused and changes nothing.
func (s *service) tamper(p *peer, message []byte) {
	spoilt := bytes.Clone(message)
	spoilt[s.r.IntN(len(spoilt))] ^= 1 << s.r.IntN(8)
	before := save(s.t, p.group)
	if _, err := p.group.Process(spoilt); err == nil {
		s.t.Fatalf("%s takes a changed handshake", p.name)
	}
	if !bytes.Equal(before, save(s.t, p.group)) {
		s.t.Fatalf("%s was changed by a refused handshake", p.name)
	}
	s.did["tamper"]++
}

// submit hands the service a commit. Only the first of an epoch counts.
func (s *service) submit(p *peer, c *PendingCommit) bool {
	if c.Epoch() != s.epoch {
		return false
	}
	s.log = append(s.log, logged{p.name, c.Message(), true})
	s.epoch++
	if c.GroupInfo() == nil {
		s.t.Fatal("a commit without a group info")
	}
	s.info = c.GroupInfo()
	return true
}

// say seals a message of a member, which the service delivers or loses for each other member.
func (s *service) say() {
	p := s.some((*peer).isIn)
	text := fmt.Sprintf("text %d", s.r.IntN(1<<30))
	message, next, err := p.group.Seal([]byte(text), nil, SealOptions{})
	if errors.Is(err, ErrProposalsPending) {
		return
	}
	s.must(p, "seals", err)
	p.group = next
	l := &letter{from: p.name, text: text, epoch: p.group.Epoch(), message: message}
	for _, q := range s.peers {
		if q != p && q.isIn() && s.r.IntN(10) > 0 {
			q.inbox = append(q.inbox, l)
		}
	}
	s.did["say"]++
}

// read lets a peer open messages in any order; each opens once.
func (s *service) read() {
	p := s.some(func(p *peer) bool { return p.group != nil && len(p.inbox) > 0 })
	if p == nil {
		return
	}
	for range 1 + s.r.IntN(4) {
		if len(p.inbox) == 0 {
			return
		}
		i := s.r.IntN(len(p.inbox))
		l := p.inbox[i]
		p.inbox = slices.Delete(p.inbox, i, i+1)
		out, err := p.group.Process(l.message)
		switch now := p.group.Epoch(); {
		case l.epoch > now || l.epoch < p.joined || now-l.epoch > HistoryEpochs:
			if !errors.Is(err, ErrWrongEpoch) {
				s.t.Fatalf("%s reads a message of epoch %d in epoch %d: %v", p.name, l.epoch, now, err)
			}
			if l.epoch > now && !p.group.Removed() {
				p.inbox = append(p.inbox, l) // later
			}
			continue
		}
		s.must(p, fmt.Sprintf("reads a message of %s of epoch %d", l.from, l.epoch), err)
		if string(out.Plaintext) != l.text || string(out.Sender.Credential) != "did:ex:"+l.from {
			s.t.Fatalf("%s reads %q of %s instead of %q of %s", p.name, out.Plaintext, out.Sender.Credential, l.text, l.from)
		}
		p.group = out.Group
		if _, err := p.group.Process(l.message); !errors.Is(err, ErrReplay) {
			s.t.Fatalf("%s reads a message twice: %v", p.name, err)
		}
		s.did["read"]++
	}
}

// restart lets a peer lose what it has in memory.
func (s *service) restart() {
	p := s.some(func(p *peer) bool { return p.group != nil })
	g, err := LoadGroup(save(s.t, p.group), s.loadOptions())
	s.must(p, "loads", err)
	p.group = g
	if p.pending != nil {
		state, err := p.pending.MarshalBinary()
		s.must(p, "saves", err)
		p.pending, err = LoadPendingCommit(state, s.loadOptions())
		s.must(p, "loads its commit", err)
	}
	s.did["restart"]++
}

// settle delivers everything to all, and checks that they agree.
func (s *service) settle() {
	var first *peer
	for _, p := range s.peers {
		if p.group == nil {
			continue
		}
		s.catchUp(p, len(s.log))
		if !p.isIn() {
			continue
		}
		p.pending = nil // what is not in the log by now was refused
		if first == nil {
			first = p
			if p.group.Epoch() != s.epoch {
				s.t.Fatalf("%s is in epoch %d instead of %d", p.name, p.group.Epoch(), s.epoch)
			}
			continue
		}
		for what, values := range map[string][2][]byte{
			"authenticator": {p.group.EpochAuthenticator(), first.group.EpochAuthenticator()},
			"exporter":      {exported(s.t, p.group), exported(s.t, first.group)},
			"tree":          {p.group.RatchetTree(), first.group.RatchetTree()},
		} {
			if !bytes.Equal(values[0], values[1]) {
				s.t.Fatalf("%s has another %s than %s in epoch %d", p.name, what, first.name, s.epoch)
			}
		}
	}
	members := map[string]bool{}
	for _, l := range first.group.Members() {
		if !s.ghosts[string(l.SignatureKey)] {
			members[string(l.SignatureKey)] = true
		}
	}
	for _, p := range s.peers {
		if p.isIn() != (p.group != nil && members[string(p.group.OwnLeaf().SignatureKey)]) {
			s.t.Fatalf("%s thinks that it is a member (%v), the group does not", p.name, p.isIn())
		}
	}
	if len(members) != s.members() {
		s.t.Fatalf("%d peers are members, the group has %d", s.members(), len(members))
	}
	if err := first.group.tree.Validate(first.group.context.GroupID, first.group.context.Extensions); err != nil {
		s.t.Fatalf("the tree is invalid in epoch %d: %v", s.epoch, err)
	}
	s.did["settle"]++
}

func exported(t testing.TB, g *Group) []byte {
	t.Helper()
	secret, err := g.Export("test", []byte("context"), 40)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestRandomGroups runs random operations of up to 24 members, over a service that loses and
// reorders messages and receives several commits per epoch, with restarts at any time. No handshake
// of an honest member may be refused, each message must open exactly once, and members that have
// processed the same handshakes must agree.
func TestRandomGroups(t *testing.T) {
	r := newRandom(t)
	s := newService(t, r)
	operations := []struct {
		weight int
		do     func()
	}{
		{20, s.say}, {25, s.read}, {20, s.commit}, {12, s.propose}, {5, s.proposeFromOutside}, {6, s.joinByItself}, {8, s.restart},
		{20, func() {
			if p := s.some((*peer).isIn); p.cursor < len(s.log) {
				s.catchUp(p, p.cursor+1+r.IntN(len(s.log)-p.cursor))
			}
		}},
	}
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	most := 0
	for n := range *operationsFlag {
		choice := r.IntN(total)
		for _, o := range operations {
			if choice -= o.weight; choice < 0 {
				o.do()
				break
			}
		}
		if n%40 == 39 {
			s.settle()
		}
		most = max(most, s.members())
	}
	s.settle()
	t.Logf("%d operations, %d peers, up to %d at once, epoch %d: %v", *operationsFlag, len(s.peers), most, s.epoch, s.did)
	for _, what := range []string{"commit", "lost race", "propose", "external join", "resync", "new member proposal", "external proposal", "read", "restart", "tamper"} {
		if s.did[what] == 0 && *operationsFlag >= 500 {
			t.Errorf("there was no %s", what)
		}
	}
}
