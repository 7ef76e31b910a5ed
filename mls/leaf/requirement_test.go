package leaf

import (
	"errors"
	"slices"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// A requirement is checked against every member: what it repeats, or demands
// without need, must not cost anything for each of them.
func TestRequirementsAreReadOnce(t *testing.T) {
	r := NewRequirement(&wire.RequiredCapabilities{
		Extensions: []uint16{wire.RatchetTreeExtension, 0xf001, 0xf000, 0xf001, wire.ExternalPubExtension, 0xf000},
		Proposals:  []uint16{uint16(wire.AddProposal), 0xf0f0, 0xf0f0}, Credentials: []uint16{1, 1},
	})
	if !slices.Equal(r.extensions, []uint16{0xf000, 0xf001}) || !slices.Equal(r.proposals, []uint16{0xf0f0}) || !slices.Equal(r.credentials, []uint16{1}) {
		t.Errorf("got %+v", r)
	}
	n := &wire.LeafNode{Capabilities: wire.Capabilities{Extensions: []uint16{0xf001, 0xf000}, Proposals: []uint16{0xf0f0}, Credentials: []uint16{2, 1}}}
	if err := r.Check(n); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*wire.Capabilities){
		"extension":  func(a *wire.Capabilities) { a.Extensions = a.Extensions[1:] },
		"proposal":   func(a *wire.Capabilities) { a.Proposals = nil },
		"credential": func(a *wire.Capabilities) { a.Credentials = []uint16{2} },
	} {
		less := *n
		spoil(&less.Capabilities)
		if err := r.Check(&less); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := NewRequirement(&wire.RequiredCapabilities{Extensions: []uint16{0xf000, 0xf001, 0xf002}})
	if err := many.Check(n); !errors.Is(err, ErrInvalid) {
		t.Errorf("three required, two supported: %v", err)
	}
}
