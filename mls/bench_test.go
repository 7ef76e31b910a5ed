package mls

import (
	"fmt"
	"testing"
)

// benchWorld is a group of n members that ann has just made, with bob among them,
// and the package with which he joined. No other member has committed, so a commit has
// to seal a secret for every single member: the worst that a group can be.
func benchWorld(b *testing.B, n int) (ann, bob *Group, join func() error) {
	b.Helper()
	w := newWorld(b, testSuite, "ann")
	o := CommitOptions{TreeOutOfBand: true}
	kp := keyPackage(b, identity(b, testSuite, "bob"))
	for i := 1; i < n; i++ {
		other := kp
		if i > 1 {
			other = keyPackage(b, identity(b, testSuite, fmt.Sprint(i)))
		}
		o.Add = append(o.Add, other.Message())
	}
	p := w.commit("ann", o)
	ann = w.groups["ann"]
	tree := ann.RatchetTree()
	join = func() error {
		var err error
		bob, err = Join(p.Welcome(), kp, JoinOptions{Now: testNow, RatchetTree: tree})
		return err
	}
	if err := join(); err != nil {
		b.Fatal(err)
	}
	return ann, bob, join
}

// BenchmarkGroup measures a group by its size. "new" is a group whose members
// were all just added, "lived-in" one where all have committed. Run it with -cpu 1
// for the cost on one processor; the benchmark reports processor time and clock time.
func BenchmarkGroup(b *testing.B) {
	for _, n := range []int{2, 100, 1000, 5000} {
		run := func(name string, f func() error) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				start := cpuTime()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((cpuTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			})
		}
		both := func(kind string, ann, bob *Group) {
			p, err := ann.Commit(CommitOptions{})
			if err != nil {
				b.Fatal(err)
			}
			run("commit/"+kind, func() error { _, err := ann.Commit(CommitOptions{}); return err })
			run("process/"+kind, func() error { _, err := bob.Process(p.Message()); return err })
		}
		ann, bob, join := benchWorld(b, n)
		message, next, err := ann.Seal(make([]byte, 200), nil, SealOptions{})
		if err != nil {
			b.Fatal(err)
		}
		ann = next
		state := save(b, bob)
		both("new", ann, bob)
		own, other := filled(b, ann, n)
		both("lived-in", own, other)
		run("join", join)
		run("seal", func() error { _, next, err := ann.Seal(make([]byte, 200), nil, SealOptions{}); ann = next; return err })
		run("open", func() error { _, err := bob.Process(message); return err })
		b.Run(fmt.Sprintf("save/%d", n), func(b *testing.B) {
			for b.Loop() {
				save(b, bob)
			}
			b.ReportMetric(float64(len(state)), "state-bytes")
		})
		run("load", func() error { _, err := LoadGroup(state, LoadOptions{}); return err })
	}
}
