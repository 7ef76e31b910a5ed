package mls

import (
	"fmt"
	"runtime"
	"testing"
)

// The GroupInfo in a Welcome grows with the group. It is not copied or hashed for each member that is
// added.
func TestWelcomeReadsTheGroupInfoOnce(t *testing.T) {
	w := newWorld(t, testSuite, "ann")
	packages := func(n int, prefix string) (list [][]byte) {
		for i := range n {
			list = append(list, keyPackage(t, identity(t, testSuite, fmt.Sprint(prefix, i))).Message())
		}
		return list
	}
	w.commit("ann", CommitOptions{Add: packages(400, "old")})
	ann := w.groups["ann"]
	const added = 100
	o := CommitOptions{Add: packages(added, "new")}
	allocated := func(o CommitOptions) (uint64, *PendingCommit) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p, err := ann.Commit(o)
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, p
	}
	without, _ := allocated(CommitOptions{})
	with, p := allocated(o)
	info := uint64(len(p.GroupInfo()))
	if spent := with - without; spent > info*added/2 {
		t.Errorf("adding %d members allocates %d KiB more; the group info has %d KiB", added, spent>>10, info>>10)
	}
}

// BenchmarkWelcome adds members to a group of 1 000.
func BenchmarkWelcome(b *testing.B) {
	ann, _, _ := benchWorld(b, 1000)
	for _, n := range []int{1, 100} {
		var o CommitOptions
		for i := range n {
			o.Add = append(o.Add, keyPackage(b, identity(b, testSuite, fmt.Sprint("new", i))).Message())
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			start := cpuTime()
			for b.Loop() {
				if _, err := ann.Commit(o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}
