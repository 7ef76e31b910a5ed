package mls

import (
	"fmt"
	"testing"
)

// benchWorld is a group of n members of which two exist.
func benchWorld(b *testing.B, n int) *world {
	b.Helper()
	w := newWorld(b, testSuite, "ann")
	var o CommitOptions
	bob := keyPackage(b, identity(b, testSuite, "bob"))
	for i := 1; i < n; i++ {
		kp := bob
		if i > 1 {
			kp = keyPackage(b, identity(b, testSuite, fmt.Sprint(i)))
		}
		o.Add = append(o.Add, kp.Message())
	}
	p := w.commit("ann", o)
	g, err := Join(p.Welcome(), bob, JoinOptions{Now: testNow})
	if err != nil {
		b.Fatal(err)
	}
	w.groups["bob"] = g
	return w
}

func BenchmarkGroup(b *testing.B) {
	for _, n := range []int{2, 100, 1000, 5000} {
		w := benchWorld(b, n)
		ann, bob := w.groups["ann"], w.groups["bob"]
		run := func(name string, f func(b *testing.B) error) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					if err := f(b); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		message, _, err := ann.Seal(make([]byte, 200), nil, SealOptions{})
		if err != nil {
			b.Fatal(err)
		}
		p, err := ann.Commit(CommitOptions{})
		if err != nil {
			b.Fatal(err)
		}
		state := save(b, bob)
		run("seal", func(*testing.B) error { _, _, err := ann.Seal(make([]byte, 200), nil, SealOptions{}); return err })
		run("open", func(*testing.B) error { _, err := bob.Process(message); return err })
		run("commit", func(*testing.B) error { _, err := ann.Commit(CommitOptions{}); return err })
		run("follow", func(*testing.B) error { _, err := bob.Process(p.Message()); return err })
		run("save", func(*testing.B) error { _, err := bob.MarshalBinary(); return err })
		run("load", func(*testing.B) error { _, err := LoadGroup(state, LoadOptions{}); return err })
	}
}
