package identity

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

// Bounds of concurrent fetches of documents. Each class of DIDs has places of its own: fetches
// for strangers delay neither the directory nor accounts that were here before.
const (
	placesOfClass   = 8   // concurrent fetches, for each of the four classes
	placesOfHost    = 2   // of those, at one host of did:web
	placesOfDomain  = 4   // at the hosts of one registrable domain
	placesOfAddress = 4   // for tokens from one address
	waitingOfClass  = 256 // fetches that wait for a place; further ones fail at once
)

// errBusy is the reason for a fetch that found no place.
var errBusy = errors.New("too many lookups at once")

// visit is a fetch with the properties by which places are counted.
type visit struct {
	host    string // of a did:web; "" for the directory
	address string // that caused it; "" is not counted
	isKnown bool   // the account of the DID was here before
}

// class returns the class of visits that share places.
func (v visit) class() string {
	switch {
	case v.host == "" && v.isKnown:
		return "directory, known"
	case v.host == "":
		return "directory"
	case v.isKnown:
		return "host, known"
	}
	return "host"
}

// holds lists the places that a visit takes, with the bound of each.
func (v visit) holds() []hold {
	class := v.class()
	list := []hold{{class, placesOfClass}}
	if v.host != "" {
		list = append(list, hold{class + " " + v.host, placesOfHost}, hold{class + " *." + domainOf(v.host), placesOfDomain})
	}
	if v.address != "" && !v.isKnown {
		list = append(list, hold{class + " for " + v.address, placesOfAddress})
	}
	return list
}

type hold struct {
	name string
	max  int
}

// places admits fetches in order of arrival, except that a fetch that waits for its host does
// not delay others. The zero value is ready.
type places struct {
	mu      sync.Mutex     // guards the rest
	taken   map[string]int // by the name of a hold; its size is bounded by the visits under way
	waiting map[string][]*waiter
}

// waiter is a visit that waits for its places.
type waiter struct {
	holds   []hold
	granted chan struct{} // closed with the places taken
}

// enter waits for the places of a visit until ctx ends. leave releases them.
func (p *places) enter(ctx context.Context, v visit) (leave func(), err error) {
	w := &waiter{v.holds(), make(chan struct{})}
	class := w.holds[0].name
	p.mu.Lock()
	switch {
	case p.fits(w):
		p.take(w, 1)
		close(w.granted)
	case len(p.waiting[class]) >= waitingOfClass:
		p.mu.Unlock()
		return nil, errBusy
	default:
		if p.waiting == nil {
			p.waiting = map[string][]*waiter{}
		}
		p.waiting[class] = append(p.waiting[class], w)
	}
	p.mu.Unlock()
	select {
	case <-w.granted:
		return sync.OnceFunc(func() { p.leave(w) }), nil
	case <-ctx.Done():
	}
	if p.giveUp(class, w) {
		return nil, errBusy
	}
	return sync.OnceFunc(func() { p.leave(w) }), nil // it was granted at the same time
}

// giveUp removes a waiter from its queue. It returns false for one that has its places.
func (p *places) giveUp(class string, w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := false
	p.keep(class, func(other *waiter) bool {
		found = found || other == w
		return other != w
	})
	return found
}

func (p *places) leave(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take(w, -1)
	p.keep(w.holds[0].name, func(next *waiter) bool {
		if !p.fits(next) {
			return true
		}
		p.take(next, 1)
		close(next.granted)
		return false
	})
}

// keep drops the waiters of a class for which stays returns false. The caller holds mu.
func (p *places) keep(class string, stays func(*waiter) bool) {
	rest := slices.DeleteFunc(p.waiting[class], func(w *waiter) bool { return !stays(w) })
	if len(rest) == 0 {
		delete(p.waiting, class)
	} else {
		p.waiting[class] = rest
	}
}

// fits reports whether all places of a waiter are free. The caller holds mu.
func (p *places) fits(w *waiter) bool {
	for _, h := range w.holds {
		if p.taken[h.name] >= h.max {
			return false
		}
	}
	return true
}

// take counts n for each place of a waiter. The caller holds mu.
func (p *places) take(w *waiter, n int) {
	if p.taken == nil {
		p.taken = map[string]int{}
	}
	for _, h := range w.holds {
		if p.taken[h.name] += n; p.taken[h.name] == 0 {
			delete(p.taken, h.name)
		}
	}
}

// secondLevels are labels under which the registries of countries register names.
const secondLevels = " ac co com edu gob gov go gv id lg ltd mil ne net nic nom or org plc sch "

// domainOf returns the registrable domain of a host: its last two labels, or three below what
// looks like a registry of a country, such as co.uk. It does not use a list of public suffixes:
// customers of one hosting domain share its places, which only makes them wait.
func domainOf(host string) string {
	labels := strings.Split(host, ".")
	n := len(labels)
	switch {
	case n <= 2:
		return host
	case len(labels[n-1]) == 2 && strings.Contains(secondLevels, " "+labels[n-2]+" "):
		return strings.Join(labels[n-3:], ".")
	}
	return strings.Join(labels[n-2:], ".")
}
