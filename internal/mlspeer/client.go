package mlspeer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing.im/waxwing/mls"
)

// packageLifetime is the lifetime of a KeyPackage; it starts an hour in the past, for clocks
// that are behind.
const packageLifetime = 28 * 24 * time.Hour

// peer holds all clients of one process.
type peer struct {
	version string
	clients map[string]*client
}

// client is an identity with its key, its packages and its groups.
type client struct {
	suite    mls.Suite
	identity mls.Identity
	packages []ownPackage
	groups   map[string]*group
}

type ownPackage struct {
	*mls.KeyPackage
	lastResort bool
}

// group is a client's state of a group. After an external join, now is already the group,
// pending the commit that led there, and former the client's earlier state, if any.
type group struct {
	now     *mls.Group
	pending *mls.PendingCommit
	joining bool
	former  *group
}

// methods is the table of the protocol.
var methods = map[string]method{
	"hello":          onPeer((*peer).hello),
	"newClient":      onPeer((*peer).newClient),
	"keyPackage":     onClient((*client).keyPackage),
	"createGroup":    onClient((*client).createGroup),
	"commit":         onGroup((*group).commit),
	"mergePending":   onGroup((*group).mergePending),
	"discardPending": onClient((*client).discardPending),
	"join":           onClient((*client).join),
	"groupInfo":      onGroup((*group).groupInfo),
	"externalJoin":   onClient((*client).externalJoin),
	"propose":        onGroup((*group).propose),
	"process":        onGroup((*group).process),
	"send":           onGroup((*group).send),
	"export":         onGroup((*group).export),
	"state":          onGroup((*group).state),
	"save":           onGroup((*group).save),
	"load":           onClient((*client).load),
}

// onGroup makes a method from a function of the group that the parameters name.
func onGroup[P any](f func(*group, P) (any, error)) method {
	return func(p *peer, raw json.RawMessage) (any, error) {
		return onClient(func(c *client, named inGroup) (any, error) {
			g, err := c.group(named.GroupID)
			if err != nil {
				return nil, err
			}
			return onPeer(func(_ *peer, params P) (any, error) { return f(g, params) })(p, raw)
		})(p, raw)
	}
}

type (
	none    struct{}
	inGroup struct {
		GroupID []byte `json:"groupId"`
	}
	extension struct {
		Type uint16 `json:"type"`
		Data []byte `json:"data"`
	}
)

func (c *client) group(id []byte) (*group, error) {
	g, known := c.groups[string(id)]
	if !known {
		return nil, errors.New("unknown group")
	}
	return g, nil
}

// understood returns the extension types of private use that every leaf lists, so that a test
// may add them to a group.
func understood() []uint16 {
	var types []uint16
	for i := range uint16(32) {
		types = append(types, 0xf000+i, 0xff00+i)
	}
	return types
}

func (p *peer) hello(none) (any, error) {
	return struct {
		Impl         string          `json:"impl"`
		Version      string          `json:"version"`
		CipherSuites []mls.Suite     `json:"ciphersuites"`
		Features     map[string]bool `json:"features"`
	}{"waxwing", p.version, []mls.Suite{1, 2, 3}, map[string]bool{}}, nil
}

func (p *peer) newClient(params struct {
	Client      string    `json:"client"`
	Identity    string    `json:"identity"`
	CipherSuite mls.Suite `json:"ciphersuite"`
}) (any, error) {
	key, err := mls.NewSignatureKey(params.CipherSuite)
	if err != nil {
		return nil, err
	}
	p.clients[params.Client] = &client{
		suite: params.CipherSuite,
		// A peer verifies no credentials and supports both types: implementations with groups that
		// require X.509 certificates could not add it otherwise.
		identity: mls.Identity{Credential: []byte(params.Identity), Key: key, Supports: understood(), SupportsX509: true},
		groups:   map[string]*group{},
	}
	return none{}, nil
}

func (c *client) keyPackage(params struct {
	LastResort bool `json:"lastResort"`
}) (any, error) {
	start := time.Now().Add(-time.Hour)
	k, err := mls.NewKeyPackage(c.suite, c.identity, mls.KeyPackageOptions{
		NotBefore: start, NotAfter: start.Add(packageLifetime), LastResort: params.LastResort,
	})
	if err != nil {
		return nil, err
	}
	c.packages = append(c.packages, ownPackage{k, params.LastResort})
	return struct {
		KeyPackage []byte `json:"keyPackage"`
		Ref        []byte `json:"ref"`
	}{k.Message(), k.Ref()}, nil
}

func (c *client) createGroup(params struct {
	inGroup
	Extensions []extension `json:"extensions"`
}) (any, error) {
	var list []mls.Extension
	for _, e := range params.Extensions {
		list = append(list, mls.Extension{Type: e.Type, Data: e.Data})
	}
	g, err := mls.NewGroup(c.suite, params.GroupID, c.identity, mls.GroupOptions{Extensions: list})
	if err != nil {
		return nil, err
	}
	c.groups[string(params.GroupID)] = &group{now: g}
	return none{}, nil
}

// join tries the packages in turn: a Welcome names the one it is for.
func (c *client) join(params struct {
	Welcome []byte `json:"welcome"`
}) (any, error) {
	for i, k := range c.packages {
		g, err := mls.Join(params.Welcome, k.KeyPackage, mls.JoinOptions{})
		if errors.Is(err, mls.ErrNotForUs) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !k.lastResort {
			c.packages = slices.Delete(c.packages, i, i+1)
		}
		c.groups[string(g.ID())] = &group{now: g}
		return inGroup{g.ID()}, nil
	}
	return nil, mls.ErrNotForUs
}

func (g *group) commit(params struct {
	Add    [][]byte `json:"add"`
	Remove []string `json:"remove"`
	Wire   string   `json:"wire"`
}) (any, error) {
	o := mls.CommitOptions{Add: params.Add}
	switch params.Wire {
	case "public":
		o.Public = true
	case "private", "":
	default:
		return nil, fmt.Errorf("unknown wire format %q", params.Wire)
	}
	for _, identity := range params.Remove {
		found, err := g.leaves(identity)
		if err != nil {
			return nil, err
		}
		o.Remove = append(o.Remove, found...)
	}
	p, err := g.now.Commit(o)
	if err != nil {
		return nil, err
	}
	g.now, g.pending, g.joining, g.former = p.Base(), p, false, nil
	return struct {
		Commit  []byte `json:"commit"`
		Welcome []byte `json:"welcome"`
	}{p.Message(), p.Welcome()}, nil
}

// leaves returns the leaves of the members with an identity.
func (g *group) leaves(identity string) ([]uint32, error) {
	var found []uint32
	for _, m := range g.now.Members() {
		if string(m.Credential) == identity {
			found = append(found, m.Index)
		}
	}
	if found == nil {
		return nil, errors.New("no such member")
	}
	return found, nil
}

var errNonePending = errors.New("no pending commit")

func (g *group) mergePending(none) (any, error) {
	if g.pending == nil {
		return nil, errNonePending
	}
	p := g.pending
	if !g.joining {
		next, err := p.Apply(g.now)
		if err != nil {
			return nil, err
		}
		g.now = next
	}
	g.settle()
	return struct {
		Welcome []byte `json:"welcome,omitempty"`
	}{p.Welcome()}, nil
}

// settle drops a commit that won or lost.
func (g *group) settle() { g.pending, g.joining, g.former = nil, false, nil }

func (c *client) discardPending(params inGroup) (any, error) {
	g, err := c.group(params.GroupID)
	switch {
	case err != nil:
		return nil, err
	case g.pending == nil:
		return nil, errNonePending
	case g.joining && g.former != nil:
		c.groups[string(params.GroupID)] = g.former
	case g.joining:
		delete(c.groups, string(params.GroupID))
	}
	g.settle()
	return none{}, nil
}

func (g *group) groupInfo(none) (any, error) {
	info, err := g.now.GroupInfo()
	return struct {
		GroupInfo []byte `json:"groupInfo"`
	}{info}, err
}

// externalJoin takes effect at once, because no other client can have changed a state that this
// client does not have yet; mergePending and discardPending still apply afterwards.
func (c *client) externalJoin(params struct {
	GroupInfo []byte `json:"groupInfo"`
}) (any, error) {
	p, err := mls.JoinExternal(params.GroupInfo, c.identity, mls.ExternalJoinOptions{Resync: true})
	if err != nil {
		return nil, err
	}
	now := p.Group()
	c.groups[string(now.ID())] = &group{now: now, pending: p, joining: true, former: c.groups[string(now.ID())]}
	return struct {
		inGroup
		Commit []byte `json:"commit"`
	}{inGroup{now.ID()}, p.Message()}, nil
}

func (g *group) propose(params struct {
	Type       string `json:"type"`
	KeyPackage []byte `json:"keyPackage"`
	Identity   string `json:"identity"`
}) (any, error) {
	var c mls.Change
	switch params.Type {
	case "add":
		c = mls.Add(params.KeyPackage)
	case "remove":
		found, err := g.leaves(params.Identity)
		if err != nil {
			return nil, err
		}
		c = mls.Remove(found[0])
	case "update":
		c = mls.Update(nil)
	default:
		return nil, fmt.Errorf("unknown type of proposal %q", params.Type)
	}
	message, next, err := g.now.Propose(c, mls.ProposeOptions{Public: true})
	if err != nil {
		return nil, err
	}
	g.now = next
	return sent{message}, nil
}

func (g *group) process(params struct {
	Message []byte `json:"message"`
}) (any, error) {
	out, err := g.now.Process(params.Message)
	if err != nil {
		return nil, err
	}
	if out.Kind == mls.Commit {
		g.settle() // it lost
	}
	g.now = out.Group
	if out.Kind != mls.Application {
		return struct {
			Kind string `json:"kind"`
		}{"handshake"}, nil
	}
	return struct {
		Kind      string `json:"kind"`
		Plaintext []byte `json:"plaintext"`
	}{"application", orEmpty(out.Plaintext)}, nil
}

// orEmpty returns an empty slice for nil, which JSON encodes as an empty string.
func orEmpty(b []byte) []byte { return append([]byte{}, b...) }

func (g *group) send(params struct {
	Plaintext []byte `json:"plaintext"`
	AAD       []byte `json:"aad"`
}) (any, error) {
	message, next, err := g.now.Seal(params.Plaintext, params.AAD, mls.SealOptions{})
	if err != nil {
		return nil, err
	}
	g.now = next
	return sent{message}, nil
}

type sent struct {
	Message []byte `json:"message"`
}

func (g *group) export(params struct {
	Label   string `json:"label"`
	Context []byte `json:"context"`
	Length  int    `json:"length"`
}) (any, error) {
	secret, err := g.now.Export(params.Label, params.Context, params.Length)
	return struct {
		Secret []byte `json:"secret"`
	}{secret}, err
}

func (g *group) state(none) (any, error) {
	members := []string{}
	for _, m := range g.now.Members() {
		members = append(members, string(m.Credential))
	}
	slices.Sort(members)
	return struct {
		Epoch              uint64   `json:"epoch"`
		EpochAuthenticator []byte   `json:"epochAuthenticator"`
		Members            []string `json:"members"`
	}{g.now.Epoch(), g.now.EpochAuthenticator(), members}, nil
}

// saved is the state of a group between save and load.
type saved struct {
	Group   []byte `json:"group"`
	Pending []byte `json:"pending,omitempty"`
	Joining bool   `json:"joining,omitempty"`
}

func (g *group) save(none) (any, error) {
	s := saved{Joining: g.joining}
	var err error
	if s.Group, err = g.now.MarshalBinary(); err != nil {
		return nil, err
	}
	if g.pending != nil {
		if s.Pending, err = g.pending.MarshalBinary(); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(s)
	return struct {
		State []byte `json:"state"`
	}{text}, err
}

func (c *client) load(params struct {
	inGroup
	State []byte `json:"state"`
}) (any, error) {
	var s saved
	if err := json.Unmarshal(params.State, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", mls.ErrCorruptState, err)
	}
	now, err := mls.LoadGroup(s.Group, mls.LoadOptions{})
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(now.ID(), params.GroupID) {
		return nil, mls.ErrWrongGroup
	}
	g := &group{now: now, joining: s.Joining}
	if s.Pending != nil {
		if g.pending, err = mls.LoadPendingCommit(s.Pending, mls.LoadOptions{}); err != nil {
			return nil, err
		}
	}
	c.groups[string(params.GroupID)] = g
	return none{}, nil
}
