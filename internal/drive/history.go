package drive

import (
	"cmp"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// The operations of a history. A read has no id; an append has one and is answered
// with a seq.
type (
	historyInput  struct{ conversation, id string }
	historyOutput struct {
		seq    int64
		length int
		hash   uint64 // of the ids read
	}
)

// historyState is the state of a conversation: its messages in order, with a hash for each
// length, so that states are compared in one step.
type historyState struct {
	ids  []string
	hash uint64
}

func (s historyState) with(id string) historyState {
	return historyState{append(slices.Clip(s.ids), id), hashNext(s.hash, id)}
}

// hashNext continues an FNV-1a hash over ids, each with its end.
func hashNext(hash uint64, id string) uint64 {
	for i := range len(id) {
		hash = (hash ^ uint64(id[i])) * 1099511628211
	}
	return (hash ^ 0xff) * 1099511628211
}

// logModel describes the promises of a conversation (I2, I6): an append adds its message at
// the end, or finds it where it is; a read sees everything that was answered before
// it began, in the one order that there is.
var logModel = porcupine.Model{
	Init: func() any { return historyState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(historyState), input.(historyInput), output.(historyOutput)
		if in.id == "" {
			return out.length == len(s.ids) && out.hash == s.hash, s
		}
		switch n := int64(len(s.ids)); {
		case out.seq >= 1 && out.seq <= n:
			return s.ids[out.seq-1] == in.id, s
		case out.seq != n+1 || slices.Contains(s.ids, in.id):
			return false, s
		}
		return true, s.with(in.id)
	},
	Equal: func(a, b any) bool {
		x, y := a.(historyState), b.(historyState)
		return len(x.ids) == len(y.ids) && x.hash == y.hash
	},
}

// byConversation returns the operations of each conversation, sharpened.
func byConversation(history []porcupine.Operation) (list [][]porcupine.Operation) {
	parts := map[string][]porcupine.Operation{}
	for _, o := range history {
		c := o.Input.(historyInput).conversation
		parts[c] = append(parts[c], o)
	}
	for _, part := range parts {
		list = append(list, sharpen(part))
	}
	return list
}

// staleReads counts reads of a conversation without a message that was answered or read before they
// began.
func staleReads(history []porcupine.Operation) (stale int) {
	ended := slices.Clone(history)
	slices.SortFunc(ended, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	reads := slices.DeleteFunc(slices.Clone(history), func(o porcupine.Operation) bool { return o.Input.(historyInput).id != "" })
	slices.SortFunc(reads, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	length := 0 // of the log, as far as it is known when a read begins
	for _, read := range reads {
		for len(ended) > 0 && ended[0].Return < read.Call {
			out := ended[0].Output.(historyOutput)
			length, ended = max(length, int(out.seq), out.length), ended[1:]
		}
		if read.Output.(historyOutput).length < length {
			stale++
		}
	}
	return stale
}

// sharpen moves the calls of one conversation to where they can first have taken
// effect: no message got its place before the one in front of it, nor before a read
// began that did not see it. There is an order for the one if and only if there is
// one for the other; without this the search would try every subset of the doubles
// each time that it put a message before a read and not behind it.
func sharpen(history []porcupine.Operation) []porcupine.Operation {
	var first []int64 // at seq i: when the first answer of that place was called, and then the earliest it can have been
	grow := func(seq int64) {
		for int64(len(first)) <= seq {
			first = append(first, math.MaxInt64)
		}
	}
	for _, o := range history {
		if seq := o.Output.(historyOutput).seq; seq > 0 && seq <= int64(len(history)) {
			grow(seq)
			first[seq] = min(first[seq], 2*o.Call)
		}
	}
	missed := make([]int64, len(first)+1) // at seq i: the latest call of a read that ended before it
	for _, o := range history {
		if out := o.Output.(historyOutput); out.seq == 0 && out.length+1 < len(missed) {
			missed[out.length+1] = max(missed[out.length+1], 2*o.Call+1)
		}
	}
	for i := 1; i < len(first); i++ {
		if first[i] == math.MaxInt64 {
			first[i] = 0 // no answer named this place; the check finds that
		}
		missed[i] = max(missed[i], missed[i-1])
		if first[i] = max(first[i], missed[i]); i > 1 {
			first[i] = max(first[i], first[i-1])
		}
	}
	sharp := slices.Clone(history)
	for i := range sharp {
		o := &sharp[i]
		o.Call, o.Return = 2*o.Call, 2*o.Return
		if seq := o.Output.(historyOutput).seq; seq > 0 && seq < int64(len(first)) {
			o.Call = min(max(o.Call, first[seq]), o.Return)
		}
	}
	return sharp
}
