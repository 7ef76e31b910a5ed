package wire_test

import (
	"errors"
	"runtime"
	"testing"

	"waxwing.im/waxwing/mls/wire"
)

// A blank node takes one byte in a message and a hundred in memory, and a path has one node for each
// level: both are bounded by the largest tree.
func TestTreesAndPathsAreBounded(t *testing.T) {
	// blank returns a vector of n blank nodes and a parent node, which may be the last.
	blank := func(n int) []byte {
		last := []byte{1, 2, 0, 0, 0}
		return append(append(wire.AppendLength(nil, n+len(last)), make([]byte, n)...), last...)
	}
	for _, test := range []struct {
		nodes int
		want  error
	}{{wire.TreeNodesMax - 1, nil}, {wire.TreeNodesMax + 1, wire.ErrMalformed}, {60 << 20, wire.ErrMalformed}} {
		raw := blank(test.nodes - 1)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := wire.Unmarshal(raw, new(wire.RatchetTree))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, test.want) {
			t.Errorf("%d nodes: %v", test.nodes, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(len(raw))+16<<20 {
			t.Errorf("%d nodes: %d bytes were allocated", test.nodes, used)
		}
	}
	path := wire.UpdatePath{Leaf: wire.LeafNode{Source: wire.UpdateLeaf, Credential: wire.Credential{Type: wire.BasicCredential}}, Nodes: make([]wire.UpdatePathNode, 33)}
	for n, want := range map[int]error{32: nil, 33: wire.ErrMalformed} {
		raw := wire.Marshal(&wire.UpdatePath{Leaf: path.Leaf, Nodes: path.Nodes[:n]})
		if err := wire.Unmarshal(raw, new(wire.UpdatePath)); !errors.Is(err, want) {
			t.Errorf("a path of %d nodes: %v", n, err)
		}
	}
}
