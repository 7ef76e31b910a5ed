package limits

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Usage says how much of a limit its caller has used.
type Usage struct {
	Name string
	Rate Rate
	Left int64 // calls that are admitted now
	// Wait is the time until all calls are admitted again or, if none is left, until one is.
	Wait  time.Duration
	Reset time.Time // when that is over
}

// note notes a limit in m if it is one of the caller's own: what others use up of a limit that
// counts by target or address is not the caller's to know.
func note(m *ds.Meter, name string, key Key) {
	if m != nil && policies[name].per.isOwn() {
		m.Note(ds.MeterNote{Limit: name, Key: uint64(key)})
	}
}

// Tightest returns the limit among those noted of which the smallest part is left. ok reports
// whether there is one.
func (l *Limiter) Tightest(m *ds.Meter) (tightest Usage, ok bool) {
	var least float64
	for _, n := range m.Notes() {
		rate, spent := l.rates[n.Limit], l.spent(Key(n.Key))
		u := Usage{Name: n.Limit, Rate: rate, Left: rate.left(spent), Wait: spent}
		if u.Left == 0 {
			u.Wait = spent + rate.cost(1) - rate.Period
		}
		if part := float64(u.Left) / float64(rate.Count); !ok || part < least {
			tightest, least, ok = u, part, true
		}
	}
	tightest.Reset = l.now().Add(tightest.Wait)
	return tightest, ok
}
