package interop

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// world is one group and its members, wherever they run.
type world struct {
	t       *testing.T
	suite   int
	groupID []byte
	members []*member // in the group now
	talked  int
}

func newWorld(t *testing.T, suite int) *world {
	return &world{t: t, suite: suite, groupID: []byte(t.Name())}
}

// member is a client of a peer.
type member struct {
	*world
	peer   *peer
	handle string // among all clients of a peer
	name   string // its identity
	joined []byte // its last external commit
}

// state is the state on which all members must agree. The exported secret is not part of the
// method's answer.
type state struct {
	Epoch              uint64
	EpochAuthenticator []byte
	Members            []string
	exported           []byte
}

// client makes a client that is not in the group yet.
func (w *world) client(p *peer, name string) *member {
	w.t.Helper()
	m := &member{w, p, w.t.Name() + "/" + name, "did:ex:" + name, nil}
	m.must("newClient", map[string]any{"identity": m.name, "ciphersuite": w.suite}, nil)
	return m
}

// call makes a request for the client m in its group.
func (m *member) call(method string, params map[string]any, result any) error {
	m.t.Helper()
	all := map[string]any{"client": m.handle, "groupId": m.groupID}
	for k, v := range params {
		all[k] = v
	}
	return m.peer.call(m.t, method, all, result)
}

func (m *member) must(method string, params map[string]any, result any) {
	m.t.Helper()
	if err := m.call(method, params, result); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// refuses makes a request that must be answered with an error.
func (m *member) refuses(why, method string, params map[string]any) {
	m.t.Helper()
	if err := m.call(method, params, nil); err == nil {
		m.t.Errorf("%s, %s: %s was not refused: %s", m.peer.kind, m.name, method, why)
	}
}

func (m *member) create(extensions ...map[string]any) {
	m.t.Helper()
	m.must("createGroup", map[string]any{"extensions": extensions}, nil)
	m.world.members = []*member{m}
}

func (m *member) keyPackage(lastResort bool) []byte {
	m.t.Helper()
	var out struct{ KeyPackage, Ref []byte }
	m.must("keyPackage", map[string]any{"lastResort": lastResort}, &out)
	if len(out.KeyPackage) == 0 || len(out.Ref) != 32 {
		m.t.Fatalf("%s: key package of %d bytes, ref %x", m.name, len(out.KeyPackage), out.Ref)
	}
	return out.KeyPackage
}

// change holds the effects of a commit.
type change struct {
	add, remove []*member
	public      bool
}

// pending is a commit that is not in effect yet.
type pending struct {
	change
	by              *member
	Commit, Welcome []byte
}

func (m *member) commit(c change) *pending {
	m.t.Helper()
	params := map[string]any{"wire": "private"}
	if c.public {
		params["wire"] = "public"
	}
	var packages [][]byte
	for _, a := range c.add {
		packages = append(packages, a.keyPackage(false))
	}
	var identities []string
	for _, r := range c.remove {
		identities = append(identities, r.name)
	}
	params["add"], params["remove"] = packages, identities
	p := &pending{change: c, by: m}
	m.must("commit", params, p)
	return p
}

// wins puts a commit into effect at all members, lets the new ones in, and checks
// that all agree.
func (p *pending) wins() {
	p.by.t.Helper()
	w := p.by.world
	w.joins(p.win(), p.Welcome)
	w.members = append(w.members, p.add...)
	w.check()
}

// win puts a commit into effect at those who are members, and says who is new.
func (p *pending) win() []*member {
	w := p.by.world
	w.t.Helper()
	var merged struct{ Welcome []byte }
	p.by.must("mergePending", nil, &merged)
	if !bytes.Equal(merged.Welcome, p.Welcome) {
		w.t.Errorf("%s: mergePending gives a Welcome of %d bytes instead of %d", p.by.name, len(merged.Welcome), len(p.Welcome))
	}
	w.process(p.by, p.Commit)
	w.members = slices.DeleteFunc(w.members, func(m *member) bool { return slices.Contains(p.remove, m) })
	return p.add
}

// joins lets new members in with their Welcome.
func (w *world) joins(list []*member, welcome []byte) {
	w.t.Helper()
	for _, m := range list {
		var out struct{ GroupID []byte }
		m.must("join", map[string]any{"welcome": welcome}, &out)
		if !bytes.Equal(out.GroupID, w.groupID) {
			w.t.Fatalf("%s joined %q", m.name, out.GroupID)
		}
	}
}

// process gives a handshake message to all members but its sender.
func (w *world) process(sender *member, message []byte) {
	w.t.Helper()
	for _, m := range w.members {
		if m != sender {
			m.processes(message)
		}
	}
}

func (m *member) processes(message []byte) {
	m.t.Helper()
	var out struct{ Kind string }
	m.must("process", map[string]any{"message": message}, &out)
	if out.Kind != "handshake" {
		m.t.Fatalf("%s: a handshake was %q", m.name, out.Kind)
	}
}

// changes makes a commit that wins.
func (m *member) changes(c change) {
	m.t.Helper()
	m.commit(c).wins()
}

// proposes sends a proposal to all members.
func (m *member) proposes(params map[string]any) {
	m.t.Helper()
	m.world.process(m, m.proposal(params))
}

func (m *member) proposal(params map[string]any) []byte {
	m.t.Helper()
	var out struct{ Message []byte }
	m.must("propose", params, &out)
	return out.Message
}

// joinsExternally adds m to the group by itself, from what info says.
func (m *member) joinsExternally(info *member) {
	m.t.Helper()
	var group struct{ GroupInfo []byte }
	info.must("groupInfo", nil, &group)
	var out struct{ GroupID, Commit []byte }
	m.must("externalJoin", map[string]any{"groupInfo": group.GroupInfo}, &out)
	if !bytes.Equal(out.GroupID, m.groupID) {
		m.t.Fatalf("%s joined %q", m.name, out.GroupID)
	}
	m.joined = out.Commit
	m.must("mergePending", nil, nil)
	m.world.process(m, out.Commit)
	if !slices.Contains(m.world.members, m) {
		m.world.members = append(m.world.members, m)
	}
	m.world.check()
}

func (m *member) state() state {
	m.t.Helper()
	var s state
	m.must("state", nil, &s)
	var out struct{ Secret []byte }
	m.must("export", map[string]any{"label": "interop", "context": []byte("context"), "length": 48}, &out)
	s.exported = out.Secret
	return s
}

// check verifies that all members agree, and that they are who they should be.
func (w *world) check() {
	w.t.Helper()
	var want []string
	for _, m := range w.members {
		want = append(want, m.name)
	}
	slices.Sort(want)
	first := w.members[0].state()
	if !slices.Equal(first.Members, want) {
		w.t.Fatalf("members are %v, want %v", first.Members, want)
	}
	if len(first.EpochAuthenticator) != 32 || len(first.exported) != 48 {
		w.t.Fatalf("authenticator %x, exported %x", first.EpochAuthenticator, first.exported)
	}
	for _, m := range w.members[1:] {
		s := m.state()
		if s.Epoch != first.Epoch || !bytes.Equal(s.EpochAuthenticator, first.EpochAuthenticator) || !bytes.Equal(s.exported, first.exported) || !slices.Equal(s.Members, first.Members) {
			w.t.Fatalf("%s (%s) and %s (%s) disagree:\n%+v\n%+v", w.members[0].name, w.members[0].peer.kind, m.name, m.peer.kind, first, s)
		}
	}
}

// letter is a sealed application message.
type letter struct{ text, message []byte }

func (m *member) sends(text string) letter {
	m.t.Helper()
	l := letter{text: []byte(text)}
	var out struct{ Message []byte }
	m.must("send", map[string]any{"plaintext": l.text, "aad": []byte("aad of " + text)}, &out)
	l.message = out.Message
	return l
}

func (m *member) reads(l letter) {
	m.t.Helper()
	var out struct {
		Kind      string
		Plaintext []byte
	}
	m.must("process", map[string]any{"message": l.message}, &out)
	if out.Kind != "application" || !bytes.Equal(out.Plaintext, l.text) {
		m.t.Fatalf("%s read %s %q instead of %q", m.name, out.Kind, out.Plaintext, l.text)
	}
}

// refusesMessage gives m a message that it must not take, and makes sure that m is
// as it was before.
func (m *member) refusesMessage(why string, message []byte) {
	m.t.Helper()
	m.refuses(why, "process", map[string]any{"message": message})
}

// talks lets m send a message to all.
func (m *member) talks() {
	m.t.Helper()
	m.world.talked++
	l := m.sends(fmt.Sprintf("message %d of %s", m.world.talked, m.name))
	for _, other := range m.world.members {
		if other != m {
			other.reads(l)
		}
	}
}

// allTalk lets all members send a message.
func (w *world) allTalk() {
	w.t.Helper()
	for _, m := range w.members {
		m.talks()
	}
}

// restarts moves m's group through its saved state into a client that knows nothing.
func (m *member) restarts() {
	m.t.Helper()
	m.load(m.save())
}

// twin is a copy of m, outside of the world.
func (m *member) twin() *member {
	m.t.Helper()
	twin := *m
	twin.handle += "'s twin"
	twin.load(m.save())
	return &twin
}

func (m *member) save() []byte {
	m.t.Helper()
	var out struct{ State []byte }
	m.must("save", nil, &out)
	return out.State
}

func (m *member) load(state []byte) {
	m.t.Helper()
	m.must("newClient", map[string]any{"identity": m.name, "ciphersuite": m.suite}, nil)
	m.must("load", map[string]any{"state": state}, nil)
}
